"""Asks the API server whether it would accept the graph, by creating it with `dryRun=All`.

Exit codes: 0 accepted, 1 refused, 2 wrongly started, 3 no answer before the deadline.

A graph that exists already answers 409 AlreadyExists, which is a yes: the server says so only after schema, CEL and webhook
have passed (apiserver, registry Store.Create: validation first, storage second). What may not change in place is not asked
about, because Pulumi replaces the graph on such a change.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from recipe.scripts.kube import Kube, Unreachable, finish, say, setting

RETRY_SECONDS = 5.0
ACCESS_GRACE_SECONDS = 30.0
"""How long a 401 or 403 may be the role binding that has not arrived yet."""


def main() -> None:
    """Posts until there is a yes, a no, or the deadline."""
    graph = json.loads(Path(setting("GRAPH_FILE")).read_text())
    deadline = time.monotonic() + float(setting("DEADLINE_SECONDS"))
    retry = float(setting("RETRY_SECONDS", str(RETRY_SECONDS)))
    access_until = time.monotonic() + float(setting("ACCESS_GRACE_SECONDS", str(ACCESS_GRACE_SECONDS)))
    kube = Kube()
    group, version = graph["apiVersion"].split("/")
    name, namespace = graph["metadata"]["name"], graph["metadata"]["namespace"]
    path = (
        f"/apis/{group}/{version}/namespaces/{namespace}/dynamographdeployments?dryRun=All&fieldValidation=Strict"
        "&fieldManager=dynamo-recipes-admission"
    )
    last = ""
    while True:
        try:
            status, answer = kube.request("POST", path, graph)
            accepted, waiting = judge(status, answer, time.monotonic() < access_until)
        except Unreachable as error:
            accepted, waiting = False, f"the API server does not answer: {error}"
        if accepted:
            finish(0, f"the API server accepts graph {namespace}/{name}")
        if waiting is None:
            finish(1, f"the API server refuses graph {namespace}/{name}:\n{explain(answer)}")
        if waiting != last:
            say(f"waiting: {waiting}")
            last = waiting
        if time.monotonic() + retry > deadline:
            finish(3, f"no decision on graph {namespace}/{name} before the deadline; last: {waiting}")
        time.sleep(retry)


def judge(status: int, answer: dict[str, Any], access_may_come: bool) -> tuple[bool, str | None]:
    """(accepted, why to wait). Neither: refused."""
    message = str(answer.get("message", ""))
    if status in (200, 201) or (status == 409 and answer.get("reason") == "AlreadyExists"):
        return True, None
    if "denied the request" in message:  # a webhook's no, whatever status it chose
        return False, None
    if status == 404 and answer.get("details", {}).get("kind") != "namespaces":
        return False, "the API server does not know DynamoGraphDeployment yet: the platform applies its CRD"
    if status in (401, 403) and access_may_come:
        return False, f"no access yet: {message}"
    if status in (408, 429) or status >= 500:
        return False, f"{status}: {message}"  # among them: "failed calling webhook … connection refused"
    return False, None


def explain(answer: dict[str, Any]) -> str:
    """The server's message, and one line per cause where it names several."""
    causes = answer.get("details", {}).get("causes", [])
    lines = [f"  {cause.get('field', '?')}: {cause.get('message', '?')}" for cause in causes] if len(causes) > 1 else []
    return "\n".join([str(answer.get("message", answer)), *lines])


if __name__ == "__main__":
    main()
