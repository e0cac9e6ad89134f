"""`make benchmark`: how long our own commands take, and what the served rehearsal shows, measured on this machine, into docs/benchmarks.md.

Medians of several runs after one that does not count. What a run needs of the disk is warm then, as in daily use.
"""

from __future__ import annotations

import ast
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import psutil
import typer

from ops import stacks
from ops.benchmark_page import FOLDER, PAGE, Figure, Section, keep, write
from ops.cli import command
from ops.exits import BAD_INPUT, FAILED, CommandError
from ops.planning import planned
from rehearsal.engine import Engine, ensure_engine
from rehearsal.session import Session

STACK: Final = "qwen3-32b-disagg"
FLOOR: Final = "floor"

PLAN_SECONDS: Final = 0.5
PLAN_ALL_SECONDS: Final = 2
PLAN_MIB: Final = 120
PREVIEW_RATIO: Final = 1.3
REHEARSAL_SECONDS: Final = 60
BUILD_MINUTES: Final = 20
START_SECONDS: Final = 20
CLUSTER_MIB: Final = 1.2 * 1024
STACK_SECONDS: Final = 10


@dataclass(frozen=True)
class Child:
    """One run of a command: wall seconds and the most memory it held, MiB."""

    seconds: float
    peak_mib: float


def measure(args: Sequence[str], env: dict[str, str] | None = None) -> Child:
    """Run `args` to its end. Raises CommandError if it fails."""
    with tempfile.TemporaryFile("w+") as said:
        begun = time.perf_counter()
        process = subprocess.Popen(args, cwd=stacks.ROOT, env=env, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        # wait4 tells the usage of this child alone; getrusage would give the largest of all so far.
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        if process.returncode:
            raise CommandError(
                f"{' '.join(args)} failed:\n{said.read()[-2000:]}", "make that command work first", FAILED
            )
    in_kib = usage.ru_maxrss / 1024 if sys.platform == "darwin" else usage.ru_maxrss
    return Child(seconds, in_kib / 1024)


def repeat(what: str, runs: int, one: Callable[[], Any]) -> list[Any]:
    """`runs` results of `one`, after one that does not count."""
    found = []
    for number in range(runs + 1):
        found.append(one())
        typer.echo(f"{what}: {'warm-up' if number == 0 else f'{number} of {runs}'}", err=True)
    return found[1:]


def plan_figures(runs: int) -> list[Figure]:
    """`ops plan`, as a process."""
    # Compiled modules are what a user has from the second run on; some machines switch them off.
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    found: list[Child] = repeat("plan", runs, lambda: measure([sys.executable, "-m", "ops", "plan", STACK], env))
    every: list[Child] = repeat(
        "plan --all", runs, lambda: measure([sys.executable, "-m", "ops", "plan", "--all"], env)
    )
    return [
        Figure(
            what="`ops plan --all`, wall",
            values=tuple(child.seconds for child in every),
            unit="s",
            target=PLAN_ALL_SECONDS,
        ),
        Figure(what="`ops plan`, wall", values=tuple(child.seconds for child in found), unit="s", target=PLAN_SECONDS),
        Figure(
            what="`ops plan`, peak memory",
            values=tuple(child.peak_mib for child in found),
            unit="MiB",
            target=PLAN_MIB,
            digits=0,
        ),
    ]


def preview_figures(runs: int, engine: Engine) -> list[Figure]:
    """`pulumi preview` of the program and of one that only imports the same SDK modules, turn by turn."""
    with tempfile.TemporaryDirectory() as name:
        project = _floor_project(Path(name))
        with Session(engine=engine) as ours, Session(engine=engine, project=project) as floor:
            ours.init_stack(STACK)
            floor.init_stack(FLOOR)

            def both() -> tuple[float, float]:
                return _preview(ours, STACK), _preview(floor, FLOOR)

            found: list[tuple[float, float]] = repeat("preview", runs, both)
    return [
        Figure(what="`pulumi preview` of the program, wall", values=tuple(one for one, _ in found), unit="s"),
        Figure(what="`pulumi preview` of imports only, wall", values=tuple(other for _, other in found), unit="s"),
        Figure(
            what="ratio of the two", values=tuple(one / other for one, other in found), unit="×", target=PREVIEW_RATIO
        ),
    ]


def _preview(session: Session, stack: str) -> float:
    begun = time.perf_counter()
    result = session.run(["preview", "--stack", stack])
    seconds = time.perf_counter() - begun
    result.expect(f"preview {stack}")
    return seconds


def _floor_project(folder: Path) -> Path:
    """A project whose program only imports what ours does of the SDKs."""
    (folder / "stacks").mkdir()
    settings = (stacks.ROOT / "Pulumi.yaml").read_text(encoding="utf-8")
    (folder / "Pulumi.yaml").write_text(settings, encoding="utf-8")
    (folder / "stacks" / f"Pulumi.{FLOOR}.yaml").write_text("config: {}\n", encoding="utf-8")
    (folder / "__main__.py").write_text("\n".join(sdk_imports(stacks.ROOT)) + "\n", encoding="utf-8")
    return folder


_ONLY_WHERE_ASKED: Final = ("benchmark.py", "lustre.py")
"""Components whose SDK modules the measured stack does not load: counted into the floor, they would flatter the ratio."""


def sdk_imports(root: Path) -> list[str]:
    """Statements that load every SDK module the program in `root` uses, and do nothing else.

    The AWS SDK loads a service's module when something in it is first touched (`aws.eks.Cluster`), so imports alone would load little.
    """
    imports: set[str] = set()
    touched: set[str] = set()
    for file in (root / "__main__.py", *sorted((root / "components").glob("*.py"))):
        if file.name in _ONLY_WHERE_ASKED:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            match node:
                case ast.Import(names=names) if any(one.name.startswith("pulumi") for one in names):
                    imports.add(ast.unparse(node))
                case ast.ImportFrom(module=str(module)) if module.startswith("pulumi"):
                    imports.add(ast.unparse(node))
                case ast.Attribute():
                    text = ast.unparse(node)
                    # Classes only: a function or a value of a service stands in a module that some class loads as well.
                    if re.fullmatch(r"(aws|kubernetes)(\.[a-z0-9_]+)*\.[A-Z]\w*", text):
                        touched.add(text)
    return [*sorted(imports), *sorted(touched)]


def rehearsal_figures(runs: int) -> list[Figure]:
    """A whole rehearsal, with everything set up."""
    found: list[Child] = repeat(
        "rehearsal", runs, lambda: measure([sys.executable, "-m", "ops", "rehearse", STACK, "--no-serve"])
    )
    return [
        Figure(
            what="`ops rehearse --no-serve`, wall",
            values=tuple(child.seconds for child in found),
            unit="s",
            target=REHEARSAL_SECONDS,
            digits=1,
        )
    ]


def control_plane_figures(runs: int) -> list[Figure]:
    """A real control plane: its start, then every stack on it in turn, and what it holds in memory after them."""
    # Here alone: a child is counted with the memory its parent had, and the Kubernetes client is large.
    from ops.control_plane import prove_on
    from rehearsal.cluster import ControlPlane

    plans = [planned(name, []).model for name in stacks.models()]

    def one() -> tuple[float, float, float]:
        with ControlPlane() as cluster:
            slowest = 0.0
            for plan in plans:
                proof = prove_on(cluster, plan)
                if not proof.ok:
                    raise CommandError(
                        f"{plan.stack} does not fit on the control plane", "run `make test-cluster`", FAILED
                    )
                slowest = max(slowest, proof.seconds)
            return cluster.start_seconds, slowest, cluster.memory_mib()

    found: list[tuple[float, float, float]] = repeat("control plane", runs, one)
    start, slowest, memory = zip(*found, strict=True)
    return [
        Figure(what="control plane, start", values=start, unit="s", target=START_SECONDS, digits=1),
        Figure(
            what=f"control plane, the slowest of {len(plans)} stacks",
            values=slowest,
            unit="s",
            target=STACK_SECONDS,
            digits=1,
        ),
        Figure(
            what="control plane, resident memory after all stacks",
            values=memory,
            unit="MiB",
            target=CLUSTER_MIB,
            digits=0,
        ),
    ]


def cold_figures() -> list[Figure]:
    """Building the control plane from nothing, modules and compiled packages included. Minutes, hence once."""
    with tempfile.TemporaryDirectory() as name:
        folders = {"GOMODCACHE": "modules", "GOCACHE": "compiled", "DYNAMO_RECIPES_CACHE": "programs"}
        env = os.environ | {key: str(Path(name) / folder) for key, folder in folders.items()}
        typer.echo("control plane: built from nothing, once (5 to 20 minutes)", err=True)
        try:
            built = measure([sys.executable, "-m", "rehearsal.cluster"], env)
        finally:
            for folder, _, _ in os.walk(Path(name) / folders["GOMODCACHE"]):
                Path(folder).chmod(0o755)  # Go's modules are read-only, which would keep them from being removed
    return [
        Figure(
            what="control plane, built from nothing (one run)",
            values=(built.seconds / 60,),
            unit="min",
            target=BUILD_MINUTES,
            digits=1,
        )
    ]


def machine(engine: Engine) -> str:
    """What it was measured on."""
    memory = psutil.virtual_memory().total / 1024**3
    return (
        f"{_cpu()}, {psutil.cpu_count()} cores, {memory:.0f} GiB; {platform.system()} {platform.machine()}; "
        f"Python {platform.python_version()}; Pulumi engine {engine.version}"
    )


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown CPU"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")


