"""Sessions on the real program."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from rehearsal.engine import Engine
from rehearsal.session import Session

from .life import STACK, Life

StartLife = Callable[..., Life]


@pytest.fixture(scope="module")
def start_for_module(engine: Engine) -> Iterator[StartLife]:
    """Starts a session that lives as long as the module's tests. Time is not counted unless `clock="events"`."""
    yield from _starting(engine)


@pytest.fixture
def start(engine: Engine) -> Iterator[StartLife]:
    """Starts a session for one test. Time is not counted unless `clock="events"`."""
    yield from _starting(engine)


def _starting(engine: Engine) -> Iterator[StartLife]:
    with ExitStack() as sessions:

        def begin(stack: str = STACK, **how: Any) -> Life:
            return Life(sessions.enter_context(Session(engine=engine, **{"clock": "off", **how})), stack)

        yield begin
