"""The commands. Each imports what it needs when it runs, so that `plan` starts fast and needs nothing of the others."""

from __future__ import annotations

import functools
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, ParamSpec

import typer

from ops.exits import BAD_INPUT, EPILOG, FAILED, GIVES_UP, INTERRUPTED, MISSING, OK, CommandError
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


def main() -> None:
    """Run, and end with the documented exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without UTF-8 gets question marks, not a traceback
    app(prog_name="python -m ops")


def command(run: Callable[P, None]) -> Callable[P, None]:
    """`run`, with every expected failure turned into a message, a next step and its exit code."""

    @functools.wraps(run)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            run(*args, **kwargs)
        except RecipeError as error:
            _say(str(error))
            raise typer.Exit(BAD_INPUT) from None
        except CommandError as error:
            _say(str(error))
            raise typer.Exit(error.code) from None
        except KeyboardInterrupt as interrupt:
            _say(f"\n{interrupt or 'interrupted'}")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # Whoever read us has seen enough; nothing is wrong.
            raise typer.Exit(0) from None
        except Exception as error:
            if not _is_setup(error):
                raise
            _say(str(error))
            raise typer.Exit(MISSING) from None

    return guarded


def _is_setup(error: Exception) -> bool:
    """Whether it is the rehearsal's SetupError, without importing the rehearsal for `plan`."""
    module = sys.modules.get("rehearsal.errors")
    return module is not None and isinstance(error, module.SetupError)


def _say(message: str) -> None:
    typer.echo(message, err=True)


def _emit(data: Any) -> None:
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False, default=str))


@app.command(epilog=EPILOG)
@command
def plan(
    stack: Annotated[str | None, typer.Argument(help="Stack with a file stacks/Pulumi.STACK.yaml.")] = None,
    settings: Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan, or its problems, as JSON.")] = False,
    manifests: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also write every Kubernetes object as YAML, with the charts' values."),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Every stack with a file on every GPU it fits, one line each.")
    ] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="With --all: as docs/stacks.md has it.")] = False,
    cold_start: Annotated[
        bool,
        typer.Option(
            "--cold-start",
            help="All of the cold start: knobs, sources, upstream's order. With --all: a table of every stack.",
        ),
    ] = False,
) -> None:
    """What a stack would be and cost. Needs no credentials, no engine, no network.

    What only you know (account, zone, networks) may be unset: documentation values then stand there, and the command
    that sets each is printed.
    """
    from ops import planning

    if markdown and (as_json or not every):
        raise CommandError("--markdown goes with --all, and not with --json", "python -m ops plan --help", BAD_INPUT)
    if every == (stack is not None):
        raise CommandError("name a stack, or give --all", "python -m ops plan --help", BAD_INPUT)
    if every and cold_start:
        if settings or manifests:
            raise CommandError("--set and --manifests do not go with --all --cold-start", "leave them out", BAD_INPUT)
        planning.cold_starts(as_json=as_json, as_markdown=markdown, emit=_emit)
    elif every:
        planning.plan_all(settings or [], as_json=as_json, as_markdown=markdown, manifests=manifests, emit=_emit)
    else:
        assert stack is not None
        planning.plan_one(
            stack, settings or [], as_json=as_json, manifests=manifests, emit=_emit, cold_start=cold_start
        )


@app.command(epilog=f"{EPILOG[:-1]}; 4 GPU nodes or weights would be replaced, rolled or destroyed.")
@command
def diff(
    stack: Annotated[
        str | None, typer.Argument(help="Stack with a file stacks/Pulumi.STACK.yaml, here or there.")
    ] = None,
    against: Annotated[
        str, typer.Option(metavar="REF", help="Branch, tag or commit to compare the working tree with.")
    ] = "main",
    every: Annotated[bool, typer.Option("--all", help="Every stack with a file, here or there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print it as Markdown, for a comment.")] = False,
) -> None:
    """What the working tree would do to stacks that run as REF has them: resource by resource, field by field, with the cause.

    Needs no credentials, no engine, no network. The plan and the program of REF run with REF's own code.
    """
    if every == (stack is not None) or (as_json and as_markdown):
        raise CommandError(
            "name a stack or give --all, and --json or --markdown but not both", "python -m ops diff --help", BAD_INPUT
        )
    from ops import diff_view, diffing

    found = diffing.diff([] if stack is None else [stack], against)
    if as_json:
        _emit(found)
    else:
        typer.echo(diff_view.markdown(found) if as_markdown else diff_view.text(found))
    if any(one["problems"] for one in found["stacks"]):
        raise typer.Exit(BAD_INPUT)
    if found["gives_up"]:
        raise typer.Exit(GIVES_UP)


