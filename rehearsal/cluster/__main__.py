"""`python -m rehearsal.cluster`: build the control plane, and with `run` keep one for a person to look at."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from rehearsal.cache import cache_folder
from rehearsal.cluster import ControlPlane, crd
from rehearsal.cluster.build import ensure_programs
from rehearsal.errors import SetupError

app = typer.Typer(add_completion=False, invoke_without_command=True, pretty_exceptions_enable=False)


@app.callback()
def build(context: typer.Context) -> None:
    """Build etcd, Kubernetes' API server, controller manager and scheduler, and kwok (up to 20 minutes, once).

    They are kept in the folder `cluster` of $DYNAMO_RECIPES_CACHE, else of dynamo-recipes in $XDG_CACHE_HOME or ~/.cache.
    """
    if context.invoked_subcommand is None:
        with _said_when_stopped(f"what was built is in {cache_folder() / 'cluster'}"):
            for name, built in ensure_programs().items():
                sys.stdout.write(f"{name} {built.version} ({built.source}): {built.path}\n")


@app.command()
def run(
    folder: Annotated[Path | None, typer.Option(help="Keep everything there; a temporary folder otherwise.")] = None,
) -> None:
    """Start a control plane, with the graph's CRD where there is one, and keep it until Ctrl-C."""
    with _said_when_stopped("nothing of it runs any more"), ControlPlane(folder) as cluster:
        if (found := crd.find()) is not None:
            crd.install(cluster.api, found)
        sys.stdout.write(f"Kubernetes {cluster.version}, ready in {cluster.start_seconds:.1f} s. Ctrl-C ends it.\n")
        sys.stdout.write(f"  kubectl --kubeconfig {cluster.kubeconfig} get all -A\n")
        if found is None:
            sys.stdout.write(f"  It does not know graphs: {crd.HOW_TO_GET}\n")
        sys.stdout.flush()
        while True:
            time.sleep(3600)


@contextmanager
def _said_when_stopped(what: str) -> Iterator[None]:
    """Ctrl-C and SIGTERM end with a sentence instead of silence or a traceback."""
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write(f"\ncontrol plane: stopped; {what}\n")
        raise typer.Exit(130) from None


def main() -> None:
    """As above, without a traceback."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        app()
    except SetupError as error:
        sys.exit(f"control plane: {error}")


if __name__ == "__main__":
    main()
