"""Puts one commit of a model into a Hugging Face cache and verifies every file of it, or every file but those MODEL_FILES_WITHOUT names.

Exit codes: 0 done, 2 wrongly started, 3 the hub says no (401, 403, 404), 4 no space left, 5 files stay damaged, 6 the hub was
not reachable before the deadline. 2, 3 and 4 will not get better by another attempt.

A second run finds the manifest of the first and only compares sizes: seconds, and no network. A manifest says what was left out: one of a
part never stands for the whole.
"""

from __future__ import annotations

import concurrent.futures
import errno
import fnmatch
import hashlib
import json
import os
import random
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import httpx
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import disable_progress_bars

FILES_AT_ONCE = 8  # huggingface_hub's own default (snapshot_download, max_workers)
DAMAGED_ATTEMPTS = 3
FIRST_WAIT_SECONDS = 2.0
LONGEST_WAIT_SECONDS = 120.0
PROGRESS_SECONDS = 15.0
GB = 1e9

Result = TypeVar("Result")


class Damaged(Exception):
    """A file is not what the hub's metadata says."""


def say(message: str) -> None:
    """One line of the log, at once."""
    print(time.strftime("%H:%M:%S"), message, flush=True)  # noqa: T201 - a pod's log is its standard output


def finish(code: int, message: str) -> NoReturn:
    """Ends the process, threads included; `message` becomes the container's termination message."""
    say(message)
    path = Path(os.environ.get("TERMINATION_LOG", "/dev/termination-log"))
    if path.exists():
        path.write_text(message[:4000])
    sys.stdout.flush()
    os._exit(code)  # threads may sit in a download or a wait: nothing of theirs is worth waiting for


