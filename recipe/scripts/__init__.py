"""Python files that run inside Jobs, each on its own: nothing of the rest of this program is there with them."""
