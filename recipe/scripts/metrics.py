"""Prometheus' text format, as much of it as counters need."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from recipe.scripts.kube import fetch

REQUESTS = "dynamo_component_requests_total"
"""A worker's counter of requests it took on; label dynamo_endpoint="generate" (seen with Dynamo 1.6.1)."""

_SAMPLE = re.compile(r"^(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})?\s+(?P<value>\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Sample:
    """One line of a metrics page."""

    name: str
    labels: dict[str, str]
    value: float


def scrape(url: str, timeout_seconds: float = 10) -> list[Sample]:
    """A metrics page. Raises Unreachable."""
    return list(parse(fetch(url, timeout_seconds=timeout_seconds)))


def parse(lines: Iterable[str]) -> Iterator[Sample]:
    """Its samples; lines that are none are passed over."""
    for line in lines:
        if found := _SAMPLE.match(line):
            try:
                value = float(found["value"])
            except ValueError:
                continue
            yield Sample(found["name"], dict(_LABEL.findall(found["labels"] or "")), value)


def total(samples: Iterable[Sample], *names: str, **labels: str) -> float | None:
    """Sum of the samples called one of `names` with these labels; None where there is none."""
    values = [one.value for one in samples if one.name in names and labels.items() <= one.labels.items()]
    return sum(values) if values else None
