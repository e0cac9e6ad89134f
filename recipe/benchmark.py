"""The benchmark Job: AIPerf against the stack's own endpoint, and everything that says later what was measured.

Two stacks are compared by their traffic, not by their names: so the traffic of a profile follows from the profile alone (lengths, seeds,
requests in flight *per GPU*), and stands in the results beside plan, versions and price.
"""

from __future__ import annotations

import json
from typing import Any, Final

from recipe.catalogue import AIPERF, CpuInstance
from recipe.config import Benchmark, FixedProfile, Profile, Recipe, TraceProfile
from recipe.constants import GRAPH_LABEL
from recipe.context import RenderContext
from recipe.errors import Problem, suggest
from recipe.jobs import (
    PACKAGES_MOUNT,
    PACKAGES_VOLUME,
    PACKAGES_VOLUME_MOUNT,
    REQUIREMENTS,
    SCRIPTS,
    SCRIPTS_MOUNT,
    JobSpec,
    build_job,
    install,
)
from recipe.names import digest, fit
from recipe.plan import BenchmarkPlan, BucketPlan, Cost, Late, Manifest, Names, Objects
from recipe.readiness import FRONTEND_PORT
from recipe.scripts import trace

ACCOUNT: Final = "benchmark"
PURPOSE: Final = "benchmark"
COMPONENT_TYPE_LABEL: Final = "nvidia.com/dynamo-component-type"
"""Set by the operator beside GRAPH_LABEL (facts/dynamo.md §1.4)."""
SPEC_FILE: Final = "bench.json"
FORMAT: Final = 1
"""Of run.json and the points beside it: `ops compare` refuses what it does not know."""
RESULTS_FOLDER: Final = "results"
"""On the perf claim."""
ATTEMPTS: Final = 2
"""Pods after one that was killed (out of memory). Evictions do not count, and whatever AIPerf itself reports is final: GPUs are waiting."""
LONGEST_CONTEXT: Final = 131_072
"""What every request of the traces fits (recipe/scripts/trace.py)."""
TRACE_WARMUP: Final = 16
"""Requests in flight of a trace's warm-up."""
WARMUP_SEED: Final = 24_000
"""Added to the profile's seed, so that a warm-up sends other prompts: above every point's (20 repeats of 1000), below the next attempt's."""
ATTEMPT_SEED: Final = 25_000
"""Between the seeds of two attempts. The same prompts again would come from the prefix caches of a stack that has stood since. A trace stays the
same one: times, lengths and what is shared follow from the profile, and only the words are others."""
START_MINUTES: Final = 3
"""Of a Job: installing its packages, starting AIPerf for each point. An assumption of ours."""

MOST_ROUNDING: Final = 0.1
"""Share by which a load may differ from the wished one because requests in flight are whole. Above it, stacks of another size are not comparable."""
MOST_REQUESTS: Final = 100_000
"""Of one point. AIPerf holds the prompts of a point, about 2 GB at 4000 tokens each (4 characters a token and their copies, an assumption of ours),
and a hundred times fewer already make a steady figure."""
INSTALL_SECONDS: Final = 600
"""Until a Job's script runs: its node, its image, and its packages (about 2 minutes where nothing stands in the way: ops/bench/environment.py). The
Job's deadline has this on top, or the script's own would never come first and nobody would say what was measured. An assumption of ours."""

PUBLISHED_TRACE: Final[dict[str, Any]] = {
    # facts/simulation.md §3: Apache-2.0. By commit, so that it cannot change; its size is the check.
    "url": "https://raw.githubusercontent.com/kvcache-ai/Mooncake/a2a4b18ac537fd798d50e6e9f57031ce86419a37"
    "/FAST25-release/traces/conversation_trace.jsonl",
    "file": "mooncake-conversation-a2a4b18.jsonl",
    "bytes": 3_029_533,
}
PROFILES: Final[dict[str, Profile]] = {
    # The FP8 and 235B recipes' lengths; their 2 and 6 requests per GPU are among the points (facts/dynamo.md §6).
    "fixed": FixedProfile(kind="fixed", isl=4000, osl=500, concurrency_per_gpu=(1, 2, 4, 6)),
    "mooncake": TraceProfile(kind="trace"),
    "generated": TraceProfile(kind="trace", source="generated"),
    # 90 requests in about 26 seconds: small enough for a rehearsal, dense enough that routing matters. Mock engines have nothing to warm up
    # (the rehearsal has had an answer from each already), and every start of AIPerf costs about ten seconds.
    "small": TraceProfile(kind="trace", source="generated", scale=0.0075, warmup=0),
}
"""Profiles every stack has."""


