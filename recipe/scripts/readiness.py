"""Waits until the graph answers a chat completion, and gives up with the reason as soon as it is certain that it never will.

Of a disaggregated graph on GPUs it then looks how the KV cache travels (`kv_path`).

Exit codes: 0 it answered, 1 it never will, 2 wrongly started, 3 the deadline passed.
"""

from __future__ import annotations

import time
from typing import Any

from recipe.scripts.endpoint import COMPLETION_TIMEOUT_SECONDS, Endpoint
from recipe.scripts.kube import Kube, Unreachable, finish, say, setting
from recipe.scripts.kv_path import KvPath

POLL_SECONDS = 5.0
REPORT_SECONDS = 60.0
FAILED_POLLS = 2
"""Polls in a row that must see `failed`: a single one may be a reconcile that is retried."""
SLOW_COMPLETION_SECONDS = 60.0
"""A first answer slower than this: KV transfer over TCP takes about 100 s (facts/dynamo.md §5.2)."""

BAD_CONFIG = {"InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError"}
PULL_TROUBLE = {"ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "ImageInspectError"}
PULL_HOPELESS = (
    "not found",
    "manifest unknown",
    "no such host",
    "unauthorized",
    "forbidden",
    "denied",
    "no match for platform",
)


class Patience:
    """Remembers since when something is wrong, so that what may pass gets its time and no more."""

    def __init__(self) -> None:
        self.since: dict[str, float] = {}

    def over(self, seen: set[str], seconds: float) -> set[str]:
        """Which of `seen` have lasted for `seconds`. What is no longer seen starts anew."""
        now = time.monotonic()
        self.since = {key: self.since.get(key, now) for key in seen}
        return {key for key, start in self.since.items() if now - start >= seconds}


class Watch:
    """One graph on its way to the first answer."""

    def __init__(self) -> None:
        self.kube = Kube()
        self.namespace, self.graph = setting("NAMESPACE"), setting("GRAPH")
        self.graph_label = setting("GRAPH_LABEL")
        self.endpoint = Endpoint(
            setting("FRONTEND_URL"),
            setting("MODEL"),
            float(setting("COMPLETION_TIMEOUT_SECONDS", str(COMPLETION_TIMEOUT_SECONDS))),
        )
        self.unschedulable_grace = float(setting("UNSCHEDULABLE_GRACE_SECONDS"))
        self.image_grace = float(setting("IMAGE_GRACE_SECONDS"))
        self.crash_restarts = int(setting("CRASH_RESTARTS"))
        self.completion_attempts = int(setting("COMPLETION_ATTEMPTS"))
        self.poll = float(setting("POLL_SECONDS", str(POLL_SECONDS)))
        self.deadline = time.monotonic() + float(setting("DEADLINE_SECONDS"))
        self.unschedulable, self.pulling = Patience(), Patience()
        self.failed_polls = self.completions_failed = 0
        self.said, self.said_at = "", 0.0

    def run(self) -> None:
        """Polls until there is a yes, a no, or the deadline."""
        while True:
            try:
                state = self.step()
            except Unreachable as error:
                state = f"no answer: {error}"
            self.report(state)
            if time.monotonic() + self.poll > self.deadline:
                self.give_up(3, f"not ready before the deadline; last: {state}")
            time.sleep(self.poll)

    def step(self) -> str:
        """One look at everything; what it is waiting for."""
        status, graph = self.kube.request("GET", self.graph_path)
        pods = self.pods()
        self.check_pods(pods)
        if status == 404:
            return "the graph does not exist yet"
        if status != 200:
            return f"reading the graph: {status} {graph.get('message', '')}"
        waiting = self.check_graph(graph)
        if waiting:
            return f"{waiting}; {pods_summary(pods)}"
        return self.ask()

    @property
    def graph_path(self) -> str:
        return f"/apis/nvidia.com/v1beta1/namespaces/{self.namespace}/dynamographdeployments/{self.graph}"

    # ── pods ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def pods(self) -> list[dict[str, Any]]:
        """The graph's pods, without those on their way out."""
        query = f"labelSelector={self.graph_label}%3D{self.graph}"
        status, answer = self.kube.request("GET", f"/api/v1/namespaces/{self.namespace}/pods?{query}")
        if status != 200:
            raise Unreachable(f"listing pods: {status} {answer.get('message', '')}")
        return [pod for pod in answer.get("items", []) if "deletionTimestamp" not in pod["metadata"]]

    def check_pods(self, pods: list[dict[str, Any]]) -> None:
        """Ends the process where a pod can never run."""
        pull_trouble: dict[str, str] = {}
        without_place: dict[str, str] = {}
        for pod in pods:
            name = pod["metadata"]["name"]
            for container in containers(pod):
                waiting = container.get("state", {}).get("waiting", {})
                reason, message = waiting.get("reason", ""), waiting.get("message", "")
                if reason in BAD_CONFIG:
                    self.give_up(1, f"pod {name}: {reason}: {message}")
                if reason in PULL_TROUBLE:
                    text = f"pod {name}: {reason}: {container.get('image', '')}: {message}"
                    if any(word in message.lower() for word in PULL_HOPELESS):
                        self.give_up(1, text)
                    pull_trouble[name] = text
                if container.get("restartCount", 0) >= self.crash_restarts and not container.get("ready"):
                    self.give_up(
                        1, f"pod {name} has crashed {container['restartCount']} times: {last_crash(container)}"
                    )
            for condition in pod.get("status", {}).get("conditions", []):
                if condition.get("type") == "PodScheduled" and condition.get("reason") == "Unschedulable":
                    without_place[name] = f"pod {name} is unschedulable: {condition.get('message', '')}"
        for patience, seen, seconds in (
            (self.pulling, pull_trouble, self.image_grace),
            (self.unschedulable, without_place, self.unschedulable_grace),
        ):
            for name in sorted(patience.over(set(seen), seconds)):
                self.give_up(1, f"{seen[name]} (for {seconds:.0f} s)")

    # ── graph ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def check_graph(self, graph: dict[str, Any]) -> str | None:
        """What the graph is waiting for; None when it is ready. Ends the process where the operator says it failed."""
        status = graph.get("status", {})
        if status.get("observedGeneration", 0) < graph["metadata"].get("generation", 0):
            self.failed_polls = 0
            return "the operator has not seen the graph's newest version"
        ready: dict[str, Any] = next(
            (condition for condition in status.get("conditions", []) if condition.get("type") == "Ready"), {}
        )
        reason = f"{ready.get('reason', 'no reason given')}: {ready.get('message', '')}"
        self.failed_polls = self.failed_polls + 1 if status.get("state") == "failed" else 0
        if self.failed_polls >= FAILED_POLLS:
            self.give_up(1, f"the operator says the graph failed: {reason}")
        return None if ready.get("status") == "True" else f"graph {status.get('state', 'without state')}: {reason}"

    # ── model ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def ask(self) -> str:
        """One chat completion, if the model is listed. Ends the process when text comes back, or never does."""
        if missing := self.endpoint.unlisted():
            return missing
        started = time.monotonic()
        trouble = self.endpoint.complete()
        took = time.monotonic() - started
        if trouble is None:
            slow = "; slow: look for LIBFABRIC in the workers' logs" if took > SLOW_COMPLETION_SECONDS else ""
            answers = (
                f"{self.endpoint.model} answers at {self.endpoint.url} (first completion after {took:.1f} s{slow})"
            )
            finish(0, "\n".join([answers, *self.check_kv()]))
        self.completions_failed += 1
        if self.completions_failed >= self.completion_attempts:
            self.give_up(
                1, f"everything is ready, but {self.completions_failed} chat completions failed; last: {trouble}"
            )
        return f"chat completion {self.completions_failed} of {self.completion_attempts}: {trouble}"

    def check_kv(self) -> list[str]:
        """What is known of the way the KV cache takes, for the message. Ends the process where it is the wrong one."""
        backend = setting("KV_BACKEND", "")
        if not backend:
            return []
        say("looking how KV travels")
        path = KvPath(
            self.kube,
            self.namespace,
            self.endpoint,
            engine=setting("KV_ENGINE"),
            backend=backend,
            words=int(setting("KV_PROMPT_WORDS")),
            rounds=int(setting("KV_ROUNDS")),
            seconds=min(float(setting("KV_SECONDS")), max(0.0, self.deadline - time.monotonic())),
        )
        wrong, known = path.check(self.pods())
        if wrong is not None:
            self.give_up(1, wrong)
        return [known, *(f"warning: {warning}" for warning in path.warnings)]

    # ── saying so ────────────────────────────────────────────────────────────────────────────────────────────────────

    def report(self, state: str) -> None:
        """Logs what is new, and now and then that nothing is."""
        if state != self.said or time.monotonic() - self.said_at >= REPORT_SECONDS:
            say(state)
            self.said, self.said_at = state, time.monotonic()

    def give_up(self, code: int, reason: str) -> None:
        """Ends the process with the reason, the newest warnings, and the command that shows more."""
        # Events have no labels of their pods, so they are asked for by time.
        more = (
            f"see: kubectl -n {self.namespace} get pods -l '{self.graph_label}={self.graph}'; "
            f"kubectl -n {self.namespace} get events --sort-by=.lastTimestamp"
        )
        finish(code, "\n".join([reason, *self.warnings(), more]))

    def warnings(self, limit: int = 5) -> list[str]:
        """The newest warning events about the graph and its pods; none where they cannot be read."""
        try:
            _, answer = self.kube.request(
                "GET", f"/api/v1/namespaces/{self.namespace}/events?fieldSelector=type%3DWarning", timeout_seconds=10
            )
        except Unreachable:
            return []
        events = [event for event in answer.get("items", []) if event["involvedObject"]["name"].startswith(self.graph)]
        events.sort(key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")
        return [
            f"  {event['involvedObject']['name']}: {event.get('reason', '')}: {event.get('message', '')}"
            for event in events[-limit:]
        ]


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """Statuses of all containers of a pod."""
    status = pod.get("status", {})
    return [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]


def last_crash(container: dict[str, Any]) -> str:
    """How a container ended the last time."""
    ended = container.get("lastState", {}).get("terminated", {}) or container.get("state", {}).get("terminated", {})
    return f"{ended.get('reason', '?')}, exit code {ended.get('exitCode', '?')} {ended.get('message', '')}".strip()


def pods_summary(pods: list[dict[str, Any]]) -> str:
    """How many pods are ready, and what the others do."""
    ready, doing = 0, dict[str, int]()
    for pod in pods:
        statuses = containers(pod)
        if statuses and all(container.get("ready") for container in pod["status"].get("containerStatuses") or [{}]):
            ready += 1
            continue
        reasons = [container.get("state", {}).get("waiting", {}).get("reason") for container in statuses]
        what = next((reason for reason in reasons if reason), pod.get("status", {}).get("phase", "Unknown"))
        doing[what] = doing.get(what, 0) + 1
    rest = ", ".join(f"{count} {what}" for what, count in sorted(doing.items()))
    return f"{ready} of {len(pods)} pods ready" + (f" ({rest})" if rest else "")


if __name__ == "__main__":
    Watch().run()
