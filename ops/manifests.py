"""`ops plan --manifests DIR`: every Kubernetes object of a plan as YAML, and the Helm charts with their values."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import Any, Final

import yaml

from ops.exits import BAD_INPUT, FAILED, CommandError
from recipe.plan import BasePlan, ChartPlan, Objects, Plan

HEADER: Final = "# Written by `python -m ops plan"
"""First words of each of our files: what does not start with them is somebody else's and is not touched."""
_SINGULAR: Final = {"volumes": "volume", "claims": "claim", "graph_config": "graph-config"}


class _Dumper(yaml.SafeDumper):
    """Text of several lines as a block, as a person would write it, and no anchors."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def as_yaml(value: Any) -> str:
    """`value` as YAML in its own key order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=140)


def files(plan: Plan | BasePlan) -> dict[str, str]:
    """Content by file name. Objects are numbered in their order of creation; charts are in `helm/`, unless a base has them."""
    header = f"{HEADER} {plan.stack} --manifests`, exactly as the program creates it.\n"
    late = "# ${...} is known only after AWS has created it.\n"
    found: dict[str, str] = {}
    named = _named(plan.objects) if isinstance(plan, Plan) else []
    for number, (name, manifest) in enumerate(named, start=10):
        text = as_yaml(manifest)
        found[f"{number}-{name}.yaml"] = header + (late if "${" in text else "") + text
    if isinstance(plan, Plan) and plan.base is not None:
        return found
    charts = (plan.platform, *plan.devices)
    found["helm/charts.yaml"] = header + as_yaml({"charts": [_reference(chart) for chart in charts]})
    for chart in charts:
        command = f"# helm upgrade --install {chart.release} {_source(chart)} --version {chart.version} --namespace {chart.namespace} --create-namespace -f {chart.release}.values.yaml\n"
        found[f"helm/{chart.release}.values.yaml"] = header + command + as_yaml(chart.values)
    return found


def write(plan: Plan | BasePlan, folder: Path) -> tuple[Path, ...]:
    """Write `files(plan)` into `folder`, all or nothing. Raises CommandError when something else is in there, or the disk refuses."""
    wanted = {folder / name: text for name, text in files(plan).items()}
    made: list[Path] = []
    staged: Path | None = None
    try:
        existing = _ours(folder)
        for needed in (folder, folder / "helm"):
            made += [parent for parent in (needed, *needed.parents) if not parent.exists()]
            needed.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=".manifests-", dir=folder))
        for number, text in enumerate(wanted.values()):
            (staged / str(number)).write_text(text, encoding="utf-8")
        # Everything is on the disk: from here only names change.
        for number, path in enumerate(wanted):
            (staged / str(number)).replace(path)
        for path in existing - wanted.keys():
            path.unlink()
    except OSError as error:
        made_here = sorted(set(made), key=lambda path: -len(path.parts))
        _remove(staged)
        for path in made_here:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise CommandError(
            f"cannot write {error.filename or folder}: {error.strerror}", "free space, or name another folder", FAILED
        ) from None
    finally:
        _remove(staged)
    return tuple(wanted)


def _remove(staged: Path | None) -> None:
    if staged is not None:
        shutil.rmtree(staged, ignore_errors=True)


def _ours(folder: Path) -> set[Path]:
    """Our files from an earlier run. Raises CommandError when anything else is there."""
    if not folder.exists():
        return set()
    if not folder.is_dir():
        raise CommandError(f"{folder} is a file", "name a folder that is empty or does not exist yet", BAD_INPUT)
    charts = folder / "helm"
    present = {path for path in (*folder.iterdir(), *(charts.iterdir() if charts.is_dir() else ())) if path != charts}
    foreign = sorted(str(path.relative_to(folder)) for path in present if not _is_ours(path))
    if foreign:
        shown = ", ".join(foreign[:3]) + (f" and {len(foreign) - 3} more" if len(foreign) > 3 else "")
        raise CommandError(
            f"{folder} holds files this command did not write: {shown}", "name an empty or a new folder", BAD_INPUT
        )
    return present


def _is_ours(path: Path) -> bool:
    if path.is_symlink() or not path.is_file() or path.suffix != ".yaml":
        return False
    with path.open("rb") as file:
        return file.read(len(HEADER)) == HEADER.encode()


def _named(objects: Objects) -> list[tuple[str, dict[str, Any]]]:
    """Each object with the name of its place in `Objects`, in the order of `Objects.all()`."""
    return [
        (f"{_SINGULAR[field]}-{key}" if key else field.replace("_", "-"), manifest)
        for field, key, manifest in objects.created()
    ]


def _reference(chart: ChartPlan) -> dict[str, Any]:
    wanted = ("release", "chart", "repository", "version", "namespace")
    return {key: getattr(chart, key) for key in wanted} | {"values": f"{chart.release}.values.yaml"}


def _source(chart: ChartPlan) -> str:
    """How helm is told where the chart is."""
    if chart.repository.startswith("oci://"):
        return f"{chart.repository.rstrip('/')}/{chart.chart}"
    return f"{chart.chart} --repo {chart.repository}"
