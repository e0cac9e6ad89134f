"""`ops diff`: the plan and the program of the working tree against those of a git revision. No credentials, no engine, no network.

A revision's program and plan run with that revision's own code, from `git archive`, in processes of their own. Why a field changes is
found by trying: the old recipe with this tree's code, and with each changed key alone. What a change does to a resource: ops/effects.py.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from ops import stacks
from ops.effects import Effect, Field, Recording, effects
from ops.exits import BAD_INPUT, FAILED, CommandError
from ops.plan_data import as_data, problems_as_data
from ops.planning import planned
from recipe.errors import RecipeError
from recipe.policy import check_resources

PROGRAM: Final = ("recipe", "components", "__main__.py", "Pulumi.yaml")
"""What decides about resources beside the stack file."""
FIGURES: Final = {
    "GPU nodes": "gpu_nodes",
    "GPUs": "gpus",
    "$ an hour": "usd_per_hour",
    "$ for its TTL": "usd_for_ttl",
    "minutes to first token (computed)": "computed.minutes_to_first_token",
    "TTFT, ms (predicted)": "predicted.own.ttft_ms",
    "ITL, ms (predicted)": "predicted.own.itl_ms",
    "output tokens/s/GPU (predicted)": "predicted.own.tokens_per_s_gpu",
    "goodput, requests/s (predicted)": "predicted.own.goodput_per_s",
    "$ per million output tokens (predicted)": "predicted.own.usd_per_million_tokens",
}
"""What a reader sees first, by the key in `ops plan --json`. A revision whose plan has no such key shows none."""
_SHOWN_VALUE: Final = 200
_WHOLE: Final = "(all of it)"


@dataclass(frozen=True)
class Side:
    """One revision: where its files are, and what its code says of its stacks."""

    root: Path
    recipes: dict[str, Any]
    """The recipe in each stack file, as plain data."""
    broken: dict[str, str]
    """Stack files nothing can be read from, with the reason."""


def diff(wanted: Sequence[str], against: str) -> dict[str, Any]:
    """Everything `ops diff --json` prints, for the stacks `wanted` (all there are on either side where empty). Keys are a contract.

    Raises CommandError: no such revision, no such stack, a revision whose code cannot plan.
    """
    commit = _commit(against)
    with _checked_out(commit) as root:
        old, new = _side(root), _side(stacks.ROOT, stacks.FOLDER)
        names = list(wanted) or sorted({*old.recipes, *old.broken, *new.recipes, *new.broken})
        for stack in names:
            if not any(stack in known for known in (old.recipes, old.broken, new.recipes, new.broken)):
                stacks.load(stack)  # says which there are
        with ThreadPoolExecutor(2) as both:
            before = both.submit(_before, old, names, against)
            after = both.submit(_recordings, new.root, new.recipes, _jobs(old, new, names))
            plans, recorded = before.result()
            tree = after.result()
    files = _changed_files(commit)
    rows = _catalogue_rows(recorded["catalogue"], tree["catalogue"])
    found = [
        _stack(stack, old, new, plans.get(stack), recorded["recordings"], tree["recordings"], rows, files)
        for stack in names
    ]
    return {
        "against": {"ref": against, "commit": commit},
        "gives_up": any(one["gives_up"] for one in found),
        "stacks": found,
        "catalogue": [f"{path.replace(_DOT, '.')}: {_shown(old)} → {_shown(new)}" for path, old, new in rows],
        "program_files": files,
    }


# ── the other revision ───────────────────────────────────────────────────────────────────────────────────────────────


def _git(*args: str) -> bytes:
    try:
        done = subprocess.run(["git", *args], cwd=stacks.ROOT, capture_output=True, check=False)
    except FileNotFoundError:
        raise CommandError("git is not on PATH", "install git", BAD_INPUT) from None
    if done.returncode:
        raise CommandError(f"git {args[0]}: {done.stderr.decode(errors='replace').strip()}", _FETCH, BAD_INPUT)
    return done.stdout


_FETCH: Final = "name a branch, tag or commit of this repository; a shallow clone may need `git fetch --unshallow`"


def _commit(ref: str) -> str:
    try:
        return _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}").decode().strip()
    except CommandError:
        raise CommandError(f"no revision {ref!r} in this repository", _FETCH, BAD_INPUT) from None


@contextmanager
def _checked_out(commit: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="dynamo-recipes-diff-") as name:
        # An empty revision is no archive; that it cannot plan is said below.
        with suppress(tarfile.ReadError), tarfile.open(fileobj=io.BytesIO(_git("archive", commit))) as tar:
            tar.extractall(name, filter="data")
        yield Path(name).resolve()


def _changed_files(commit: str) -> list[str]:
    """Files of the program that differ, untracked ones included."""
    changed = _git("diff", "--name-only", commit, "--", *PROGRAM).decode().split("\n")
    new = _git("ls-files", "--others", "--exclude-standard", "--", *PROGRAM).decode().split("\n")
    return sorted(filter(None, {*changed, *new}))


def _side(root: Path, folder: Path | None = None) -> Side:
    folder = folder or root / "stacks"
    recipes: dict[str, Any] = {}
    broken: dict[str, str] = {}
    for stack in stacks.names(folder):
        try:
            recipes[stack] = stacks.load(stack, folder).raw
        except CommandError as error:
            broken[stack] = error.message
    return Side(root, recipes, broken)


def _before(old: Side, names: Sequence[str], ref: str) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """What the other revision's code says: each stack's plan, and its recordings."""
    if not (old.root / "ops" / "__main__.py").exists() or not (old.root / "__main__.py").exists():
        raise CommandError(f"{ref} cannot plan: it has no `python -m ops plan`", "name a newer revision", BAD_INPUT)
    plans = {stack: _plan(old.root, stack, ref) for stack in names if stack in old.recipes}
    jobs = [_job(stack, stack, old.recipes[stack]) for stack in names if stack in old.recipes]
    return plans, _recordings(old.root, old.recipes, jobs)


def _plan(root: Path, stack: str, ref: str) -> dict[str, Any]:
    done = _python(root, ["-m", "ops", "plan", stack, "--json"])
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        said = "\n".join(done.stderr.strip().splitlines()[-5:]) or f"exit code {done.returncode}"
        raise CommandError(
            f"the code of {ref} cannot plan {stack} here:\n{said}",
            "name a newer revision, or check that the packages in .venv suit it",
            FAILED,
        ) from None
    return found


def _python(root: Path, args: Sequence[str], said: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    return subprocess.run(
        [sys.executable, *args], input=said, cwd=root, env=environment, capture_output=True, text=True, check=False
    )


def _job(key: str, stack: str, recipe: Any) -> dict[str, Any]:
    return {"key": key, "stack": stack, "recipe": recipe}


def _recordings(root: Path, recipes: Mapping[str, Any], jobs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if not jobs:
        return {"recordings": {}, "catalogue": {}}
    script = Path(__file__).with_name("recording.py")
    done = _python(root, [str(script), str(root)], json.dumps({"recipes": recipes, "jobs": jobs}))
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        said = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise CommandError(f"the program in {root} does not run:\n{said}", "run `make test` there", FAILED) from None
    return found


# ── why ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def changed_keys(old: Any, new: Any, path: str = "") -> list[str]:
    """Dotted paths at which two plain recipes differ, as high up as one side has nothing."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            found
            for key in sorted({*old, *new}, key=str)
            for found in changed_keys(old.get(key), new.get(key), f"{path}.{key}".lstrip("."))
        ]
    return [] if old == new else [path]