@app.command(epilog=EPILOG)
@command
def doctor(
    stack: Annotated[str, typer.Argument(help="Stack with a file stacks/Pulumi.STACK.yaml.")],
    said: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What a pulumi command printed, for what nothing else remembers."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Ask no registries, repositories or hub.")] = False,
) -> None:
    """Before paying: can this stack come up here? After a failed `up` or `destroy`: what holds it, in order of cause, and what to do.

    Looks, and changes nothing. Needs credentials of the stack's account; inside a rehearsal it looks at the pretend cloud.
    """
    import os

    from ops import doctor as doctors
    from ops.aws import PRETEND, connect
    from ops.planning import planned

    found = planned(stack, [])
    try:
        text = said.read_text(encoding="utf-8", errors="replace") if said else ""
    except OSError as error:
        raise CommandError(
            f"{said} cannot be read: {error.strerror}", "name the file with the output", BAD_INPUT
        ) from None
    plan = found.model
    with connect(plan.recipe.access.region) as account:
        # A rehearsal fetches nothing, so it does not matter what is there.
        rehearsed = bool(os.environ.get(PRETEND))
        online = not offline and not rehearsed
        report = doctors.examine(plan, found.fixes, account, said=text, rehearsed=rehearsed, online=online)
    if as_json:
        _emit(report.as_data())
    else:
        typer.echo(doctors.text(report))
    if not report.well:
        raise typer.Exit(FAILED)


@app.command(epilog=EPILOG)
@command
def schema(
    stack_file: Annotated[
        bool, typer.Option("--stack-file", help="Of a whole stack file, as editors want it (stacks/schema.json).")
    ] = False,
) -> None:
    """The JSON schema of a recipe: every key, its type, its unit and what it does."""
    from ops.schema import recipe_schema, stack_file_schema

    _emit(stack_file_schema() if stack_file else recipe_schema())


@app.command(epilog=EPILOG)
@command
def rehearse(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[STACK | -- COMMAND...]",
            help="The stack to rehearse; with --shell a command to run, else a shell.",
        ),
    ] = None,
    settings: Settings = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write what came of it as JSON.")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the session's folder, and after a failed up what exists in it.")
    ] = False,
    faults: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON file of what is to go wrong (rehearsal/cloud/faults.py).")
    ] = None,
    control_plane: Annotated[
        bool,
        typer.Option(
            "--control-plane",
            help="First put every object and pod on a real Kubernetes API server and scheduler (built on the first run, up to 20 minutes).",
        ),
    ] = False,
    serve: Annotated[
        bool | None,
        typer.Option(
            "--serve/--no-serve",
            envvar="SERVE",
            show_envvar=False,
            help="End `up` with tokens: the graph served on this machine by Dynamo's own frontend, with mock engines (1.3 GB, set up once). "
            "Without either, where it can be set up; SERVE=0 in the environment is --no-serve.",
        ),
    ] = None,
    in_shell: Annotated[
        bool,
        typer.Option("--shell", help="A shell in which plain `pulumi up -s STACK` works against the pretend cloud."),
    ] = False,
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="With --shell: go on in the folder an earlier --keep printed.")
    ] = None,
) -> None:
    """The whole life of a stack on the real Pulumi engine against a pretend cloud: preview, up, what exists, destroy, what is left.

    Nothing is created and nothing is paid; every figure is simulated. The engine is built on the first run where no pulumi
    is installed (about 7 minutes).
    """
    given = words or []
    if in_shell:
        if settings or json_file or control_plane:
            raise CommandError(
                "--set, --json and --control-plane go with a STACK, not with --shell",
                "use `pulumi config set` in the shell",
                BAD_INPUT,
            )
    elif folder is not None or len(given) != 1:
        raise CommandError("name one stack, or give --shell", "python -m ops rehearse --help", BAD_INPUT)
    from ops.rehearsing import rehearse as run
    from ops.rehearsing import shell

    if in_shell:
        raise typer.Exit(shell(given, folder=folder, keep=keep, faults=faults))
    raise typer.Exit(
        run(
            given[0],
            settings or [],
            json_file=json_file,
            keep=keep,
            faults=faults,
            control_plane=control_plane,
            serve=serve,
        )
    )


@app.command("release-base", epilog=EPILOG)
@command
def release_base(
    stack: Annotated[str, typer.Argument(help="The base: a stack whose recipe has `kind: base`.")],
) -> None:
    """Take the protection off a base that no stack refers to, so that `pulumi destroy` can take it away.

    Asks the backend that `pulumi` is logged in to; refuses while a stack there refers to the base, and names it.
    """
    from ops.releasing import installed, release

    release(stack, installed())


