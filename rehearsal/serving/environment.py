"""The environment of Dynamo 1.6.1 on this machine: frontend, mock engine, and NVIDIA's timing database. No GPU, no etcd, no NATS."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from rehearsal.cache import locked
from rehearsal.engine.progress import Reporter
from rehearsal.errors import SetupError
from rehearsal.pyenv import PythonEnvironment, ensure

DYNAMO: Final = "1.6.1"
"""As `recipe/catalogue/versions.py` has it for the images; a test holds the two together."""
ENVIRONMENT: Final = PythonEnvironment(
    title=f"Dynamo {DYNAMO}",
    group="serving",
    lock=Path(__file__).parent / "requirements.lock",
    probe=("dynamo.frontend", "dynamo.mocker", "aisimulate", "transformers"),
    next_step="run this again once the network is back, or leave serving out: SERVE=0, `--no-serve`",
    # 1.3 GB installed and 0.4 GB of downloads, seen on Linux x86-64; the rest is room.
    room_bytes=3 * 1024**3,
)


def ensure_environment(progress: Reporter | None = None) -> Path:
    """Its Python: from the cache, or installed now (1.3 GB, about 2 minutes). SetupError says why not."""
    return ensure(ENVIRONMENT, progress)


def model_folder(python: Path, model: str) -> Path:
    """Tokenizer, chat template and configuration of `model`, made once by `python`, the environment's own (3 s)."""
    script = Path(__file__).parent / "model.py"
    key = hashlib.sha256(script.read_bytes()).hexdigest()[:16]
    folder = python.parents[1] / "models" / key / model.replace("/", "--")
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.parent / "build.lock", f"files of {model}", f"making the files of {model}", 1024**3):
        if folder.exists():
            return folder
        new = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".new-"))
        try:
            env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
            done = subprocess.run(
                [python, script, model, new],
                capture_output=True,
                text=True,
                check=False,
                stdin=subprocess.DEVNULL,
                env=env | {"HF_HUB_OFFLINE": "1"},
            )
            if done.returncode != 0:
                said = "\n".join(f"  {line}" for line in done.stderr.strip().splitlines()[-3:])
                raise SetupError(
                    f"no tokenizer and configuration for {model} could be made:\n{said}",
                    "serve a model whose configuration the aisimulate wheel carries",
                )
            new.chmod(0o755)
            new.rename(folder)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    return folder