def profiles(benchmark: Benchmark) -> dict[str, Profile]:
    """Every profile by name; the stack's own before the shipped ones."""
    return PROFILES | benchmark.profiles


def check_benchmark(recipe: Recipe, context_tokens: int) -> list[Problem]:
    """What cannot be measured. `context_tokens`: the longest request all workers take."""
    wanted = recipe.benchmark
    if wanted.run is None:
        return []
    known = profiles(wanted)
    if wanted.run not in known:
        return [Problem("benchmark.run", wanted.run, "no such profile", suggest(wanted.run, known))]
    problems = []
    if recipe.hardware.paused:
        problems.append(Problem("benchmark.run", wanted.run, "a paused stack serves nothing", "hardware.paused: false"))
    profile = known[wanted.run]
    path = f"benchmark.profiles.{wanted.run}"
    if isinstance(profile, FixedProfile):
        if profile.isl + profile.osl > context_tokens:
            reason = f"{profile.isl} + {profile.osl} tokens do not fit the workers' {context_tokens}"
            problems.append(Problem(f"{path}.isl", profile.isl, reason, f"isl + osl at most {context_tokens}"))
        return problems + _check_loads(profile, f"{path}.concurrency_per_gpu", measured_gpus(recipe))
    longest = (profile.max_input_tokens or LONGEST_CONTEXT - trace.LONGEST_OUTPUT) + trace.LONGEST_OUTPUT
    if longest > context_tokens:
        room = context_tokens - trace.LONGEST_OUTPUT
        reason = f"the trace's requests have up to {longest} tokens, the workers take {context_tokens}"
        fix = f"at most {room}" if room >= 512 else "a fixed profile: no trace fits"
        problems.append(Problem(f"{path}.max_input_tokens", profile.max_input_tokens, reason, fix))
    if least_minutes(profile) > wanted.timeout_minutes:
        reason = f"{profile.repeats} × {trace_minutes(profile):.0f} minutes of trace take longer"
        fix = f"at least {least_minutes(profile):.0f}, or fewer repeats, or scale below {profile.scale:g}"
        problems.append(Problem("benchmark.timeout_minutes", wanted.timeout_minutes, reason, fix))
    return problems


def _check_loads(profile: FixedProfile, path: str, gpus: int) -> list[Problem]:
    """Points that would be one and the same, that are not what was asked for, or that no AIPerf holds."""
    problems = []
    seen: dict[str, float] = {}
    for index, wish in enumerate(profile.concurrency_per_gpu):
        at, flight = f"{path}[{index}]", max(1, round(wish * gpus))
        if f"{wish:g}" in seen:
            problems.append(
                Problem(at, wish, f"{seen[f'{wish:g}']:g} is there already", "each load once; repeats: more")
            )
            continue
        seen[f"{wish:g}"] = wish
        if abs(flight - wish * gpus) > MOST_ROUNDING * wish * gpus:
            reason = f"on {gpus} GPUs that is {wish * gpus:g} requests in flight, and only whole ones can be sent"
            problems.append(Problem(at, wish, reason, f"{flight / gpus:g} ({flight} in flight)"))
        if flight * profile.requests_per_slot > MOST_REQUESTS:
            reason = f"{flight * profile.requests_per_slot:,} requests in one point, all of whose prompts AIPerf holds in memory"
            problems.append(
                Problem(at, wish, reason, f"at most {MOST_REQUESTS:,}: fewer requests_per_slot, or a lower load")
            )
    return problems


def trace_minutes(profile: TraceProfile) -> float:
    """How long one replay takes."""
    return trace.SECONDS * profile.scale / profile.pace / 60


def least_minutes(profile: Profile) -> float:
    """How long a run takes at least. Of a fixed profile only the start is known: its speed is what it measures."""
    if isinstance(profile, FixedProfile):
        return START_MINUTES
    return START_MINUTES + profile.repeats * trace_minutes(profile)


def measured_gpus(recipe: Recipe) -> int:
    """GPUs the workers have; with the mock engine, those they pretend to have."""
    return sum(pool.replicas * pool.gpus for pool in recipe.workers.values())


def make_points(profile: Profile, gpus: int, attempt: int = 1) -> list[dict[str, Any]]:
    """What is measured, in order: all points once, then all again, so that a slow drift does not look like a point's own."""
    points: list[dict[str, Any]] = []
    for repeat in range(1, profile.repeats + 1):
        seed = profile.seed + ATTEMPT_SEED * (attempt - 1) + 1000 * (repeat - 1)
        if isinstance(profile, TraceProfile):
            points.append(
                {"key": f"r{repeat}", "repeat": repeat, "seed": seed, "concurrency": None, "requests": None}
                | {"concurrency_per_gpu": None}
            )
            continue
        for index, per_gpu in enumerate(profile.concurrency_per_gpu):
            flight = max(1, round(per_gpu * gpus))
            # Another seed for each: the same prompts again would come from the prefix cache.
            points.append(
                {"key": f"c{per_gpu:g}-r{repeat}", "repeat": repeat, "seed": seed + index, "concurrency": flight}
                | {"requests": profile.requests_per_slot * flight, "concurrency_per_gpu": per_gpu}
            )
    return points