def with_key(old: Any, new: Any, path: str) -> Any:
    """The plain recipe `old` with what `new` has at `path`."""
    if not path:
        return new
    key, _, rest = path.partition(".")
    changed = dict(old or {})
    if key in (new or {}):
        changed[key] = with_key(changed.get(key), new[key], rest)
    else:
        changed.pop(key, None)
    return changed


def _jobs(old: Side, new: Side, names: Sequence[str]) -> list[dict[str, Any]]:
    """What this tree's code has to record: each stack as it is, as it was, and with each changed key alone."""
    jobs: list[dict[str, Any]] = []
    for stack in names:
        if stack not in new.recipes:
            continue
        after = new.recipes[stack]
        jobs.append(_job(stack, stack, after))
        if stack in old.recipes and (keys := changed_keys(before := old.recipes[stack], after)):
            jobs.append(_job(f"{stack}@", stack, _uncapped(before)))
            jobs += [_job(f"{stack}@{key}", stack, _uncapped(with_key(before, after, key))) for key in keys]
    return jobs


def _uncapped(recipe: Any) -> Any:
    """The cap refuses a plan and changes no resource: it must not hide what a key alone would do."""
    capped = isinstance(recipe, dict) and isinstance(recipe.get("budget"), dict)
    return {**recipe, "budget": {**recipe["budget"], "usd_per_hour": 100_000}} if capped else recipe


