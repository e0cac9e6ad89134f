"""`ops tune`: a question about a stack, the search, the layouts the Plan accepts, and what is written of the best."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

from ops import stacks, tune_tool
from ops.exits import BAD_INPUT, FAILED, CommandError
from ops.tune_file import text
from ops.variants import GPUS
from recipe.config import Base, Recipe, parse
from recipe.predictions import Judged, Prediction, Replayed, read, replaced, write
from recipe.scripts import trace as traces
from recipe.stack_file import read_base
from recipe.tuning import Accepted, Answer, Backend, Question, accept, first_accepted, layouts, of_recipe, with_room

Say = Callable[[str], None]


@dataclass(frozen=True)
class Traffic:
    """Lengths in tokens, limits in ms."""

    name: str
    isl: int
    osl: int
    ttft_ms: float
    itl_ms: float
    shared_prefixes: bool = False


FIXED: Final = Traffic("fixed", 4000, 500, 2000, 30)
TRACE: Final = Traffic("trace", 12000, 343, 5000, 30, shared_prefixes=True)
"""Means of the published conversation trace (facts: simulation.md, section 5)."""


@dataclass(frozen=True)
class Shipped:
    """A model of ours: the stack that a tuned one takes everything else from, GPUs, and the names of its layouts."""

    base: str
    gpus: int
    recipes: tuple[str, ...]
    name: str


SHIPPED: Final = (
    Shipped("qwen3-32b-disagg", 16, ("qwen3-32b-agg", "qwen3-32b-disagg"), "qwen3-32b"),
    Shipped("qwen3-32b-fp8-disagg", 8, ("qwen3-32b-fp8-agg", "qwen3-32b-fp8-disagg"), "qwen3-32b-fp8"),
    Shipped(
        "qwen3-235b-a22b-fp8-agg",
        16,
        ("qwen3-235b-a22b-fp8-agg", "qwen3-235b-a22b-fp8-disagg"),
        "qwen3-235b-a22b-fp8",
    ),
)
"""All layouts of a model are judged with the KV cache type of its `base`: 235B's disagg recipe has fp8, and is judged in bfloat16 here."""
CLOSE: Final = 0.98
"""Layouts within so much of the best are as good as it, as far as an estimate can tell; a replay chooses among them."""
ROOM: Final = (1, 2, 4)
"""Times the answer's batch that are replayed: the estimate's requests come evenly, a trace's in bursts, and who waits for a place is late."""
WORSE: Final = 0.9
"""A layout that keeps fewer than this share of what the recipe's own keeps, both replayed, is not taken, however good the estimate."""
MANY: Final = 8
"""Layouts that are kept for a replay to choose from."""


@dataclass(frozen=True)
class Found:
    """A row of the table, and the recipe behind its tuned layout; None where the Plan takes no layout within the limits."""

    row: Prediction
    accepted: Accepted | None
    more: tuple[Accepted, ...]
    answer: Answer
    shipped: tuple[Accepted, ...] = ()
    """The shipped layouts, tuned in everything else like the found one."""
    foundation: Base | None = None


def load(stack: str, settings: list[str]) -> tuple[Recipe, Base | None]:
    """A stack's recipe, and the base it is on."""
    file = stacks.load(stack)
    recipe = parse(stacks.with_settings(file.raw, settings), f"stacks/{file.path.name}")
    return recipe, read_base(recipe, file.path.parent)


def question_of(recipe: Recipe, gpu: str, gpus: int, traffic: Traffic) -> Question:
    """What to ask about a recipe. Raises CommandError for an engine that the search knows nothing of."""
    if recipe.engine not in ("vllm", "trtllm"):
        raise CommandError(f"engine {recipe.engine} has no performance to search", "name a stack on GPUs", BAD_INPUT)
    backend: Backend = recipe.engine
    return Question(
        model=recipe.model,
        backend=backend,
        system=f"{gpu}_sxm",
        gpus=gpus,
        isl=traffic.isl,
        osl=traffic.osl,
        ttft_ms=traffic.ttft_ms,
        itl_ms=traffic.itl_ms,
        shared_prefixes=traffic.shared_prefixes,
        kv_cache_dtype="fp8" if recipe.engine_tuning.kv_cache_dtype == "fp8" else "auto",
    )


