"""Python environments from committed lock files, and kept.

For programs whose packages do not go together with ours (Dynamo wants an older pydantic, AIPerf its own world). A lock names every
package with version and hashes (`rehearsal.lock` makes it), so nothing is resolved: what is installed is what was tried. An
environment is kept under the hash of its lock, the platform and the Python, so a changed pin makes a new one.

    python = ensure(PythonEnvironment(title="Dynamo", group="serving", lock=HERE / "requirements.lock", …))
"""

import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

from rehearsal.cache import cache_folder, disk_full, is_about_network, locked, run, writable
from rehearsal.engine.progress import Reporter, reporter
from rehearsal.errors import SetupError

_MADE: Final = "made.json"
_COLLECTING: Final = "Collecting "


@dataclass(frozen=True)
class PythonEnvironment:
    """What to install, where it runs, and what to say where that fails."""

    title: str
    """In messages: "Dynamo"."""
    group: str
    """Folder in the cache. One process at a time makes an environment in it."""
    lock: Path
    """Requirements file with a hash for every package."""
    probe: tuple[str, ...]
    """Modules that must import afterwards."""
    next_step: str
    """What a person can do where it cannot be made."""
    pythons: tuple[tuple[int, int], ...] = ((3, 11), (3, 12), (3, 13))
    """CPython versions the lock has wheels for."""
    platforms: tuple[str, ...] = ("linux-x86_64", "linux-aarch64")
    room_bytes: int = 3 * 1024**3
    """Disk that making it takes for a while, downloads included."""

    @property
    def packages(self) -> int:
        """How many the lock names."""
        lines = self.lock.read_text(encoding="utf-8").splitlines()
        return sum("==" in line and not line.startswith("#") for line in lines)


def ensure(environment: PythonEnvironment, progress: Reporter | None = None) -> Path:
    """The environment's Python: from the cache, or made now (minutes). SetupError says why not."""
    python, key = _base(environment)
    folder = cache_folder() / environment.group / key
    if found := _made(folder):
        return found
    doing = f"setting up {environment.title}"
    with writable(folder, doing, environment.room_bytes):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.parent / "build.lock", environment.title, doing, environment.room_bytes):
        if found := _made(folder):  # another process may have made it while this one waited
            return found
        with writable(folder, doing, environment.room_bytes):
            if progress is not None:
                return _make(environment, python, folder, progress)
            with reporter() as own:
                return _make(environment, python, folder, own)


def _base(environment: PythonEnvironment) -> tuple[str, str]:
    """A Python to make it from, and the key under which it is kept."""
    target = f"{platform.system()}-{platform.machine()}".lower()
    if target not in environment.platforms:
        raise SetupError(
            f"{environment.title} has wheels for {' and '.join(environment.platforms)} only; this is {target}",
            environment.next_step,
        )
    wanted = environment.pythons
    python, version = sys.executable, sys.version_info[:2]
    if version not in wanted:
        names = [f"python{major}.{minor}" for major, minor in reversed(wanted)]
        found = next((path for name in names if (path := shutil.which(name)) and _runs(path)), None)
        if found is None:
            raise SetupError(
                f"{environment.title} needs CPython {' or '.join(f'{a}.{b}' for a, b in wanted)}; "
                f"this is {version[0]}.{version[1]}, and no other is on PATH",
                f"install one of them beside it; {environment.next_step}",
            )
        python, minor = found, int(Path(found).name.rpartition(".")[2])
        version = (3, minor)
    content = [environment.lock.read_text(encoding="utf-8"), target, str(version)]
    digest = hashlib.sha256("\0".join(content).encode()).hexdigest()[:16]
    return python, f"{target}-cp{version[0]}{version[1]}-{digest}"


def _runs(python: str) -> bool:
    """Version managers put names on PATH that only say that the version is not installed."""
    try:
        subprocess.run([python, "-c", ""], capture_output=True, timeout=30, check=True, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def _made(folder: Path) -> Path | None:
    """Its Python, if it is whole: the record is written last."""
    python = folder / "bin" / "python"
    try:
        json.loads((folder / _MADE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return python if os.access(python, os.X_OK) else None


def _make(environment: PythonEnvironment, python: str, folder: Path, progress: Reporter) -> Path:
    shutil.rmtree(folder, ignore_errors=True)  # of a maker that was killed; nobody else holds the lock
    if shutil.disk_usage(folder.parent).free < environment.room_bytes:
        raise disk_full(folder.parent, f"setting up {environment.title}", environment.room_bytes)
    try:
        folder.mkdir()
        _install(environment, python, folder, progress)
        record = {
            "title": environment.title,
            "packages": environment.packages,
            "python": sysconfig.get_python_version(),
        }
        (folder / _MADE).write_text(json.dumps(record), encoding="utf-8")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder / "bin" / "python"


def _install(environment: PythonEnvironment, python: str, folder: Path, progress: Reporter) -> None:
    def step(command: list[str | Path], what: str, total: int | None, failed: str) -> None:
        progress.update(what, 0, total)

        def told(count: int) -> None:
            progress.update(what, min(count, total or count), total)

        code, out, errors = run(command, folder, env, told, follow="stdout", counted=_COLLECTING)
        if code != 0:
            raise _failed(environment, failed, errors or out, folder)

    # Not the caller's Python settings; an index or a proxy of theirs (PIP_…) stays.
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    new, total = folder / "bin" / "python", environment.packages
    step(
        [python, "-m", "venv", "--without-pip", folder],
        f"{environment.title}: making its environment",
        None,
        f"{python} cannot make a virtual environment",
    )
    install: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        new,
        "--disable-pip-version-check",
        "--no-input",
    ]
    install += ["install", "--no-deps", "--require-hashes", "--only-binary=:all:", "--progress-bar=off"]
    install += ["--retries=3"]  # without a network that is seconds, and a rehearsal goes on without
    step(
        [*install, "-r", environment.lock],
        f"{environment.title}: fetching and installing packages, once",
        total,
        f"the packages of {environment.title} could not be installed",
    )
    step(
        [new, "-c", f"import {', '.join(environment.probe)}"],
        f"{environment.title}: trying it",
        None,
        f"{environment.title} does not run here",
    )


def _failed(environment: PythonEnvironment, what: str, errors: str, folder: Path) -> SetupError:
    if "no space left on device" in errors.lower():
        return disk_full(folder.parent, f"setting up {environment.title}", environment.room_bytes)
    tail = "\n".join(f"  {line}" for line in errors.strip().splitlines()[-4:])
    why = " (a package registry cannot be reached)" if is_about_network(errors) else ""
    return SetupError(f"{what}{why}:\n{tail}", environment.next_step)


def set_up(title: str, group: str, make: Callable[[], Path]) -> None:
    """What `python -m rehearsal.GROUP` does: make the environment and say where it is. Exits 1 where it cannot be, 130 on Ctrl-C or SIGTERM."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        sys.stdout.write(f"{title}'s environment: {make()}\n")
    except SetupError as error:
        sys.exit(f"{group}: {error}")
    except KeyboardInterrupt:
        sys.stderr.write(f"\n{group}: stopped; nothing half made stays behind in {cache_folder() / group}\n")
        sys.exit(130)
