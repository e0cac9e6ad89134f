"""Pulumi components: they create what the Plan says and decide nothing. One file per part of the stack."""
