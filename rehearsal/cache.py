"""The cache folder, and what everything that is set up once and kept in it has in common."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from rehearsal.errors import SetupError
from rehearsal.watch import held_signals

# In what Go and pip say where a registry does not answer.
_NETWORK_SIGNS = (
    "dial tcp",
    "no such host",
    "i/o timeout",
    "proxyconnect",
    "connection refused",
    "Connection",
    "NewConnectionError",
)


def cache_folder() -> Path:
    """Where built and downloaded tools are kept."""
    if chosen := os.environ.get("DYNAMO_RECIPES_CACHE"):
        return Path(chosen).expanduser().resolve()
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "dynamo-recipes"


def is_about_network(errors: str) -> bool:
    """Whether a tool's complaint is that a registry cannot be reached."""
    return any(sign in errors for sign in _NETWORK_SIGNS)


def disk_full(folder: Path, doing: str, room_bytes: int) -> SetupError:
    """`doing` such as "building the Pulumi engine"."""
    return SetupError(
        f"the disk of {folder} has too little room: {doing} takes {room_bytes / 1024**3:.0f} GiB for a while",
        "make room, or set DYNAMO_RECIPES_CACHE to a folder on another disk",
    )


@contextmanager
def locked(path: Path, title: str, doing: str, room_bytes: int) -> Iterator[None]:
    """One maker at a time; the kernel lets go of the lock however its holder ends."""
    with writable(path.parent, doing, room_bytes), path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.stderr.write(f"Another process is building the {title}; waiting for it\n")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def writable(folder: Path, doing: str, room_bytes: int) -> Iterator[None]:
    """What the disk of the cache says, as a SetupError."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise disk_full(folder, doing, room_bytes) from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise SetupError(
                f"the cache folder {folder} cannot be written ({error.strerror})",
                "set DYNAMO_RECIPES_CACHE to a folder you may write to, or mend the permissions",
            ) from None
        raise


def run(
    command: Sequence[str | Path],
    work: Path,
    env: Mapping[str, str],
    lines: Callable[[int], None],
    *,
    follow: str = "stderr",
    counted: str = "",
) -> tuple[int, str, str]:
    """Exit code, standard output and standard error. `lines` is told, as it grows, how many lines of `follow` start with `counted`.

    The command leads a process group of its own, and however this ends, nothing of that group is left.
    """
    followed: list[str] = []
    process: subprocess.Popen[str] | None = None
    with (work / "said").open("w+", encoding="utf-8") as other:
        streams: dict[str, IO[str] | int] = {"stdout": other, "stderr": other, follow: subprocess.PIPE}
        try:
            with held_signals():
                process = subprocess.Popen(
                    command,
                    cwd=work,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=streams["stdout"],
                    stderr=streams["stderr"],
                    text=True,
                    start_new_session=True,
                )
                reader = threading.Thread(target=_read_all, args=(getattr(process, follow), followed), daemon=True)
                reader.start()
            while (code := process.poll()) is None:
                lines(sum(line.startswith(counted) for line in followed))
                time.sleep(0.1)
        except BaseException:
            if process is not None:
                _end_group(process)
            raise
        finally:
            if process is not None:
                reader.join()
        other.seek(0)
        said = {"stdout": other.read(), "stderr": ""} if follow == "stderr" else {"stdout": "", "stderr": other.read()}
        said[follow] = "".join(followed)
        return code, said["stdout"], said["stderr"]


def _read_all(stream: IO[str], lines: list[str]) -> None:
    with stream:
        lines.extend(stream)


def _end_group(process: subprocess.Popen[str]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