def search(
    base_stack: str,
    recipes: tuple[str, ...],
    gpu: str,
    gpus: int | None,
    traffic: Traffic,
    say: Say,
    *,
    name: str,
    many: int = 1,
    settings: list[str] | None = None,
) -> Found:
    """Ask, judge the shipped layouts, and find the best that the Plan accepts."""
    recipe, foundation = load(base_stack, [*(settings or []), f"hardware.gpu={gpu}", "hardware.instance_type="])
    own_gpus = sum(pool.replicas * pool.gpus for pool in recipe.workers.values())
    question = question_of(recipe, gpu, gpus or own_gpus, traffic)
    answer = tune_tool.ask(question, say)
    if answer.failed and not answer.free:
        raise CommandError(f"the search found nothing: {'; '.join(answer.failed.values())}", "looser limits", FAILED)
    judged, outside = [], []
    for stack in recipes:
        layout = of_recipe(question, answer, load(stack, [])[0])
        if layout:
            judged.append(Judged(stack=stack, tuned=False, layout=layout))
        else:
            outside.append(stack)
    accepted, refused = first_accepted(name, recipe, question, layouts(question, answer), foundation, many=many)
    shipped = [accept(name, recipe, question, one.layout, foundation) for one in judged]
    best = accepted[0] if accepted else None
    if best:
        judged.append(Judged(stack=name, tuned=True, layout=best.layout))
    row = Prediction(
        gpu=gpu,
        traffic=traffic.name,
        question=question,
        judged=tuple(judged),
        out_of_limits=tuple(outside),
        optimum={mode: free.tokens_per_s_gpu for mode, free in answer.free.items()},
        optimum_layout={
            mode: " + ".join(f"{pool.replicas} x {pool} batch {pool.batch}" for pool in free.pools.values())
            for mode, free in answer.free.items()
        },
        tool=answer.tool,
        database=f"{question.backend} {answer.version}",
        refused=dict(list(refused.items())[:5]),
        on=answer.on or datetime.now(UTC).date(),
        machine=answer.machine,
        seconds=answer.seconds,
        memory_mib=answer.memory_mib,
    )
    kept = tuple(one for one in shipped if isinstance(one, Accepted))
    return Found(row, best, tuple(accepted[1:]), answer, kept, foundation)


def tune_one(
    stack: str,
    traffic: Traffic,
    say: Say,
    *,
    gpu: str | None = None,
    gpus: int | None = None,
    name: str | None = None,
    settings: list[str] | None = None,
    trace: TraceText | None = None,
) -> tuple[Found, Path | None]:
    """One stack: search, replay the best against the trace where there is one, write the file and its row."""
    recipe, _ = load(stack, settings or [])
    gpu = gpu or recipe.hardware.gpu
    if gpu is None:
        raise CommandError(f"{stack} names no GPU", f"--gpu {'|'.join(GPUS)}", BAD_INPUT)
    shipped = next((one for one in SHIPPED if stack in one.recipes), None)
    recipes = shipped.recipes if shipped else (stack,)
    name = name or f"{stack}-tuned"
    found = search(stack, recipes, gpu, gpus, traffic, say, name=name, many=MANY, settings=settings)
    if found.accepted is None:
        return found, None
    if trace is not None:
        found = replayed(found, name, trace, say)
    assert found.accepted is not None
    path = write_file(name, found.accepted, [found.row], stack)
    write(replaced(read(), found.row))
    return found, path


SEED: Final = 100
TRACE_PART: Final = 4
"""A quarter of the generated trace is what the shipped stacks are replayed against."""


@dataclass(frozen=True)
class TraceText:
    """A trace in Mooncake's format (recipe/scripts/trace.py), and where it is from."""

    text: str
    origin: str

    @classmethod
    def read(cls, path: Path) -> TraceText:
        """A file that holds at least one request. Raises CommandError."""
        try:
            found = cls(path.read_text(encoding="utf-8"), path.name)
            requests = traces.read(found.text)
        except OSError as error:
            raise CommandError(f"{path} cannot be read: {error.strerror}", "name a trace file", BAD_INPUT) from None
        except ValueError as error:
            hint = "one object per line with timestamp, input_length, output_length and hash_ids"
            raise CommandError(f"{path}: {error}", hint, BAD_INPUT) from None
        if not requests:
            raise CommandError(f"{path} has no request in it", "name a trace file", BAD_INPUT)
        return found

    def traffic(self, ttft_ms: float, itl_ms: float) -> Traffic:
        """What is searched for: the mean lengths."""
        shape = traces.shape(traces.read(self.text))
        return Traffic(
            self.origin, round(shape.mean_input), round(shape.mean_output), ttft_ms, itl_ms, shared_prefixes=True
        )


