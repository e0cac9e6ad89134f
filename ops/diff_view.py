"""A diff (ops/diffing.py) as text and as Markdown. Standard library only and from plain data: the job that comments on a pull request
renders what another job computed, without installing anything and without trusting it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

Data = Mapping[str, Any]

MARKER: Final = "<!-- dynamo-recipes preview -->"
"""First line of the comment, by which the next run finds it."""
LIMIT: Final = 60_000
"""Characters of a comment; GitHub takes 65,536."""
_FIELDS_SHOWN: Final = 12
_WORDS: Final = {
    "created": "created", "changed": "changed in place", "tags": "tags only", "resized": "more or fewer nodes",
    "rolled": "rolled: nodes go and come one by one", "replaced": "REPLACED", "destroyed": "DESTROYED",
}  # fmt: skip
_LOUD: Final = ("destroyed", "replaced", "rolled", "resized")


def text(data: Data) -> str:
    """For a terminal or a log."""
    return "\n".join(_text(data))


def _text(data: Data) -> Iterator[str]:
    yield f"against {data['against']['ref']} ({data['against']['commit'][:12]})"
    for one in data["stacks"]:
        yield ""
        yield f"{one['stack']}: {_status(one)}"
        yield from (f"  ! {problem}" for problem in one["problems"])
        if one["recipe_keys"]:
            yield f"  recipe keys that differ: {', '.join(one['recipe_keys'])}"
        yield from (f"  {line}" for line in _figures(one))
        yield from (f"  ! gives up: {lost}" for lost in one["gives_up"])
        for resource in one["resources"] if one["status"] == "changed" else ():
            yield f"  {resource['name']} ({_short(resource['type'])}): {_WORDS.get(resource['what'], resource['what'])}"
            yield f"      because of {'; '.join(resource['causes'])}"
            for field in resource["fields"][:_FIELDS_SHOWN]:
                mark = "*" if field["decides"] else " "
                yield f"    {mark} {field['path']}{_change(field)}"
            if (more := len(resource["fields"]) - _FIELDS_SHOWN) > 0:
                yield f"      and {more} more fields"
        yield from (f"  + warning: {warning}" for warning in one["new_warnings"])
        yield from (f"  - warning: {warning}" for warning in one["gone_warnings"])
    if data["catalogue"]:
        yield ""
        yield "catalogue rows that differ"
        yield from (f"  {row}" for row in data["catalogue"][:40])
    yield ""
    yield _verdict(data)


def _status(one: Data) -> str:
    counts: dict[str, int] = {}
    for resource in one["resources"]:
        counts[resource["what"]] = counts.get(resource["what"], 0) + 1
    listed = ", ".join(f"{count} {what}" for what, count in counts.items())
    return f"{one['status']}{f' ({listed})' if listed else ''}"


def _figures(one: Data) -> Iterator[str]:
    old, new = one["nodes"]
    if old or new:
        yield f"nodes: {new or '-'}" if old == new else f"nodes: {old or '-'} → {new or '-'}"
    for label, (before, after) in one["figures"].items():
        if before is not None or after is not None:
            yield f"{label}: {moved(before, after)}"


def moved(before: Any, after: Any) -> str:
    """`111.71 → 223.41 (+111.70)`."""
    shown = [_number(one) for one in (before, after)]
    if before == after:
        return shown[1]
    both = isinstance(before, int | float) and isinstance(after, int | float)
    return f"{shown[0]} → {shown[1]}" + (
        f" ({after - before:+,.10g})"
        if both and isinstance(before, int)
        else f" ({after - before:+,.2f})"
        if both
        else ""
    )


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:,.2f}" if isinstance(value, float) else str(value)


def _change(field: Data) -> str:
    return f": {field['old'] or '(unset)'} → {field['new'] or '(unset)'}" if field["old"] or field["new"] else ""


def _short(token: str) -> str:
    return token.rpartition(":")[2]


def _verdict(data: Data) -> str:
    lost = [f"{one['stack']}: {what}" for one in data["stacks"] for what in one["gives_up"]]
    if not lost:
        return "No GPU nodes and no weights are given up."
    return "Gives up GPU nodes or weights (exit code 4): " + "; ".join(lost)


# ── Markdown ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def markdown(data: Data, label: str = "") -> str:
    """For a comment: a table of all stacks, then each changed one folded away. `label`: the one that lets a loss of GPUs pass."""
    head = [MARKER, "### What this does to each stack", "", _for_people(data, label), "", *_table(data)]
    parts = ["\n".join(head)]
    left = LIMIT - len(parts[0])
    for one in data["stacks"]:
        if one["status"] == "unchanged":
            continue
        part = "\n".join(_details(one))
        if len(part) > left - 200:
            parts.append("\n\nThe rest does not fit here: `python -m ops diff --all --against REF` shows it.")
            break
        parts.append(part)
        left -= len(part)
    ref = f"{_code(data['against']['ref'])} ({_code(data['against']['commit'][:12])})"
    foot = f"\n\nPlan against plan, {ref}; nothing was asked of AWS. The same on your machine: `python -m ops diff --all --against REF`."
    return "".join([*parts, foot])


def _for_people(data: Data, label: str) -> str:
    lost = [f"{_plain(one['stack'])}: {_plain(what)}" for one in data["stacks"] for what in one["gives_up"]]
    if not lost:
        return "No GPU nodes and no weights are given up."
    needs = f" It needs the label {_code(label)}." if label else ""
    return f"**GPU nodes or weights are given up.**{needs}\n" + "".join(f"\n- {one}" for one in lost)


def _table(data: Data) -> Iterator[str]:
    yield "| stack | | resources | nodes | GPUs | $/h | minutes to first token |"
    yield "|---|---|---|---|---:|---:|---:|"
    for one in data["stacks"]:
        figures = one["figures"]
        old, new = one["nodes"]
        status = _status(one).partition("(")
        cells = (
            _code(one["stack"]), "**gives up GPUs or weights**" if one["gives_up"] else _plain(one["status"]),
            _plain(status[2].rstrip(")") or "-"), _plain(new if old == new else f"{old or '-'} → {new or '-'}"),
            *(_plain(moved(*figures.get(name, (None, None)))) for name in ("GPUs", "$ an hour", "minutes to first token (computed)")),
        )  # fmt: skip
        yield f"| {' | '.join(cells)} |"


def _details(one: Data) -> Iterator[str]:
    yield f"\n\n<details><summary>{_html(one['stack'])}: {_html(_status(one))}</summary>\n"
    yield from (f"- cannot be planned: {_plain(problem)}" for problem in one["problems"])
    if one["recipe_keys"]:
        yield f"- recipe keys that differ: {', '.join(_code(key) for key in one['recipe_keys'])}"
    yield from (f"- {_plain(line)}" for line in _figures(one))
    yield from _predicted(one)
    yield from (f"- new warning: {_plain(warning)}" for warning in one["new_warnings"])
    yield from (f"- warning gone: {_plain(warning)}" for warning in one["gone_warnings"])
    if one["status"] == "changed":
        yield ""
        for resource in one["resources"]:
            loud = "**" if resource["what"] in _LOUD else ""
            word = _WORDS.get(resource["what"], resource["what"])
            yield f"- {_code(resource['name'])} {_plain(_short(resource['type']))}: {loud}{_plain(word)}{loud}, because of {_plain('; '.join(resource['causes']))}"
            for field in resource["fields"][:_FIELDS_SHOWN]:
                yield f"  - {_code(field['path'])}{_values(field)}"
            if (more := len(resource["fields"]) - _FIELDS_SHOWN) > 0:
                yield f"  - and {more} more fields"
    yield "\n</details>"


def _predicted(one: Data) -> Iterator[str]:
    """Recipe beside tuned, by whom, and what that does not know; nothing where the layout was never judged."""
    found = one.get("predicted") or {}
    if not found:
        return
    yield ""
    yield "Predicted, not measured, under full load within the limits:"
    yield ""
    yield "| traffic, limits in ms | stack | layout | TTFT ms | ITL ms | tokens/s/GPU | goodput req/s | $ per million output tokens |"
    yield "|---|---|---|---:|---:|---:|---:|---:|"
    for row in found["rows"]:
        name = f"{row['stack']}{' (tuned)' if row['tuned'] else ''}{', this layout' if row['own'] else ''}"
        figures = ("ttft_ms", "itl_ms", "tokens_per_s_gpu", "goodput_per_s", "usd_per_million_tokens")
        cells = (row["traffic"], name, row["layout"], *(_number(row[key]) for key in figures))
        yield f"| {' | '.join(_plain(cell) for cell in cells)} |"
    yield ""
    yield from (f"- by {_plain(source)}" for source in dict.fromkeys(row["source"] for row in found["rows"]))
    yield from (f"- {_plain(gap)}" for gap in found["gaps"])
    yield ""


def _values(field: Data) -> str:
    if not field["old"] and not field["new"]:
        return ""
    return f": {_code(field['old'] or '(unset)')} → {_code(field['new'] or '(unset)')}"


def _plain(value: str) -> str:
    """Text that can be nothing but text: no mention, link, table cell or tag comes out of it."""
    flat = re.sub(r"\s+", " ", str(value))
    escaped = re.sub(r"([\\`*_{}\[\]()#|~<>!&])", r"\\\1", flat)
    return escaped.replace("@", "@\u200b").replace("://", ":\u200b//")


def _code(value: str) -> str:
    flat = re.sub(r"\s+", " ", str(value)).replace("`", "'").replace("|", "¦").replace("<!--", "<!- -")
    return f"`{flat or ' '}`"


def _html(value: str) -> str:
    return re.sub(r"[<>&@\"\[\]`]", " ", str(value))


def gives_up(data: Data) -> Sequence[str]:
    """What is given up, over all stacks."""
    return [f"{one['stack']}: {what}" for one in data["stacks"] for what in one["gives_up"]]
