"""Fixtures of all tiers. The engine's own are here as well, because several rooms use it."""

import os
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from rehearsal.engine import Engine, ensure_engine
from rehearsal.session import Session

# A loaded machine is no wrong answer: pytest's own time limit is what ends an example that never ends.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
# Rehearsals of the tests leave serving out, unless one asks for it: only tests/serving may need 1.3 GB.
os.environ["SERVE"] = "0"

PULUMI_YAML = """\
name: plain
runtime:
  name: python
  options: {toolchain: pip, virtualenv: .venv}
stackConfigDir: stacks
"""


@pytest.fixture(scope="session")
def engine() -> Engine:
    """The real engine. `make test` has it ready before pytest starts; without that the first test builds it."""
    return ensure_engine()


@pytest.fixture
def make_project(tmp_path: Path) -> Callable[[str], Path]:
    """A project around a program's text, with one stack, `dev`."""

    def make(program: str) -> Path:
        project = tmp_path / "a project"
        (project / "stacks").mkdir(parents=True, exist_ok=True)
        (project / "Pulumi.yaml").write_text(PULUMI_YAML)
        (project / "stacks" / "Pulumi.dev.yaml").write_text("config: {} # kept as it is\n")
        (project / "__main__.py").write_text(textwrap.dedent(program))
        return project

    return make


@pytest.fixture
def plain(engine: Engine, make_project: Callable[[str], Path]) -> Iterator[Callable[[str], Session]]:
    """A session on a program's text, against the plain cloud (tests/engine/plain_cloud.py), its stack made."""
    sessions: list[Session] = []

    def start(program: str) -> Session:
        session = Session(project=make_project(program), engine=engine, cloud="tests.engine.plain_cloud:PlainCloud")
        session.__enter__()
        sessions.append(session)
        session.init_stack("dev")
        return session

    yield start
    for session in sessions:
        session.__exit__(None, None, None)