def generated_trace() -> TraceText:
    """The beginning of a trace of the published one's shape, the same every time."""
    requests = traces.generated(SEED)
    part = requests[: len(requests) // TRACE_PART]
    return TraceText(traces.text_of(part), f"the first {len(part):,} requests of a generated conversation trace")


def replayed(found: Found, name: str, trace: TraceText, say: Say) -> Found:
    """The candidates that are close to the best, by the goodput of an offline replay of the trace, router in the loop; equal ones in the search's order.

    In whole per cent: with the kv router a replay is a draw that moves by one or two (facts: simulation.md, section 6). Each is replayed with
    its own batch and with room for bursts (`ROOM`). Where all of them keep clearly fewer requests than the recipe's own layout does (`WORSE`),
    the rest is replayed as well and the best of everything is taken, the recipe's own among it.

    Where the replay cannot be run the search's own order stands, and that is said.
    """
    from rehearsal.errors import SetupError
    from rehearsal.serving.replay import Limits, Replay, Trace, replay

    assert found.accepted is not None
    question = found.row.question
    traffic, limits = Trace(trace.text, trace.origin), Limits(question.ttft_ms, question.itl_ms)
    results: dict[str, Replayed] = {}

    def ranked(candidates: Iterable[Accepted]) -> list[tuple[float, Accepted]]:
        """Goodput as a share, and which; the best first."""
        tried: list[tuple[float, Accepted]] = []
        for one in candidates:
            for times in ROOM:
                wide = with_room(one, times, found.foundation)
                key = f"{one.layout}{f' with {times} x the batch' if times > 1 else ''}"
                if wide is None or key in results:
                    continue
                say(f"replaying {trace.origin} against {key}")
                result: Replay = replay(wide.plan, traffic, limits, say=say)
                results[key] = Replayed.of(result)
                tried.append((round(result.goodput_share or 0.0, 2), wide))
        return sorted(tried, key=lambda pair: -pair[0])

    # Of one mode only: replay and live mock engines disagree about agg against disagg, so neither decides that alone.
    mode = found.accepted.layout.mode
    others = [one for one in found.more if one.layout.mode == mode]
    least = found.accepted.layout.tokens_per_s_gpu * CLOSE
    near = [found.accepted, *(one for one in others if one.layout.tokens_per_s_gpu >= least)]
    try:
        order = ranked(near)
        # Replayed last, or it would count as one of the near ones where it is.
        shipped = ranked(one for one in found.shipped if one.layout.mode == mode)
        if shipped and order[0][0] < shipped[0][0] * WORSE:
            say(
                f"they keep {order[0][0]:.0%} of the requests within the limits, the recipe's own layout {shipped[0][0]:.0%}: looking further"
            )
            order = sorted([*order, *ranked(others), *shipped], key=lambda pair: -pair[0])
    except SetupError as error:
        say(f"not replayed: {error}")
        return found
    best = order[0][1]
    judged = (
        *(one for one in found.row.judged if not one.tuned),
        Judged(stack=name, tuned=True, layout=best.layout),
    )
    row = found.row.model_copy(update={"judged": judged, "replays": results})
    rest: dict[str, Accepted] = {}
    for _, one in order:
        if one.layout != best.layout:
            rest.setdefault(str(one.layout), one)
    return replace(found, row=row, accepted=best, more=tuple(rest.values()))


def write_file(name: str, accepted: Accepted, rows: list[Prediction], base: str) -> Path:
    """The stack file, beside the others."""
    path = stacks.FOLDER / f"Pulumi.{name}.yaml"
    path.write_text(text(name, accepted.recipe, accepted.plan, rows, base), encoding="utf-8")
    return path


def tune_all(say: Say) -> tuple[Prediction, ...]:
    """Every model, GPU and traffic that is shipped: a file each, and the table."""
    rows: list[Prediction] = []
    text_of_trace = generated_trace()
    for shipped in SHIPPED:
        for traffic in (FIXED, TRACE):
            for gpu in GPUS:
                middle = "-tuned" if traffic is FIXED else "-tuned-trace"
                name = f"{shipped.name}{middle}-{gpu}"
                many = 1 if traffic is FIXED else MANY
                found = search(shipped.base, shipped.recipes, gpu, shipped.gpus, traffic, say, name=name, many=many)
                if found.accepted and traffic is TRACE:
                    found = replayed(found, name, text_of_trace, say)
                rows.append(found.row)
                if found.accepted:
                    write_file(name, found.accepted, [found.row], shipped.base)
    write(tuple(rows))
    return tuple(rows)


# ── shown ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def as_data(found: Found, path: Path | None) -> dict[str, Any]:
    """For --json."""
    return {
        "predicted": True,
        "file": str(path) if path else None,
        "row": found.row.model_dump(mode="json"),
        "next_best": [one.layout.model_dump(mode="json") for one in found.more],
    }


def ratio(row: Prediction) -> tuple[float | None, float | None]:
    """Tuned against the best recipe, and against the free optimum."""
    if row.tuned is None:
        return None, None
    value = row.tuned.layout.tokens_per_s_gpu
    return (value / row.recipe.layout.tokens_per_s_gpu if row.recipe else None), (
        value / row.best if row.best else None
    )


def newest(rows: tuple[Prediction, ...]) -> date:
    """Day of the newest row."""
    return max(row.on for row in rows)
