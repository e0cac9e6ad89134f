"""One chat completion, streamed, with its times; and which workers answered, by their own counters."""

from __future__ import annotations

import http.client
import json
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

PROMPT: Final = "Say hello."
_SAMPLE: Final = re.compile(r"^(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
REQUESTS: Final = "dynamo_component_requests_total"
"""A worker's counter of requests it took on (seen with 1.6.1)."""
ADMISSIONS: Final = "dynamo_frontend_router_admission_received_total"
"""The frontend's count of requests that a router sent to prefill or decode workers; the kv router has it."""


@dataclass(frozen=True)
class Answer:
    """What came back. Times are simulated."""

    text: str
    tokens: int
    """Pieces of text that were streamed, one token each."""
    ttft_ms: float
    """From sending the request to the first piece."""
    itl_ms: float | None
    """Mean time between two pieces; None for a single one."""
    total_ms: float


@dataclass(frozen=True)
class Sample:
    """One line of a metrics page."""

    name: str
    labels: dict[str, str]
    value: float


class NoAnswer(Exception):
    """The endpoint answered with an error, with nothing, or not at all."""


def ask(url: str, model: str, prompt: str = PROMPT, *, tokens: int = 16, timeout_seconds: float = 60) -> Answer:
    """A streamed chat completion of `tokens` tokens. Raises NoAnswer."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": tokens,
        "stream": True,
        "ignore_eos": True,
    }
    place = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=timeout_seconds)
    began = time.monotonic()
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != http.HTTPStatus.OK:
            raise NoAnswer(f"{url}: {response.status} {response.read(500).decode(errors='replace')}")
        pieces = [(time.monotonic(), text) for text in _pieces(response)]
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NoAnswer(f"{url}: {error or type(error).__name__}") from None
    finally:
        connection.close()
    if not pieces:
        raise NoAnswer(f"{url}: the stream held no text")
    times = [at for at, _ in pieces]
    return Answer(
        text="".join(text for _, text in pieces),
        tokens=len(pieces),
        ttft_ms=(times[0] - began) * 1000,
        itl_ms=(times[-1] - times[0]) / (len(times) - 1) * 1000 if len(times) > 1 else None,
        total_ms=(time.monotonic() - began) * 1000,
    )


def _pieces(response: http.client.HTTPResponse) -> Iterator[str]:
    for raw in response:
        line = raw.decode().strip()
        if not line.startswith("data:") or line == "data: [DONE]":
            continue
        event = json.loads(line.removeprefix("data:"))
        if "error" in event:
            raise NoAnswer(str(event["error"]))
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or {}
            if text := delta.get("content") or delta.get("reasoning_content") or delta.get("reasoning"):
                yield text


def scrape(url: str, timeout_seconds: float = 10) -> list[Sample]:
    """A metrics page. OSError where it does not answer."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=timeout_seconds) as answer:
        return list(parse(answer.read().decode()))


def parse(text: str) -> Iterator[Sample]:
    """Samples of Prometheus' text format."""
    for line in text.splitlines():
        if found := _SAMPLE.match(line):
            yield Sample(found["name"], dict(_LABEL.findall(found["labels"] or "")), float(found["value"]))
