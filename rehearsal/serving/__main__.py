"""`python -m rehearsal.serving`: set up Dynamo's environment, and say where it is."""

import signal
import sys
from types import FrameType

import typer

from rehearsal.cache import cache_folder
from rehearsal.errors import SetupError
from rehearsal.serving import ensure_environment


def main() -> None:
    """Install Dynamo 1.6.1 from the committed lock (1.3 GB, about 2 minutes, once).

    It is kept in the folder `serving` of $DYNAMO_RECIPES_CACHE, else of dynamo-recipes in $XDG_CACHE_HOME or ~/.cache.
    """

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        sys.stdout.write(f"Dynamo's environment: {ensure_environment()}\n")
    except SetupError as error:
        sys.exit(f"serving: {error}")
    except KeyboardInterrupt:
        sys.stderr.write(f"\nserving: stopped; nothing half made stays behind in {cache_folder() / 'serving'}\n")
        sys.exit(130)


if __name__ == "__main__":
    typer.run(main)
