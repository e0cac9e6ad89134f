"""`ops doctor`: before paying, whether a stack can come up here; after a failure, what holds it, in order of cause, with the fix.

Looks, and changes nothing. The clock and the network live here and not in the plan: a Capacity Block's window, quotas, registries.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from packaging.version import InvalidVersion, Version

from ops import diagnosis, reach, stacks
from ops.aws import EC2_STOPS, EKS_TAKES_NODES, PRETEND, Account, AwsAccount, AwsError, Part, Reservation
from ops.diagnosis import Evidence, Finding
from ops.kube import HttpKube, Kube, KubeError, snapshot, token
from recipe import catalogue
from recipe.config import CapacityBlock, Odcr
from recipe.constants import PLATFORM_NAMESPACE
from recipe.plan import BasePlan, GpuPool, Plan

LOOK_BACK: Final = timedelta(hours=24)
LEAST_AWS_CLI: Final = Version("1.23.9")
"""From then on `aws eks get-token` answers in the form the program's kubeconfig asks for (v1beta1; docs/unverified.md)."""


@dataclass(frozen=True)
class Checked:
    """One thing looked at. `evidence` None: it is as it should be. `left_out`: it was not asked, for the reason in `says`."""

    what: str
    says: str
    evidence: Evidence | None = None
    left_out: bool = False

    @property
    def mark(self) -> str:
        return "-" if self.left_out else "!" if self.evidence else "ok"


@dataclass
class Report:
    """What came of it."""

    stack: str
    checked: list[Checked] = field(default_factory=list)
    holding: list[Evidence] = field(default_factory=list)
    """What holds a deployment that was begun."""
    begun: bool = False
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def findings(self) -> list[Finding]:
        found = [one.evidence for one in self.checked if one.evidence]
        return diagnosis.findings([*found, *self.holding], self.facts)

    @property
    def well(self) -> bool:
        return not self.findings

    def as_data(self) -> dict[str, Any]:
        """What `--json` prints. Keys are a contract."""
        return {
            "stack": self.stack,
            "well": self.well,
            "begun": self.begun,
            "checked": [{"what": one.what, "says": one.says, "state": one.mark} for one in self.checked],
            "findings": [finding.as_data() for finding in self.findings],
        }


AnyPlan = Plan | BasePlan


def examine(
    plan: AnyPlan,
    fixes: Mapping[str, str],
    account: Account,
    *,
    said: str = "",
    now: datetime | None = None,
    rehearsed: bool = False,
    online: bool = True,
    fetch: reach.Fetch = reach.fetch,
) -> Report:
    """Everything about one stack.

    `said`: what a pulumi command printed. `rehearsed`: documentation values are as good as any, and no tool but the engine is used.
    `online`: whether registries are asked.
    """
    now = now or datetime.now(UTC)
    report = Report(plan.stack, facts=_facts(plan))
    if not rehearsed:
        report.checked += _tools()
    report.checked += [_placeholder(path, fixes.get(path, ""), rehearsed) for path in plan.placeholders]
    trusted = _credentials(report, plan, account)
    if trusted:
        report.checked += list(_where(plan, account))
        report.checked += list(_quotas(plan, account))
        report.checked += list(_reserved(plan, account, now))
    if online:
        report.checked += list(_reachable(plan, fetch))
    report.holding += diagnosis.of_output(said)
    if trusted:
        report.holding += _holding(report, plan, account, now)
    return report


def _facts(plan: AnyPlan) -> dict[str, Any]:
    access = plan.recipe.access
    return {
        "stack": plan.stack,
        "region": access.region,
        "account": access.account_id,
        "zone": plan.network.nodes.zone_id,
        "cluster": plan.names.cluster,
        "namespace": plan.names.namespace,
        "gpu_group": plan.names.gpu_node_group,
        "type": (_gpu_pool(plan) or plan.cpu_pool).instance_type,
    }


def _gpu_pool(plan: AnyPlan) -> GpuPool | None:
    """A base has no GPU nodes."""
    return plan.gpu_pool if isinstance(plan, Plan) else None


# ── before paying ────────────────────────────────────────────────────────────────────────────────────────────────────


