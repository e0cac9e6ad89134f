"""Before anything is paid for: plan, diff, doctor, schema, tune.

Each imports what it needs when it runs, so that `plan` starts fast and needs nothing of the others.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ops.cli import Settings, app, command, emit, say
from ops.exits import BAD_INPUT, EPILOG, FAILED, GIVES_UP, CommandError


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
        raise CommandError("a stack or --all, and not both", "python -m ops plan --help", BAD_INPUT)
    if every and cold_start:
        if settings or manifests:
            raise CommandError("--set and --manifests do not go with --all --cold-start", "leave them out", BAD_INPUT)
        planning.cold_starts(as_json=as_json, as_markdown=markdown, emit=emit)
    elif every:
        planning.plan_all(settings or [], as_json=as_json, as_markdown=markdown, manifests=manifests, emit=emit)
    else:
        assert stack is not None
        planning.plan_one(stack, settings or [], as_json=as_json, manifests=manifests, emit=emit, cold_start=cold_start)


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
        emit(found)
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
        emit(report.as_data())
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

    emit(stack_file_schema() if stack_file else recipe_schema())


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
    from ops.variants import GPUS

    if every == (stack is not None) or (to is not None and not every):
        raise CommandError(
            "a stack or --all, and not both; --write goes with --all", "python -m ops tune --help", BAD_INPUT
        )
    if gpu is not None and gpu not in GPUS:
        raise CommandError(f"{gpu} is no GPU of the catalogue", f"one of {', '.join(GPUS)}", BAD_INPUT)
    if trace is not None and (isl or osl):
        raise CommandError("--trace says the lengths, and so do --isl and --osl", "leave one of them out", BAD_INPUT)
    if every:
        if to is not None:
            to.open("a", encoding="utf-8").close()  # before twenty minutes of searching, not after
        rows = tuning.tune_all(say)
        if to is not None:
            to.write_text(markdown(rows), encoding="utf-8")
        if as_json:
            emit([row.model_dump(mode="json") for row in rows])
        else:
            typer.echo(markdown(rows), nl=False)
        return
    assert stack is not None
    requests = tuning.TraceText.read(trace) if trace is not None else None
    if requests is not None:
        traffic = requests.traffic(ttft, itl)
    else:
        traffic = tuning.Traffic("fixed", isl or tuning.FIXED.isl, osl or tuning.FIXED.osl, ttft, itl)
    found, path = tuning.tune_one(stack, traffic, say, gpu=gpu, gpus=gpus, name=name, settings=settings, trace=requests)
    if as_json:
        emit(tuning.as_data(found, path))
    else:
        show_found(found, path)
    if path is None:
        raise typer.Exit(FAILED)
