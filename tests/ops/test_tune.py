"""`ops tune`: a stack file that can be planned, its row in the table, and clear words where the search cannot be had."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import Result

from ops import diffing, stacks, tune_tool, tuning
from ops.diff_view import markdown as diff_markdown
from ops.diffing import FIGURES
from ops.exits import BAD_INPUT, FAILED, MISSING, CommandError
from ops.plan_data import predicted
from ops.planning import planned
from ops.tuning_view import markdown
from recipe import predictions
from recipe.predictions import KNOWN_GAPS, read
from rehearsal.errors import SetupError
from rehearsal.tuning import AICONFIGURATOR, ENVIRONMENT
from tests.ops.bench_samples import folder as make_run
from tests.ops.conftest import write
from tests.recipe.samples import raw
from tests.recipe.test_tuning import ANSWER, QUESTION

Run = Callable[..., Result]
H200 = {"hardware": {"gpu": "h200"}, "budget__usd_per_hour": 200}


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty table of predictions in place of the shipped one."""
    found = tmp_path / "predictions.json"
    monkeypatch.setattr(predictions, "FILE", found)
    return found


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The questions; each gets the recorded answer."""
    questions: list[Any] = []

    def ask(question: Any, say: Any) -> Any:
        questions.append(question)
        return ANSWER

    monkeypatch.setattr(tune_tool, "ask", ask)
    return questions


def test_a_tuned_stack_is_written_and_planned_with_its_prediction(
    run: Run, folder: Path, table: Path, asked: list[Any]
) -> None:
    write(folder, "mine", raw(**H200))
    result = run("tune", "mine", "--ttft", "2000", "--itl", "30")
    assert result.exit_code == 0, result.output
    assert asked == [QUESTION], "GPUs as many as the stack has, lengths unless told"
    assert "predicted" in result.stdout
    assert all(gap in result.stdout for gap in KNOWN_GAPS), "the known gaps stand beside every figure"
    assert "the database knows vllm 0.24.0, Dynamo 1.6.1 runs 0.31.0" in result.stdout
    made = planned("mine-tuned", []).model
    assert {worker.role: (worker.replicas, worker.gpus) for worker in made.workers} == {
        "prefill": (10, 1),
        "decode": (3, 2),
    }
    shown = run("plan", "mine-tuned").stdout
    assert "Predicted, not measured" in shown
    assert "650.5" in shown
    assert "aiconfigurator 0.12.0, vllm 0.24.0" in shown
    assert "447.6" in run("plan", "mine").stdout, "the stack it was made from is in the same row"


def test_the_plan_as_json_has_recipe_beside_tuned(run: Run, folder: Path, table: Path, asked: list[Any]) -> None:
    write(folder, "mine", raw(**H200))
    assert json.loads(run("plan", "mine", "--json").stdout)["predicted"] == {}, "nothing was asked about it yet"
    data = json.loads(run("tune", "mine", "--name", "better", "--json").stdout)
    assert data["predicted"] is True
    assert data["file"].endswith("Pulumi.better.yaml")
    found = json.loads(run("plan", "mine", "--json").stdout)["predicted"]
    assert [(row["stack"], row["own"], row["tuned"]) for row in found["rows"]] == [
        ("mine", True, False),
        ("better", False, True),
    ]
    assert found["own"]["usd_per_million_tokens"] > found["rows"][1]["usd_per_million_tokens"]


def test_asked_again_the_row_is_replaced_and_not_doubled(run: Run, folder: Path, table: Path, asked: list[Any]) -> None:
    write(folder, "mine", raw(**H200))
    for _ in range(2):
        assert run("tune", "mine").exit_code == 0
    assert len(read()) == 1


def test_limits_that_nothing_keeps_write_nothing(run: Run, folder: Path, table: Path, asked: list[Any]) -> None:
    write(folder, "mine", raw(**H200))
    result = run("tune", "mine", "--itl", "3")
    assert result.exit_code == FAILED
    assert "nothing was written" in result.stdout
    assert [path.name for path in folder.iterdir()] == ["Pulumi.mine.yaml"]
    assert not table.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "a stack or --all, and not both"),
        (("mine", "--all"), "a stack or --all, and not both"),
        (("mine", "--write", "x.md"), "a stack or --all, and not both"),
        (("mine", "--gpu", "h300"), "h300 is no GPU"),
        (("mine", "--trace", "t.jsonl", "--isl", "100"), "leave one of them out"),
        (("mine", "--trace", "missing.jsonl"), "cannot be read"),
        (("cpu",), "engine mocker has no performance"),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused(
    run: Run, folder: Path, asked: list[Any], arguments: tuple[str, ...], said: str
) -> None:
    from tests.recipe.samples import MOCKER

    write(folder, "mine", raw(**H200))
    write(folder, "cpu", raw(**MOCKER))
    result = run("tune", *arguments, *(("--gpu", "h200") if arguments == ("cpu",) else ()))
    assert (result.exit_code, asked) == (BAD_INPUT, []), result.output
    assert said in result.output


def test_a_trace_is_searched_for_by_its_mean_lengths(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    line = '{{"timestamp": 0, "input_length": {}, "output_length": {}, "hash_ids": [0]}}\n'
    file.write_text(line.format(100, 10) + "\n" + line.format(300, 20))
    found = tuning.TraceText.read(file).traffic(1000, 20)
    assert (found.name, found.isl, found.osl, found.shared_prefixes) == ("t.jsonl", 200, 15, True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('\n{"timestamp": 0, "input_length": 100}\n', "line 2 is no request"),
        ('{"timestamp": 0, "input_length": 100, "output_length": 10}\n', "hash_ids"),
        ("\n", "no request in it"),
        (b"\xff\xfe", "t.jsonl"),
    ],
)
def test_a_file_that_is_no_trace_is_refused_before_anything_is_searched(
    tmp_path: Path, text: str | bytes, said: str
) -> None:
    file = tmp_path / "t.jsonl"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(CommandError, match=said):
        tuning.TraceText.read(file)


def pretended(monkeypatch: pytest.MonkeyPatch, goodput: Callable[[Any], float]) -> list[Any]:
    """A replay that answers with `goodput` of the plan; the plans it was asked about."""
    from rehearsal.serving import replay as replaying

    seen: list[Any] = []

    def replay(plan: Any, traffic: Any, limits: Any, **_: Any) -> Any:
        seen.append(plan)
        return SimpleNamespace(
            tool="a test",
            ttft_ms=100,
            ttft_p99_ms=200,
            itl_ms=10,
            goodput_share=goodput(plan),
            prefix_reuse=0.3,
            tokens_per_s_gpu=70,
        )

    monkeypatch.setattr(replaying, "replay", replay)
    return seen


def replicas(plan: Any) -> dict[str, int]:
    return {pool.role: pool.replicas for pool in plan.workers}


def batches(plan: Any) -> dict[str, int]:
    return {role: pool.tuning.max_batch_size for role, pool in plan.recipe.workers.items()}


def test_the_replay_chooses_among_layouts_that_are_as_good_as_the_best(
    run: Run, folder: Path, table: Path, asked: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = pretended(monkeypatch, lambda _: 0.9 if len(seen) == 2 else 0.85)
    monkeypatch.setattr(tuning, "ROOM", (1,))
    file = tmp_path / "t.jsonl"
    file.write_text(
        '{"timestamp": 0, "input_length": 4000, "output_length": 500, "hash_ids": [0, 1, 2, 3, 4, 5, 6, 7]}\n'
    )
    write(folder, "mine", raw(**H200))
    assert run("tune", "mine", "--trace", file).exit_code == 0
    (row,) = read()
    assert row.tuned is not None
    found = {role: pool.replicas for role, pool in row.tuned.layout.pools.items()}
    assert len(seen) == 2, "the best and the recipe's own: the next best is more than 2 % behind"
    assert found == replicas(seen[0]), "never at the price of throughput, as long as the recipe keeps about as much"
    seen.clear()
    monkeypatch.setattr(tuning, "CLOSE", 0.9)
    result = run("tune", "mine", "--trace", file)
    assert result.exit_code == 0, result.output
    assert len(seen) > 2
    (row,) = read()
    assert row.tuned is not None
    assert replicas(seen[1]) == {role: pool.replicas for role, pool in row.tuned.layout.pools.items()}
    assert "goodput 90%" in (folder / "Pulumi.mine-tuned.yaml").read_text()


def test_room_for_bursts_is_taken_where_the_replay_keeps_more_with_it(
    folder: Path, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, "mine", raw(**H200))
    found = tuning.search("mine", ("mine",), "h200", None, tuning.FIXED, print, name="better")
    assert found.accepted is not None
    own = batches(found.accepted.plan)
    pretended(monkeypatch, lambda plan: 0.9 if batches(plan)["decode"] == 2 * own["decode"] else 0.85)
    chosen = tuning.replayed(found, "better", tuning.TraceText("", "none"), print)
    assert chosen.accepted is not None
    assert batches(chosen.accepted.plan) == own | {"decode": 2 * own["decode"]}, "prefill takes prompts as before"
    assert chosen.row.tuned == found.row.tuned, "the estimate is of the layout at the answer's own batch"


def test_what_the_replay_finds_far_worse_than_the_recipe_is_not_taken(
    folder: Path, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, "mine", raw(**H200))
    found = tuning.search("mine", ("mine",), "h200", None, tuning.FIXED, print, name="better", many=tuning.MANY)
    assert found.accepted is not None
    (own,) = found.shipped
    best = replicas(found.accepted.plan)
    seen = pretended(monkeypatch, lambda plan: 0.01 if replicas(plan) == best else 0.5)
    chosen = tuning.replayed(found, "better", tuning.TraceText("", "none"), print)
    assert chosen.accepted is not None
    assert replicas(chosen.accepted.plan) != best
    assert {str(one.layout) for one in found.more if one.layout.mode == "disagg"} <= set(chosen.row.replays), (
        "everything of that mode is looked at before anything else is taken"
    )
    assert any(replicas(plan) == replicas(own.plan) for plan in seen), "the recipe's own among it"
    assert chosen.row.tuned is not None
    assert chosen.row.tuned.layout == chosen.accepted.layout


def test_a_replay_gives_no_verdict_on_agg_against_disagg(
    folder: Path, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rehearsal.serving import replay as replaying

    write(folder, "mine", raw(**H200))
    found = tuning.search("mine", ("mine",), "h200", None, tuning.FIXED, print, name="better", many=200)
    assert {one.layout.mode for one in found.more} == {"agg", "disagg"}
    monkeypatch.setattr(tuning, "CLOSE", 0.0)
    seen = pretended(monkeypatch, lambda _: 1.0)
    chosen = tuning.replayed(found, "better", tuning.TraceText("", "none"), print)
    assert {plan.recipe.mode for plan in seen} == {"disagg"}
    assert chosen.accepted == found.accepted, "of equal goodput the search's own best"

    def replay(plan: Any, *_: Any, **__: Any) -> Any:
        raise SetupError("Dynamo is not installed", "make serving")

    monkeypatch.setattr(replaying, "replay", replay)
    assert tuning.replayed(found, "better", tuning.TraceText("", "none"), print) == found, (
        "without a replay the search stands"
    )


# ── the tool ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DYNAMO_RECIPES_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_where_the_search_cannot_be_installed_it_says_so_with_3_and_plans_go_on(
    run: Run, folder: Path, table: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> Path:
        raise SetupError("the packages could not be installed", ENVIRONMENT.next_step)

    monkeypatch.setattr(tune_tool, "ensure_environment", refuse)
    write(folder, "mine", raw(**H200))
    result = run("tune", "mine")
    assert result.exit_code == MISSING
    assert "could not be installed" in result.output
    assert "everything but `ops tune` goes on without it" in result.output
    assert run("plan", "mine").exit_code == 0


def worker(path: Path, body: str) -> Path:
    path.write_text(f"import json, sys\nquestion = json.load(sys.stdin)\n{body}\n")
    return path


def test_an_answer_is_kept_until_question_or_worker_change(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, recorded = tmp_path / "count", tmp_path / "answer.json"
    recorded.write_text(ANSWER.model_dump_json())
    body = f"open({str(count)!r}, 'a').write('x'); sys.stdout.write(open({str(recorded)!r}).read())"
    script = worker(tmp_path / "worker.py", body)
    monkeypatch.setattr(tune_tool, "WORKER", script)
    monkeypatch.setattr(tune_tool, "ensure_environment", lambda: Path(sys.executable))
    first, again = tune_tool.ask(QUESTION), tune_tool.ask(QUESTION)
    assert first == again
    assert first.on, "when it was asked"
    assert first.decode == ANSWER.decode
    assert count.read_text() == "x"
    tune_tool.ask(QUESTION.model_copy(update={"isl": 5000}))
    assert count.read_text() == "xx", "another question"
    script.write_text(script.read_text() + "# another version\n")
    tune_tool.ask(QUESTION)
    assert count.read_text() == "xxx", "another way to ask"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("sys.exit('no such model')", "no such model"),
        ("print('hello')", "answered something else"),
        ("print('{}')", "answered something else"),
    ],
)
def test_a_search_that_fails_says_why_and_is_not_kept(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, said: str
) -> None:
    monkeypatch.setattr(tune_tool, "WORKER", worker(tmp_path / "worker.py", body))
    monkeypatch.setattr(tune_tool, "ensure_environment", lambda: Path(sys.executable))
    with pytest.raises(CommandError, match=said):
        tune_tool.ask(QUESTION)
    assert not tune_tool.answer_file(QUESTION).exists()


def test_the_lock_pins_the_version_that_predictions_name() -> None:
    pins = {line.split(" ")[0] for line in ENVIRONMENT.lock.read_text().splitlines()}
    assert {f"aiconfigurator=={AICONFIGURATOR}", f"aiconfigurator-core=={AICONFIGURATOR}"} <= pins
    assert {row.tool for row in read()} == {AICONFIGURATOR}, "regenerate the table: make tuning-figures"
    assert all(
        "--hash=sha256:" in line for line in ENVIRONMENT.lock.read_text().splitlines() if not line.startswith("#")
    )


# ── where the figures are shown ──────────────────────────────────────────────────────────────────────────────────────


def test_the_committed_table_of_figures_is_that_of_the_predictions() -> None:
    rows = tuple(row for row in read() if row.traffic in ("fixed", "trace"))
    committed = (stacks.ROOT / "docs" / "tuning-figures.md").read_text(encoding="utf-8")
    assert committed == markdown(rows), "docs/tuning-figures.md is stale: make tuning-figures"
    searched, _, replays = committed.partition("## Replayed")
    assert searched.count("| 16 x ") + searched.count("| 8 x ") == 18
    assert replays.count("| tuned |") == 9, "every row with a trace"


def test_the_comment_on_a_pull_request_shows_what_is_predicted_before_and_after() -> None:
    before, after = (predicted(planned(name, []).model) for name in ("qwen3-32b-disagg", "qwen3-32b-tuned-h100"))
    key = "tokens_per_s_gpu"
    one = {
        "stack": "x", "status": "changed", "problems": [], "recipe_keys": ["workers"], "gives_up": [], "nodes": ["2", "2"],
        "figures": {"output tokens/s/GPU (predicted)": [before["own"][key], after["own"][key]]}, "predicted": after,
        "new_warnings": [], "gone_warnings": [], "resources": [],
    }  # fmt: skip
    page = diff_markdown({"stacks": [one], "against": {"ref": "main", "commit": "0" * 40}}).replace("\\", "")
    assert "output tokens/s/GPU (predicted): 250.10 → 536.40 (+286.30)" in page
    assert "Predicted, not measured" in page
    for stack in ("qwen3-32b-agg", "qwen3-32b-tuned-h100 (tuned), this layout"):
        assert f"| {stack} |" in page, "recipe beside tuned"
    assert "aiconfigurator 0.12.0, vllm 0.24.0" in page
    assert all(gap in page for gap in KNOWN_GAPS)


def test_what_a_revision_knows_nothing_about_is_no_figure() -> None:
    assert FIGURES["ITL, ms (predicted)"] == "predicted.own.itl_ms"
    assert diffing._figure({"predicted": {}}, "predicted.own.itl_ms") is None
    assert diffing._figure({}, "predicted.own.itl_ms") is None, "an older revision has no such key"


def test_compare_shows_what_was_predicted_of_both_layouts(run: Run, tmp_path: Path) -> None:
    paths = []
    for mode in ("agg", "disagg"):
        recipe = stacks.load(f"qwen3-32b-{mode}").raw
        paths.append(make_run(tmp_path, mode, mode=mode, about__recipe=recipe, about__gpus=16))
    page = tmp_path / "page.html"
    shown = run("compare", *paths, "--html", page)
    assert shown.exit_code == 0, shown.output
    assert "Predicted, not measured" in shown.stdout
    assert "<b>Predicted</b> by aiconfigurator" in page.read_text(encoding="utf-8")
    judged = next(row.judged for row in read() if row.gpu == "h100" and row.question.model == "Qwen/Qwen3-32B")
    for one in judged:
        figure = f"{one.layout.tokens_per_s_gpu:.1f}"
        assert figure in shown.stdout, "agg, disagg and tuned"
        assert f"<td>{figure}</td>" in page.read_text(encoding="utf-8")
    assert all(gap in " ".join(shown.stdout.split()) for gap in KNOWN_GAPS)
    data = json.loads(run("compare", *paths, "--json").stdout)["predicted"]
    assert {row["stack"]: row["tuned"] for rows in data.values() for row in rows} == {
        "qwen3-32b-agg": False, "qwen3-32b-disagg": False, "qwen3-32b-tuned-h100": True, "qwen3-32b-tuned-trace-h100": True,
    }  # fmt: skip
    old = [make_run(tmp_path, f"old-{mode}", mode=mode) for mode in ("agg", "disagg")]
    assert "Predicted" not in run("compare", *old).stdout, "results without a recipe are compared all the same"
