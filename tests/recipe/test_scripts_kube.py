"""How the scripts in the cluster ask its API server: what comes back of an answer, and of one that does not arrive whole."""

from __future__ import annotations

import pytest

from recipe.scripts import kube
from tests.recipe.scripts_support import Reply, serve


@pytest.mark.parametrize("status", [200, 503])
def test_an_answer_that_is_cut_off_is_one_that_did_not_come(status: int) -> None:
    with (
        serve(lambda _: Reply(status, {"message": "x" * 5000}, cut_short_by=100)) as server,
        pytest.raises(kube.Unreachable),
    ):
        kube.call("GET", server.url)


def test_a_refusal_is_an_answer() -> None:
    with serve(lambda _: Reply(403, {"message": "no"})) as server:
        assert kube.call("GET", server.url) == (403, {"message": "no"})
