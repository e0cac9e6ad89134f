"""`ops compare`: results of several runs side by side, as long as they are of the same traffic, and what made the difference."""
