"""`python -m ops`."""

import gc
import os

# Most of what `plan` takes is importing. Two tenths of that are a search of every installed package's metadata for pydantic
# plugins, and collecting garbage among objects that all stay.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
gc.set_threshold(50_000, 20, 20)

from ops.app import main  # noqa: E402

if __name__ == "__main__":
    main()