def traffic_of(profile: Profile) -> dict[str, Any]:
    """What has to be equal for two runs to be comparable, as far as the profile decides it."""
    common = {"kind": profile.kind, "seed": profile.seed, "warmup": profile.warmup}
    if isinstance(profile, FixedProfile):
        return common | {
            "isl": profile.isl,
            "osl": profile.osl,
            "concurrency_per_gpu": list(profile.concurrency_per_gpu),
            "requests_per_slot": profile.requests_per_slot,
        }
    return common | {"scale": profile.scale, "pace": profile.pace, "max_input_tokens": profile.max_input_tokens}


# ── what the plan says of it ─────────────────────────────────────────────────────────────────────────────────────────


def make_bucket(recipe: Recipe, names: Names) -> BucketPlan | None:
    """The bucket of the results, if one is named."""
    wanted, access = recipe.benchmark.bucket, recipe.access
    if wanted is None:
        return None
    own = wanted == "create"
    # Names of buckets are global, so it carries account and region; S3 takes 63 characters.
    name = fit(f"{names.prefix}-{access.region}-{access.account_id}", 63) if own else wanted
    return BucketPlan(name=name, created=own, prefix="dynamo-recipes/", region=access.region)


def make_benchmark(
    context: RenderContext,
    objects: Objects,
    cost: Cost,
    cpu: CpuInstance,
    bucket: BucketPlan | None,
    versions: dict[str, str],
) -> tuple[BenchmarkPlan, dict[str, Manifest | None]]:
    """The plan of the benchmark, and its objects by their field in `Objects`. Only for a recipe that asks for one."""
    recipe = context.recipe
    wanted = recipe.benchmark
    assert wanted.run is not None, "asked for"
    profile = profiles(wanted)[wanted.run]
    gpus = measured_gpus(recipe)
    points = make_points(profile, gpus, wanted.attempt)
    spec: dict[str, Any] = {
        "format": FORMAT,
        "stack": context.stack,
        "profile": wanted.run,
        "kind": profile.kind,
        "traffic": traffic_of(profile),
        "goodput": profile.goodput.model_dump(),
        "points": points,
        "model": context.model.id,
        "tokenizer": context.model.id,
        "revision": context.revision,
        "aiperf": AIPERF,
        "about": about(context, cost, cpu, versions),
        "reprint": wanted.reprint,
        "bucket": bucket.model_dump() if bucket else None,
        "warmup": _warmup(profile, gpus, wanted.attempt),
    }
    if isinstance(profile, TraceProfile):
        spec["trace_source"] = PUBLISHED_TRACE | {
            "source": profile.source,
            "fallback": profile.fallback,
            "seed": profile.seed,
            "scale": profile.scale,
            "pace": profile.pace,
            "longest": profile.max_input_tokens,
        }
    # What makes two runs the same run: price and reprint do not. Where a trace comes from does: another one under the same run's name would
    # leave points of both in one folder.
    same = [objects.graph["spec"], spec["traffic"], spec["goodput"], spec["points"], spec["revision"], AIPERF]
    same += [spec["trace_source"]] if "trace_source" in spec else []
    run = f"{wanted.attempt}-{digest(json.dumps(same, sort_keys=True))}"
    config, job = _job(context, spec, run, account=bucket is not None)
    plan = BenchmarkPlan(
        profile=wanted.run,
        kind=profile.kind,
        run=run,
        points=tuple(str(point["key"]) for point in points),
        least_minutes=round(least_minutes(profile), 1),
        ttft_ms=profile.goodput.ttft_ms,
        itl_ms=profile.goodput.itl_ms,
        job=str(job["metadata"]["name"]),
    )
    account = _account(context) if bucket else None
    return plan, {"benchmark_account": account, "benchmark_config": config, "benchmark_job": job}


