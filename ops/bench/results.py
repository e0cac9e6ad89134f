"""Results on this machine: one folder per run, `STACK/PROFILE/RUN`, as the Job lays them out on the claim.

run.json (what was measured, on what, for how much), points/KEY.json (one per point and repeat), status.json (whole, or why not).
Made by recipe/scripts/bench.py; here is the one reader of that format.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import gzip
import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from ops.exits import BAD_INPUT, FAILED, CommandError
from recipe.benchmark import FORMAT

FOLDER: Final = Path("results")
"""Where results go unless told otherwise, below the current folder."""


class _Read(BaseModel):
    """What is relied on of a file that something else wrote; the rest passes unseen. Strict: a figure is no text, and NaN is none."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)


class _Worker(_Read):
    role: str
    replicas: int
    gpus: int | None
    tensor_parallel: int | None


class _Price(_Read):
    as_of: str | None = None


class _Stack(_Read):
    engine: str | None
    mode: str
    router: str
    gpu: str | None
    instance_type: str
    gpus: int
    workers: list[_Worker]
    versions: dict[str, Any]
    usd_per_hour: float
    prices: list[_Price]
    simulated: str | None = None


class _Traffic(_Read):
    kind: str
    concurrency_per_gpu: list[float] | None = None


class _Key(_Read):
    key: str


class _About(_Read):
    """run.json."""

    stack: str
    profile: str
    run: str
    model: str
    aiperf: str
    traffic: _Traffic
    trace: dict[str, Any] | None = None
    goodput: dict[str, float]
    points: list[_Key]
    about: _Stack


class _Sent(_Key):
    repeat: int
    concurrency_per_gpu: float | None
    concurrency: int | None


class _Aggregate(_Read):
    avg: float | None = None
    p50: float | None = None
    p99: float | None = None


class _Result(_Read):
    """points/KEY.json."""

    point: _Sent
    seconds: float
    metrics: dict[str, _Aggregate]
    requests: dict[str, list[float | None]]
    errors: int
    error_kinds: list[str]
    sampled: int = 1
    trace: str | None = None


class _Status(_Read):
    """status.json."""

    state: str
    reason: str | None = None
    s3: str | None = None


def _damage(error: ValidationError) -> str:
    """Each wrong place with its reason, the first few."""
    found = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
    return "; ".join(found[:4]) + (f"; and {len(found) - 4} more" if len(found) > 4 else "")


@dataclass(frozen=True)
class Point:
    """One point, measured once."""

    key: str
    repeat: int
    concurrency_per_gpu: float | None
    """None: a trace at its own times."""
    concurrency: int | None
    seconds: float
    metrics: dict[str, dict[str, float]]
    """AIPerf's aggregates by its own names: avg, p50, p99, …"""
    requests: dict[str, list[float | None]]
    """One entry per answered request: start_ms, ttft_ms, itl_ms, latency_ms, isl, osl."""
    errors: int
    error_kinds: tuple[str, ...]
    sampled: int
    """Every how many-th request `requests` holds; 1: all of them."""

    @property
    def load(self) -> str:
        """What was sent, as a name that is the same for every stack."""
        return "trace" if self.concurrency_per_gpu is None else f"{self.concurrency_per_gpu:g} per GPU"


@dataclass(frozen=True)
class Run:
    """One folder of results, read."""

    folder: Path
    about: dict[str, Any]
    """run.json."""
    points: tuple[Point, ...]
    status: dict[str, Any]
    problems: tuple[str, ...] = ()
    """Files of it that could not be read."""

    @property
    def stack(self) -> dict[str, Any]:
        """The part of run.json that tells of the stack."""
        return dict(self.about["about"])

    @property
    def name(self) -> str:
        """For a legend: stack, router, and the mode where the stack's own name does not say it."""
        stack, mode = str(self.about["stack"]), str(self.stack["mode"])
        return f"{stack}{'' if mode in stack.split('-') else f' ({mode})'}, {self.stack['router']}"

    @property
    def gpus(self) -> int:
        return int(self.stack["gpus"])

    @property
    def usd_per_hour(self) -> float:
        return float(self.stack["usd_per_hour"])

    @property
    def simulated(self) -> str | None:
        """What its times come from, where that is no GPU."""
        found = self.stack.get("simulated")
        return str(found) if found else None

    @property
    def complete(self) -> bool:
        return self.status.get("state") == "complete" and not self.problems

    @property
    def loads(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(point.load for point in self.points))

    def at(self, load: str) -> tuple[Point, ...]:
        """The repeats of one load."""
        return tuple(point for point in self.points if point.load == load)


