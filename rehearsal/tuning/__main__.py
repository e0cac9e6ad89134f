"""`python -m rehearsal.tuning`: set up aiconfigurator's environment, and say where it is."""

import typer

from rehearsal.pyenv import set_up
from rehearsal.tuning import ensure_environment


def main() -> None:
    """Install aiconfigurator 0.12.0 from the committed lock (0.8 GB, about a minute, once).

    It is kept in the folder `tuning` of $DYNAMO_RECIPES_CACHE, else of dynamo-recipes in $XDG_CACHE_HOME or ~/.cache.
    """
    set_up("aiconfigurator", "tuning", ensure_environment)


if __name__ == "__main__":
    typer.run(main)
