"""What every command has: options they share, how they speak, and what their failures become."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any, ParamSpec

import typer

from ops.exits import BAD_INPUT, EPILOG, FAILED, INTERRUPTED, MISSING, CommandError
from recipe.errors import RecipeError

app = typer.Typer(
    name="ops",
    help="Commands around `pulumi up`: what it would do and cost, and a whole life cycle for nothing.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
P = ParamSpec("P")

Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY.PATH=VALUE",
        help="Change one value of the recipe for this run; values are YAML. Repeatable.",
    ),
]

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def command(run: Callable[P, None]) -> Callable[P, None]:
    """`run`, with every expected failure turned into a message, a next step and its exit code."""

    @functools.wraps(run)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            run(*args, **kwargs)
        except RecipeError as error:
            say(str(error))
            raise typer.Exit(BAD_INPUT) from None
        except CommandError as error:
            say(str(error))
            raise typer.Exit(error.code) from None
        except KeyboardInterrupt as interrupt:
            say(f"\n{str(interrupt) or 'interrupted'}")
            raise typer.Exit(INTERRUPTED) from None
        except typer.Abort:  # Ctrl-C at a question
            say("\ninterrupted")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # Whoever read us has seen enough; nothing is wrong.
            raise typer.Exit(0) from None
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            say(
                f"{where}{error.strerror or error}\nNext: free space or name another place, then the same command again"
            )
            _drop_output()
            raise typer.Exit(FAILED) from None
        except Exception as error:
            if _is("rehearsal.errors", "SetupError", error):
                say(str(error))
                raise typer.Exit(MISSING) from None
            if _is("ops.aws", "AwsError", error):
                say(
                    f"AWS: {error}\nNext: mend what it names (`aws sts get-caller-identity` says who asks), then the same command again"
                )
                raise typer.Exit(FAILED) from None
            raise

    return guarded


def _is(module: str, name: str, error: Exception) -> bool:
    """Whether it is that error, without importing its module for `plan`: who raised it has."""
    found = sys.modules.get(module)
    return found is not None and isinstance(error, getattr(found, name))


def _drop_output() -> None:
    """Forget what could not be written: Python would try once more at its end, and end with a code of its own."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(message: str) -> None:
    """To the person; standard output is for what was asked for."""
    typer.echo(message, err=True)


def emit(data: Any) -> None:
    """As JSON."""
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False, default=str))


def asking(yes: bool) -> Callable[[str], bool]:
    """How a command asks before it changes anything. Where nobody can answer, the answer is no."""

    def confirm(question: str) -> bool:
        if yes:
            typer.echo(f"{question}: yes (--yes)")
            return True
        if not sys.stdin.isatty():
            say(f"{question}: no, because nobody can be asked; --yes says yes")
            return False
        return typer.confirm(question)

    return confirm
