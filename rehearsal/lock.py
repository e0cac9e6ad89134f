"""`python -m rehearsal.lock REQUIREMENTS.in LOCK`: pins every package with the hashes of the wheels that can be meant.

One line per package, so that a diff shows what changed. Lines of the .in file marked `# without dependencies` are taken as they
are; everything else is resolved, preferring what the lock says already. The resolver is uv, in a temporary environment.
"""

import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import typer
from packaging.markers import Marker
from packaging.utils import parse_wheel_filename

_UV: Final = "uv==0.13.9"
_PYTHONS: Final = ("3.11", "3.12", "3.13")
_ALONE: Final = "# without dependencies"


def main(source: Path, target: Path) -> None:
    """Resolve and write."""
    wanted = source.read_text(encoding="utf-8").splitlines()
    alone = [line for line in wanted if _ALONE in line]
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        subprocess.run([sys.executable, "-m", "venv", work / "uv"], check=True)
        subprocess.run([work / "uv" / "bin" / "python", "-m", "pip", "install", "--quiet", _UV], check=True)
        (work / "prefer.txt").write_text(_pins(target), encoding="utf-8")
        lines = _compiled(work, alone, "--no-deps")
        lines += _compiled(work, [line for line in wanted if line not in alone])
    header = f"# Made from {source.name} by `make lock-{target.parent.name}`. Wheels for Linux, CPython {', '.join(_PYTHONS)}.\n"
    target.write_text(header + "\n".join(sorted(lines)) + "\n", encoding="utf-8")
    sys.stdout.write(f"{target}: {len(lines)} packages\n")


def _pins(lock: Path) -> str:
    lines = lock.read_text(encoding="utf-8").splitlines() if lock.exists() else []
    return "\n".join(line.partition(" ")[0] for line in lines if not line.startswith("#"))


def _compiled(work: Path, wanted: list[str], *options: str) -> list[str]:
    file, found = work / "wanted.in", work / "pylock.toml"
    file.write_text("\n".join(wanted), encoding="utf-8")
    run = [str(work / "uv" / "bin" / "uv"), "pip", "compile", str(file), "--quiet", "--universal"]
    run += ["--python-version", _PYTHONS[0], "--constraint", str(work / "prefer.txt"), "--no-cache"]
    subprocess.run([*run, "--format", "pylock.toml", "--output-file", str(found), *options], check=True)
    packages = tomllib.loads(found.read_text(encoding="utf-8"))["packages"]
    found.unlink()
    return [_line(package) for package in packages if _meant(package)]


def _meant(package: dict[str, Any]) -> bool:
    """Whether any of our Pythons on Linux wants it."""
    if "marker" not in package:
        return True
    marker = Marker(package["marker"])
    machines = ("x86_64", "aarch64")
    base = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "implementation_name": "cpython"}
    return any(
        # The oldest patch level that is still about: a backport for 3.11.0 alone is not wanted.
        marker.evaluate(
            base
            | {
                "python_version": version,
                "python_full_version": f"{version}.7",
                "platform_machine": machine,
                "platform_python_implementation": "CPython",
            }
        )
        for version in _PYTHONS
        for machine in machines
    )


def _line(package: dict[str, Any]) -> str:
    hashes = sorted(set(_hashes(package)))
    if not hashes:
        sys.exit(f"{package['name']} {package['version']} has no wheel for Linux and Python {', '.join(_PYTHONS)}")
    return " ".join([f"{package['name']}=={package['version']}", *(f"--hash=sha256:{one}" for one in hashes)])


def _hashes(package: dict[str, Any]) -> Iterator[str]:
    ours = {f"cp{version.replace('.', '')}" for version in _PYTHONS}
    for wheel in package.get("wheels", ()):
        for tag in parse_wheel_filename(wheel["url"].rpartition("/")[2])[3]:
            python = tag.interpreter in ours | {"py3"} or (
                tag.abi == "abi3" and _minor(tag.interpreter) <= _minor(min(ours))
            )
            linux = tag.platform == "any" or (
                "manylinux" in tag.platform and tag.platform.endswith(("x86_64", "aarch64"))
            )
            if python and linux and not tag.abi.endswith("t"):
                yield wheel["hashes"]["sha256"]


def _minor(interpreter: str) -> int:
    """11 of cp311."""
    return int(interpreter.removeprefix("cp3") or 0) if interpreter.startswith("cp3") else 0


if __name__ == "__main__":
    typer.run(main)
