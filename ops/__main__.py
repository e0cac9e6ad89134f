"""`python -m ops`."""

import os

# pydantic would read the metadata of every installed package in search of plugins: a tenth of what `plan` takes.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

from ops.app import main

if __name__ == "__main__":
    main()