@app.command(epilog=EPILOG)
@command
def bench(
    names: Annotated[
        list[str], typer.Argument(metavar="STACK [STACK]", help="The stack to measure; with --corners the pair.")
    ],
    profile: Annotated[
        str | None,
        typer.Option(
            help="fixed, mooncake, generated, small, or one of the stack file. Default: fixed; rehearsed: small."
        ),
    ] = None,
    rehearse_it: Annotated[
        bool,
        typer.Option("--rehearse", help="Here, for nothing: real AIPerf and frontend, mock engines, simulated times."),
    ] = False,
    corners: Annotated[
        bool,
        typer.Option(
            "--corners",
            help="agg and disagg, each with both routers, of a pair of stacks, and their comparison (with --rehearse).",
        ),
    ] = False,
    settings: Settings = None,
    attach: Annotated[
        bool, typer.Option("--attach", help="No `up`: follow the benchmark that runs, or fetch the one that ended.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Measure everything anew, though it was measured before.")
    ] = False,
    reprint: Annotated[
        bool, typer.Option("--reprint", help="Let the Job print again what is on the claim, if its log was lost.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before `pulumi up`.")] = False,
    destroy: Annotated[
        bool,
        typer.Option("--destroy", help="Afterwards destroy and sweep: also on failure, limits, Ctrl-C and SIGTERM."),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="End what a --destroy run had begun whose process or machine died.")
    ] = False,
    max_minutes: Annotated[
        float | None, typer.Option(min=0, help="With --destroy: end the work after so long.")
    ] = None,
    max_usd: Annotated[
        float | None, typer.Option(min=0, help="With --destroy: end the work when it may have cost so much.")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where results go.")] = Path("results"),
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="With --corners: the comparison as a page.")] = None,
    replay: Annotated[
        Literal["no", "same", "full"],
        typer.Option(
            help="With --corners: offline replay of the same traffic beside it; full: of the whole trace, too."
        ),
    ] = "same",
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure a stack with AIPerf: the Job runs as part of `pulumi up`, is followed from here, and its results are fetched.

    Whatever goes wrong, points that were measured are kept, and the exit code says that it is not all.
    """
    from ops.bench.command import Wish, all_corners, corner_commands
    from ops.bench.command import bench as run

    wish = Wish(
        profile, tuple(settings or ()), out, rehearse_it, attach, again, reprint, yes, as_json,
        destroy=destroy or resume, resume=resume, max_minutes=max_minutes, max_usd=max_usd, replay=replay,
    )  # fmt: skip
    if wish.destroy and (rehearse_it or attach or corners):
        raise CommandError(
            "--destroy and --resume go with neither --rehearse, --attach nor --corners",
            "python -m ops bench --help",
            BAD_INPUT,
        )
    if not wish.destroy and (max_minutes is not None or max_usd is not None):
        raise CommandError("--max-minutes and --max-usd go with --destroy", "add --destroy", BAD_INPUT)
    if corners:
        if len(names) != 2:
            raise CommandError(
                "--corners needs a pair of stacks", "python -m ops bench AGG DISAGG --corners --rehearse", BAD_INPUT
            )
        if not rehearse_it:
            raise CommandError(
                "--corners measures in the rehearsal only: on AWS each corner is paid for",
                f"add --rehearse, or run these one by one:\n{corner_commands(names[0], names[1], profile)}",
                BAD_INPUT,
            )
        raise typer.Exit(all_corners(names[0], names[1], wish, _emit, html))
    if len(names) != 1 or html is not None:
        raise CommandError(
            "name one stack (a pair, and --html, go with --corners)", "python -m ops bench --help", BAD_INPUT
        )
    if rehearse_it and (attach or reprint):
        raise CommandError(
            "--attach and --reprint are for AWS", "run it again: it goes on with what is missing", BAD_INPUT
        )
    raise typer.Exit(run(names[0], wish, _emit))


@app.command(epilog=EPILOG)
@command
def compare(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR DIR...", help="Folders of `ops bench`: a run's, or one above it for the newest run below."
        ),
    ],
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write a page with charts.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
    every: Annotated[bool, typer.Option("--all", help="Every run below the folders, not only the newest.")] = False,
    corners: Annotated[
        bool,
        typer.Option(
            "--corners", help="The arguments are two stacks: print what to run to tell router and disaggregation apart."
        ),
    ] = False,
    profile: Annotated[str | None, typer.Option(help="With --corners: the profile to name.")] = None,
    replay: Annotated[
        Literal["no", "same", "full"],
        typer.Option(
            help="same: offline replay (predicted) of the same traffic beside the runs; full: of the whole trace, too."
        ),
    ] = "no",
) -> None:
    """Runs of the same traffic side by side: TTFT, ITL, latency, goodput, tokens and dollars, and what made the difference.

    Refuses unlike with unlike: other lengths, another concurrency per GPU, another trace, GPU or AIPerf.
    """
    if corners:
        from ops.bench.command import corner_commands

        if len(results) != 2:
            raise CommandError("--corners needs two stacks", "python -m ops compare --corners AGG DISAGG", BAD_INPUT)
        typer.echo(corner_commands(str(results[0]), str(results[1]), profile))
        return
    from ops.compare.command import compare_folders, folders_of

    raise typer.Exit(
        compare_folders(folders_of(results, every=every), as_json=as_json, html=html, emit=_emit, replay=replay)
    )


# ── during and after ─────────────────────────────────────────────────────────────────────────────────────────────────

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def _asking(yes: bool) -> Callable[[str], bool]:
    """How a command asks before it changes anything. Where nobody can answer, the answer is no."""

    def confirm(question: str) -> bool:
        if yes:
            typer.echo(f"{question}: yes (--yes)")
            return True
        if not sys.stdin.isatty():
            _say(f"{question}: no, because nobody can be asked; --yes says yes")
            return False
        return typer.confirm(question)

    return confirm


@app.command(epilog=EPILOG)
@command
def recover(
    stack: Annotated[str, typer.Argument(help="Stack whose `up` or `destroy` was killed.")], yes: Yes = False
) -> None:
    """After a crash: make a plain `pulumi up` or `destroy` safe again.

    Clears the lock, mends a state that cannot be read, looks by name and tag for what exists and is not in the state, takes it in or
    deletes it, frees charts that Helm takes for being worked on. Asks before it changes anything that may be somebody else's.
    """
    from ops import deployed
    from ops.aws import connect
    from ops.recover import evidence_file
    from ops.recover import recover as run

    folder = deployed.project_folder()
    plan = deployed.plan_of(stack)
    with connect(plan.recipe.access.region) as account:
        engine, evidence = deployed.Pulumi(folder), evidence_file(folder, stack)
        done = run(plan, engine, account, typer.echo, _asking(yes), evidence)
    typer.echo(
        f"Recovered: {len(done.adopted)} taken into the state, {len(done.dropped)} never came to be, {len(done.deleted)} deleted, "
        f"{len(done.uninstalled)} releases freed.\nNext: `pulumi up -s {stack}` or `pulumi destroy -s {stack}`; both are safe now."
    )


@app.command(epilog=EPILOG)
@command
def collect(
    stack: Annotated[str, typer.Argument(help="Stack that runs.")],
    to: Annotated[Path, typer.Option(metavar="DIR", help="Folder for what is collected.")] = Path("collected"),
) -> None:
    """Logs of a stack's pods, its events and the graph's status, brought home while there is a cluster to ask."""
    from ops import deployed
    from ops.aws import connect
    from ops.collect import collect as run
    from ops.doctor import kube_of
    from ops.kube import KubeError
    from recipe.plan import BasePlan

    plan = deployed.plan_of(stack)
    if isinstance(plan, BasePlan):
        raise CommandError(f"{stack} is a base, which serves no model", "name a stack on it", BAD_INPUT)
    with connect(plan.recipe.access.region) as account:
        deployed.guard(plan, account)
        try:
            found = run(plan, kube_of(account, plan.names.cluster), to)
        except KubeError as error:
            raise CommandError(str(error), f"python -m ops doctor {stack} says why", FAILED) from None
        except OSError as error:
            raise CommandError(
                f"{to} cannot be written: {error.strerror}", "free space or name another folder", FAILED
            ) from None
    typer.echo(found.say())
    if found.missing:
        raise typer.Exit(FAILED)


def _expire(folder: Path, yes: bool) -> int:
    from ops import deployed, expiry, stacks
    from ops.aws import connect
    from ops.recover import evidence_file

    failed, engine = 0, deployed.Pulumi(folder)
    for place in expiry.places(stacks.names(), typer.echo):
        typer.echo(f"account {place.account}, {place.region}: {', '.join(plan.stack for plan in place.plans)}")
        evidence = functools.partial(evidence_file, folder)
        with connect(place.region) as account:
            try:
                failed += expiry.expire(place, engine, account, typer.echo, _asking(yes), evidence)
            except CommandError as error:  # one account's trouble must not keep GPUs of another running
                _say(str(error))
                failed += 1
    return FAILED if failed else OK


@app.command(epilog=EPILOG)
@command
def sweep(
    stack: Annotated[str | None, typer.Argument(help="Stack that was destroyed.")] = None,
    yes: Yes = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what was found as JSON; deletes only with --yes.")
    ] = False,
    expired: Annotated[
        bool, typer.Option("--expired", help="Destroy every stack whose GPU nodes are older than its ttl-hours.")
    ] = False,
) -> None:
    """What of a stack still exists though its state does not know it, what that costs, and its end.

    Lists by tag, by name and by what hangs on what: also what services made by themselves. Deletes on confirmation, machines first.
    """
    from ops import deployed
    from ops import sweep as sweeping
    from ops.aws import connect

    if expired == (stack is not None) or (expired and as_json):
        raise CommandError("name a stack, or give --expired alone", "python -m ops sweep --help", BAD_INPUT)
    folder = deployed.project_folder()
    if expired:
        raise typer.Exit(_expire(folder, yes))
    assert stack is not None
    plan = deployed.plan_of(stack)
    say = _say if as_json else typer.echo
    with connect(plan.recipe.access.region) as account:
        found = sweeping.sweep(plan, deployed.Pulumi(folder), account, say, _asking(yes))
    if as_json:
        _emit(sweeping.as_data(found))
    raise typer.Exit(OK if found.clean else FAILED)


@app.command(epilog=EPILOG)
@command
def tune(
    stack: Annotated[str | None, typer.Argument(help="Stack whose model, engine and other settings are kept.")] = None,
    ttft: Annotated[float, typer.Option(min=1, metavar="MS", help="Most milliseconds to the first token.")] = 2000,
    itl: Annotated[float, typer.Option(min=1, metavar="MS", help="Most milliseconds between two tokens.")] = 30,
    isl: Annotated[int | None, typer.Option(min=16, help="Prompt, tokens (4000 unless --trace).")] = None,
    osl: Annotated[int | None, typer.Option(min=2, help="Answer, tokens (500 unless --trace).")] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Trace in the Mooncake format: its mean lengths are searched for, and the best are replayed.",
        ),
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(min=1, max=64, help="GPUs. Unset: as many as the stack's workers use.")
    ] = None,
    gpu: Annotated[str | None, typer.Option(help="h100, h200 or b200. Unset: the stack's own.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the new stack. Unset: STACK-tuned.")] = None,
    settings: Settings = None,
    every: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Every shipped model on every GPU for both kinds of traffic; rewrites the shipped tuned stacks.",
        ),
    ] = False,
    to: Annotated[
        Path | None, typer.Option("--write", metavar="FILE", help="With --all: also write the table as Markdown.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Search for the layout with the most tokens per GPU within limits, keep what the plan accepts, and write it as a stack of its own.

    Everything is predicted (aiconfigurator's performance database); nothing is measured and no cloud is asked. The search is set up once
    (0.8 GB) and works offline from then on; answers are kept.
    """
    from ops import tuning
    from ops.tuning_view import markdown, show_found

    if every == (stack is not None) or (to is not None and not every):
        raise CommandError("name a stack, or give --all", "python -m ops tune --help", BAD_INPUT)
    if gpu is not None and gpu not in tuning.GPUS:
        raise CommandError(f"{gpu} is no GPU of the catalogue", f"one of {', '.join(tuning.GPUS)}", BAD_INPUT)
    if trace is not None and (isl or osl):
        raise CommandError("--trace says the lengths, and so do --isl and --osl", "leave one of them out", BAD_INPUT)
    if every:
        rows = tuning.tune_all(_say)
        if to is not None:
            to.write_text(markdown(rows), encoding="utf-8")
        if as_json:
            _emit([row.model_dump(mode="json") for row in rows])
        else:
            typer.echo(markdown(rows), nl=False)
        return
    assert stack is not None
    if trace is not None:
        traffic = tuning.trace_lengths(trace, trace.name, ttft, itl)
    else:
        traffic = tuning.Traffic("fixed", isl or tuning.FIXED.isl, osl or tuning.FIXED.osl, ttft, itl)
    found, path = tuning.tune_one(stack, traffic, _say, gpu=gpu, gpus=gpus, name=name, settings=settings, trace=trace)
    if as_json:
        _emit(tuning.as_data(found, path))
    else:
        show_found(found, path)
    if path is None:
        raise typer.Exit(FAILED)
