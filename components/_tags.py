"""Tags of AWS resources. Set on each one by hand rather than by the provider, so that a diff shows them and no default differs."""

from __future__ import annotations

from collections.abc import Mapping


def named(tags: Mapping[str, str], name: str) -> dict[str, str]:
    """`tags` with the `Name` the AWS console lists."""
    return {**tags, "Name": name}