def _placeholder(path: str, command: str, rehearsed: bool) -> Checked:
    if rehearsed:
        return Checked(path, "a documentation value, as rehearsals have", left_out=True)
    return Checked(
        path, f"not set: {command}", Evidence("stack file", path, f"is a documentation placeholder: {command}")
    )


def _tools() -> Iterator[Checked]:
    yield Checked("python", sys.version.split()[0])  # this one runs us
    wanted = _required_pulumi()
    yield _tool("pulumi", ["version"], lambda version: wanted is None or version >= wanted, f"at least {wanted}")
    yield _tool(
        "aws",
        ["--version"],
        lambda version: version >= LEAST_AWS_CLI,
        f"at least {LEAST_AWS_CLI}: every client of the cluster asks it for tokens",
    )


def _required_pulumi() -> Version | None:
    found = re.search(r'requiredPulumiVersion: ">=([\d.]+)', (stacks.ROOT / "Pulumi.yaml").read_text(encoding="utf-8"))
    return Version(found[1]) if found else None


def _tool(name: str, args: list[str], fits: Callable[[Version], bool], wanted: str) -> Checked:
    if shutil.which(name) is None:
        return Checked(
            name, f"not on PATH ({wanted})", Evidence("tool", name, f"not on PATH; wanted {wanted}", "tool-missing")
        )
    try:
        done = subprocess.run([name, *args], capture_output=True, text=True, check=False, timeout=60)
        words = done.stdout.replace("/", " ").split()
        version = next(found for word in words if (found := _version(word)))
    except (OSError, subprocess.TimeoutExpired, StopIteration):
        return Checked(
            name, "does not say its version", Evidence("tool", name, "does not say its version", "tool-missing")
        )
    if not fits(version):
        return Checked(
            name,
            f"{version}, wanted {wanted}",
            Evidence("tool", name, f"is {version}; wanted {wanted}", "tool-missing"),
        )
    return Checked(name, str(version))


def _version(word: str) -> Version | None:
    try:
        return Version(word) if any(letter.isdigit() for letter in word) and "." in word else None
    except InvalidVersion:
        return None


def _credentials(report: Report, plan: AnyPlan, account: Account) -> bool:
    """Whether the account may be asked further: it is the stack's own."""
    try:
        found = account.identity()
    except AwsError as error:
        report.checked.append(Checked("credentials", str(error), Evidence("credentials", "AWS", str(error))))
        return False
    report.checked.append(Checked("credentials", found.arn))
    wanted = plan.recipe.access.account_id
    if any(path.endswith("access.account_id") for path in plan.placeholders):
        report.checked.append(Checked("account", f"{found.account}; the stack names none yet", left_out=True))
        return True
    if found.account != wanted:
        text = f"{found.account} is not the stack's account {wanted}"
        report.checked.append(Checked("account", text, Evidence("credentials", found.arn, text)))
        return False
    report.checked.append(Checked("account", found.account))
    return True


def _asked(what: str, ask: Callable[[], Iterator[Checked]]) -> Iterator[Checked]:
    """What `ask` finds, or that AWS would not say: a missing permission to look is not the stack's fault."""
    try:
        yield from ask()
    except AwsError as error:
        yield Checked(what, str(error), Evidence("refused call", error.asked, str(error)))


def _where(plan: AnyPlan, account: Account) -> Iterator[Checked]:
    def ask() -> Iterator[Checked]:
        zones, zone, second = account.zones(), plan.network.nodes.zone_id, plan.network.control_plane.zone_id
        for one, path in ((zone, "access.zone_id"), (second, "the control plane's second zone")):
            if one not in zones:
                text = f"{one} ({path}) is not among {', '.join(zones)}"
                yield Checked("zone", text, Evidence("account", one, text, "zone-unknown"))
        pools = [pool for pool in (_gpu_pool(plan), plan.cpu_pool) if pool]
        for pool in pools:
            offering = account.zones_offering(pool.instance_type)
            if zone in offering:
                yield Checked(pool.instance_type, f"offered in {zone}")
            else:
                text = f"{zone} does not offer {pool.instance_type}; offered in {', '.join(offering) or 'no zone of the region'}"
                yield Checked(pool.instance_type, text, Evidence("account", zone, text))

    return _asked("zones", ask)


