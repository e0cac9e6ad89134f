"""Runs the Jobs' real scripts as their pods do - files and arguments from the manifests - against small servers on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from recipe.plan import Manifest


@dataclass(frozen=True)
class Request:
    """What a server was asked."""

    method: str
    path: str
    """With the query."""
    headers: dict[str, str]
    body: Any


@dataclass
class Reply:
    """What it answers. `body`: bytes as they are, anything else as JSON."""

    status: int = 200
    body: Any = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    cut_short_by: int = 0
    """Bytes promised and not sent."""


@dataclass
class Server:
    """A running server and what it was asked, in order."""

    url: str
    requests: list[Request]

    def asked(self, method: str, part: str) -> list[Request]:
        return [request for request in self.requests if request.method == method and part in request.path]


@contextmanager
def serve(answer: Callable[[Request], Reply]) -> Iterator[Server]:
    """A server on a free port of this machine for as long as the context lasts."""
    requests: list[Request] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            request = Request(self.command, self.path, dict(self.headers), json.loads(raw) if raw else None)
            with lock:
                requests.append(request)
                reply = answer(request)
            data = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            headers = {"Content-Type": "application/json", "Content-Length": str(len(data)), **reply.headers}
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data[: len(data) - reply.cut_short_by])
            if reply.cut_short_by:
                self.close_connection = True

        do_GET = do_POST = do_HEAD = do_PATCH = handle_any

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield Server(f"http://127.0.0.1:{server.server_address[1]}", requests)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass(frozen=True)
class Ended:
    """How a script ended."""

    code: int
    log: str
    message: str
    """Its termination message."""


def run_job(job: Manifest, config_map: Manifest, folder: Path, **env: str) -> Ended:
    """Runs the Job's container in `folder`: files where its ConfigMap volume puts them, its own environment, then `env`."""
    pod = job["spec"]["template"]["spec"]
    container = pod["containers"][0]
    scripts = folder / "scripts"
    for item in pod["volumes"][0]["configMap"]["items"]:
        path = scripts / item["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(config_map["data"][item["key"]])
    account = folder / "account"
    account.mkdir(exist_ok=True)
    (account / "token").write_text("the-accounts-token")
    (account / "namespace").write_text(job["metadata"]["namespace"])
    log = folder / "termination-log"
    log.write_text("")
    given = {entry["name"]: entry["value"].replace("/scripts/", f"{scripts}/") for entry in container["env"]}
    inherited = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    done = subprocess.run(
        [sys.executable, *container["command"][1:]],
        cwd=scripts,
        env={
            **inherited,
            **given,
            "HOME": str(folder),
            "ACCOUNT_DIR": str(account),
            "TERMINATION_LOG": str(log),
            **env,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Ended(done.returncode, done.stdout + done.stderr, log.read_text())
