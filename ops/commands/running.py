"""A stack at work: rehearse, bench, compare.

Each imports what it needs when it runs, so that `plan` starts fast and needs nothing of the others.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ops.cli import Settings, app, command, emit
from ops.exits import BAD_INPUT, EPILOG, CommandError


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
        raise typer.Exit(all_corners(names[0], names[1], wish, emit, html))
    if len(names) != 1 or html is not None:
        raise CommandError(
            "name one stack (a pair, and --html, go with --corners)", "python -m ops bench --help", BAD_INPUT
        )
    if rehearse_it and (attach or reprint):
        raise CommandError(
            "--attach and --reprint are for AWS", "run it again: it goes on with what is missing", BAD_INPUT
        )
    raise typer.Exit(run(names[0], wish, emit))


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
        if as_json:
            raise CommandError("--corners prints commands, which are no figures", "leave out --json", BAD_INPUT)
        typer.echo(corner_commands(str(results[0]), str(results[1]), profile))
        return
    from ops.compare.command import compare_folders, folders_of

    raise typer.Exit(
        compare_folders(folders_of(results, every=every), as_json=as_json, html=html, emit=emit, replay=replay)
    )
