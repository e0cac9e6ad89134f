"""What exists in the pretend cloud, on disk: a snapshot replaced whole, and a journal that only grows. No secret value is in either."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from .values import CloudError, Inputs, digest


@dataclass(slots=True)
class Record:
    """One live resource. `extra` is what the service knows and the API does not say; `owner` is the service's resource that made it."""

    type: str
    id: str
    name: str
    urn: str
    inputs: Inputs
    outputs: Inputs
    created_at: float
    order: int
    status: str = "ACTIVE"
    cluster: str = ""
    owner: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return f"{self.type}|{self.cluster}|{self.id}"

    def field(self, path: str) -> Any:
        """An input, or else an output, at the dotted path."""
        from .values import get

        found = get(self.inputs, path)
        return get(self.outputs, path) if found is None else found


class Store:
    """Records by type and id, ids from a counter, faults already used, and the journal. Not thread-safe: the clock's lock guards it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._snapshot, self._journal = folder / "cloud.json", folder / "journal.jsonl"
        self.records: dict[str, Record] = {}
        self.counter = 0
        self.seq = 0
        self.now = 0.0
        self.fault_hits: dict[str, int] = {}
        self._secrets: set[str] = set()
        self._events: list[dict[str, Any]] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._load()
        except OSError as error:
            raise CloudError(f"the pretend cloud cannot use its folder {folder}: {error.strerror or error}") from None

    def _load(self) -> None:
        if self._snapshot.exists():
            try:
                data = json.loads(self._snapshot.read_text(encoding="utf-8"))
                self.records = {r.key: r for r in (Record(**d) for d in data["records"])}
                self.counter, self.now, self.fault_hits = data["counter"], data["now"], data["fault_hits"]
            except (ValueError, KeyError, TypeError) as error:
                raise CloudError(
                    f"{self._snapshot} is not a pretend cloud's snapshot ({error}); remove the folder to start afresh"
                ) from None
        if self._journal.exists():
            lines = self._journal.read_text(encoding="utf-8").splitlines()
            for line in lines:
                try:
                    self._events.append(json.loads(line))
                except ValueError:  # a torn last line of a killed process: everything before it counts
                    continue
            self.seq = max((e["seq"] for e in self._events), default=0)

    # ---- secrets

    def protect(self, value: str) -> None:
        """Never write `value`; its digest stands for it."""
        if len(value) >= 4:  # shorter ones would blank out half the file and protect nothing
            self._secrets.add(value)

    def hidden(self, value: Any) -> Any:
        """`value` without protected values: a copy where there are any to hide."""
        if not self._secrets:
            return value
        if isinstance(value, str):
            for secret in self._secrets:
                if secret in value:
                    value = digest(value) if secret == value else value.replace(secret, digest(secret))
            return value
        if isinstance(value, dict):
            return {k: self.hidden(v) for k, v in value.items()}
        if isinstance(value, list):
            return [self.hidden(v) for v in value]
        return value

    def _written(self, record: Record) -> dict[str, Any]:
        """The record as it goes to disk. A Secret's values are digests however short they are."""
        data: dict[str, Any] = self.hidden({f.name: getattr(record, f.name) for f in fields(record)})
        if record.type.endswith(":Secret"):
            for part in ("inputs", "outputs"):
                for field_name in ("data", "stringData"):
                    if values := data[part].get(field_name):
                        hashed = {k: v if str(v).startswith("sha256:") else digest(str(v)) for k, v in values.items()}
                        data[part] = {**data[part], field_name: hashed}
        return data

    # ---- records

    def new_id(self, prefix: str, length: int = 17) -> str:
        """An id such as AWS gives: the same sequence in every run on a fresh store."""
        self.counter += 1
        return f"{prefix}0{hashlib.sha256(f'{prefix}{self.counter}'.encode()).hexdigest()[: length - 1]}"

    def add(self, record: Record) -> Record:
        self.records[record.key] = record
        return record

    def next_order(self) -> int:
        self.counter += 1
        return self.counter

    def remove(self, record: Record) -> None:
        self.records.pop(record.key, None)

    def of(self, *types: str, cluster: str | None = None) -> Iterator[Record]:
        """Live records of these types in the order they were made."""
        found = [r for r in self.records.values() if r.type in types and (cluster is None or r.cluster == cluster)]
        return iter(sorted(found, key=lambda r: r.order))

    def find(self, typ: str, ref: Any, cluster: str = "") -> Record | None:
        """By id, else by name or ARN."""
        if not isinstance(ref, str):
            return None
        if found := self.records.get(f"{typ}|{cluster}|{ref}"):
            return found
        return next((r for r in self.of(typ, cluster=cluster) if ref in (r.outputs.get("arn"), r.field("name"))), None)

    # ---- disk

    def save(self) -> None:
        """Replace the snapshot. CloudError when the disk is full or gone."""
        data = {
            "version": 1,
            "now": self.now,
            "counter": self.counter,
            "fault_hits": self.fault_hits,
            "records": [self._written(r) for r in sorted(self.records.values(), key=lambda r: r.order)],
        }
        try:
            fd, name = tempfile.mkstemp(dir=self.folder, prefix=".cloud-")
            try:
                with os.fdopen(fd, "w", encoding="utf-8") as file:
                    json.dump(data, file, separators=(",", ":"))
                os.replace(name, self._snapshot)  # noqa: PTH105
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise CloudError(
                f"the pretend cloud cannot write {self._snapshot}: {error.strerror or error}; free space and repeat the command"
            ) from None

    def note(self, **event: Any) -> None:
        """Append one line to the journal."""
        self.seq += 1
        line = {"seq": self.seq, **self.hidden(event)}
        self._events.append(line)
        try:
            with self._journal.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, separators=(",", ":")) + "\n")
        except OSError as error:
            raise CloudError(
                f"the pretend cloud cannot write {self._journal}: {error.strerror or error}; free space and repeat the command"
            ) from None

    @property
    def journal(self) -> list[dict[str, Any]]:
        return self._events
