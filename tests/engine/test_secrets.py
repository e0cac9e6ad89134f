"""The Hugging Face token is secret config, and nowhere else in clear."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from .conftest import StartLife
from .life import STACK, Life, said, succeed

pytestmark = pytest.mark.engine

TOKEN = "hf_" + "NotARealTokenButAsLong0123456789"
"""In two parts, so that no scanner takes it for a leak."""
PLANTED = "a-plain-value-that-is-anywhere"
FORMS = {"as it is": TOKEN} | {
    # A text inside another one has three forms in base64, by where it begins; its first and last characters mix with the neighbours'.
    f"in base64, {offset} bytes in": base64.b64encode(b"?" * offset + TOKEN.encode()).decode()[4:-4]
    for offset in range(3)
}


def places(folder: Path, text: str) -> list[str]:
    """Files below `folder` in which `text` stands; the project's own files (links) are not the session's."""
    files = (
        path for path in folder.rglob("*") if path.is_file() and "project" not in path.relative_to(folder).parts[:1]
    )
    own = [folder / "project" / "stacks" / f"Pulumi.{STACK}.yaml"]
    return sorted(str(path.relative_to(folder)) for path in [*files, *own] if text.encode() in path.read_bytes())


@dataclass
class Kept:
    """A session in which the token was used, and all that commands said."""

    life: Life
    output: str


@pytest.fixture(scope="module")
def kept(start_for_module: StartLife) -> Kept:
    life = start_for_module()
    life.edit({"weights.token": True, "owner": PLANTED})
    config = life.session.run(["config", "set", "--secret", "--stack", STACK, "hfToken"], input=TOKEN)
    runs = [
        succeed(config),
        life.run("preview", "--json"),
        life.run("preview", "--diff"),
        succeed(life.up()),
        life.run("preview", "--json"),
        life.run("refresh", "--yes", "--skip-preview"),
        life.run("stack", "export"),
        life.run("stack", "history", "--json"),
        life.run("stack", "output", "--json"),
    ]
    # Changed, so that old and new value stand in a diff.
    other = life.session.run(["config", "set", "--secret", "--stack", STACK, "hfToken"], input=f"{TOKEN}-changed")
    runs += [succeed(other), life.run("preview", "--json"), life.run("preview", "--diff"), succeed(life.up("--diff"))]
    return Kept(life, "\n".join(said(run) for run in runs))


def test_the_search_finds_what_is_in_clear(kept: Kept) -> None:
    found = places(kept.life.session.root, PLANTED)
    for where in ("state/", "events/", "cloud/cloud.json", "project/stacks/"):
        assert any(place.startswith(where) for place in found), f"a search that misses {where} proves nothing"
    assert PLANTED in kept.output


def test_the_token_was_used(kept: Kept) -> None:
    secrets = kept.life.exists("Secret")
    assert [secret["id"] for secret in secrets] == [f"{STACK}/hf-token-secret"]
    assert "secretRef" in json.dumps(kept.life.exists("Job", "weights-job")[0]["inputs"]), "the download is given it"


@pytest.mark.parametrize("form", FORMS)
def test_the_token_is_in_no_file_and_no_output(kept: Kept, form: str) -> None:
    assert places(kept.life.session.root, FORMS[form]) == []
    assert FORMS[form] not in kept.output


def test_a_missing_token_is_asked_for(start: StartLife) -> None:
    life = start()
    life.edit({"weights.token": True})
    result = life.run("preview")
    assert not result.ok
    assert f"pulumi config set -s {STACK} --secret hfToken" in said(result)
    assert "Traceback" not in said(result)
    assert "aws:" not in said(result), "an `up` would leave a cluster and a NAT gateway behind"


def test_a_token_in_clear_is_refused_before_anything_is_made(start: StartLife) -> None:
    life = start()
    clear = ["config", "set", "--plaintext", "--stack", STACK, "hfToken", TOKEN]
    succeed(life.session.run(clear))
    result = life.up()
    assert not result.ok
    assert "in clear in the stack file" in said(result)
    assert TOKEN not in said(result)
    assert life.exists("Vpc") == []