def about(context: RenderContext, cost: Cost, cpu: CpuInstance, versions: dict[str, str]) -> dict[str, Any]:
    """The stack, as the results tell of it: plan, versions, price. Nothing of who runs it where: results are passed on."""
    recipe, gpu = context.recipe, context.gpu
    mock = gpu is None
    return {
        "engine": recipe.engine,
        "mode": recipe.mode,
        "router": recipe.router.mode,
        "gpu": gpu.gpu if gpu else None,
        "instance_type": gpu.name if gpu else cpu.name,
        "gpus": measured_gpus(recipe),
        "workers": [pool.model_dump(mode="json") for pool in context.workers],
        "versions": versions,
        "usd_per_hour": cost.usd_per_hour,
        "prices": [line.model_dump(mode="json") for line in cost.lines if line.usd_per_hour],
        "simulated": "Dynamo's mock engine: its timing is a formula's, not a GPU's" if mock else None,
        "recipe": recipe.model_dump(mode="json", exclude={"access", "owner", "benchmark", "budget", "deployment_id"}),
    }


def _warmup(profile: Profile, gpus: int, attempt: int) -> dict[str, int]:
    """What is sent before the first point: the profile's own lengths, of a trace some of its usual ones."""
    if isinstance(profile, FixedProfile):
        flight, isl, osl = max(1, round(max(profile.concurrency_per_gpu) * gpus)), profile.isl, profile.osl
    else:
        flight, isl, osl = TRACE_WARMUP, min(4000, profile.max_input_tokens or 4000), 64
    return {
        "requests": profile.warmup * flight,
        "concurrency": flight,
        "isl": isl,
        "osl": osl,
        "seed": profile.seed + ATTEMPT_SEED * (attempt - 1) + WARMUP_SEED,
    }


# ── objects ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _account(context: RenderContext) -> Manifest:
    """For S3 by Pod Identity; it may do nothing in the cluster."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": ACCOUNT, "namespace": context.names.namespace, "labels": context.labels},
        "automountServiceAccountToken": False,
    }


def _job(context: RenderContext, spec: dict[str, Any], run: str, *, account: bool) -> tuple[Manifest, Manifest]:
    wanted, names = context.recipe.benchmark, context.names
    model, perf = context.claim("model"), context.claim("perf")
    nodes = Late.CPU_NODES if context.gpu is None else Late.GPU_NODES
    config, job = build_job(
        context,
        JobSpec(
            purpose=PURPOSE,
            modules=("bench", "trace", "kube"),
            files={
                SPEC_FILE: json.dumps(spec, indent=1),
                REQUIREMENTS: (SCRIPTS / "benchmark-requirements.txt").read_text(encoding="utf-8"),
            },
            env={
                "BENCH_FILE": f"{SCRIPTS_MOUNT}/{SPEC_FILE}",
                "FRONTEND_URL": f"http://{names.frontend_service}.{names.namespace}:{FRONTEND_PORT}",
                # Other nodes are another run: what was measured on the old ones says nothing about them.
                "RUN": f"{run}-{nodes}",
                "RESULTS": f"{perf.mount}/{RESULTS_FOLDER}",
                "WORKERS": f"{wanted.cpu:g}",
                "READY_SECONDS": "600",
                # The tokenizer of the verified snapshot; whatever else the library writes goes elsewhere.
                "HF_HUB_CACHE": f"{model.mount}/hub",
                "HF_HOME": "/tmp/hf",
                "HF_HUB_OFFLINE": "1",
                "PYTHONPATH": PACKAGES_MOUNT,
            },
            cpu=f"{round(wanted.cpu * 1000)}m",
            memory=f"{wanted.memory_gib}Gi",
            deadline_seconds=wanted.timeout_minutes * 60,
            attempts=ATTEMPTS,
            final_exit_codes=(1, 2, 3, 4, 5, 6, 7, 8),
            service_account=ACCOUNT if account else None,
            mount_token=False,
            init_containers=(install(cpu="500m", memory="1Gi"),),
            install_seconds=INSTALL_SECONDS,
            volumes=(
                PACKAGES_VOLUME,
                {"name": model.name, "persistentVolumeClaim": {"claimName": model.name, "readOnly": True}},
                {"name": perf.name, "persistentVolumeClaim": {"claimName": perf.name}},
            ),
            volume_mounts=(
                {**PACKAGES_VOLUME_MOUNT, "readOnly": True},
                {"name": model.name, "mountPath": model.mount, "readOnly": True},
                {"name": perf.name, "mountPath": perf.mount},
            ),
            affinity={"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [_away(context)]}},
        ),
    )
    metadata = job["metadata"] | {"name": f"{job['metadata']['name']}-{nodes}"}
    return config, job | {"metadata": metadata}


def _away(context: RenderContext) -> Manifest:
    """Not beside the frontend, whose CPU it would take. Preferred: on one node it has to be."""
    labels = {GRAPH_LABEL: context.names.graph, COMPONENT_TYPE_LABEL: "frontend"}
    term = {"labelSelector": {"matchLabels": labels}, "topologyKey": "kubernetes.io/hostname"}
    return {"weight": 100, "podAffinityTerm": term}
