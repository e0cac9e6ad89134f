from __future__ import annotations

import json
import subprocess
import sys

import pytest

from ops import stacks
from ops.benchmark import Figure, measure, report, sdk_imports
from ops.exits import CommandError
from recipe.cold_start import STARTS
from tests.recipe.samples import plan

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


def test_a_figure_is_judged_by_its_median_against_its_target() -> None:
    assert Figure("x", (0.1, 0.5, 9.0), "s", 0.5).verdict == "met"
    assert Figure("x", (0.1, 0.6, 0.7), "s", 0.5).verdict == "**missed**"
    assert Figure("x", (1.0,), "s").verdict == ""


def test_the_report_names_machine_date_median_range_and_target() -> None:
    text = report([Figure("a thing", (1.0, 2.0, 4.0), "s", 3, 1)], 3, "a CPU, 2 cores", "2026-11-24", 0.5)
    assert "a CPU, 2 cores" in text
    assert "2026-11-24" in text
    assert "| a thing | 2.0 s | 1.0–4.0 | ≤ 3 s | met |" in text


def test_the_report_has_the_cold_starts_and_says_that_they_are_computed() -> None:
    text = report([], 5, "a CPU", "2026-11-24", 0.5, [plan()])
    section = text.partition("## Cold start (computed)")[2]
    assert "computed, not measured" in section
    assert section.count("| `qwen3-32b-disagg` |") == len(STARTS)
    assert "idle GPU $ ≤ 0.25 of upstream's, from nothing: met by 0 of 1 stacks" in section, "a target missed is said"
    assert "the same beyond boot: met by 1 of 1 stacks: qwen3-32b-disagg" in section


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


def test_a_command_that_fails_is_no_measurement() -> None:
    with pytest.raises(CommandError, match="broken on purpose"):
        measure([sys.executable, "-c", "raise SystemExit('broken on purpose')"])
