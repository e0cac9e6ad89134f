"""`python -m rehearsal.engine`: make sure there is an engine, and say which."""

import signal
import sys
from types import FrameType

import typer

from rehearsal.engine.build import cache_folder, ensure_engine
from rehearsal.errors import SetupError


def main() -> None:
    """Find the Pulumi engine on PATH, or build it (about 7 minutes, once) into the cache folder.

    The cache folder is $DYNAMO_RECIPES_CACHE, else dynamo-recipes in $XDG_CACHE_HOME or ~/.cache. Remove it to start afresh.
    """

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        engine = ensure_engine()
    except SetupError as error:
        sys.exit(f"engine: {error}")
    except KeyboardInterrupt:
        sys.stderr.write(f"\nengine: stopped; nothing half made stays behind in {cache_folder()}\n")
        sys.exit(130)
    sys.stdout.write(f"pulumi {engine.version} ({engine.source}): {engine.pulumi}\n")


if __name__ == "__main__":
    typer.run(main)
