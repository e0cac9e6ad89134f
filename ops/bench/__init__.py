"""`ops bench`: run a stack's benchmark, on AWS or in the rehearsal, follow it, and keep what it measured on this machine."""
