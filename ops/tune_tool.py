"""The search tool as a process: a question in, an answer out, both JSON; answers are kept.

An answer is kept under the question, the tool's lock and the worker's own text, so that the same question costs nothing and a new version
asks again. The process has 2 GiB of memory at most (`rehearsal/tuning/worker.py`).
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from ops.exits import CommandError
from recipe.tuning import Answer, Question
from rehearsal.cache import cache_folder
from rehearsal.errors import SetupError
from rehearsal.tuning import ENVIRONMENT, ensure_environment

WORKER: Final = ENVIRONMENT.lock.parent / "worker.py"
TIMEOUT_SECONDS: Final = 1200
"""The longest search seen took a minute and a half."""
NOT_INSTALLED: Final = 3


def ask(question: Question, say: Callable[[str], None] = lambda _: None) -> Answer:
    """The answer, from the cache or by a search (7 to 100 s). Raises CommandError: not to be installed (3), or no answer."""
    kept = answer_file(question)
    try:
        return Answer.model_validate_json(kept.read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        pass
    try:
        python = ensure_environment()
    except SetupError as error:
        raise CommandError(error.message, error.next_step, NOT_INSTALLED) from None
    say(f"searching layouts of {question.model} on {question.gpus} x {question.system}, {question.isl}/{question.osl}")
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    answer = _run(python, question).model_copy(update={"on": datetime.now(UTC).date(), "machine": machine})
    kept.parent.mkdir(parents=True, exist_ok=True)
    new = kept.with_suffix(f".{os.getpid()}")
    new.write_text(answer.model_dump_json(), encoding="utf-8")
    new.replace(kept)
    return answer


def answer_file(question: Question) -> Path:
    """Where the answer to `question` is kept."""
    parts = [question.searched(), ENVIRONMENT.lock.read_text("utf-8"), WORKER.read_text("utf-8")]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
    return cache_folder() / "tuning" / "answers" / f"{key}.json"


def _run(python: Path, question: Question) -> Answer:
    # Offline on purpose: what the tool knows is in its package, and a search must not depend on a network.
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    env |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [python, WORKER],
            input=question.searched(),
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_SECONDS,
            env=env,
        )
    except subprocess.TimeoutExpired:
        raise CommandError(
            f"the search took longer than {TIMEOUT_SECONDS // 60} minutes and was ended", "ask for fewer GPUs", 1
        ) from None
    try:
        if done.returncode == 0:
            return Answer.model_validate(json.loads(done.stdout))
    except (ValueError, ValidationError) as error:
        raise CommandError(f"the search answered something else than expected: {error}", "make tuning", 1) from None
    said = "\n".join(f"  {line}" for line in done.stderr.strip().splitlines()[-3:])
    raise CommandError(f"the search failed (exit code {done.returncode}):\n{said}", "see the last lines above", 1)