def _quotas(plan: AnyPlan, account: Account) -> Iterator[Checked]:
    """vCPUs that are wanted on top of what runs, by quota. This stack's own nodes count once."""

    def ask() -> Iterator[Checked]:
        wanted: dict[str, tuple[str, int]] = {}
        existing = {group.name for group in _groups(plan, account)}
        cpu = catalogue.cpu_instance(plan.cpu_pool.instance_type)
        if plan.names.cpu_node_group not in existing:
            wanted[cpu.quota_code] = (cpu.quota_name, plan.cpu_pool.count * cpu.vcpus)
        pool = _gpu_pool(plan)
        kind = plan.recipe.hardware.capacity.kind if isinstance(plan, Plan) else ""
        if pool and plan.names.gpu_node_group not in existing and kind in ("on-demand", "spot"):
            gpu = catalogue.gpu_instance(pool.instance_type)
            code, name = (
                (gpu.quota_code, gpu.quota_name) if kind == "on-demand" else (gpu.spot_quota_code, gpu.spot_quota_name)
            )
            if code:
                wanted[code] = (name, pool.count * gpu.vcpus)
        running = account.running() if wanted else {}
        for code, (name, vcpus) in wanted.items():
            limit, used = account.quota(code), _used(running, code)
            text = f"{vcpus} vCPUs wanted and {used} in use of {limit:g}{_uncounted(running, kind)}"
            if used + vcpus <= limit:
                yield Checked(f"quota {code}", text)
            else:
                yield Checked(
                    f"quota {code}", text, Evidence("account", f"{name} ({code})", f"{text} of the quota", "quota")
                )
        if not wanted:
            yield Checked("quotas", "the nodes are there, or come from a reservation")

    return _asked("quotas", ask)


def _groups(plan: AnyPlan, account: Account) -> tuple[Part, ...]:
    return account.node_groups(plan.names.cluster) if account.cluster(plan.names.cluster) else ()


def _uncounted(running: Mapping[str, int], kind: str) -> str:
    """What the figure leaves out, in words."""
    if kind == "spot":
        return " (spot instances that run already are not counted)"
    known = {**catalogue.GPU_INSTANCES, **catalogue.CPU_INSTANCES}
    others = sum(count for name, count in running.items() if name not in known)
    return f" ({others} instances of other types than the catalogue's are not counted)" if others else ""


def _used(running: Mapping[str, int], code: str) -> int:
    rows = {**catalogue.GPU_INSTANCES, **catalogue.CPU_INSTANCES}
    return sum(
        count * rows[name].vcpus for name, count in running.items() if name in rows and rows[name].quota_code == code
    )


def _reserved(plan: AnyPlan, account: Account, now: datetime) -> Iterator[Checked]:
    if isinstance(plan, BasePlan):
        return
    capacity = plan.recipe.hardware.capacity
    if not isinstance(capacity, Odcr | CapacityBlock) or plan.gpu_pool is None:
        return
    wanted = str(capacity.reservation_id)

    def ask() -> Iterator[Checked]:
        found = account.reservation(wanted)
        if found is None:
            text = f"no such reservation in {account.region}: {wanted}"
            yield Checked("reservation", text, Evidence("account", wanted, text))
            return
        problems = list(_misfits(plan, found, block=isinstance(capacity, CapacityBlock)))
        if found.block:
            problems += _window(plan, found, now)
        if not problems:
            until = f", until {found.end:%Y-%m-%d %H:%M} UTC" if found.end else ""
            yield Checked("reservation", f"{wanted}: {found.total} × {found.instance_type} in {found.zone_id}{until}")
        for key, text in problems:
            yield Checked("reservation", text, Evidence("reservation", wanted, text, key))

    yield from _asked("reservation", ask)


