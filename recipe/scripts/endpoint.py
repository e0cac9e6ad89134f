"""The endpoint as clients see it: is the model listed, and does text come back."""

from __future__ import annotations

from recipe.scripts.kube import Unreachable, call

COMPLETION_TIMEOUT_SECONDS = 180.0
GREETING = "Say hello."


class Endpoint:
    """A frontend at `url`, and the model it is to serve."""

    def __init__(self, url: str, model: str, timeout_seconds: float = COMPLETION_TIMEOUT_SECONDS) -> None:
        self.url, self.model, self.timeout_seconds = url, model, timeout_seconds

    def unlisted(self) -> str | None:
        """None where the model is listed, else what is. Raises Unreachable."""
        status, answer = call("GET", f"{self.url}/v1/models", timeout_seconds=15)
        listed = [model.get("id") for model in answer.get("data") or []]
        if status == 200 and self.model in listed:
            return None
        return f"{self.url}/v1/models does not list {self.model} yet ({status}: {listed})"

    def complete(self, prompt: str = GREETING) -> str | None:
        """None where text came back, else what did."""
        return self.ask(prompt)[0]

    def ask(self, prompt: str, timeout_seconds: float | None = None) -> tuple[str | None, int]:
        """The same, and how many tokens the prompt had (0 where the answer does not say)."""
        # Always with max_tokens: without it 1.6.0 may generate to the end of the context (facts/dynamo.md §3).
        body = {"model": self.model, "max_tokens": 16, "messages": [{"role": "user", "content": prompt}]}
        try:
            status, answer = call(
                "POST",
                f"{self.url}/v1/chat/completions",
                body,
                timeout_seconds=timeout_seconds or self.timeout_seconds,
            )
        except Unreachable as error:
            return str(error), 0
        choices = answer.get("choices") or [{}]
        message = choices[0].get("message") or {}
        # Qwen3 thinks first: 16 tokens may all be reasoning, which is text as well.
        text = message.get("content") or message.get("reasoning_content") or message.get("reasoning")
        tokens = int((answer.get("usage") or {}).get("prompt_tokens") or 0)
        return (None if status == 200 and text else f"{status}: {str(answer)[:500]}"), tokens
