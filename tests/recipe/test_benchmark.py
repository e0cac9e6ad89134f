"""The benchmark in the plan: nothing of it unless asked for, the same traffic for every stack, and a Job that can be trusted with GPUs waiting."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from ops import stacks
from recipe import benchmark, catalogue
from recipe.config import FixedProfile, TraceProfile, parse
from recipe.constants import CPU_POOL, POOL_LABEL
from recipe.errors import RecipeError
from recipe.jobs import SCRIPTS
from recipe.plan import Late, Manifest, Plan
from recipe.planner import make_plan
from recipe.scripts import bench
from tests.recipe.samples import AGG_WORKERS, MOCKER, plan


def asked(run: str = "fixed", **changes: Any) -> Plan:
    wanted = {"benchmark__run": run} | changes
    return plan(**wanted)


def spec(made: Plan) -> dict[str, Any]:
    assert made.objects.benchmark_config, "asked for"
    found: dict[str, Any] = json.loads(made.objects.benchmark_config["data"]["bench.json"])
    return found


def job(made: Plan) -> Manifest:
    assert made.objects.benchmark_job, "asked for"
    return made.objects.benchmark_job


def pod(made: Plan) -> Manifest:
    found: Manifest = job(made)["spec"]["template"]["spec"]
    return found


def env(made: Plan) -> dict[str, str]:
    return {one["name"]: one["value"] for one in pod(made)["containers"][0]["env"]}


# ── only where asked for ─────────────────────────────────────────────────────────────────────────────────────────────


def test_nothing_of_it_exists_unless_asked_for() -> None:
    made = plan()
    assert (made.benchmark, made.bucket) == (None, None)
    assert not any("benchmark" in name for name, _, _ in made.objects.created())
    more = {name for name, _, _ in asked().objects.created()} - {name for name, _, _ in made.objects.created()}
    assert more == {"benchmark_config", "benchmark_job"}, "and without a bucket no account either"


def test_asking_for_it_changes_nothing_else() -> None:
    """Or a benchmark would roll the very graph it measures."""
    before = {name: manifest for name, _, manifest in plan().objects.created()}
    after = {name: manifest for name, _, manifest in asked().objects.created()}
    assert {name: after[name] for name in before} == before


def test_a_paused_stack_is_not_measured() -> None:
    with pytest.raises(RecipeError, match="a paused stack serves nothing"):
        asked(hardware__paused=True)


@pytest.mark.parametrize("stack", [name for name in stacks.names() if stacks.load(name).raw.get("kind") != "base"])
def test_every_shipped_stack_can_be_measured(stack: str) -> None:
    recipe = parse(stacks.with_settings(stacks.load(stack).raw, ["benchmark.run=fixed"]))
    assert make_plan(stack, recipe, placeholders=True).benchmark


# ── what is wrong with it ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"benchmark__run": "fixd"}, "did you mean fixed?"),
        ({"engine_tuning__context_length": 4096}, "4000 + 500 tokens do not fit the workers' 4096"),
        (
            {"benchmark__run": "mooncake", "engine_tuning__context_length": 32768},
            "have up to 131072 tokens, the workers take 32768",
        ),
        ({"benchmark__run": "mooncake", "benchmark__timeout_minutes": 100}, "2 × 59 minutes of trace take longer"),
        ({"benchmark__cpu": 40}, "benchmark Job (40 CPU, 16.0 GiB): no place"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anyone_pays(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(said)):
        asked(**changes)


@pytest.mark.parametrize(
    ("loads", "slot", "said"),
    [
        ([1, 1], 10, r"concurrency_per_gpu\[1\].*is there already"),
        ([0.01, 0.02], 10, r"concurrency_per_gpu\[0\].*only whole ones can be sent"),
        ([1024], 1000, r"16,384,000 requests in one point"),
    ],
)
def test_points_that_are_one_or_none_or_endless_are_refused(loads: list[float], slot: int, said: str) -> None:
    profile = {"kind": "fixed", "isl": 100, "osl": 10, "concurrency_per_gpu": loads, "requests_per_slot": slot}
    with pytest.raises(RecipeError, match=said):
        asked("mine", benchmark__profiles={"mine": profile})


def test_a_trace_that_is_too_long_for_the_context_can_be_cut() -> None:
    profiles = {"short": {"kind": "trace", "max_input_tokens": 30_000}}
    assert asked("short", benchmark__profiles=profiles, engine_tuning__context_length=32768).benchmark


def test_a_profile_of_a_shipped_name_takes_its_place() -> None:
    profiles = {"fixed": {"kind": "fixed", "isl": 100, "osl": 10, "concurrency_per_gpu": [1]}}
    assert spec(asked(benchmark__profiles=profiles))["traffic"]["isl"] == 100


def test_the_plan_says_how_long_a_trace_takes_and_what_it_costs() -> None:
    (note,) = [note for note in asked("mooncake").notes if note.startswith("benchmark")]
    assert note == "benchmark mooncake: 2 points, at least 121 minutes, $228.99 ($113.55 an hour)"


# ── the same traffic ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_traffic_of_a_profile_is_the_same_whatever_the_stack() -> None:
    disagg = spec(asked())
    agg = spec(asked(mode="agg", workers={"worker": {"replicas": 4, "tensor_parallel": 2}}))
    assert agg["traffic"] == disagg["traffic"]
    per_gpu = [[point["concurrency_per_gpu"] for point in one["points"]] for one in (agg, disagg)]
    assert per_gpu[0] == per_gpu[1]
    assert [point["concurrency"] for point in agg["points"]][:4] == [8, 16, 32, 48], "of 8 GPUs"
    assert [point["concurrency"] for point in disagg["points"]][:4] == [16, 32, 64, 96], "of 16"


@pytest.mark.parametrize("profile", [*benchmark.PROFILES.values()])
def test_no_two_points_send_the_same_prompts(profile: FixedProfile | TraceProfile) -> None:
    points = benchmark.make_points(profile.model_copy(update={"repeats": 5}), 16)
    seeds = [point["seed"] for point in points]
    assert len(set(seeds)) == len(seeds)
    assert len({point["key"] for point in points}) == len(points)


@pytest.mark.parametrize("profile", ["fixed", "mooncake"])
def test_another_attempt_sends_other_prompts_of_the_same_traffic(profile: str) -> None:
    """The stack has stood since the first attempt, and its prefix caches know all of it."""
    first, again = (spec(asked(profile, benchmark__attempt=attempt)) for attempt in (1, 2))
    seeds = [{one["seed"] for one in (*made["points"], made["warmup"])} for made in (first, again)]
    assert not seeds[0] & seeds[1]
    assert first["traffic"] == again["traffic"], "or `compare` would refuse the two"
    assert first.get("trace_source") == again.get("trace_source"), "or it would be another trace"


def test_with_the_mock_engine_the_gpus_are_those_it_pretends() -> None:
    changes = {f"{key}": value for key, value in MOCKER.items()}
    made = asked(benchmark__cpu=0.5, benchmark__memory_gib=2, **changes)
    assert spec(made)["about"]["gpus"] == 8
    assert "mock engine" in spec(made)["about"]["simulated"], "or somebody takes its figures for a GPU's"


# ── which run it is ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("changes", "same_run", "same_job"),
    [
        ({}, True, True),
        ({"benchmark__attempt": 2}, False, False),
        ({"benchmark__reprint": 1}, True, False),
        ({"router__mode": "round-robin"}, False, False),
        ({"workers__decode__replicas": 3, "budget__usd_per_hour": 1000}, False, False),
        ({"benchmark__cpu": 4}, True, False),
        ({"owner": "somebody"}, True, True),
    ],
)
def test_a_run_is_another_one_exactly_when_other_figures_may_come_out(
    changes: dict[str, Any], same_run: bool, same_job: bool
) -> None:
    one, other = asked(), asked(**changes)
    assert one.benchmark
    assert other.benchmark
    assert (one.benchmark.run == other.benchmark.run) == same_run
    assert (one.benchmark.job == other.benchmark.job) == same_job


@pytest.mark.parametrize("changed", [{"source": "generated"}, {"fallback": False}])
def test_where_a_trace_comes_from_makes_another_run(changed: dict[str, Any]) -> None:
    """Or points of two traces would end up in one folder."""
    profile = {"kind": "trace", "source": "mooncake", "fallback": True, "scale": 0.01}
    one, other = (asked("mine", benchmark__profiles={"mine": profile | more}) for more in ({}, changed))
    assert one.benchmark
    assert other.benchmark
    assert one.benchmark.run != other.benchmark.run


def test_other_nodes_are_another_run_and_another_job() -> None:
    assert job(asked())["metadata"]["name"].endswith(Late.GPU_NODES)
    assert env(asked())["RUN"].endswith(Late.GPU_NODES), "what old nodes measured would stand for new ones"


def test_results_say_what_was_measured_and_not_who_runs_it_where() -> None:
    about = spec(asked())["about"]
    assert (about["gpu"], about["gpus"], about["usd_per_hour"]) == ("h100", 16, plan().cost.usd_per_hour)
    assert about["versions"]["dynamo"] == catalogue.DYNAMO_DEFAULT
    assert {line["as_of"] for line in about["prices"]}, "a price without a date is none"
    text = json.dumps(spec(asked(owner="somebody@example.com")))
    for secret in ("111122223333", "198.51.100.7", "somebody@example.com"):
        assert secret not in text, "results are passed on"


# ── the Job ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_job_runs_unprivileged_with_limits_and_a_deadline() -> None:
    made = asked()
    main = pod(made)["containers"][0]
    assert pod(made)["securityContext"]["runAsNonRoot"] is True
    assert pod(made)["automountServiceAccountToken"] is False, "it asks the API server for nothing"
    for container in (main, *pod(made)["initContainers"]):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["image"] == catalogue.JOB_IMAGE
        assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"]
    assert job(made)["spec"]["activeDeadlineSeconds"] > int(env(made)["DEADLINE_SECONDS"]) == 240 * 60
    assert pod(made)["nodeSelector"][POOL_LABEL] == CPU_POOL


def test_the_scripts_deadline_comes_before_the_jobs_even_after_a_slow_install() -> None:
    """The Job's counts from its start, the script's from its own: about two minutes of installing later."""
    made = asked()
    room = job(made)["spec"]["activeDeadlineSeconds"] - int(env(made)["DEADLINE_SECONDS"])
    assert room >= 2 * 120 + bench.STOP_SECONDS + 30, "then Kubernetes ends the pod, and exit code 7 is never seen"


def test_every_code_the_script_ends_with_is_final_and_a_kill_is_not() -> None:
    text = (SCRIPTS / "bench.py").read_text()
    used = {int(code) for code in re.findall(r"(?:self\.end|finish)\((\d+)", text)} | {5, 7}
    ignore, final = job(asked())["spec"]["podFailurePolicy"]["rules"]
    assert used - {0} <= set(final["onExitCodes"]["values"])
    assert ignore["action"] == "Ignore", "an eviction is nobody's failure"
    assert 137 not in final["onExitCodes"]["values"]
    assert job(asked())["spec"]["backoffLimit"] == 1


def test_it_keeps_away_from_the_frontend_it_measures() -> None:
    (term,) = pod(asked())["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    labels = term["podAffinityTerm"]["labelSelector"]["matchLabels"]
    assert labels == {
        "nvidia.com/dynamo-graph-deployment-name": "qwen3-32b-disagg",
        "nvidia.com/dynamo-component-type": "frontend",
    }


def test_it_reads_the_model_cache_and_writes_nothing_there() -> None:
    made = asked()
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in pod(made)["containers"][0]["volumeMounts"]}
    assert mounts["/model-cache"] is True
    assert mounts["/perf-cache"] is False
    assert env(made)["HF_HUB_CACHE"] == "/model-cache/hub"
    assert env(made)["HF_HOME"].startswith("/tmp")
    assert env(made)["RESULTS"].startswith("/perf-cache/")


def test_aiperf_is_the_pinned_one_and_every_package_has_a_hash() -> None:
    lines = [
        line for line in (SCRIPTS / "benchmark-requirements.txt").read_text().splitlines() if line and line[0] != "#"
    ]
    assert f"aiperf=={catalogue.AIPERF}" in {line.split(" ")[0] for line in lines}
    assert all(re.fullmatch(r"[\w.-]+==\S+( --hash=sha256:[0-9a-f]{64})+", line) for line in lines)
    assert asked().objects.benchmark_config["data"]["requirements.txt"].count("==") >= len(lines)  # type: ignore[index]
    install = pod(asked())["initContainers"][0]
    assert {"--require-hashes", "--no-deps", "--only-binary=:all:"} <= set(install["args"])


def test_objects_stay_within_what_the_api_server_takes() -> None:
    config = asked("mooncake").objects.benchmark_config
    assert config
    assert sum(len(text.encode()) for text in config["data"].values()) < 1_000_000


# ── the bucket ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_bucket_of_its_own_is_named_for_account_and_region_and_short_enough() -> None:
    made = plan(benchmark__bucket="create")
    assert made.bucket
    assert (made.bucket.created, len(made.bucket.name) <= 63) == (True, True)
    assert "111122223333" in made.bucket.name, "names of buckets are global"
    long = plan(stack="a" * 40, benchmark__bucket="create", deployment_id="eightchr").bucket
    assert long
    assert len(long.name) <= 63
    assert any("is kept on purpose" in note for note in made.notes)


def test_a_bucket_that_exists_is_taken_by_its_name() -> None:
    made = asked(benchmark__bucket="our-results")
    assert made.bucket
    assert (made.bucket.name, made.bucket.created) == ("our-results", False)
    assert pod(made)["serviceAccountName"] == benchmark.ACCOUNT
    assert spec(made)["bucket"]["name"] == "our-results"


def test_a_name_no_bucket_can_have_is_refused() -> None:
    with pytest.raises(RecipeError, match="not the name of an S3 bucket"):
        plan(benchmark__bucket="Our_Results")


def test_agg_workers_are_a_sample_too() -> None:
    assert spec(asked(mode="agg", workers=AGG_WORKERS))["about"]["mode"] == "agg"