def _misfits(plan: Plan, found: Reservation, *, block: bool) -> Iterator[tuple[str, str]]:
    pool, zone = plan.gpu_pool, plan.network.nodes.zone_id
    assert pool is not None
    if found.instance_type != pool.instance_type:
        yield "reservation-misfit", f"reservation is for {found.instance_type}, the stack wants {pool.instance_type}"
    if found.zone_id != zone:
        yield "reservation-misfit", f"reservation is for {found.zone_id}, access.zone_id is {zone}"
    if found.block != block:
        kind = "a Capacity Block" if found.block else "a capacity reservation"
        yield (
            "reservation-misfit",
            f"reservation is for {kind}: hardware.capacity.kind must be {'capacity-block' if found.block else 'odcr'}",
        )
    # Before a block begins, none of it is available; while the stack runs, its own nodes are in it.
    free = found.total if found.state != "active" else max(found.available, 0)
    if free < pool.count and found.state in ("active", "scheduled", "pending", "payment-pending"):
        yield (
            "reservation-misfit",
            f"reservation has {free} of {found.total} instances free, the stack wants {pool.count}",
        )
    if found.state not in ("active", "scheduled", "pending", "payment-pending"):
        yield "block-ends" if found.block else "reservation-misfit", f"reservation has the state {found.state}"


def _window(plan: Plan, found: Reservation, now: datetime) -> Iterator[tuple[str, str]]:
    if found.start and now < found.start:
        yield "block-not-begun", f"block begins {found.start:%Y-%m-%d %H:%M} UTC, in {_time(found.start - now)}"
    if found.end is None:
        return
    left, stop = found.end - now, found.end - EKS_TAKES_NODES
    when = f"{found.end:%Y-%m-%d %H:%M} UTC"
    if left <= timedelta(0):
        yield "block-ends", f"block has ended: {when}"
    elif left <= EC2_STOPS:
        yield "block-ends", f"block ends {when}, in {_time(left)}: EC2 ends its instances now"
    elif left <= EKS_TAKES_NODES:
        yield (
            "block-ends",
            f"block ends {when}, in {_time(left)}: EKS takes its nodes away now, EC2 ends them in {_time(left - EC2_STOPS)}",
        )
    elif max(now, found.start or now) + timedelta(hours=plan.recipe.budget.ttl_hours) > stop:
        yield (
            "block-ends",
            (
                f"block ends {when}, in {_time(left)}; EKS takes its nodes away at {stop:%H:%M}, sooner than budget.ttl_hours "
                f"({plan.recipe.budget.ttl_hours} h)"
            ),
        )


