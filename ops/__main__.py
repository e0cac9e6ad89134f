"""`python -m ops`."""

import gc
import os
import sys

# Most of what `plan` takes is importing. Two tenths of that are a search of every installed package's metadata for pydantic
# plugins, and collecting garbage among objects that all stay.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
gc.set_threshold(50_000, 20, 20)

try:
    from ops.app import main
except ModuleNotFoundError as missing:
    if (missing.name or "").partition(".")[0] in ("ops", "recipe", "rehearsal"):
        raise  # a fault of ours
    sys.stderr.write(
        f"{sys.executable} has no package {missing.name}\nNext: make setup, then .venv/bin/python -m ops {' '.join(sys.argv[1:])}\n"
    )
    sys.exit(3)

if __name__ == "__main__":
    main()
