"""The CustomResourceDefinition of graphs. It is NVIDIA's and not part of this repository."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any, Final

import yaml

from rehearsal.cluster.api import Api, Refused, wait_for
from rehearsal.errors import SetupError

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
    """The file, from $DYNAMO_RECIPES_CRD or beside this checkout; None where there is none. SetupError: the variable names none."""
    named = os.environ.get(VARIABLE)
    if named and not Path(named).is_file():
        raise SetupError(f"{VARIABLE} names {named}, and there is no such file", f"unset it, or {HOW_TO_GET}")
    path = Path(named or DEFAULT)
    return path if path.is_file() else None


def read(path: Path) -> dict[str, Any]:
    """The definition, with its conversion webhook switched off: no operator answers it here. SetupError: the file is none.

    Only v1beta1, which is stored, may then be created: v1alpha1 would be stored without its fields, silently.
    """
    try:
        data = path.read_bytes()
        text = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        crd: dict[str, Any] = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe
        crd["spec"]["conversion"] = {"strategy": "None"}
    except (OSError, EOFError, yaml.YAMLError, TypeError, KeyError) as error:
        raise SetupError(f"{path} is no CustomResourceDefinition: {error}", HOW_TO_GET) from None
    return crd


def install(api: Api, path: Path) -> None:
    """Make the server know graphs, and wait until it does. SetupError: it knows them already, by an operator's own definition."""
    crd = read(path)
    held = api.read(crd) or {"spec": {}}
    if (held["spec"].get("conversion") or {}).get("strategy") == "Webhook":
        raise SetupError(
            f"{api.host} has the definition of graphs that an operator installed; its webhook would be lost",
            "name a cluster without Dynamo's platform, or unset DYNAMO_RECIPES_KUBECONFIG to have one started",
        )
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
