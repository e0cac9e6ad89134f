from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ops import stacks
from ops.bench.results import load
from ops.benchmark import measure, sdk_imports
from ops.benchmark_page import PAGE, Figure, Section, campaign, keep, write
from ops.benchmark_served import measure_whole, section_of
from ops.chaos import Campaign
from ops.chaos import report as chaos_report
from ops.compare.model import compare
from ops.compare.view import as_data
from ops.exits import BAD_INPUT, CommandError
from tests.ops.bench_samples import beside, corners

LOADED = "import json, sys; print(json.dumps(sorted(m for m in sys.modules if m.startswith(('pulumi_aws', 'pulumi_kubernetes')))))"


@pytest.mark.slow
def test_the_floor_of_a_preview_loads_the_sdk_modules_that_the_program_loads() -> None:
    def loaded(code: str) -> list[str]:
        command = [sys.executable, "-c", f"{code}\n{LOADED}"]
        ran = subprocess.run(command, cwd=stacks.ROOT, capture_output=True, text=True, check=True)
        return list(json.loads(ran.stdout.splitlines()[-1]))

    program = loaded("from tests.program.recorder import run_program; run_program('qwen3-32b-disagg')")
    floor = loaded("\n".join(sdk_imports(stacks.ROOT)))
    assert len(floor) > 100, "a service of the SDK is loaded when it is touched, not when it is imported"
    assert floor == program


def figure(what: str, *values: float, **more: Any) -> Figure:
    return Figure(what=what, values=values, unit="s", **more)


def test_a_figure_is_judged_by_its_median_against_its_target() -> None:
    assert figure("x", 0.1, 0.5, 9.0, target=0.5).verdict == "met"
    assert figure("x", 0.1, 0.6, 0.7, target=0.5).verdict == "**missed**"
    assert figure("x", 1.0).verdict == ""


def test_a_section_names_machine_date_median_range_and_target() -> None:
    made = Section(
        title="Things",
        measured="2026-11-24. a CPU, 2 cores.",
        figures=(figure("a thing", 1.0, 2.0, 4.0, target=3, digits=1), figure("it", 1.0, simulated=True)),
    )
    text = made.markdown()
    assert "2026-11-24. a CPU, 2 cores." in text
    assert "| a thing | 2.0 s | 1.0–4.0 | ≤ 3 s | met |" in text
    assert "| it (simulated) | 1.00 s | one run |" in text


def test_measuring_one_section_leaves_the_others_on_the_page(tmp_path: Path) -> None:
    folder, out, chaos = tmp_path / "d", tmp_path / "page.md", tmp_path / "chaos.md"
    for name in ("another", "commands", "served"):
        keep(name, Section(title=name, measured="then"), folder)
    keep("served", Section(title="served", measured="now"), folder)
    text = write(out, folder, chaos)
    assert out.read_text(encoding="utf-8") == text
    titles = [line for line in text.splitlines() if line.startswith("## ")]
    assert titles == [
        "## commands",
        "## served",
        "## another",
        "## Tuned layouts (predicted)",
        "## Cold start (computed)",
    ]
    assert text.count("then\n") == 2
    assert text.count("now\n") == 1


def test_a_section_that_cannot_be_read_is_named_and_not_left_out(tmp_path: Path) -> None:
    (tmp_path / "served.json").write_text("{}", encoding="utf-8")
    with pytest.raises(CommandError, match=r"served\.json"):
        write(tmp_path / "page.md", tmp_path)


def test_the_campaigns_figures_are_those_of_its_own_page(tmp_path: Path) -> None:
    made = Campaign(7, leaks=2, minutes=61.0, faults=[("a fault", "the doctor: x")])
    page = tmp_path / "chaos.md"
    page.write_text(chaos_report(made, 298, 115, "a CPU", "2026-11-25"), encoding="utf-8")
    text = write(tmp_path / "page.md", tmp_path / "none", page)
    assert "Seed 7, 2026-11-25. a CPU" in text
    assert "| things left in the cloud | 2 | 0 | missed |" in text
    assert "| minutes | 61 | report |" in text
    assert "scenario" not in text, "the second table stays there"
    assert campaign(tmp_path / "nowhere.md") is None


def test_the_command_takes_sections_by_name_and_can_measure_nothing(tmp_path: Path) -> None:
    def run(*args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ops.benchmark", "--out", str(tmp_path / "page.md"), *args]
        return subprocess.run(command, cwd=stacks.ROOT, capture_output=True, text=True, check=False)

    assert run("--page").returncode == 0
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8")
    wrong = run("--only", "srved")
    assert wrong.returncode == BAD_INPUT
    assert "one of commands, served, replays" in wrong.stderr


def test_the_page_in_the_repository_is_what_its_sections_say(tmp_path: Path) -> None:
    assert write(tmp_path / "page.md") == PAGE.read_text(encoding="utf-8"), "python -m ops.benchmark --page"


def test_the_served_section_shows_live_beside_offline_and_marks_both(tmp_path: Path) -> None:
    made = section_of(compared(tmp_path), "2026-11-25.", [figure("it took", 60.0)])
    text = made.markdown()
    assert "### Live, trace (simulated)" in text
    assert "### Offline replay (predicted), the same requests" in text
    assert "| router | trace | TTFT mean | -37% | +50% | disagree |" in text
    assert "Not in the predictions" in text
    assert "Goodput: requests within TTFT 2000 ms and ITL 25 ms." in text
    lost = section_of(compared(tmp_path / "again") | {"replay": None}, "2026-11-25.", [])
    assert "The offline replay could not be had." in lost.markdown()


def compared(root: Path) -> dict[str, Any]:
    """What `ops compare --json` prints of four corners with their replay, in which the router makes TTFT worse."""
    root.mkdir(exist_ok=True)
    found = compare([load(path) for path in corners(root, about__simulated="a formula")])
    return as_data(replace(found, replay=beside(found)))


def test_the_memory_measured_is_that_of_the_one_command() -> None:
    # From a process of its own: a child counts with the memory its parent had when it was made, and pytest's is large by now.
    program = (
        "import sys; from ops.benchmark import measure; "
        "print(*(measure([sys.executable, '-c', code]).peak_mib for code in ('x = bytearray(200 * 1024**2)', 'pass')))"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], cwd=stacks.ROOT, capture_output=True, text=True, check=True
    ).stdout
    big, small = map(float, said.split())
    assert big > 200
    assert small < 100, "the largest child so far would be the big one"


@pytest.mark.slow
def test_the_memory_of_a_command_is_that_of_all_it_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    child = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; x = bytearray(300 * 1024**2); time.sleep(3)'])"
    (tmp_path / "parent.py").write_text(child, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    begun = time.monotonic()
    found = measure_whole(["parent"])
    assert found.peak_mib > 300
    assert found.seconds <= time.monotonic() - begun


def test_a_command_that_fails_is_no_measurement() -> None:
    with pytest.raises(CommandError, match="broken on purpose"):
        measure([sys.executable, "-c", "raise SystemExit('broken on purpose')"])