def commands_section(figures: Sequence[Figure], runs: int, where: str) -> Section:
    """Our own commands."""
    return Section(
        title="Our commands",
        measured=f"Medians of {runs} runs after a warm-up. {where}",
        figures=tuple(figures),
        text=(
            (
                f"Of the stack `{STACK}` where nothing else is said. The floor of `pulumi preview` is a program that imports the SDK modules ours uses and\n"
                "creates nothing; both previews take turns, on the same engine, against the same pretend providers. Wall times include\n"
                "the start of every process."
            ),
        ),
    )


SECTIONS: Final = ("commands", "served", "replays")
"""What is measured here."""


@command
def main(
    runs: Annotated[int, typer.Option(min=5, help="Runs of each of our commands, not counting the first.")] = 5,
    out: Annotated[Path, typer.Option(help="Where the page goes.")] = PAGE,
    folder: Annotated[Path, typer.Option(help="Where measured sections are kept.")] = FOLDER,
    only: Annotated[list[str] | None, typer.Option(help="Measure this section; the others stay as they are. Repeatable.")] = None,
    skip: Annotated[list[str] | None, typer.Option(help="Do not measure this section. Repeatable.")] = None,
    page: Annotated[bool, typer.Option("--page", help="Measure nothing: the page from the sections there are.")] = False,
    cold: Annotated[bool, typer.Option(help="Also what is set up from nothing: the control plane, Dynamo's environment.")] = True,
    profile: Annotated[str, typer.Option(help="Of the served section's live runs.")] = "small",
    replay: Annotated[Literal["same", "full"], typer.Option(help="Of the served section.")] = "full",
    settings: Annotated[list[str] | None, typer.Option("--set", help="Of the served section's stacks.")] = None,
) -> None:  # fmt: skip
    """Measure section by section, and put docs/benchmarks.md together."""
    if unknown := {*(only or ()), *(skip or ())} - set(SECTIONS):
        raise CommandError(f"no section {', '.join(sorted(unknown))}", f"one of {', '.join(SECTIONS)}", BAD_INPUT)
    names = [] if page else [name for name in only or SECTIONS if name not in (skip or ())]
    for name in names:
        load = os.getloadavg()[0]
        engine = ensure_engine()
        where = f"{datetime.now(UTC).date().isoformat()}. {machine(engine)}. Load average when it began: {load:.1f}."
        if name == "served":
            from ops.benchmark_served import served_section

            found = served_section(where, profile=profile, cold=cold, replay=replay, settings=settings or ())
        elif name == "replays":
            from ops.benchmark_replays import replays_section

            found = replays_section(where)
        else:
            figures = [
                *plan_figures(runs),
                *preview_figures(runs, engine),
                *rehearsal_figures(runs),
                *control_plane_figures(runs),
                *(cold_figures() if cold else ()),
            ]
            found = commands_section(figures, runs, where)
        keep(name, found, folder)  # at once: what was measured stays, whatever becomes of the next one
    typer.echo(write(out, folder))


if __name__ == "__main__":
    typer.run(main)