def load(folder: Path) -> Run:
    """The run in `folder`. CommandError: there is none, or nothing of it can be read."""
    about = _read(folder / "run.json")
    if about.get("format") != FORMAT or not isinstance(about.get("about"), dict):
        raise CommandError(
            f"{folder / 'run.json'} has format {about.get('format')!r}, this program knows {FORMAT}",
            "run the benchmark again, or use the version that made it",
            BAD_INPUT,
        )
    try:
        _About.model_validate(about)
    except ValidationError as error:
        raise CommandError(
            f"{folder / 'run.json'} is damaged: {_damage(error)}",
            "fetch the results again: ops bench STACK --attach",
            BAD_INPUT,
        ) from None
    sent = (about.get("trace") or {}).get("digest")
    points, problems = [], []
    for path in sorted((folder / "points").glob("*.json")):
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            point = _point(raw)
            if (trace := raw.get("trace", sent)) == sent:
                points.append(point)
            else:
                problems.append(f"{path.name} is of another trace ({trace}) than the run ({sent})")
        except ValidationError as error:
            problems.append(f"{path.name} cannot be read: {_damage(error)}")
        except (OSError, ValueError) as error:
            problems.append(f"{path.name} cannot be read: {error!r}"[:300])
    order = {point["key"]: number for number, point in enumerate(about["points"])}
    points.sort(key=lambda point: order.get(point.key, len(order)))
    status: dict[str, Any] = {"state": "cut short", "reason": "it has no status.json: the run was never finished"}
    if (folder / "status.json").exists():
        try:
            found = _read(folder / "status.json")
            _Status.model_validate(found)
            status = found
        except CommandError as error:
            problems.append(error.message)
        except ValidationError as error:
            problems.append(f"status.json cannot be read: {_damage(error)}")
    if not points:
        said = "; ".join(problems) or status.get("reason")
        raise CommandError(f"{folder} holds no measured point: {said}", "run the benchmark again", BAD_INPUT)
    return Run(folder, about, tuple(points), status, tuple(problems))


def find(path: Path) -> Path:
    """The run's folder at `path`, or the newest below it (of a stack, or of a profile). CommandError where there is none."""
    if (path / "run.json").exists():
        return path
    below = sorted(path.glob("**/run.json"), key=lambda file: file.stat().st_mtime) if path.is_dir() else []
    if not below:
        raise CommandError(
            f"{path} holds no results", f"name a folder below {FOLDER}/ that `ops bench` wrote", BAD_INPUT
        )
    return below[-1].parent


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CommandError(f"{path} does not exist", "name a folder that `ops bench` wrote", BAD_INPUT) from None
    except (OSError, ValueError) as error:
        raise CommandError(
            f"{path} cannot be read: {error}", "fetch the results again: ops bench STACK --attach", BAD_INPUT
        ) from None
    if not isinstance(found, dict):
        raise CommandError(f"{path} is no result", "fetch the results again: ops bench STACK --attach", BAD_INPUT)
    return found


def _point(raw: Any) -> Point:
    """Raises ValidationError."""
    found = _Result.model_validate(raw)
    return Point(
        key=found.point.key,
        repeat=found.point.repeat,
        concurrency_per_gpu=found.point.concurrency_per_gpu,
        concurrency=found.point.concurrency,
        seconds=found.seconds,
        metrics=raw["metrics"],
        requests=found.requests,
        errors=found.errors,
        error_kinds=tuple(found.error_kinds),
        sampled=found.sampled,
    )


# ── out of a log ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class LogReader:
    """Puts together what a benchmark's log carries; lines may come twice, in any order, and of several pods."""

    _parts: dict[tuple[str, int], dict[int, str]] = field(default_factory=dict)

    def feed(self, line: str) -> tuple[str, dict[str, Any]] | None:
        """Name and content of a result once its last part is there; None for every other line."""
        if not line.startswith("@@ "):
            return None
        try:
            _, name, numbers, text = line.split(" ", 3)
            number, count = (int(part) for part in numbers.split("/"))
        except ValueError:
            return None
        parts = self._parts.setdefault((name, count), {})
        parts[number] = text.strip()
        if len(parts) < count:
            return None
        del self._parts[name, count]
        try:
            packed = base64.b64decode("".join(parts[one] for one in range(1, count + 1)), validate=True)
            data = json.loads(gzip.decompress(packed))
        except (KeyError, ValueError, binascii.Error, OSError, EOFError, zlib.error):
            return None
        return (name, data) if isinstance(data, dict) and _is_safe(name) else None


def _is_safe(name: str) -> bool:
    """A name out of a log becomes a path below the run's folder, nowhere else."""
    return name in ("run.json", "status.json") or (
        name.startswith("points/") and name.endswith(".json") and ".." not in name and name.count("/") == 1
    )


def save(folder: Path, name: str, data: dict[str, Any]) -> Path:
    """Write one result, all or nothing. CommandError where the disk refuses."""
    path = folder / name
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staged.write_text(json.dumps(data), encoding="utf-8")
        staged.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            staged.unlink(missing_ok=True)
        raise CommandError(
            f"{path} cannot be written: {error.strerror}", "free space, or name another folder: --out DIR", FAILED
        ) from None
    return path


def folder_of(out: Path, about: dict[str, Any]) -> Path:
    """Where a run's results belong below `out`."""
    return out.joinpath(*(_plain(str(about[key])) for key in ("stack", "profile", "run")))


def _plain(name: str) -> str:
    return "".join(char if char.isalnum() or char in "-_." else "-" for char in name).lstrip(".") or "run"


def kept(points: Sequence[str]) -> str:
    """The points that were kept, in words."""
    return f"{len(points)} points kept: {' '.join(points)}" if points else "no point was measured"