def _catalogue_rows(old: Any, new: Any) -> list[tuple[str, Any, Any]]:
    """Every value of the catalogue that differs: (path, old, new)."""
    return [(path, _value(old, path), _value(new, path)) for path in changed_keys(_named(old), _named(new))]


_DOT: Final = "\u2024"


def _named(value: Any) -> Any:
    """Dots in keys (1.35, p5.48xlarge) would end a path."""
    if isinstance(value, dict):
        return {str(key).replace(".", _DOT): _named(inner) for key, inner in value.items()}
    return value


def _value(value: Any, path: str) -> Any:
    for key in path.split("."):
        value = value.get(key.replace(_DOT, ".")) if isinstance(value, dict) else None
    return value


class _Causes:
    """Why the fields of one stack's resources change."""

    def __init__(
        self,
        stack: str,
        keys: Sequence[str],
        was: Recording,
        tree: Mapping[str, Any],
        rows: Sequence[tuple[str, Any, Any]],
        files: Sequence[str],
        of_base: str,
    ) -> None:
        self.keys, self.rows, self.files, self.of_base = keys, rows, files, of_base
        as_was = tree.get(f"{stack}@", tree.get(stack) if not keys else {}) or {}
        middle = as_was.get("resources")
        self.by_code = _places(effects(was, middle)) if middle else set()
        self.by_key = {
            key: _places(effects(middle, alone["resources"]))
            for key in keys
            if middle and "resources" in (alone := tree.get(f"{stack}@{key}", {}))
        }

    def of(self, effect: Effect, field: Field | None) -> list[str]:
        """What the field (None: that the resource is there at all) changes for. Never empty."""
        if field is not None and field.because:
            return [f"{field.because} is another one"]
        place = effect.urn, field.path if field else ""
        found = [f"recipe: {key}" for key, places in self.by_key.items() if place in places]
        if place in self.by_code:
            found += self._code(effect, field)
        if not found and self.keys:
            # Those that cannot be planned alone; where each can, it takes several to change this.
            joint = [key for key in self.keys if key not in self.by_key] or list(self.keys)
            found = [f"recipe: {', '.join(joint)}{' together' if len(joint) > 1 else ''}"]
        return found or self._code(effect, field)

    def _code(self, effect: Effect, field: Field | None) -> list[str]:
        if field is not None:
            rows = [path for path, old, new in self.rows if _in(old, field.old) and _in(new, field.new)]
            # The same value may stand in two rows; the one that names the resource's own kind is meant.
            kind = effect.name.partition("-")[0]
            if rows := [path for path in rows if kind in path] or rows:
                return [f"catalogue: {path.replace(_DOT, '.')}" for path in rows]
        if not self.files:
            return [self.of_base or "code or packages"]
        more = f" and {len(self.files) - 3} more" if len(self.files) > 3 else ""
        code = f"code: {', '.join(self.files[:3])}{more}"
        return [self.of_base, code] if self.of_base else [code]


def _in(part: Any, whole: Any) -> bool:
    """A scalar of the catalogue shows in a field: as it is, or, long enough to mean something, inside a text."""
    if isinstance(part, dict | list) or part is None:
        return False
    return part == whole or (len(str(part)) >= 4 and isinstance(whole, str) and str(part) in whole)


def _places(found: Mapping[str, Effect]) -> set[tuple[str, str]]:
    places = {(urn, field.path) for urn, effect in found.items() for field in effect.fields}
    return places | {(urn, "") for urn, effect in found.items() if effect.what in ("created", "destroyed")}


