"""`python -m ops`."""

from ops.app import main

if __name__ == "__main__":
    main()
