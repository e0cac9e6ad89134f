"""`bench --destroy`: measured, results home, logs home, everything taken away: whatever happens (ops/life.py)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from ops import deployed
from ops.aws import connect
from ops.bench.remote import Follower, cluster_access
from ops.collect import collect
from ops.doctor import kube_of
from ops.exits import BAD_INPUT, FAILED, OK, CommandError
from ops.life import Life, Limits
from recipe.plan import BasePlan, Plan

if TYPE_CHECKING:
    from ops.bench.command import Wish

RUN_FOLDER: Final = "life"
"""Below the stack's results: the run file, logs and events."""


def measured(stack: str, wish: Wish) -> tuple[int, Path | None]:
    """The stack measured and destroyed. Returns the exit code and the folder of its results."""
    from ops.bench.command import measure_on_aws, prepare

    found: list[tuple[int, Path | None]] = []
    # What can be refused is refused here: nothing that never began may end in a destroy.
    life = _life(stack, wish, lambda _: found.append(measure_on_aws(stack, replace(wish, yes=True))))
    prepare(stack, wish)
    ending = life.run()
    code, folder = found[0] if found else (FAILED, None)
    return (OK if ending.ok and code == OK else FAILED), folder or _newest(wish.out / stack)


def resumed(stack: str, wish: Wish) -> tuple[int, Path | None]:
    """What a run whose process is gone had begun is ended: results home, logs, destroy."""
    ending = _life(stack, wish, lambda _: None).resume()
    return (OK if ending.ok else FAILED), _newest(wish.out / stack)


def _life(stack: str, wish: Wish, work: Callable[[Path], None]) -> Life:
    where = deployed.project_folder()
    plan = deployed.plan_of(stack)
    if isinstance(plan, BasePlan):
        raise CommandError(f"{stack} is a base, which serves no model", "name a stack on it", BAD_INPUT)
    if deployed.exported_if_any(deployed.Pulumi(where), stack) is None:
        raise CommandError(f"the backend has no stack {stack}", f"pulumi stack init {stack}", BAD_INPUT)
    folder = wish.out / stack / RUN_FOLDER
    return Life(
        plan=plan,
        engine=deployed.Pulumi(where),
        connect=lambda: connect(plan.recipe.access.region),
        folder=folder,
        say=lambda line: typer.echo(f"  {line}", err=True),
        work=work,
        home=lambda _: fetch(plan, wish.out),
        logs=lambda to: _logs(plan, to),
        limits=Limits(minutes=wish.max_minutes, usd=wish.max_usd),
        work_brings_up=True,  # the benchmark is part of `up`
    )


def fetch(plan: Plan, out: Path) -> None:
    """What was measured and is not here yet. Raises CommandError where it may be there and cannot be had."""
    with connect(plan.recipe.access.region) as account:
        if account.cluster(plan.names.cluster) is None:
            return  # nothing was ever measured
    with cluster_access(plan) as api:
        follower = Follower(api, plan.names.namespace, None, out, lambda line: typer.echo(f"  {line}", err=True))
        follower.follow(0, until=lambda: True)
    if not follower.answered:
        raise CommandError("the cluster does not answer", f"python -m ops bench {plan.stack} --attach", FAILED)
    if follower.seen_job is not None:
        follower.finish()


def _logs(plan: Plan, to: Path) -> None:
    with connect(plan.recipe.access.region) as account:
        typer.echo(f"  {collect(plan, kube_of(account, plan.names.cluster), to / 'collected').say()}", err=True)


def _newest(folder: Path) -> Path | None:
    runs = sorted(folder.glob("*/*/run.json"), key=lambda file: file.stat().st_mtime)
    return runs[-1].parent if runs else None