def _time(span: timedelta) -> str:
    minutes = int(span.total_seconds() // 60)
    return (
        f"{minutes} min" if minutes < 120 else f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // 1440} days"
    )


def _reachable(plan: AnyPlan, fetch: reach.Fetch) -> Iterator[Checked]:
    """Images, charts and weights exist where they will be asked for. Without a network nothing is known, and nothing is wrong."""
    # Of a stack on a base, the base has the charts.
    charts = (plan.platform, *plan.devices) if isinstance(plan, BasePlan) or plan.base is None else ()
    found: list[tuple[str, str, Callable[[], str | None]]] = [
        ("chart", f"{chart.chart} {chart.version}", _later(reach.chart, chart, fetch)) for chart in charts
    ]
    if isinstance(plan, Plan):
        model = plan
        found += [("image", image, _later(reach.image, image, fetch)) for image in dict.fromkeys(plan.images.values())]
        what = f"{plan.model.id} at {plan.model.revision[:12]}"
        found.append(("weights", what, lambda: reach.weights(model, _hf_token(model), fetch)))
    rows = {"image": "image-unknown", "chart": "chart-unknown"}
    for kind, what, ask in found:
        try:
            wrong = ask()
        except reach.Unreachable as error:
            yield Checked(f"{kind} {what}", f"not asked: {error}", left_out=True)
            continue
        if wrong is None:
            yield Checked(f"{kind} {what}", "is there")
        else:
            yield Checked(f"{kind} {what}", wrong, Evidence(kind, what, wrong, rows.get(kind, "")))


def _later(ask: Callable[[Any, reach.Fetch], str | None], what: Any, fetch: reach.Fetch) -> Callable[[], str | None]:
    return lambda: ask(what, fetch)


def _hf_token(plan: Plan) -> str | None:
    """The stack's token, where it has one and Pulumi can read it. Never printed."""
    if plan.objects.token_secret is None or shutil.which("pulumi") is None:
        return None
    done = subprocess.run(
        ["pulumi", "config", "get", "hfToken", "--stack", plan.stack, "--non-interactive"],
        capture_output=True, text=True, check=False, cwd=stacks.ROOT, timeout=60,
    )  # fmt: skip
    return done.stdout.strip() or None if done.returncode == 0 else None


# ── after a failure ──────────────────────────────────────────────────────────────────────────────────────────────────


def _holding(report: Report, plan: AnyPlan, account: Account, now: datetime) -> Iterator[Evidence]:
    """What AWS, the state and the cluster say of a deployment that was begun."""
    name = plan.names.cluster
    try:
        cluster = account.cluster(name)
        refusals = account.refusals(now - LOOK_BACK)
        interfaces = account.interfaces(("stack", plan.stack))
        groups, addons = (account.node_groups(name), account.addons(name)) if cluster else ((), ())
    except AwsError as error:
        yield Evidence("refused call", error.asked, str(error))
        return
    report.begun = bool(cluster or refusals or interfaces)
    yield from diagnosis.of_parts(cluster, groups, addons)
    yield from diagnosis.of_refusals(refusals)
    yield from diagnosis.of_interfaces(interfaces, cluster_gone=cluster is None)
    yield from diagnosis.of_state(_state(plan.stack))
    if cluster and cluster.status == "ACTIVE":
        try:
            seen = snapshot(kube_of(account, name), plan.names.namespace, (PLATFORM_NAMESPACE, "kube-system"))
        except (KubeError, AwsError) as error:
            yield Evidence("cluster", name, str(error))
            return
        yield from diagnosis.of_cluster(seen, plan)


def kube_of(account: Account, cluster: str) -> Kube:
    """The API server of an account's cluster. Raises AwsError or KubeError."""
    if isinstance(account, AwsAccount):
        found = account.call("eks", "describe_cluster", name=cluster)["cluster"]
        return HttpKube(found["endpoint"], found["certificateAuthority"]["data"], token(cluster, account.region))
    from ops.aws_pretend import PretendAccount
    from ops.kube_pretend import PretendKube

    assert isinstance(account, PretendAccount)
    return PretendKube(account.folder, cluster)


def _state(stack: str) -> dict[str, Any]:
    """The engine's state, or nothing where it cannot be read: a doctor needs no state."""
    if shutil.which("pulumi") is None:
        return {}
    # In a rehearsal, pulumi works in the session's own project.
    where = Path.cwd() if os.environ.get(PRETEND) else stacks.ROOT
    done = subprocess.run(
        ["pulumi", "stack", "export", "--stack", stack, "--non-interactive"],
        capture_output=True, text=True, check=False, cwd=where, timeout=120,
    )  # fmt: skip
    try:
        found: dict[str, Any] = json.loads(done.stdout)["deployment"]
    except (ValueError, KeyError):
        return {}
    return found


# ── what a person sees ───────────────────────────────────────────────────────────────────────────────────────────────


def text(report: Report) -> str:
    """The report for a terminal or a log."""
    lines = [f"{report.stack}: before paying"]
    lines += [f"  {one.mark:<2} {one.what}: {one.says}" for one in report.checked]
    findings = report.findings
    if report.begun or report.holding:
        lines += ["", "what holds it" if report.holding else "nothing holds it"]
    for number, finding in enumerate(findings, 1):
        lines += ["", f"{number}. {finding.symptom.title}", f"   {finding.symptom.cause}"]
        lines += [f"     {one.source} {one.thing}: {one.text}" for one in finding.evidence[:4]]
        if (more := len(finding.evidence) - 4) > 0:
            lines.append(f"     and {more} more")
        lines.append(f"   Do: {finding.fix}")
    lines += [
        "",
        "nothing is wrong"
        if not findings
        else f"{len(findings)} found, what causes others first (docs/troubleshooting.md)",
    ]
    return "\n".join(lines)