class Download:
    """One commit on its way into the cache."""

    def __init__(self) -> None:
        try:
            self.model, self.revision = os.environ["MODEL_ID"], os.environ["MODEL_REVISION"]
            self.home = Path(os.environ["HF_HOME"])
            self.deadline = time.monotonic() + float(os.environ["DEADLINE_SECONDS"])
        except KeyError as error:
            finish(2, f"the environment variable {error.args[0]} is missing: this script is started by its Job")
        self.first_wait = float(os.environ.get("FIRST_WAIT_SECONDS", FIRST_WAIT_SECONDS))
        self.token: str | bool = os.environ.get("HF_TOKEN") or False
        self.without = os.environ.get("MODEL_FILES_WITHOUT", "").split()
        folder = "models--" + self.model.replace("/", "--")
        self.repository = self.home / "hub" / folder
        self.snapshot = self.repository / "snapshots" / self.revision
        self.manifest = self.home / "verified" / folder / f"{self.revision}.json"

    def run(self) -> None:
        """Everything, once."""
        if self.already_verified():
            finish(0, f"{self.model}@{self.revision} is complete: sizes match {self.manifest}")
        files = self.stubborn("listing the files", self.list_files)
        total = sum(file.size for file in files)
        say(f"{self.model}@{self.revision}: {len(files)} files, {total / GB:.2f} GB, to {self.snapshot}")
        self.check_space(files)
        with self.progress(total), concurrent.futures.ThreadPoolExecutor(FILES_AT_ONCE) as pool:
            # Largest first: the last file then does not run alone.
            jobs = [pool.submit(self.get, file) for file in sorted(files, key=lambda file: -file.size)]
            entries = [job.result() for job in concurrent.futures.as_completed(jobs)]
        self.write_manifest(entries)
        finish(0, f"{self.model}@{self.revision}: {len(files)} files, {total / GB:.2f} GB downloaded and verified")

    # ── what is there ────────────────────────────────────────────────────────────────────────────────────────────────

    def already_verified(self) -> bool:
        """Whether an earlier run verified this commit and every file still has its size."""
        try:
            manifest = json.loads(self.manifest.read_text())
            entries, left_out = manifest["files"], manifest["without"]
        except (OSError, ValueError, KeyError):
            return False
        if not set(left_out) <= set(self.without):
            say(f"an earlier run left out {' '.join(left_out)}")
            return False
        for entry in entries:
            path = self.snapshot / entry["path"]
            size = path.stat().st_size if path.exists() else None
            if size != entry["size"]:
                say(f"{entry['path']}: {size} bytes instead of {entry['size']}: looking at everything again")
                self.manifest.unlink(missing_ok=True)
                return False
        return bool(entries)

    def list_files(self) -> list[RepoFile]:
        """The commit's files with sizes and hashes, from the hub."""
        tree = HfApi(token=self.token).list_repo_tree(self.model, recursive=True, revision=self.revision)
        files = [entry for entry in tree if isinstance(entry, RepoFile) and not self.left_out(entry.path)]
        if not files:
            finish(3, f"{self.model}@{self.revision} has no files")
        return files

    def left_out(self, name: str) -> bool:
        """Whether the file is not wanted; patterns are of the shell's kind."""
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.without)

    def check_space(self, files: list[RepoFile]) -> None:
        """Ends the process where the missing bytes cannot fit."""
        there = sum(self.size_of(file.path) for file in files)
        missing = sum(file.size for file in files) - there
        self.home.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.home).free
        if missing > free:
            finish(4, f"no space: {missing / GB:.2f} GB are missing and {self.home} has {free / GB:.2f} GB free")

    def size_of(self, name: str) -> int:
        path = self.snapshot / name
        return path.stat().st_size if path.exists() else 0

    # ── one file ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def get(self, file: RepoFile) -> dict[str, Any]:
        """Downloads and verifies one file; its entry in the manifest. A damaged one is thrown away and fetched again."""
        for attempt in range(1, DAMAGED_ATTEMPTS + 1):
            self.stubborn(file.path, lambda: self.fetch(file))
            try:
                # At once, while the pages are in memory: reading them back from EFS later would be billed.
                return verify(self.snapshot / file.path, file)
            except Damaged as error:
                say(f"{error}: thrown away (attempt {attempt} of {DAMAGED_ATTEMPTS})")
                self.throw_away(file.path)
        finish(5, f"{file.path} is still damaged after {DAMAGED_ATTEMPTS} downloads")

    def fetch(self, file: RepoFile) -> None:
        hf_hub_download(self.model, file.path, revision=self.revision, token=self.token)

    def throw_away(self, name: str) -> None:
        path = self.snapshot / name
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)

    # ── trouble ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def stubborn(self, what: str, action: Callable[[], Result]) -> Result:
        """`action`, repeated while what stops it may pass: waits double, Retry-After is honoured, the deadline ends it."""
        wait = self.first_wait
        while True:
            try:
                return action()
            except Exception as error:
                pause = max(self.pause_after(what, error), random.uniform(wait / 2, wait))
                if time.monotonic() + pause > self.deadline:
                    finish(6, f"{what}: not before the deadline: {telling(error)}")
                say(f"{what}: {telling(error)}; again in {pause:.0f} s")
                time.sleep(pause)
                wait = min(wait * 2, LONGEST_WAIT_SECONDS)

    def pause_after(self, what: str, error: Exception) -> float:
        """Seconds the hub asks to wait, 0 where it does not say. Ends the process, or raises, where waiting is no use."""
        chain = list(causes(error))
        for cause in chain:
            if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
                finish(4, f"{what}: no space left on {self.home}: {cause}")
            if isinstance(cause, HfHubHTTPError | httpx.HTTPStatusError):
                status = cause.response.status_code
                if status in (401, 403, 404):
                    hint = (
                        "a token is set" if self.token else "no token is set: weights.token and secret config hfToken"
                    )
                    finish(
                        3,
                        f"{what}: the hub answers {status} for {self.model}@{self.revision} ({hint}): {first_line(cause)}",
                    )
                if status == 429 or status >= 500:
                    return retry_after(cause.response)
        passing = (httpx.TransportError, HfHubHTTPError, ConnectionError, TimeoutError)
        # huggingface_hub reports a short read as a plain OSError ("Consistency check failed"), and the fast mode as RuntimeError.
        if any(isinstance(cause, passing) for cause in chain) or isinstance(error, OSError | RuntimeError):
            return 0.0
        raise error

    # ── progress and result ──────────────────────────────────────────────────────────────────────────────────────────

    def progress(self, total: int) -> Progress:
        return Progress(
            self.repository / "blobs", total, self.home / "progress" / self.repository.name / f"{self.revision}.json"
        )

    def write_manifest(self, entries: list[dict[str, Any]]) -> None:
        """Last, and in one step: whoever sees it may trust the snapshot."""
        self.manifest.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "model": self.model,
            "revision": self.revision,
            "without": self.without,
            "files": sorted(entries, key=lambda e: str(e["path"])),
        }
        partial = self.manifest.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(content, indent=1))
        partial.replace(self.manifest)


