"""`python -m rehearsal.serving`: set up Dynamo's environment, and say where it is."""

import typer

from rehearsal.pyenv import set_up
from rehearsal.serving import ensure_environment


def main() -> None:
    """Install Dynamo 1.6.1 from the committed lock (1.3 GB, about 2 minutes, once).

    It is kept in the folder `serving` of $DYNAMO_RECIPES_CACHE, else of dynamo-recipes in $XDG_CACHE_HOME or ~/.cache.
    """
    set_up("Dynamo", "serving", ensure_environment)


if __name__ == "__main__":
    typer.run(main)
