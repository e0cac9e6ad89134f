"""docs/decisions: every number means one decision, and every package has its reason."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "decisions" / "README.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")
DECISIONS = [(int(row[1]), row[2]) for row in re.finditer(r"^\| (\d+) \| (.+?) \|", TEXT, re.MULTILINE)]


def test_every_number_means_one_decision_and_every_decision_stands_once() -> None:
    assert DECISIONS, "the table was not found"
    numbers = [number for number, _ in DECISIONS]
    assert numbers == list(range(1, len(numbers) + 1)), "numbered without gaps, newest last: others refer to them"
    twice = [text for text, count in Counter(text for _, text in DECISIONS).items() if count > 1]
    assert not twice, "the same decision under two numbers: one of them will be forgotten when it changes"


def test_a_number_that_the_code_refers_to_is_a_decision() -> None:
    found = [
        (str(path.relative_to(ROOT)), int(number))
        for room in ("recipe", "components", "ops", "rehearsal")
        for path in (ROOT / room).rglob("*.py")
        for number in re.findall(r"docs/decisions, (\d+)", path.read_text(encoding="utf-8"))
    ]
    assert found, "recipe/advice.py refers to one"
    wrong = [one for one in found if one[1] not in dict(DECISIONS)]
    assert not wrong, "no such decision"


def test_every_package_asked_for_has_one_line_that_says_for_what() -> None:
    sentence, _, table = TEXT.partition("\n## Dependencies\n")[2].partition("\n|")
    firsts = [row.partition("(")[0] for row in re.findall(r"^\| (.+?) \|", table, re.MULTILINE)]
    # The program's own stand in the sentence above the table.
    said = Counter(re.findall(r"[\w-]+\*?", " ".join([*firsts, sentence.partition(". ")[0]])))
    for name in ("requirements.txt", "requirements-dev.txt", "requirements-aws.txt"):
        # What a package brings along stands under a comment of its own.
        asked = (ROOT / name).read_text(encoding="utf-8").partition("# What it brings along")[0]
        for package in re.findall(r"^([\w-]+)==", asked, re.MULTILINE):
            key = "types-*" if package.startswith("types-") else package
            assert said[key] == 1, f"{name}: {package} has {said[key]} lines in docs/decisions, Dependencies"
