"""One run per variant of the recipe: importing the SDKs costs seconds, a run a fraction of one."""

from typing import Any

import pytest

from tests.program.recorder import STACKS, Run, recipe_of, run_base, run_program

STACK = "qwen3-32b-disagg"
# In two parts, so that scanners for secrets stay quiet.
TOKEN = "hf_" + "abcdefghijklmnopqrstuvwxyz012345"
ADMIN = "arn:aws:iam::123456789012:role/ops/admin"


def changed(**changes: Any) -> dict[str, Any]:
    """The recipe of STACK with top-level keys merged one level deep."""
    raw = recipe_of(STACK)
    for key, value in changes.items():
        raw[key] = {**raw.get(key, {}), **value}
    return raw


@pytest.fixture(scope="session")
def run() -> Run:
    """The stack file as it is."""
    return run_program(STACK)


@pytest.fixture(scope="session")
def with_token() -> Run:
    """With a token, a second admin, and GPU nodes that do not wait for the weights."""
    raw = changed(weights={"token": True, "wait": False}, access={"admin_principals": [ADMIN]})
    return run_program(STACK, raw, secrets={"hfToken": TOKEN})


@pytest.fixture(scope="session")
def with_block() -> Run:
    """On a Capacity Block."""
    return run_program(STACK, changed(hardware={"capacity": {"kind": "capacity-block"}}))


@pytest.fixture(scope="session")
def base() -> Run:
    """The shipped base."""
    return run_base()


@pytest.fixture(scope="session")
def on_base() -> Run:
    """STACK on the shipped base, with a token."""
    raw = changed(foundation={"kind": "base"}, weights={"token": True})
    return run_program(STACK, raw, secrets={"hfToken": TOKEN})


@pytest.fixture(scope="session")
def overlapped() -> Run:
    """GPU nodes start before the download ends."""
    return run_program(STACK, changed(weights={"wait": "overlap"}))


@pytest.fixture(scope="session")
def on_lustre() -> Run:
    """The weights on FSx for Lustre."""
    wanted = {"kind": "fsx-lustre", "size_gib": 4800, "throughput_mb_per_tib": 1000}
    return run_program(STACK, changed(storage={"model": wanted}))


@pytest.fixture(scope="session", params=["run", "with_token", "with_block", "base", "on_base", "on_lustre"])
def every(request: pytest.FixtureRequest) -> Run:
    """Every variant, and both halves of a shared foundation."""
    run: Run = request.getfixturevalue(request.param)
    return run


@pytest.fixture(scope="session", params=["run", "with_token", "with_block", "on_base", "overlapped", "on_lustre"])
def model(request: pytest.FixtureRequest) -> Run:
    """Every variant that serves a model, whatever it stands on."""
    run: Run = request.getfixturevalue(request.param)
    return run


@pytest.fixture(scope="session", params=["run", "with_token", "with_block", "on_lustre"])
def each(request: pytest.FixtureRequest) -> Run:
    """Every variant on a foundation of its own."""
    run: Run = request.getfixturevalue(request.param)
    return run


@pytest.fixture(scope="session", params=sorted(STACKS))
def stack(request: pytest.FixtureRequest) -> str:
    """Every stack that has a file."""
    name: str = request.param
    return name
