"""The CustomResourceDefinition of graphs. It is NVIDIA's and not part of this repository."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any, Final

import yaml

from rehearsal.cluster.api import Api, Refused, wait_for

VARIABLE: Final = "DYNAMO_RECIPES_CRD"
DEFAULT: Final = (
    Path(__file__).resolve().parents[3]
    / "shared/reference/crd/nvidia.com_dynamographdeployments.full.2026-08-21.yaml.gz"
)
HOW_TO_GET: Final = (
    "take deploy/operator/config/crd/bases/nvidia.com_dynamographdeployments.yaml of ai-dynamo/dynamo (or unpack it from the "
    f"dynamo-platform chart) and name the file, plain or gzipped: {VARIABLE}=/path/to/it"
)


def find() -> Path | None:
    """The file, from $DYNAMO_RECIPES_CRD or beside this checkout; None where there is none."""
    path = Path(os.environ.get(VARIABLE) or DEFAULT)
    return path if path.is_file() else None


def read(path: Path) -> dict[str, Any]:
    """The definition, with its conversion webhook switched off: no operator answers it here.

    Only v1beta1, which is stored, may then be created: v1alpha1 would be stored without its fields, silently.
    """
    data = path.read_bytes()
    text = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    crd: dict[str, Any] = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe
    crd["spec"]["conversion"] = {"strategy": "None"}
    return crd


def install(api: Api, path: Path) -> None:
    """Make the server know graphs, and wait until it does."""
    crd = read(path)
    api.apply(crd)
    group, kind = crd["spec"]["group"], crd["spec"]["names"]["kind"]

    def served() -> bool:
        try:
            api.path(f"{group}/v1beta1", kind)
            api.list(f"{group}/v1beta1", kind)
        except Refused:
            return False
        return True

    wait_for(f"the API server to serve {kind}", served)
