"""Finding the Pulumi engine, or building it from its Go module.

Users install the official CLI. Where its download cannot be reached, the same sources can be had as a Go module: go.mod,
go.sum and tools.go beside this file pin all of it, and `rehearsal.gobuild` builds and keeps it.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import yaml
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from rehearsal.cache import cache_folder
from rehearsal.engine.progress import Reporter
from rehearsal.gobuild import GoCommand, ensure, said

__all__ = ["Engine", "cache_folder", "engine_command", "ensure_engine", "required_range", "satisfies"]

ROOT = Path(__file__).resolve().parents[2]
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
    built = ensure([engine_command()], progress)["pulumi"]
    return Engine(built.path, (built.path.parent,), built.source, built.version)


def required_range(project: Path = ROOT / "Pulumi.yaml") -> str:
    """`requiredPulumiVersion` of Pulumi.yaml, such as `>=3.250.0 <4.0.0`."""
    return str(yaml.safe_load(project.read_text(encoding="utf-8"))["requiredPulumiVersion"])


def engine_command(module: Path = Path(__file__).parent) -> GoCommand:
    """The engine as `rehearsal.gobuild` takes it."""
    return GoCommand(
        title="Pulumi engine",
        name="pulumi",
        group="engine",
        module=module,
        package="github.com/pulumi/pulumi/pkg/v3/cmd/pulumi",
        pinned="github.com/pulumi/pulumi/pkg/v3",
        variables=(("github.com/pulumi/pulumi/sdk/v3/go/common/version.Version", "{version}"),),
        version_flag="version",
        # Modules 1.3 GB and build cache 1.6 GB, seen on Linux x86-64 with 3.250.0; the rest is room.
        room_bytes=4 * 1024**3,
        next_step=f"run this again once the network is back, or {_INSTALL_CLI.format(range=required_range())}",
    )


# On PATH


def _from_path() -> Engine | None:
    found = shutil.which("pulumi")
    version = (said(Path(found), "version") or "").strip() if found else ""
    if found is None or not version or not satisfies(version, required_range()):
        return None
    return Engine(Path(found), (Path(found).parent,), "PATH", version)


def satisfies(version: str, wanted: str) -> bool:
    """Whether `version` (with or without a v) lies in a range of comparisons separated by spaces, which must all hold."""
    try:
        return SpecifierSet(",".join(wanted.split())).contains(Version(version.removeprefix("v")), prereleases=True)
    except (InvalidVersion, InvalidSpecifier):
        return False
