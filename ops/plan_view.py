"""A plan for people: nodes, placement, memory, money, warnings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import typer
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ops import cold_start
from ops.overview import Row
from ops.plan_data import efa_per_node
from ops.resources import rooms
from ops.variants import Variant
from recipe import catalogue
from recipe.cold_start import node_holders, storage_words
from recipe.config import Role
from recipe.errors import RecipeError
from recipe.plan import BasePlan, CostLine, FoundationPlan, GpuPool, Plan
from recipe.predictions import Shown, gaps, of_plan
from recipe.timeline import timeline

STYLES: Final[dict[Role, str]] = {"worker": "green", "prefill": "cyan", "decode": "magenta"}
_BAR: Final = 20


def console(*, stderr: bool = False) -> Console:
    """rich's console; wide enough for our tables where there is no terminal to ask."""
    found = Console(stderr=stderr, highlight=False)
    if not found.is_terminal and "COLUMNS" not in found._environ:
        found.width = 140
    return found


def show(*parts: RenderableType) -> None:
    """Print; into a file or a pipe without colours and trailing blanks."""
    screen = console()
    if screen.is_terminal:
        screen.print(*parts, sep="\n")
        return
    with screen.capture() as captured:
        screen.print(*parts, sep="\n")
    typer.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def render(
    plan: Plan | BasePlan, fixes: dict[str, str], warnings: Sequence[str], *, whole_start: bool = False
) -> RenderableType:
    """Everything `ops plan` shows. `whole_start`: of the cold start not only its path."""
    return Group(*_sections(plan, fixes, warnings, whole_start=whole_start))


def _sections(
    plan: Plan | BasePlan, fixes: dict[str, str], warnings: Sequence[str], *, whole_start: bool
) -> Iterator[RenderableType]:
    yield _base_head(plan) if isinstance(plan, BasePlan) else _head(plan)
    if isinstance(plan, Plan):
        yield from _section("Workers, when resumed" if plan.paused else "Workers", _workers(plan))
        if plan.gpu_pool:
            yield from _section("GPU nodes", *_gpu_nodes(plan, plan.gpu_pool))
            yield from _section("GPU memory, GiB per GPU", _gpu_memory(plan))
    yield from _section("CPU nodes: requests of what the kubelet leaves", _cpu_nodes(plan))
    if isinstance(plan, Plan):
        on = "Caches, on EFS and FSx for Lustre" if plan.storage.lustre else "Caches, on EFS"
        yield from _section(on, _caches(plan))
    yield from _section("Cost", *_cost(plan))
    if isinstance(plan, Plan) and (rows := of_plan(plan)):
        yield from _section(
            "Predicted, not measured: under full load within the limits",
            *predicted(rows, gaps(plan.model.id, plan.recipe.engine)),
        )
    if isinstance(plan, Plan) and plan.base:
        yield Text(beside(plan.base), style="bold")
    if isinstance(plan, Plan):
        yield from _section("Cold start: what `pulumi up` waits for (computed)", *_path(plan, whole=whole_start))
        if whole_start and plan.gpu_pool:
            yield from _section("Knobs of it, and what the other choice changes (computed)", *_knobs(plan))
            yield from _section("Ours beside upstream's order (computed)", *_orders(plan))
            yield from _section("Where the weights could be (computed)", *_storages(plan))
    yield from _section("Resources, in order", _resources(plan))
    if plan.placeholders:
        yield from _section(
            "Placeholders: `pulumi preview` and `up` stop until you set them", *_placeholders(plan, fixes)
        )
    if plan.notes:
        yield from _section("Good to know", *(Text(note) for note in plan.notes))
    shown = [warning for warning in warnings if not warning.endswith("is a documentation placeholder")]
    if shown:
        yield from _section("Warnings", *(Text(f"! {warning}", style="yellow") for warning in shown))


def beside(base: BasePlan) -> str:
    """What a base costs, said next to a stack on it."""
    return (
        f"beside it stack {base.stack}, its base: ${base.cost.usd_per_hour:,.2f} an hour, once for all stacks on it (python -m ops plan {base.stack}); "
        "weights that are on it already are neither downloaded nor written again"
    )


PREDICTED_FIGURES: Final = ("TTFT ms", "ITL ms", "tokens/s/GPU", "goodput req/s", "$/M tokens out")
PREDICTED_HEAD: Final = ("traffic, limits in ms", "stack", "layout", *PREDICTED_FIGURES)


def predicted_cells(row: Shown) -> tuple[str, ...]:
    """A line of the table, as `PREDICTED_HEAD` says."""
    return (
        row.traffic,
        f"{row.stack}{' (tuned)' if row.tuned else ''}{', this layout' if row.own else ''}",
        row.layout,
        f"{row.ttft_ms:.0f}",
        f"{row.itl_ms:.1f}",
        f"{row.tokens_per_s_gpu:,.1f}",
        f"{row.goodput_per_s:,.2f}",
        "-" if row.usd_per_million_tokens is None else f"{row.usd_per_million_tokens:,.2f}",
    )


