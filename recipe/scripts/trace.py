"""Traces of requests in Mooncake's format: the published conversation trace cut to what is asked for, or a generated one of its shape.

A line is {"timestamp": ms, "input_length": tokens, "output_length": tokens, "hash_ids": [block, …]}, a block being 512 tokens of
the prompt: equal ids from the beginning on are an equal beginning of the prompt. Standard library only; the same seed gives the
same trace on every machine.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

BLOCK = 512
"""Tokens of a block (facts/simulation.md §3: `block_size: 512` for this trace)."""
# The published trace (facts/simulation.md §3, facts/dynamo.md §6).
REQUESTS = 12_031
SECONDS = 59 * 60
MEAN_INPUT = 12_035.0
MEAN_OUTPUT = 343.0
REUSE = 0.366
LONGEST_INPUT, LONGEST_OUTPUT = 126_000, 2_000
"""Ours: the longest that still fit a context of 131,072 tokens together."""
TICK_MS = 3_000
"""The published timestamps come in steps of three seconds, so requests arrive in bursts. Ours do, too."""

_INPUT_SPREAD, _OUTPUT_SPREAD = 1.05, 0.9
"""Of the logarithm, a guess at the published distributions: from under 1,000 to over 100,000 tokens in."""
_THINKING_MS = 10_000
"""A conversation goes on no sooner than this after its last request."""
_CHOICES, _BACK = 6, 2_000
"""A request goes on with the longest fitting one of this many earlier ones, at most so far back."""


@dataclass(frozen=True)
class Request:
    """One line of a trace."""

    timestamp: int
    """Milliseconds since the first request."""
    input_length: int
    output_length: int
    hash_ids: tuple[int, ...]


@dataclass(frozen=True)
class Shape:
    """What a trace is like. `reuse`: share of blocks that some earlier request began with as well (an infinite cache)."""

    requests: int
    seconds: float
    mean_input: float
    mean_output: float
    reuse: float


def generated(seed: int, scale: float = 1.0) -> list[Request]:
    """A trace of the published one's shape, `scale` times as long: the same rate of arrivals, lengths and reuse."""
    rng = random.Random(seed)
    count = max(1, round(REQUESTS * scale))
    slots = max(1, round(SECONDS * scale * 1000 / TICK_MS))
    times = sorted(int(rng.random() * slots) * TICK_MS for _ in range(count))
    times = [time - times[0] for time in times]
    inputs = _lengths(rng, count, MEAN_INPUT, _INPUT_SPREAD, BLOCK, LONGEST_INPUT)
    outputs = _lengths(rng, count, MEAN_OUTPUT, _OUTPUT_SPREAD, 1, LONGEST_OUTPUT)
    blocks = [math.ceil(length / BLOCK) for length in inputs]
    parents, shared = [-1] * count, [0] * count
    for index in range(count):
        ready = bisect_right(times, times[index] - _THINKING_MS, 0, index)
        choices = [ready - 1 - int(rng.random() * min(ready, _BACK)) for _ in range(_CHOICES)] if ready else []
        # Whole blocks only, and at least one of its own: the rest of a block would have to be shared as well.
        room = (inputs[index] - 1) // BLOCK
        fitting = [
            (min(inputs[choice] // BLOCK, room), choice) for choice in choices if inputs[choice] // BLOCK <= room
        ]
        if fitting:
            shared[index], parents[index] = max(fitting)
    goes_on = _enough(rng, shared, blocks)
    found: list[Request] = []
    fresh = 1
    for index in range(count):
        common = [0] if index and blocks[index] > 1 else []  # every prompt of the published trace begins alike
        ids = list(found[parents[index]].hash_ids[: shared[index]]) if goes_on[index] else common
        if not ids:
            ids = [0]
        new = blocks[index] - len(ids)
        ids += range(fresh, fresh + new)
        fresh += max(0, new)
        found.append(Request(times[index], inputs[index], outputs[index], tuple(ids)))
    return found


def _lengths(rng: random.Random, count: int, mean: float, spread: float, least: int, most: int) -> list[int]:
    """Log-normal lengths within limits, scaled so that their mean is `mean` as near as whole tokens come."""
    raw = [math.exp(rng.gauss(0.0, spread)) for _ in range(count)]

    def cut(factor: float) -> list[int]:
        return [min(most, max(least, round(value * factor))) for value in raw]

    low, high = 0.0, mean * count
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(cut(middle)) < mean * count else (low, middle)
    return cut(high)


def _enough(rng: random.Random, shared: Sequence[int], blocks: Sequence[int]) -> list[bool]:
    """Which requests go on with an earlier one, so that the share of blocks seen before comes as near to REUSE as it can."""
    # Who does not go on still shares the first block with everybody.
    base = [1 if index else 0 for index in range(len(shared))]
    wanted = REUSE * sum(blocks) - sum(base)
    goes_on = [False] * len(shared)
    order = list(range(len(shared)))
    rng.shuffle(order)
    for index in order:
        gain = shared[index] - base[index]
        if 0 < gain <= wanted + gain / 2:
            goes_on[index], wanted = True, wanted - gain
    return goes_on


def read(text: str) -> list[Request]:
    """The requests of a trace file. Raises ValueError, with the line, for what is not one."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            raw = json.loads(line)
            ids = tuple(int(one) for one in raw["hash_ids"])
            found.append(Request(int(raw["timestamp"]), int(raw["input_length"]), int(raw["output_length"]), ids))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"line {number} is no request of a trace: {error!r}") from None
    return found


def cut(
    requests: Sequence[Request], *, scale: float = 1.0, pace: float = 1.0, longest: int | None = None
) -> list[Request]:
    """The first `scale` of the requests, `pace` times as fast, without those whose prompt is longer than `longest` tokens."""
    first = requests[: max(1, round(len(requests) * scale))]
    kept = [one for one in first if longest is None or one.input_length <= longest]
    return [Request(round(one.timestamp / pace), one.input_length, one.output_length, one.hash_ids) for one in kept]


def text_of(requests: Sequence[Request]) -> str:
    """The trace as a file's text."""
    lines = (
        {"timestamp": one.timestamp, "input_length": one.input_length, "output_length": one.output_length}
        | {"hash_ids": list(one.hash_ids)}
        for one in requests
    )
    return "".join(json.dumps(line) + "\n" for line in lines)


def digest(requests: Sequence[Request]) -> str:
    """16 hex digits that say whether two runs had the same trace."""
    return hashlib.sha256(text_of(requests).encode()).hexdigest()[:16]


def shape(requests: Sequence[Request]) -> Shape:
    """What the trace is like."""
    seen: set[tuple[int, int]] = set()
    known = total = 0
    for one in requests:
        prefix, beginning = 0, True
        for block in one.hash_ids:
            prefix = hash((prefix, block))
            beginning = beginning and (prefix, block) in seen
            known += beginning
            seen.add((prefix, block))
        total += len(one.hash_ids)

    def mean(of: Callable[[Request], int]) -> float:
        return sum(map(of, requests)) / max(1, len(requests))

    return Shape(
        requests=len(requests),
        seconds=max((one.timestamp for one in requests), default=0) / 1000,
        mean_input=round(mean(lambda one: one.input_length), 1),
        mean_output=round(mean(lambda one: one.output_length), 1),
        reuse=round(known / max(1, total), 4),
    )
