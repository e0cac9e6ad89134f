"""One chat completion, streamed, with its times; and which workers answered, by their own counters."""

from __future__ import annotations

import http.client
import json
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

PROMPT: Final = "Say hello."
ADMISSIONS: Final = "dynamo_frontend_router_admission_received_total"
"""The frontend's count of requests that a router sent to prefill or decode workers; the kv router has it."""


@dataclass(frozen=True)
class Answer:
    """What came back. Times are simulated."""

    text: str
    prompt_tokens: int
    """As the frontend counted them; 0 where it did not say."""
    tokens: int
    """Pieces of text that were streamed, one token each."""
    ttft_ms: float
    """From sending the request to the first piece."""
    itl_ms: float | None
    """Mean time between two pieces; None for a single one."""
    total_ms: float


class NoAnswer(Exception):
    """The endpoint answered with an error, with nothing, or not at all."""


def ask(url: str, model: str, prompt: str = PROMPT, *, tokens: int = 16, timeout_seconds: float = 60) -> Answer:
    """A streamed chat completion of `tokens` tokens. Raises NoAnswer."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
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
        events = [(time.monotonic(), event) for event in _events(response)]
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NoAnswer(f"{url}: {error or type(error).__name__}") from None
    finally:
        connection.close()
    pieces = [(at, text) for at, event in events for text in _texts(event)]
    if not pieces:
        raise NoAnswer(f"{url}: the stream held no text")
    times = [at for at, _ in pieces]
    return Answer(
        text="".join(text for _, text in pieces),
        prompt_tokens=max((event.get("usage") or {}).get("prompt_tokens", 0) for _, event in events),
        tokens=len(pieces),
        ttft_ms=(times[0] - began) * 1000,
        itl_ms=(times[-1] - times[0]) / (len(times) - 1) * 1000 if len(times) > 1 else None,
        total_ms=(time.monotonic() - began) * 1000,
    )


def _events(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    for raw in response:
        line = raw.decode().strip()
        if not line.startswith("data:") or line == "data: [DONE]":
            continue
        event = json.loads(line.removeprefix("data:"))
        if "error" in event:
            raise NoAnswer(str(event["error"]))
        yield event


def _texts(event: dict[str, Any]) -> Iterator[str]:
    for choice in event.get("choices") or ():
        delta = choice.get("delta") or {}
        if text := delta.get("content") or delta.get("reasoning_content") or delta.get("reasoning"):
            yield text