def predicted(rows: Sequence[Shown], weak: Sequence[str]) -> Iterator[RenderableType]:
    """Recipe beside tuned, for each traffic that was asked about; then where it comes from and what it does not know."""
    table = new_table(*PREDICTED_HEAD, right=PREDICTED_FIGURES)
    traffic = ""
    for row in rows:
        _, *cells = predicted_cells(row)
        table.add_row("" if row.traffic == traffic else row.traffic, *cells)
        traffic = row.traffic
    yield table
    for source in dict.fromkeys(row.source for row in rows):
        yield Text(f"by {source}", style="dim")
    for gap in weak:
        yield Text(f"! {gap}", style="yellow")


def _section(title: str, *body: RenderableType) -> Iterator[RenderableType]:
    yield Text()
    yield Text(title, style="bold")
    yield from body


def new_table(*columns: str, right: Sequence[str] = ()) -> Table:
    """An empty table in the style of all ours; columns named in `right` are figures."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1), header_style="dim")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left")
    return table


def _facts(rows: Sequence[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column()
    for row in rows:
        table.add_row(*row)
    return table


def _base_head(plan: BasePlan) -> RenderableType:
    rows = [
        ("base", "network, cluster, caches, platform and device plugins, for the model stacks on it"),
        ("CPU nodes", f"{plan.cpu_pool.count} × {plan.cpu_pool.instance_type}"),
        *_where(plan),
    ]
    return Group(_title(plan), _facts(rows))


def _title(plan: FoundationPlan) -> Text:
    cost = plan.cost
    return Text(
        f"{plan.stack}: ${cost.usd_per_hour:,.2f} an hour, ${cost.usd_for_ttl:,.2f} for {cost.ttl_hours} h",
        style="bold",
    )


def _where(plan: FoundationPlan) -> list[tuple[str, str]]:
    zones = f"zone {plan.network.nodes.zone_id}; control plane also in {plan.network.control_plane.zone_id}"
    return [
        ("where", f"{plan.recipe.access.region}, {zones}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in plan.versions.items())),
    ]


def _head(plan: Plan) -> RenderableType:
    recipe = plan.recipe
    pools = " + ".join(f"{pool.replicas} {pool.role}" for pool in plan.workers)
    rows = [
        ("model", f"{plan.model.id} at {plan.model.revision}, {_cached(plan)}"),
        ("serving", f"{recipe.engine}, {recipe.mode}: {pools}; {recipe.router.mode} router"),
        ("GPU nodes", _gpu_pool(plan)),
        ("CPU nodes", f"{plan.cpu_pool.count} × {plan.cpu_pool.instance_type}"),
        *_where(plan),
        ("starts", _first_token(plan)),
    ]
    if plan.base:
        rows.append(("on the base", f"{plan.base.stack}, cluster {plan.names.cluster}"))
    return Group(_title(plan), _facts(rows))


def _cached(plan: Plan) -> str:
    model = plan.model
    if model.cached_bytes < model.weight_bytes:
        return f"tokenizer and configuration only, {model.cached_bytes / 1e6:.0f} MB"
    return f"{model.cached_bytes / 1e9:.1f} GB"


def _gpu_pool(plan: Plan) -> str:
    gpu = plan.gpu_pool
    if gpu is None and plan.paused:
        return "none: paused"
    if gpu is None:
        return f"none: engine {plan.recipe.engine} runs on the CPU nodes"
    kind = plan.recipe.hardware.capacity.kind
    return (
        f"{gpu.count} × {gpu.instance_type} ({kind}), {plan.gpus} GPUs used, "
        f"{len(gpu.nics)} NICs of which {efa_per_node(plan)} EFA per node"
    )


def _first_token(plan: Plan) -> str:
    found = timeline(plan)
    if found.minutes_to_first_token is None:
        return "not while paused"
    assumed = f"; {len(found.assumptions)} of the durations on its way are assumptions" if found.assumptions else ""
    where = "on the base, with the weights to download" if plan.base else "in an empty account"
    return f"first token about {found.minutes_to_first_token:.0f} minutes after `pulumi up` {where} (computed{assumed})"


def _workers(plan: Plan) -> Table:
    table = new_table(
        "role",
        "replicas",
        "TP",
        "DP",
        "EP",
        "GPUs",
        "EFA",
        "KV tokens",
        "image",
        right=("replicas", "TP", "DP", "EP", "GPUs", "EFA", "KV tokens"),
    )
    for pool in plan.workers:
        counts = (pool.replicas, pool.tensor_parallel, pool.data_parallel, pool.expert_parallel, pool.gpus, pool.efa)
        table.add_row(
            Text(pool.role, style=STYLES[pool.role]), *map(str, counts), f"{pool.kv_cache_tokens:,}", pool.image
        )
    return table


def _gpu_nodes(plan: Plan, pool: GpuPool) -> Iterator[RenderableType]:
    size = {worker.role: worker.gpus for worker in plan.workers}
    total, efa = _gpus_per_node(pool), efa_per_node(plan)
    for node in plan.placement.gpu_nodes:
        boxes = [(role, size[role]) for role, count in node.workers.items() for _ in range(count)]
        yield Group(
            *_boxes(
                boxes,
                total - node.gpus_used,
                f"{node.node}: {node.gpus_used} of {total} GPUs, {node.efa_used} of {efa} EFA",
            )
        )
    letters = ", ".join(f"{role[0].upper()} {role}" for role in size)
    yield Text(f"one cell per GPU, one box per worker: {letters}", style="dim")


def _gpus_per_node(pool: GpuPool) -> int:
    """From the device plugin's point of view: what one node of the pool offers."""
    return catalogue.gpu_instance(pool.instance_type).gpus


