"""Traces: the generated one has the published one's shape, and both mean the same to everybody."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.scripts import trace
from recipe.scripts.trace import Request


@pytest.mark.parametrize("scale", [0.01, 0.1, 1.0])
def test_a_generated_trace_has_the_shape_of_the_published_one(scale: float) -> None:
    """facts/simulation.md §3 and facts/dynamo.md §6: 12,031 requests in about 59 minutes, 12,035 in, 343 out, 36.6 % reuse."""
    found = trace.shape(trace.generated(100, scale))
    assert found.requests == round(12_031 * scale)
    assert found.seconds == pytest.approx(59 * 60 * scale, abs=6)
    assert found.mean_input == pytest.approx(12_035, rel=0.001)
    assert found.mean_output == pytest.approx(343, rel=0.005)
    assert found.reuse == pytest.approx(0.366, abs=0.012 if scale < 0.1 else 0.002)


def test_the_same_seed_is_the_same_trace_and_another_one_is_not() -> None:
    assert trace.digest(trace.generated(7, 0.02)) == trace.digest(trace.generated(7, 0.02)) == "1bb3f4c562d32124"
    assert trace.digest(trace.generated(7, 0.02)) != trace.digest(trace.generated(8, 0.02))


@given(st.integers(0, 1000), st.floats(0.0001, 0.02))
def test_every_request_is_one_that_aiperf_takes(seed: int, scale: float) -> None:
    found = trace.generated(seed, scale)
    assert found[0].timestamp == 0
    assert [one.timestamp for one in found] == sorted(one.timestamp for one in found)
    for one in found:
        assert len(one.hash_ids) == -(-one.input_length // trace.BLOCK), "a block id for every 512 tokens, no more"
        assert len(set(one.hash_ids)) == len(one.hash_ids)
        assert 1 <= one.output_length <= 2000
        assert one.input_length + one.output_length <= 131_072, "longer than any context of ours"


def test_blocks_are_shared_from_the_beginning_only() -> None:
    """A block that follows another one than before is another prompt, whatever its id."""
    found = trace.generated(3, 0.02)
    before: dict[int, int] = {}
    for one in found:
        for first, second in zip(one.hash_ids, one.hash_ids[1:], strict=False):
            assert before.setdefault(second, first) == first


def test_reuse_counts_beginnings_that_were_seen_before() -> None:
    one, two, other = Request(0, 1024, 1, (0, 1)), Request(1, 1536, 1, (0, 1, 2)), Request(2, 1024, 1, (5, 1))
    assert trace.shape([one, two, other]).reuse == pytest.approx(2 / 7, abs=1e-4), "block 1 after block 5 is new"


def test_a_trace_is_cut_from_its_end_and_sent_faster() -> None:
    whole = [Request(index * 1000, 600 * (index + 1), 9, (index,)) for index in range(10)]
    found = trace.cut(whole, scale=0.5, pace=2, longest=2000)
    assert [(one.timestamp, one.input_length) for one in found] == [(0, 600), (500, 1200), (1000, 1800)]


def test_a_file_reads_as_it_was_written_and_what_is_none_is_named() -> None:
    whole = trace.generated(1, 0.001)
    assert trace.read(trace.text_of(whole)) == whole
    with pytest.raises(ValueError, match="line 2 is no request of a trace"):
        trace.read(trace.text_of(whole[:1]) + '{"timestamp": 5}\n')
