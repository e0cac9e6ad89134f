"""The pretend cloud itself: what the providers call. It applies the rules, lets virtual time pass, and keeps store and journal."""

from __future__ import annotations

import copy
import json
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from ..clock import Clock
from ..durations import Durations
from . import report, rules
from .aws import NAME_FIELD, Aws
from .faults import Fault, Faults
from .kubernetes import Kubernetes
from .machines import Machines
from .store import Record, Store
from .values import CheckResult, CloudError, DiffResult, Inputs, Unfinished, annotation, changes, get, normal, within

T = TypeVar("T")
HELD = "held.json"
"""Beside the books: the operations that were held since the session last told what goes wrong."""
_LOOK_SECONDS = 0.05


class Caller:
    """Who asked. A client that is killed while it waits leaves behind what was accepted, and asks for nothing more."""

    gone = False


@dataclass(slots=True)
class Call:
    """One create, update or delete being served."""

    op: str
    type: str
    urn: str
    name: str
    inputs: Inputs
    timeout_s: float | None
    start: float
    fault: Fault | None = None
    caller: Caller = field(default_factory=Caller)

    def check_caller(self) -> None:
        """Raises CloudError where nobody asks any more: what was not accepted by then never is."""
        if self.caller.gone:
            raise CloudError(f"{self.name}: whoever asked for it is gone")

    def timeout(self, op: str) -> float:
        """Seconds the provider waits in `op`."""
        return rules.timeout_s(self.type, op, self.timeout_s)


def _written(file: Path | None) -> int:
    """When, in nanoseconds; 0 for what is not there."""
    try:
        return file.stat().st_mtime_ns if file else 0
    except FileNotFoundError:
        return 0


def _name(urn: str) -> str:
    return urn.rpartition("::")[2]


