"""How a command ends: its exit codes, and the one error that carries a next step."""

from __future__ import annotations

from typing import Final

OK: Final = 0
FAILED: Final = 1
"""The run itself failed, or left something behind."""
BAD_INPUT: Final = 2
"""Arguments, a stack file or a recipe that cannot be right."""
MISSING: Final = 3
"""A tool or part of the set-up is missing or broken."""
GIVES_UP: Final = 4
"""`diff` alone: GPU nodes or weights would be replaced, rolled or destroyed."""
INTERRUPTED: Final = 130

EPILOG: Final = "Exit codes: 0 ok, 1 the run failed, 2 bad input, 3 missing tool or set-up, 130 interrupted."


class CommandError(Exception):
    """Ends a command with `code`, a message, and what to do next."""

    def __init__(self, message: str, next_step: str, code: int = FAILED) -> None:
        super().__init__(f"{message}\nNext: {next_step}")
        self.message, self.next_step, self.code = message, next_step, code
