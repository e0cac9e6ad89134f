"""What goes wrong in a rehearsal: a typed list read from JSON, so that a failure can be had on purpose and again."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

TOLD = "faults.json"
"""Beside the books: what the session told the pretend cloud goes wrong, for it and for whoever asks what the account is like."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Fault(_Model):
    """One thing that goes wrong.

    `type` is a whole type token, its last part (`NodeGroup`), or `*` for any. `when`: `before` the cloud accepts the request (nothing exists then), or
    `after` (it exists, and the engine is told why it is not what was asked for). `times`: how often; None is always.

    For a create `after`, `error` says what happens to it: a node group `InsufficientInstanceCapacity` (`late_s`: it comes that many
    seconds after the request all the same); a weights Job `401`, `429` (slower by `delay_s`), `disk-full` or `truncated`; a graph `failed`,
    `ImagePullBackOff` or `CrashLoopBackOff`; the EFS driver's add-on `late` (its pods run `delay_s` seconds after it is ACTIVE). For a delete:
    `stuck` (`before`; an object in the cluster stays Terminating) and `interface-left` (`after`; a node group or cluster leaves a network
    interface in its subnet). `expired` (`before`, any operation): from then on every call fails for its credentials, until the next
    command, or until something else is told. Anything else is the text of the error. `delay_s` makes the operation that much longer.

    `hold`: the operation stays where `when` says until whoever called is gone, and `held.json` beside the books names it: there a
    campaign kills the engine. Before acceptance nothing comes of it then; afterwards the cloud goes on by itself.
    """

    op: Literal["create", "read", "update", "delete"] = "create"
    type: Annotated[str, Field(min_length=1)]
    name_contains: str = ""
    times: Annotated[int, Field(ge=1)] | None = 1
    when: Literal["before", "after"] = "before"
    error: str | None = None
    delay_s: Annotated[float, Field(ge=0)] = 0
    late_s: Annotated[float, Field(gt=0)] | None = None
    hold: bool = False

    def matches(self, op: str, typ: str, name: str) -> bool:
        return op == self.op and self.type in (typ, typ.rpartition(":")[2], "*") and self.name_contains in name


class Held(_Model):
    """A capacity reservation the pretend account has; a Capacity Block where `block`. `available` None: all of it."""

    instance_type: str
    zone_id: str
    total: Annotated[int, Field(ge=1)]
    available: Annotated[int, Field(ge=0)] | None = None
    state: str = "active"
    block: bool = False
    start: datetime | None = None
    end: datetime | None = None


class Pretended(_Model):
    """What the pretend account is like where it is not as one would wish: what `ops doctor` looks at before anything is made.

    `account` None: the stack's own. `quotas`: vCPUs by quota code (one not named is plentiful). `zones_without`: ids of zones
    that do not have an instance type at all.
    """

    account: Annotated[str, Field(pattern=r"^\d{12}$")] | None = None
    credentials: Literal["valid", "expired", "none"] = "valid"
    quotas: dict[str, Annotated[float, Field(ge=0)]] = {}
    zones_without: dict[str, tuple[str, ...]] = {}
    reservations: dict[str, Held] = {}


class Faults(_Model):
    """`capacity`: how many instances of a type there are at all (a type not named is plentiful)."""

    faults: tuple[Fault, ...] = ()
    capacity: dict[str, Annotated[int, Field(ge=0)]] = {}
    account: Pretended = Pretended()

    @classmethod
    def load(cls, path: Path) -> Faults:
        """Read `path`. ValueError names the file, the place and what is wrong with it."""
        try:
            return cls.model_validate(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise ValueError(f"{path}: no such faults file") from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: not JSON: {error}") from None
        except ValidationError as error:
            lines = [f"{path}: {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
            raise ValueError("\n".join(lines)) from None
