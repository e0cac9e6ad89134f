"""What every table shares: the frozen entry with its sources, and the error for a name that no table knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from recipe.errors import nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

GIB = 1024**3
MIB = 1024**2

Sources = Annotated[tuple[str, ...], Field(min_length=1)]
"""Where a number comes from: URL, owner/repository with path or #number, or facts file and section. "derived" = our arithmetic."""


class Entry(BaseModel):
    """One row of a table."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class UnknownName(LookupError):
    """A name that a table does not hold. `nearest` is the known name that a typo most likely meant, or None."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind = kind
        self.name = name
        self.known = tuple(known)
        self.nearest = nearest(name, self.known)
        hint = f"; did you mean {self.nearest}?" if self.nearest else ""
        super().__init__(f"unknown {kind} {name!r}{hint} (known: {', '.join(self.known)})")


Row = TypeVar("Row")


def look_up(kind: str, table: Mapping[str, Row], name: str) -> Row:
    """The row called `name`. Raises `UnknownName`."""
    try:
        return table[name]
    except KeyError:
        raise UnknownName(kind, name, table) from None
