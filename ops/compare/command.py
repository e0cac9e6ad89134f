"""`ops compare`: folders in, a table, JSON or a page out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from ops.bench.local import REHEARSED
from ops.bench.results import find, load
from ops.compare import predicted
from ops.compare.model import compare
from ops.compare.page import page
from ops.compare.view import as_data, render
from ops.exits import BAD_INPUT, FAILED, OK, CommandError

if TYPE_CHECKING:
    from ops.compare.replayed import Much

_REHEARSED: Final = f"-{REHEARSED}"
"""End of a rehearsed run's name."""

Emit = Callable[[Any], None]


def folders_of(paths: Sequence[Path], *, every: bool) -> list[Path]:
    """The run each path means: itself, or the newest below it; with `every`, all below it."""
    if not every:
        return [find(path) for path in paths]
    found = [file.parent for path in paths for file in sorted(path.glob("**/run.json"))]
    if not found:
        raise CommandError("no results there", "name folders that `ops bench` wrote", BAD_INPUT)
    if len({folder.name.endswith(_REHEARSED) for folder in found}) > 1:
        # Both kinds of the same stacks lie in the same folders, and are never compared with each other.
        skipped = sum(folder.name.endswith(_REHEARSED) for folder in found)
        typer.echo(f"  {skipped} rehearsed runs are left out beside measured ones", err=True)
        found = [folder for folder in found if not folder.name.endswith(_REHEARSED)]
    return list(dict.fromkeys(found))


def compare_folders(paths: Sequence[Path], *, as_json: bool, html: Path | None, emit: Emit, replay: Much = "no") -> int:
    """Read, compare, show. Raises CommandError for what cannot be compared."""
    paths = list({path.resolve(): path for path in paths}.values())  # the same run twice is one
    if len(paths) < 2:
        raise CommandError("a comparison needs two runs at least", "python -m ops compare A B", BAD_INPUT)
    found = compare([load(path) for path in paths])
    if replay != "no":
        from ops.compare.replayed import replayed  # here alone: it plans and brings the rehearsal's tools

        found = replace(found, replay=replayed(found, replay, lambda line: typer.echo(f"  {line}", err=True)))
    if html is not None:
        try:
            html.write_text(page(found), encoding="utf-8")
        except OSError as error:
            raise CommandError(
                f"{html} cannot be written: {error.strerror}", "name another file: --html FILE", FAILED
            ) from None
    if as_json:
        emit(as_data(found) | {"predicted": predicted.as_data(found.runs)})
        return OK
    from ops.plan_view import show

    show(*render(found), *predicted.section(found.runs))
    if found.missing_corners:
        one, other = (Path(run.about["stack"]).name for run in found.runs[:2])
        typer.echo(f"\nThe missing corners: python -m ops compare --corners {one} {other}", err=True)
    if html is not None:
        typer.echo(f"\nPage: {html}", err=True)
    return OK