# ── one stack ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _stack(
    stack: str,
    old: Side,
    new: Side,
    plan_before: dict[str, Any] | None,
    recorded: Mapping[str, Any],
    tree: Mapping[str, Any],
    rows: Sequence[tuple[str, Any, Any]],
    files: Sequence[str],
) -> dict[str, Any]:
    before, after = recorded.get(stack), tree.get(stack)
    plan_after = _plan_here(stack) if stack in new.recipes else None
    problems = []
    if stack in new.broken:
        problems.append(new.broken[stack])
    if plan_after and "problems" in plan_after:
        problems += [f"{one['path']}: {one['reason']}: {one['fix']}" for one in plan_after["problems"]]
    elif after and "problem" in after:
        problems.append(after["problem"])
    elif after:
        registered = [(one["type"], one["name"], one["inputs"]) for one in after["resources"].values() if one["custom"]]
        problems += [f"not allowed: {broken}" for broken in check_resources(registered)]
    # What the other revision refuses or cannot read runs nowhere by its file: everything counts as new then.
    was: Recording = (before or {}).get("resources") or {}
    now: Recording = (after or {}).get("resources") or {}
    found = {} if problems else effects(was, now)
    keys = changed_keys(old.recipes[stack], new.recipes[stack]) if stack in old.recipes and stack in new.recipes else []
    causes = _Causes(stack, keys, was, tree, rows, files, _of_base(stack, old, new))
    status = (
        "broken" if problems else "removed" if stack not in new.recipes else "new" if not was else "changed" if found or keys else "unchanged"
    )  # fmt: skip
    whole = {"new": "the stack is new", "removed": "its stack file is removed"}.get(status)
    figures = {
        label: [_figure(plan_before, key), _figure(plan_after, key)] for label, key in FIGURES.items()
    }  # fmt: skip
    if status == "unchanged" and figures["$ an hour"][0] != figures["$ an hour"][1]:
        status = "changed"  # a price is no resource
    said = [set((plan or {}).get("warnings", ())) for plan in (plan_before, plan_after)]
    return {
        "stack": stack,
        "status": status,
        "problems": problems,
        "recipe_keys": keys,
        "gives_up": [f"{one.name} is {one.what}: {one.lost}" for one in found.values() if one.guarded],
        "figures": figures,
        "predicted": (plan_after or {}).get("predicted") or {},
        "nodes": [_nodes(plan_before), _nodes(plan_after)],
        "new_warnings": sorted(said[1] - said[0]),
        "gone_warnings": sorted(said[0] - said[1]) if plan_after and not problems else [],
        "resources": [_resource(effect, causes, whole) for effect in _sorted(found.values())],
    }


def _of_base(stack: str, old: Side, new: Side) -> str:
    """What differs in the file of the base that the stack is on; empty where nothing does, or it is on none."""
    base = str(_figure(new.recipes.get(stack), "foundation.stack") or "")
    if base not in old.recipes or base not in new.recipes:
        return ""
    keys = changed_keys(old.recipes[base], new.recipes[base])
    return f"recipe of {base}: {', '.join(keys)}" if keys else ""


def _plan_here(stack: str) -> dict[str, Any]:
    try:
        found = planned(stack, [])
    except RecipeError as error:
        return problems_as_data(error)
    except CommandError as error:
        return {"problems": [{"path": "stack", "reason": error.message, "fix": error.next_step}]}
    return as_data(found.plan, found.fixes, datetime.now(UTC).date())


_ORDER: Final = ("destroyed", "replaced", "rolled", "resized", "created", "changed", "tags")


def _sorted(found: Any) -> list[Effect]:
    """What is given up first, then by how much happens."""
    return sorted(found, key=lambda one: (not one.guarded, _ORDER.index(one.what), one.name))


def _resource(effect: Effect, causes: _Causes, whole: str | None) -> dict[str, Any]:
    fields: list[dict[str, Any]] = [
        {
            "path": field.path,
            "old": _shown(field.old),
            "new": _shown(field.new),
            "decides": field.path in effect.decides or field.path.partition(".")[0] in effect.decides,
            "causes": causes.of(effect, field),
        }
        for field in effect.fields
    ]
    told = [one for field in fields if field["decides"] for one in field["causes"]]
    told = (
        told or [one for field in fields for one in field["causes"]] or ([whole] if whole else causes.of(effect, None))
    )
    return {
        "name": effect.name,
        "type": effect.type,
        "what": effect.what,
        "holds": effect.holds,
        "lost": effect.lost,
        "causes": list(dict.fromkeys(told)),
        "fields": fields,
    }


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else "" if value is None else json.dumps(value, sort_keys=True, default=str)
    return text if len(text) <= _SHOWN_VALUE else f"{text[: _SHOWN_VALUE - 1]}…"


def _figure(plan: dict[str, Any] | None, key: str) -> Any:
    found: Any = plan
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _nodes(plan: dict[str, Any] | None) -> str:
    """`2 × p5.48xlarge, 2 × m7i.8xlarge`."""
    pools = [(plan or {}).get(key) for key in ("gpu_pool", "cpu_pool")]
    return ", ".join(f"{pool['count']} × {pool['instance_type']}" for pool in pools if pool)
