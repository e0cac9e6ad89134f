"""`python -m rehearsal.cluster.supervisor SPEC`: starts the control plane's programs, and ends them however its owner ends."""

import ssl
import urllib.error
import urllib.request

from rehearsal.supervising import Supervisor, supervise


class ControlPlaneSupervisor(Supervisor):
    """The programs of one control plane. Alone on the machine they are ready in about 4 s; to stop, the API server alone would take 5
    for its connections."""

    def wait_ready(self) -> str | None:
        """None once the API server answers and every controller runs; else why not."""
        self.start("etcd")
        self.start("kube-apiserver")
        if problem := self.wait_for(lambda: self._get("/readyz") is not None):
            return problem
        for name in ("kube-controller-manager", "kube-scheduler", "kwok"):
            self.start(name)
        # The controller manager makes this account: then its controllers run.
        return self.wait_for(lambda: self._get("/api/v1/namespaces/default/serviceaccounts/default") is not None)

    def _get(self, path: str) -> bytes | None:
        context = ssl.create_default_context(cafile=self.spec["authority"])
        context.load_cert_chain(self.spec["certificate"], self.spec["key"])
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        try:
            with opener.open(self.spec["server"] + path, timeout=5) as answer:
                return bytes(answer.read())
        except (OSError, urllib.error.URLError):
            return None


if __name__ == "__main__":
    supervise(ControlPlaneSupervisor)