def _boxes(workers: Sequence[tuple[Role, int]], free: int, label: str) -> Iterator[Text]:
    """Three lines: ┌─┬─┐ / │P│P│ / └─┴─┘ for each worker, and its colour."""
    lines = [Text(), Text(), Text()]
    cells: list[tuple[str, int, str]] = [(role[0].upper(), gpus, STYLES[role]) for role, gpus in workers]
    cells += [("·", 1, "dim")] * free
    for letter, gpus, style in cells:
        lines[0].append("┌" + "┬".join(["───"] * gpus) + "┐", style)
        lines[1].append("│" + "│".join([f" {letter} "] * gpus) + "│", style)
        lines[2].append("└" + "┴".join(["───"] * gpus) + "┘", style)
    lines[1].append(f"  {label}")
    yield from lines


def _gpu_memory(plan: Plan) -> Table:
    columns = ("total", "usable", "− weights", "− overhead", "= KV cache", "tokens per worker")
    table = new_table("role", *columns, right=columns)
    for one in plan.placement.gpu_memory:
        amounts = (one.total_gib, one.usable_gib, one.weights_gib, one.overhead_gib, one.kv_gib)
        table.add_row(
            Text(one.role, style=STYLES[one.role]), *(f"{amount:.1f}" for amount in amounts), f"{one.kv_tokens:,}"
        )
    return table


def _cpu_nodes(plan: FoundationPlan) -> Table:
    table = new_table("node", "CPU", "memory", "pods")
    for node in plan.placement.cpu_nodes:
        cpu = f"{_bar(node.cpu_millis, node.cpu_millis_allocatable)} {node.cpu_millis / 1000:.1f} of {node.cpu_millis_allocatable / 1000:.1f}"
        memory = f"{_bar(node.memory_mib, node.memory_mib_allocatable)} {node.memory_mib / 1024:.0f} of {node.memory_mib_allocatable / 1024:.0f} GiB"
        table.add_row(node.node, cpu, memory, ", ".join(node.pods))
    return table


def _bar(used: float, total: float) -> str:
    filled = min(_BAR, round(_BAR * used / total)) if total else 0
    return "█" * filled + "░" * (_BAR - filled)


def _caches(plan: Plan) -> Table:
    table = new_table("claim", "in pods at", "nominal GiB", right=("nominal GiB",))
    for claim in plan.storage.claims:
        table.add_row(claim.name, claim.mount, str(claim.size_gib))
    return table


def _cost(plan: FoundationPlan) -> Iterator[RenderableType]:
    cost = plan.cost
    notes: dict[tuple[str, str], int] = {}
    amounts = ("quantity", "$ each", "$/h", "$ per start")
    table = new_table("position", *amounts, "price of", right=amounts)
    for line in cost.lines:
        table.add_row(*_cost_row(line, notes))
    table.add_section()
    table.add_row(
        Text("total", style="bold"),
        "",
        "",
        Text(f"{cost.usd_per_hour:,.2f}", style="bold"),
        f"{cost.usd_once:,.2f}",
        "",
    )
    yield table
    yield Text(f"{cost.ttl_hours} h (budget.ttl_hours) and one start: ${cost.usd_for_ttl:,.2f}", style="bold")
    for (source, _), number in notes.items():
        yield Text(f"[{number}] {source}", style="dim")


