"""The plainest cloud that serves the providers' interface: things exist or not, and every change of `fixed` replaces."""

import json
from pathlib import Path
from typing import Any

from rehearsal.clock import Clock
from rehearsal.cloud.values import UNKNOWN, CheckResult, CloudError, DiffResult, Unfinished, changes

Props = dict[str, Any]


class PlainCloud:
    def __init__(self, store: Path, clock: Clock, faults: object = None, told: Path | None = None) -> None:
        self.file, self.clock = store / "cloud.json", clock

    def _things(self) -> dict[str, Props]:
        return json.loads(self.file.read_text()) if self.file.exists() else {}

    def _save(self, things: dict[str, Props]) -> None:
        self.file.write_text(json.dumps(things))

    def configure(self, provider: str, config: Props) -> None:
        """Nothing here depends on a provider's configuration."""

    def forget(self, caller: object) -> None:
        """Nothing here waits."""

    def known(self, typ: str) -> bool:
        return typ.startswith(("aws:plain/", "kubernetes:plain/"))

    def check(self, typ: str, urn: str, olds: Props | None, news: Props) -> CheckResult:
        failures = [("size", "must be positive")] if news.get("size") == 0 else []
        return CheckResult(news, failures)

    def diff(self, typ: str, id: str, old_inputs: Props, old_outputs: Props, new_inputs: Props) -> DiffResult:
        diffs = list(changes(old_inputs, new_inputs))
        return DiffResult(bool(diffs), [path for path in diffs if path == "fixed"], diffs, delete_before_replace=True)

    def create(
        self, typ: str, urn: str, inputs: Props, *, preview: bool, timeout_s: float | None, caller: object = None
    ) -> tuple[str, Props]:
        if preview:
            return "", {**inputs, "arn": UNKNOWN}
        name = urn.rpartition("::")[2]
        with self.clock.operation():
            self.clock.wait(float(inputs.get("seconds", 1)))
            if inputs.get("refuse"):
                raise CloudError(f"no: {inputs['refuse']}")
            things = self._things()
            if name in things:
                raise CloudError(f"{name} already exists")
            things[name] = {"type": typ}
            self._save(things)
            outputs = {**inputs, "arn": f"arn:plain:{name}", "echo": f"<{inputs.get('token', '')}>"}
            if inputs.get("stuck"):
                raise Unfinished(name, outputs, ["it exists, but is not ready"])
            return name, outputs

    def read(self, typ: str, id: str) -> tuple[str, Props, Props] | None:
        return None if id not in self._things() else (id, {}, {})

    def update(
        self, typ: str, urn: str, id: str, old_inputs: Props, old_outputs: Props, new_inputs: Props,
        *, preview: bool, timeout_s: float | None, caller: object = None,
    ) -> Props:  # fmt: skip
        return {**new_inputs, "arn": old_outputs["arn"]}

    def delete(
        self, typ: str, urn: str, id: str, old_inputs: Props, old_outputs: Props,
        *, timeout_s: float | None, caller: object = None,
    ) -> None:  # fmt: skip
        things = self._things()
        things.pop(id)
        self._save(things)
