"""The commands, by when they are of use. Importing a module registers its commands with `ops.cli.app`."""