class Cloud:
    """AWS and Kubernetes as far as the rehearsal needs them. Thread-safe: the clock's lock guards everything.

    Errors: `CloudError` (refused, nothing changed), `Unfinished` (exists, but is not what was asked for).
    """

    def __init__(
        self, store: Path, clock: Clock, faults: Faults | None = None, *, durations: Durations | None = None, machines: Machines | None = None,
        region: str = "us-east-1", account: str = "000000000000", told: Path | None = None,
    ) -> None:  # fmt: skip
        self.store = Store(store)
        self.clock = clock
        self.faults = faults or Faults()
        self._told, self._told_at = told, _written(told)
        self._held: list[dict[str, str]] = []
        self.durations = durations or Durations()
        self.machines = machines or Machines()
        self.region, self.account = region, account
        self._expired = False
        self.aws = Aws(self)
        self.kubernetes = Kubernetes(self)
        clock.attach(self._settle, self._next_event, self.store.now)

    # ---- configuration ----------------------------------------------------------------------------------------------------

    def configure(self, provider: str, config: Mapping[str, Any]) -> None:
        """Take over a provider's configuration. aws: region, allowedAccountIds; kubernetes: kubeconfig, upsertExistingObjects,
        deleteUnreachable, enableConfigMapMutable, enableSecretMutable. Booleans may be words, as on the wire."""
        with self.clock.operation():
            clean = {
                k: {"true": True, "false": False}.get(v, v) if isinstance(v, str) else v
                for k, v in normal(config).items()
            }
            if provider == "kubernetes":
                self.kubernetes.options = clean
                return
            self._expired = False  # each command finds its credentials anew
            self.region = str(clean.get("region") or self.region)
            accounts = clean.get("allowedAccountIds")
            if isinstance(accounts, list) and accounts:
                self.account = str(accounts[0])

    def protect(self, value: str) -> None:
        """Never write `value` to the store or the journal. For secrets the providers unwrapped outside of a Secret's data."""
        with self.clock.operation():
            self.store.protect(value)

    def known(self, typ: str) -> bool:
        return typ in rules.TYPES

    # ---- time -------------------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        self.aws.settle(self.clock.now())
        self.kubernetes.settle(self.clock.now())

    def _next_event(self) -> float | None:
        times = [
            t
            for t in (self.aws.next_event(self.clock.now()), self.kubernetes.next_event(self.clock.now()))
            if t is not None
        ]
        return min(times, default=None)

    def spend(self, call: Call, seconds: float) -> None:
        """Let the operation take its time; a fault may make it longer."""
        self.clock.wait(seconds + (call.fault.delay_s if call.fault else 0))

    # ---- what the halves use ----------------------------------------------------------------------------------------------

    def save(self) -> None:
        self.store.now = self.clock.now()
        self.store.save()

    def event(self, kind: str, name: str, message: str, *, at: float | None = None, **more: Any) -> None:
        """Something that happened by itself."""
        at = self.clock.now() if at is None else at
        self.store.note(
            start=at,
            end=at,
            op="event",
            type=kind,
            name=name,
            urn="",
            outcome="",
            message=message,
            **{"id": "", **more},
        )

    def accept(
        self, call: Call, id: str, outputs: Inputs, cluster: str = "", extra: dict[str, Any] | None = None
    ) -> Record:
        """The cloud has said yes: from now on the thing exists, whatever becomes of the caller."""
        call.check_caller()
        now, order = self.clock.now(), self.store.next_order()
        inputs = copy.deepcopy(call.inputs)
        record = Record(call.type, id, call.name, call.urn, inputs, outputs, now, order, "CREATING", cluster)
        record.extra |= extra or {}
        self.store.add(record)
        self.save()
        self.hold(call, "after")
        return record

    def hold(self, call: Call, when: str) -> None:
        """Where a fault says so: stay here, time with it, until the caller is gone. Before acceptance that is the end of the call."""
        fault = self.fault(call.op, call.type, call.name, when, hold=True)
        if fault is None:
            return
        self._held.append({"op": call.op, "type": call.type, "name": call.name, "when": when})
        told = self.store.folder / HELD
        written = told.with_suffix(".new")
        written.write_text(json.dumps(self._held), encoding="utf-8")
        written.replace(told)
        there = threading.Condition(self.clock.lock)
        while not call.caller.gone:
            there.wait(_LOOK_SECONDS)
        if when == "before":
            call.check_caller()

    def fault(self, op: str, typ: str, name: str, when: str, *, hold: bool = False) -> Fault | None:
        """The fault that strikes now, counted."""
        self._hear()
        for i, fault in enumerate(self.faults.faults):
            if fault.when == when and fault.hold == hold and fault.matches(op, typ, name):
                hits = self.store.fault_hits.get(str(i), 0)
                if fault.times is None or hits < fault.times:
                    self.store.fault_hits[str(i)] = hits + 1
                    return fault
        return None

    def _hear(self) -> None:
        """Take over what the session has told in the meantime; its faults are new ones, none of which has struck yet."""
        if self._told is not None and (written := _written(self._told)) != self._told_at:
            self.faults, self._told_at = Faults.load(self._told), written
            self.store.fault_hits.clear()
            self._held.clear()
            # Not left to `configure`: a command's first call to one provider may come before the other's is configured.
            self._expired = False

    def _known_or_raise(self, typ: str) -> None:
        if not self.known(typ):
            raise CloudError(
                f"the pretend cloud does not know the resource type {typ}; known are: {', '.join(sorted(rules.TYPES))}"
            )

    def _half(self, typ: str) -> Aws | Kubernetes:
        return self.kubernetes if typ.startswith("kubernetes:") else self.aws

    def _find(self, typ: str, id: str) -> Record | None:
        if not typ.startswith("kubernetes:"):
            return self.store.records.get(f"{typ}||{id}")
        found = [r for r in self.store.of(typ) if r.id == id]
        if len(found) > 1:
            cluster = self.kubernetes.cluster().id
            found = [r for r in found if r.cluster == cluster]
        return found[0] if found else None

    # ---- the interface ----------------------------------------------------------------------------------------------------

    def check(self, typ: str, urn: str, olds: Inputs | None, news: Inputs) -> CheckResult:
        """Name what has no name, and judge what the inputs alone tell."""
        with self.clock.operation():
            self._known_or_raise(typ)
            inputs = normal(news)
            self._autoname(typ, urn, normal(olds or {}), inputs)
            failures = [
                (field, f"Missing required argument: {field}")
                for field in rules.CREATE_ONLY[typ].required
                if get(inputs, field) is None
            ]
            for row in rules.one_of(typ):
                value = get(inputs, row.field)
                if isinstance(value, str) and value not in row.values:
                    failures.append((row.field, f"{value!r} is not one of {', '.join(row.values)}"))
            failures += self._half(typ).check(typ, inputs)
            return CheckResult(inputs, failures)

    def _autoname(self, typ: str, urn: str, olds: Inputs, inputs: Inputs) -> None:
        if typ.startswith("kubernetes:") and typ != rules.RELEASE:
            metadata = inputs.setdefault("metadata", {})
            if not isinstance(metadata, dict):
                return
            if "name" not in metadata and "generateName" not in metadata:
                autonamed = annotation(olds, "autonamed") == "true"
                metadata["name"] = get(olds, "metadata.name") if autonamed else f"{_name(urn)}-{secrets.token_hex(4)}"
                metadata["annotations"] = {**get(metadata, "annotations", {}), "pulumi.com/autonamed": "true"}
            if typ not in rules.CLUSTER_SCOPED:
                metadata.setdefault("namespace", "default")
            return
        field = "name" if typ == rules.RELEASE else NAME_FIELD.get(typ)
        if field and not inputs.get(field) and not inputs.get(f"{field}Prefix"):
            # A name the engine has already is kept; a replacement comes without old inputs and gets a new one.
            inputs[field] = olds.get(field) or f"{_name(urn)}-{secrets.token_hex(4)[:7]}"

    def diff(self, typ: str, id: str, old_inputs: Inputs, old_outputs: Inputs, new_inputs: Inputs) -> DiffResult:  # noqa: ARG002
        with self.clock.operation():
            self._known_or_raise(typ)
            old, new = normal(old_inputs), normal(new_inputs)
            diffs = list(changes(old, new))
            fields = rules.CREATE_ONLY[typ].fields
            options = self.kubernetes.options
            if (typ == rules.CONFIG_MAP and options.get("enableConfigMapMutable")) or (
                typ == rules.SECRET and options.get("enableSecretMutable")
            ):
                fields = tuple(f for f in fields if f.startswith("metadata"))
            replaces = [p for p in diffs if any(within(p, f) for f in fields)]
            replaces += [p for p in diffs if rules.shrinks(typ, p, get(old, p), get(new, p))]
            if typ in (rules.INGRESS_RULE, rules.EGRESS_RULE):
                kinds = ("cidrIpv4", "cidrIpv6", "prefixListId", "referencedSecurityGroupId")
                replaces += [p for p in diffs if p in kinds and ((p in old) != (p in new))]
            if self._replace_unready(typ, id, new):
                path = 'metadata.annotations["pulumi.com/replaceUnready"]'
                diffs, replaces = [*diffs, path], [*replaces, path]
            same_name = typ.startswith("kubernetes:") and typ != rules.RELEASE and self._same_place(typ, old, new)
            return DiffResult(bool(diffs), replaces, diffs, bool(replaces) and same_name)

    def _replace_unready(self, typ: str, id: str, new: Inputs) -> bool:
        if typ != rules.JOB or str(annotation(new, "replaceUnready")).lower() != "true":
            return False
        record = self._find(typ, id)
        return record is not None and record.extra["phase"] == "failed"

    def _same_place(self, typ: str, old: Inputs, new: Inputs) -> bool:
        autonamed = annotation(new, "autonamed") == "true"
        return not autonamed and self.kubernetes.id_of(typ, old) == self.kubernetes.id_of(typ, new)

    def create(
        self,
        typ: str,
        urn: str,
        inputs: Inputs,
        *,
        preview: bool,
        timeout_s: float | None,
        caller: Caller | None = None,
    ) -> tuple[str, Inputs]:
        self._known_or_raise(typ)
        with self.clock.operation():
            if preview:
                return "", self._half(typ).preview(typ, normal(inputs))
            call = Call("create", typ, urn, _name(urn), normal(inputs), timeout_s, self.clock.now())
            call.caller = caller or call.caller

            def work() -> tuple[str, Inputs]:
                self._strike(call)
                return self._half(typ).create(call)

            return self._journalled(call, work, lambda made: made[0])

    def read(self, typ: str, id: str) -> tuple[str, Inputs, Inputs] | None:
        """(id, inputs as the cloud holds them, outputs), or None when it does not exist. A create may be read before it is done."""
        self._known_or_raise(typ)
        with self.clock.operation():
            if typ.startswith("kubernetes:") and not self.kubernetes.reachable():
                if self.kubernetes.options.get("deleteUnreachable"):
                    return None
                raise CloudError(rules.says("k8s.read-unreachable"))
            record = self._find(typ, id)
            if record is None:
                return None
            if typ.startswith("kubernetes:"):
                inputs, outputs = self.kubernetes.held(record)
                if typ == rules.JOB and record.extra["phase"] != "complete":
                    raise Unfinished(record.id, outputs, [f"Job {record.id} is {record.extra['phase']}"], inputs)
                return record.id, inputs, outputs
            return record.id, copy.deepcopy(record.inputs), copy.deepcopy(record.outputs)

    def update(
        self, typ: str, urn: str, id: str, old_inputs: Inputs, old_outputs: Inputs, new_inputs: Inputs, *, preview: bool, timeout_s: float | None,
        caller: Caller | None = None,
    ) -> Inputs:  # fmt: skip
        self._known_or_raise(typ)
        with self.clock.operation():
            new = normal(new_inputs)
            if preview:
                out = {**normal(old_outputs), **copy.deepcopy(new)}
                if typ == rules.LAUNCH_TEMPLATE and any(changes(normal(old_inputs), new)):
                    out["latestVersion"] = self._half(typ).preview(typ, new)["latestVersion"]
                if typ == rules.CLUSTER:  # what EKS added inside the block stays known
                    out["vpcConfig"] = {**get(normal(old_outputs), "vpcConfig", {}), **get(new, "vpcConfig", {})}
                return out
            call = Call("update", typ, urn, _name(urn), new, timeout_s, self.clock.now())
            call.caller = caller or call.caller

            def work() -> Inputs:
                self._strike(call)
                record = self._find(typ, id)
                if record is None:
                    raise CloudError(f"updating {typ} ({id}): it does not exist any more; run a refresh")
                return self._half(typ).update(call, record, list(changes(record.inputs, new)))

            return self._journalled(call, work, lambda _: id)

    def delete(
        self,
        typ: str,
        urn: str,
        id: str,
        old_inputs: Inputs,
        old_outputs: Inputs,  # noqa: ARG002  (the interface's: the store knows better)
        *,
        timeout_s: float | None,
        caller: Caller | None = None,
    ) -> None:
        """Deleting what is not there is done at once, as the providers do. What services made can be deleted, too."""
        if typ not in rules.MADE:
            self._known_or_raise(typ)
        with self.clock.operation():
            call = Call("delete", typ, urn, _name(urn), normal(old_inputs), timeout_s, self.clock.now())
            call.caller = caller or call.caller

            def work() -> None:
                record = self._find(typ, id)
                self._strike(call)
                if typ.startswith("kubernetes:"):
                    self.kubernetes.delete(call, record)
                elif record is not None:
                    self.aws.delete(call, record)

            self._journalled(call, work, lambda _: id)

    def _strike(self, call: Call) -> None:
        """Apply the faults of this call: refuse it, or remember what goes wrong later."""
        admitted = (
            call.type == rules.DGD and call.op == "create"
        )  # there the fault is the webhook's, and meets the dry run too
        before = None if admitted else self.fault(call.op, call.type, call.name, "before")
        if before and before.error == "expired":
            self._expired = True
        if self._expired:
            verb = f"{call.op.rstrip('e')}ing {call.type.rpartition(':')[2]} ({call.name})"
            raise CloudError(
                f"{verb}: {rules.says('k8s.token' if call.type.startswith('kubernetes:') else 'api.expired')}"
            )
        if before and before.error != "stuck":
            if before.delay_s:
                self.clock.wait(before.delay_s)
            if before.error:
                raise CloudError(
                    f"{call.op.rstrip('e')}ing {call.type.rpartition(':')[2]} ({call.name}): {before.error}"
                )
        call.fault = self.fault(call.op, call.type, call.name, "after")
        if before and before.error == "stuck":
            call.fault = before
        self.hold(call, "before")

    def _journalled(self, call: Call, work: Callable[[], T], id_of: Callable[[T], str]) -> T:
        made, outcome, message = "", "ok", ""
        try:
            result = work()
            made = id_of(result)
            return result
        except Unfinished as unfinished:
            made, outcome, message = unfinished.id, "unfinished", str(unfinished)
            raise
        except CloudError as refused:
            outcome, message = "refused", str(refused)
            raise
        except BaseException as failure:
            outcome, message = "broken", f"{type(failure).__name__}: {failure}"
            raise
        finally:
            self.store.note(
                start=call.start,
                end=self.clock.now(),
                op=call.op,
                type=call.type,
                name=call.name,
                urn=call.urn,
                id=made,
                outcome=outcome,
                message=message,
            )
            self.save()
            self._settle()
            self.clock.notify()

    # ---- afterwards -------------------------------------------------------------------------------------------------------

    def timeline(self) -> list[report.Step]:
        return report.timeline(self.store.journal)

    def left(self) -> list[report.Left]:
        """What still exists, what costs by the hour first."""
        with self.clock.lock:
            return report.left(self.store)

    def gpu_time(self) -> report.GpuTime:
        return report.gpu_time(self.store.journal, self.clock.now())

    def forget(self, caller: Caller) -> None:
        """The caller is gone."""
        caller.gone = True
        self.clock.notify()

    def close(self) -> None:
        """Stop the clock and write the snapshot a last time."""
        self.clock.close()
        with self.clock.lock:
            self.save()