class Progress:
    """Logs how much is on disk, every few seconds, while used as a context, and writes it to `told` for recipe/scripts/head.py."""

    def __init__(self, blobs: Path, total: int, told: Path) -> None:
        self.blobs, self.total, self.told = blobs, total, told
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.stop.set()

    def watch(self) -> None:
        every = float(os.environ.get("PROGRESS_SECONDS", PROGRESS_SECONDS))
        first = before = self.done()
        begun = time.monotonic()
        while not self.stop.wait(every):
            now = self.done()
            rate = (now - before) / every
            say(f"{now / GB:.2f} of {self.total / GB:.2f} GB ({now / max(1, self.total):.0%}), {rate / 1e6:.0f} MB/s")
            self.tell(now, rate, (now - first) / (time.monotonic() - begun))
            before = now

    def tell(self, done: int, rate: float, mean_rate: float) -> None:
        """Bytes and bytes a second. In one step, and only a help: the download does not end because of it."""
        content = {"done": done, "total": self.total, "rate": rate, "mean_rate": mean_rate}
        partial = self.told.with_suffix(f".{os.getpid()}")
        try:
            self.told.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(content))
            partial.replace(self.told)
        except OSError as error:
            say(f"{self.told} cannot be written: {error}")

    def done(self) -> int:
        sizes = 0
        for path in self.blobs.glob("*"):
            try:
                sizes += path.stat().st_size
            except FileNotFoundError:
                continue  # renamed when it became complete
        return sizes


def verify(path: Path, file: RepoFile) -> dict[str, Any]:
    """The manifest entry of a file that is what the hub says: its size, and its SHA-256 (large files) or git hash (small ones).

    Raises Damaged.
    """
    size = path.stat().st_size
    if size != file.size:
        raise Damaged(f"{file.path}: {size} bytes instead of {file.size}")
    if file.lfs:
        with path.open("rb") as content:
            found, wanted = hashlib.file_digest(content, "sha256").hexdigest(), file.lfs.sha256
    else:
        data = path.read_bytes()
        found, wanted = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest(), file.blob_id  # noqa: S324 - git's
    if found != wanted:
        raise Damaged(f"{file.path}: hash {found} instead of {wanted}")
    return {"path": file.path, "size": size, "sha256" if file.lfs else "git": found}


def causes(error: BaseException) -> Iterator[BaseException]:
    """The exception and what it was raised from."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def retry_after(response: httpx.Response) -> float:
    """Seconds of a Retry-After header; a date or nothing counts as 0, the doubling wait then decides."""
    try:
        return max(0.0, float(response.headers.get("retry-after", "0")))
    except ValueError:
        return 0.0


def telling(error: BaseException) -> str:
    """What a person needs of an error: the hub's answer where there is one, else what it all began with.

    huggingface_hub wraps both in advice about the connection.
    """
    chain = list(causes(error))
    cause = next((cause for cause in chain if isinstance(cause, HfHubHTTPError)), chain[-1])
    return f"{type(cause).__name__}: {first_line(cause)}"


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


if __name__ == "__main__":
    disable_progress_bars()
    Download().run()
