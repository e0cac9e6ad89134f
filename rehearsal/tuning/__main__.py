"""`python -m rehearsal.tuning`: set up aiconfigurator's environment, and say where it is."""

import signal
import sys
from types import FrameType

import typer

from rehearsal.cache import cache_folder
from rehearsal.errors import SetupError
from rehearsal.tuning import ensure_environment


def main() -> None:
    """Install aiconfigurator 0.12.0 from the committed lock (0.8 GB, about a minute, once).

    It is kept in the folder `tuning` of $DYNAMO_RECIPES_CACHE, else of dynamo-recipes in $XDG_CACHE_HOME or ~/.cache.
    """

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        sys.stdout.write(f"aiconfigurator's environment: {ensure_environment()}\n")
    except SetupError as error:
        sys.exit(f"tuning: {error}")
    except KeyboardInterrupt:
        sys.stderr.write(f"\ntuning: stopped; nothing half made stays behind in {cache_folder() / 'tuning'}\n")
        sys.exit(130)


if __name__ == "__main__":
    typer.run(main)
