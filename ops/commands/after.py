"""Afterwards, and when something was cut off: release-base, recover, collect, sweep.

Each imports what it needs when it runs, so that `plan` starts fast and needs nothing of the others.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated

import typer

from ops.cli import Yes, app, asking, command, emit, say
from ops.exits import BAD_INPUT, EPILOG, FAILED, OK, CommandError


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
        done = run(plan, engine, account, typer.echo, asking(yes), evidence)
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
    from ops.aws import AwsError, connect
    from ops.recover import evidence_file

    failed, engine = 0, deployed.Pulumi(folder)
    for place in expiry.places(stacks.names(), typer.echo):
        typer.echo(f"account {place.account}, {place.region}: {', '.join(plan.stack for plan in place.plans)}")
        evidence = functools.partial(evidence_file, folder)
        try:
            with connect(place.region) as account:
                failed += expiry.expire(place, engine, account, typer.echo, asking(yes), evidence)
        except (AwsError, CommandError) as error:  # one account's trouble must not keep GPUs of another running
            say(str(error))
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
    tell = say if as_json else typer.echo
    with connect(plan.recipe.access.region) as account:
        found = sweeping.sweep(plan, deployed.Pulumi(folder), account, tell, asking(yes))
    if as_json:
        emit(sweeping.as_data(found))
    raise typer.Exit(OK if found.clean else FAILED)
