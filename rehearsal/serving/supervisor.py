"""`python -m rehearsal.serving.supervisor SPEC`: starts frontends and mock engines, and ends them however their owner ends."""

import json
import urllib.error
import urllib.request
from collections import Counter
from typing import Any

from rehearsal.supervising import Supervisor, supervise


class ServingSupervisor(Supervisor):
    """`spec` has beside the usual: urls (of the frontends), model, and workers, the number that registers under each component."""

    start_seconds = 180
    stop_seconds = 5  # they leave the discovery first; alone about 1

    def wait_ready(self) -> str | None:
        """None once every frontend lists the model and sees every worker."""
        for name in self.spec["commands"]:
            self.start(name)
        return self.wait_for(lambda: all(self._serves(url) for url in self.spec["urls"]))

    def _serves(self, url: str) -> bool:
        listed = [one.get("id") for one in self._get(f"{url}/v1/models").get("data") or []]
        if self.spec["model"] not in listed:
            return False
        instances = self._get(f"{url}/health").get("instances") or []
        seen = Counter(one["component"] for one in instances if one["endpoint"] == "generate")
        return all(seen[component] >= count for component, count in self.spec["workers"].items())

    def _get(self, url: str) -> dict[str, Any]:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(url, timeout=5) as answer:
                return dict(json.loads(answer.read()))
        except (OSError, ValueError, urllib.error.URLError):
            return {}


if __name__ == "__main__":
    supervise(ServingSupervisor)
