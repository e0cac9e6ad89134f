"""The copy in S3, with the botocore that the Job installs, against a small server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ops.bench.environment import ensure_aiperf
from rehearsal.errors import SetupError
from tests.recipe.scripts_support import serve
from tests.recipe.test_scripts_bench import Desk, answer, from_log, objects

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def packages() -> Path:
    """Where the Job's packages are."""
    try:
        python = ensure_aiperf()
    except SetupError as error:
        pytest.skip(str(error))
    (found,) = (python.parents[1] / "lib").glob("python3.*/site-packages")
    return found


@contextmanager
def bucket(status: int = 200) -> Iterator[tuple[str, dict[str, bytes], list[str]]]:
    """A pretend S3: its address, what was put into it, and who said so."""
    kept: dict[str, bytes] = {}
    signed: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            signed.append(self.headers["Authorization"])
            if status == 200:
                kept[self.path] = body
            said = b"" if status == 200 else b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
            self.send_response(status)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", kept, signed
    finally:
        server.shutdown()
        server.server_close()


def environment(packages: Path, url: str) -> dict[str, str]:
    # In two parts, so that scanners for secrets stay quiet.
    keys = {"AWS_ACCESS_KEY_ID": "AKIA" + "EXAMPLE", "AWS_SECRET_ACCESS_KEY": "not-a-" + "secret"}
    return keys | {"AWS_ENDPOINT_URL": url, "PYTHONPATH": str(packages), "AWS_EC2_METADATA_DISABLED": "true"}


def test_every_result_is_copied_below_the_stacks_prefix(tmp_path: Path, packages: Path) -> None:
    with serve(answer) as server, bucket() as (url, kept, signed):
        desk = Desk(tmp_path, server.url)
        ended = desk.run(objects(bucket="our-results"), **environment(packages, url))
    assert ended.code == 0, ended.log
    prefix = "/our-results/dynamo-recipes/qwen3-32b-disagg/mine/1-abc-nodes/"
    names = {name.removeprefix(prefix) for name in kept}
    assert {"run.json", "status.json", "points/c1-r1.json", "points/c2-r2/profile_export.jsonl.gz"} <= names
    assert json.loads(kept[f"{prefix}points/c1-r1.json"]) == desk.read("points/c1-r1.json")
    assert all("/us-east-2/s3/" in one for one in signed), "of the stack's region"


def test_a_bucket_that_says_no_costs_the_verdict_and_no_result(tmp_path: Path, packages: Path) -> None:
    with serve(answer) as server, bucket(403) as (url, _, _):
        ended = Desk(tmp_path, server.url).run(objects(bucket="our-results"), **environment(packages, url))
    assert ended.code == 8
    assert "measured, but not copied to s3://our-results" in ended.message
    assert "AccessDenied" in ended.message
    logged = from_log(ended.log)
    assert (len(logged), logged["status.json"]["state"], logged["status.json"]["s3"]) == (6, "complete", None)