def _cost_row(line: CostLine, notes: dict[tuple[str, str], int]) -> tuple[str, ...]:
    number = notes.setdefault((line.source, line.as_of), len(notes) + 1)
    per_hour = f"{line.usd_per_hour:,.2f}" if line.usd_per_hour else ""
    once = f"{line.usd_once:,.2f}" if line.usd_once else ""
    return line.what, f"{line.quantity:g}", f"{line.unit_usd:g}", per_hour, once, f"{line.as_of} \\[{number}]".strip()


def _path(plan: Plan, *, whole: bool) -> Iterator[RenderableType]:
    found = timeline(plan)
    table = new_table("step", "from–to, min", "minutes", "$", "paid for meanwhile", right=("minutes", "$"))
    for row in cold_start.path_rows(found):
        table.add_row(*row)
    table.add_section()
    end = found.critical_path[-1].end / 60
    table.add_row(Text("together", style="bold"), "", f"{end:.1f}", f"{found.usd:.2f}", "")
    yield table
    if found.gpu_idle:
        yield Text(cold_start.idle_line(found.gpu_idle, found), style="bold")
    more = "" if whole else f"; knobs, sources and upstream's order: python -m ops plan {plan.stack} --cold-start"
    yield Text(f"~ with a duration that is an assumption{more}", style="dim")
    if whole:
        keys = dict.fromkeys(key for step in found.critical_path for key in step.rows)
        for key in keys:
            if key in catalogue.DURATIONS:
                known = catalogue.duration(key)
                mark = "~ " if known.assumption else ""
                yield Text(f"{mark}{key}: {found.seconds_by_row[key]:.0f} s, {found.source(key)}", style="dim")
        for need in node_holders(plan):
            yield Text(f"a GPU node needs {need}", style="dim")


def _knobs(plan: Plan) -> Iterator[RenderableType]:
    figures = ("minutes", "idle GPU $", "all $")
    table = new_table("knob", "as it is", "the other", *figures, "because", right=figures)
    for row in cold_start.knob_rows(plan):
        table.add_row(*row)
    yield table


def _orders(plan: Plan) -> Iterator[RenderableType]:
    table = new_table(*cold_start.HEADER[1:], right=cold_start.HEADER[2:])
    for row in cold_start.compared_rows([plan]):
        table.add_row(*row[1:])
    yield table
    yield from (Text(note, style="dim") for note in cold_start.SAID)


def _storages(plan: Plan) -> Iterator[RenderableType]:
    figures = ("new in, min", "read in, s", "GPU $ meanwhile", "$ for reading", "$/h")
    table = new_table("storage", *figures, right=figures)
    for row in cold_start.storage_rows(plan):
        table.add_row(*row)
    yield table
    yield Text(f"storage.model of this stack: {storage_words(plan.storage.lustre)} (docs/cold-start.md)", style="dim")


def cold_starts_view(plans: Sequence[Plan]) -> RenderableType:
    """For `ops plan --all --cold-start`."""
    table = new_table(*cold_start.HEADER, right=cold_start.HEADER[2:])
    for row in cold_start.compared_rows(plans):
        table.add_row(*row)
    notes = (*cold_start.SAID, *cold_start.verdicts(plans))
    return Group(table, Text(), *(Text(note, style="dim") for note in notes))


def _resources(plan: Plan | BasePlan) -> Table:
    table = new_table("room", "resources", "when", right=("resources",))
    for room in rooms(plan):
        table.add_row(room.name, str(room.count), room.why_here)
    return table


def _placeholders(plan: FoundationPlan, fixes: dict[str, str]) -> Iterator[Text]:
    for path in plan.placeholders:
        yield Text(path, style="yellow")
        yield Text(f"  {fixes.get(path, '')}", no_wrap=True, overflow="ignore")


def overview_view(
    rows: Sequence[Row], notes: Sequence[str], misfits: Sequence[tuple[Variant, RecipeError]]
) -> RenderableType:
    """One line per stack and GPU, for `ops plan --all`."""
    figures = ("GPUs", "$/h", "first token, min")
    table = new_table("stack", "model", "serving", "GPU", "GPU nodes", *figures, right=figures)
    last = None
    for row in rows:
        plan = row.plan
        # The same words in every line of a stack would hide what differs.
        named = (plan.stack, plan.model.id, f"{plan.recipe.engine} {plan.recipe.mode}")
        shown = named if plan.stack != last else ("", "", "")
        last = plan.stack
        table.add_row(*shown, row.gpu, row.nodes, str(plan.gpus), row.usd_per_hour, row.minutes)
    refused = [
        Text(f"{one.stack} does not fit {one.gpu}: {error.problems[0].reason}", style="yellow")
        for one, error in misfits
    ]
    return Group(table, Text(), *refused, *(Text(note, style="dim") for note in notes))


def failure(message: Any, next_step: str) -> Text:
    """An error for a person."""
    return Text.assemble((f"{message}", "red"), "\n", ("Next: ", "bold"), next_step)
