"""The recipe: what a person asks for in `stacks/Pulumi.<stack>.yaml`, under the one key `dynamo-recipes:recipe`.

Every key has a type, a unit in its name and a sentence that says what it does; `python -m ops schema` prints them. Whatever
needs more than one key to judge (does it fit, does it match) is judged in `recipe.planner`.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from recipe.errors import Problem, RecipeError, from_validation

PROJECT = "dynamo-recipes"
RECIPE_KEY = "recipe"
"""The config key below the project's namespace that holds the whole recipe."""


class Frozen(BaseModel):
    """Base of every model: immutable, and a key nobody knows is an error rather than silence."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# ── constrained types ────────────────────────────────────────────────────────────────────────────────────────────────


def _matching(pattern: str, reason: str, fix: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"{reason} | {fix}")
        return value

    return AfterValidator(check)


def _account(value: Any) -> Any:
    # `pulumi config set --path` stores digits as a number, which drops leading zeros.
    return f"{value:012d}" if isinstance(value, int) and value >= 10**8 else value


def _cidr(value: str) -> str:
    try:
        network = ipaddress.ip_network(value, strict=True)
    except ValueError as error:
        raise ValueError(f"not a network: {error} | write it like 198.51.100.7/32") from None
    if network.prefixlen == 0:
        raise ValueError("opens the API server to everyone | name your own network, like 198.51.100.7/32")
    return value


def _ipv4_cidr(value: str) -> str:
    network = ipaddress.ip_network(_cidr(value))
    if network.version != 4:
        raise ValueError("EKS takes IPv4 networks here | write it like 198.51.100.7/32")
    return value


def _vpc_cidr(value: str) -> str:
    network = ipaddress.ip_network(_ipv4_cidr(value))
    if not 16 <= network.prefixlen <= 20 or not network.is_private:
        raise ValueError("a VPC here is a private network between /16 and /20 | for example 10.42.0.0/16")
    return value


AccountId = Annotated[
    str,
    BeforeValidator(_account),
    _matching(r"\d{12}", "an AWS account id has 12 digits", "aws sts get-caller-identity"),
]
EndpointCidr = Annotated[str, AfterValidator(_ipv4_cidr)]
VpcCidr = Annotated[str, AfterValidator(_vpc_cidr)]
ZoneId = Annotated[
    str,
    _matching(
        r"[a-z]{2,5}\d-az\d", "not an AZ id", "an AZ id looks like use2-az1 (names like us-east-2a differ per account)"
    ),
]
ReservationId = Annotated[
    str, _matching(r"cr-[0-9a-f]{8,17}", "not a capacity reservation id", "it looks like cr-0123456789abcdef0")
]
PrincipalArn = Annotated[
    str,
    _matching(
        r"arn:aws[a-z-]*:iam::\d{12}:(role|user)/[\w+=,.@/-]+",
        "not the ARN of an IAM role or user",
        "it looks like arn:aws:iam::123456789012:role/name (not an assumed-role session)",
    ),
]
DeploymentId = Annotated[
    str,
    _matching(
        r"[a-z][a-z0-9]{0,7}",
        "1 to 8 lower-case letters and digits, a letter first",
        "for example main, or your initials",
    ),
]
Revision = Annotated[
    str, _matching(r"[0-9a-f]{40}", "not a commit hash", "the 40 hex digits of a commit: a branch name moves")
]
ChartVersion = Annotated[
    str,
    _matching(
        r"v?\d+\.\d+\.\d+(-[\w.]+)?", "not a chart version", "it looks like 0.19.3, with a v where the chart writes one"
    ),
]
Parallelism = Literal[1, 2, 4, 8]

GpuKind = Literal["h100", "h200", "b200"]
EngineName = Literal["vllm", "trtllm", "mocker"]
Mode = Literal["agg", "disagg"]
Role = Literal["worker", "prefill", "decode"]
RouterMode = Literal["kv", "round-robin"]
ROLES: dict[Mode, tuple[Role, ...]] = {"agg": ("worker",), "disagg": ("prefill", "decode")}


# ── serving ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Tuning(Frozen):
    """How an engine runs. Names are the same for every engine; `recipe/engines/` turns them into flags.

    Unset means: what the pool's neighbour level says (`engine_tuning` for a pool's `tuning`), else the engine's default.
    """

    context_length: Annotated[int, Field(ge=1024, le=1_048_576)] | None = None
    """Longest prompt plus answer, tokens. Above the model's native length, YaRN scaling is set. Larger: fewer requests fit the KV cache
    at once, so under load more of them queue (higher TTFT); no effect on ITL by itself."""
    block_size: Literal[16, 32, 64, 128] | None = None
    """KV cache block, tokens. The router counts in the same blocks, so it is one value for all pools. Smaller: more prefix hits (lower
    TTFT of repeated prompts), more bookkeeping and smaller transfers. No effect on ITL worth naming. Unset: the engine's (TRT-LLM: 32)."""
    gpu_memory_fraction: Annotated[float, Field(gt=0.3, le=0.98)] | None = None
    """vLLM: share of the whole GPU memory for weights and KV cache. TRT-LLM: share of what is free after loading, for the KV cache alone.
    Higher: more requests fit at once, so less queueing (lower TTFT under load), at a higher ITL; too high, and peaks run out of memory."""
    kv_cache_dtype: Literal["auto", "fp8"] | None = None
    """fp8 halves KV bytes: twice the requests or context in the cache (less queueing), half the bytes from prefill to decode (lower TTFT)
    and to read at each step (lower ITL with long contexts), for some accuracy. One type for both sides of a transfer. auto: the checkpoint's."""
    prefix_caching: bool | None = None
    """Reuse KV blocks of shared prefixes (TRT-LLM calls it block reuse): lower TTFT for repeated prompts, no effect on ITL. Decode workers
    of a disaggregated graph gain nothing from it, so there it is off unless asked for."""
    chunked_prefill: bool | None = None
    """Split long prompts over several steps: ITL of the requests beside them stays low, their own TTFT rises a little. Off, a prompt must
    fit one step (max_batch_tokens). Unset: the engine's (vLLM: on, TRT-LLM: off)."""
    cuda_graphs: bool | None = None
    """Record the decode step once and replay it: lower ITL, most at small batches; costs some GPU memory and minutes at start, no effect on
    TTFT. TRT-LLM: true also rounds batches up to the next recorded size. Unset: the engine's (both: on)."""
    async_scheduling: bool | None = None
    """Prepare the next step while the GPU works (TRT-LLM calls it the overlap scheduler): lower ITL, no effect on TTFT. Prefill workers of
    TRT-LLM never have it."""
    max_batch_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Requests in one step. Higher: more throughput and less queueing (lower TTFT under load), higher ITL."""
    max_batch_tokens: Annotated[int, Field(ge=256, le=1_048_576)] | None = None
    """Tokens in one step. Higher: lower TTFT of long prompts, higher ITL of the requests beside them."""
    extra_args: tuple[str, ...] = ()
    """Passed to the engine as they are, last: for flags this schema does not know. Nothing checks them."""
    extra_engine_config: dict[str, Any] = {}
    """TRT-LLM only: keys of its YAML that this schema does not know, laid over what is rendered. Nothing checks their values; a key that
    has a setting here is refused."""

    def over(self, base: Tuning) -> Tuning:
        """These settings, with `base` where unset. `extra_args` are base's first, then these; `extra_engine_config` is merged key by key."""
        added = ("extra_args", "extra_engine_config")
        own = {key: value for key, value in self if value is not None and key not in added}
        return base.model_copy(
            update={
                **own,
                "extra_args": (*base.extra_args, *self.extra_args),
                "extra_engine_config": merged(base.extra_engine_config, self.extra_engine_config),
            }
        )


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` with `over` on top, objects merged key by key and everything else replaced."""
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


class WorkerPool(Frozen):
    """Workers of one role. A worker is one pod with tensor_parallel × data_parallel GPUs."""

    replicas: Annotated[int, Field(ge=1, le=64)]
    """Workers of this role."""
    tensor_parallel: Parallelism
    """GPUs a worker's layers are split over. More: lower TTFT and ITL of each request and room for larger models, but more time in
    all-reduce, so less throughput per GPU."""
    data_parallel: Parallelism = 1
    """Copies of the attention layers in one worker, each with requests and a KV cache of its own, behind one set of experts (MoE only; for
    a dense model more replicas do the same). More: higher throughput, ITL and TTFT of a single request as with tensor_parallel alone."""
    expert_parallel: Parallelism = 1
    """GPUs a worker's whole experts are spread over (MoE only); divides the worker's GPUs. 1: every expert is split over all of them.
    More: less all-reduce, so lower ITL at large batches; at small ones uneven load raises it. TTFT likewise."""
    tuning: Tuning = Tuning()
    """Overrides `engine_tuning` for this role."""
    cpu: Annotated[float, Field(ge=0.1, le=128)] = 16
    """CPUs requested per worker. No limit is set: throttling a worker idles its GPUs. Engine mocker: a fraction is enough."""
    memory_gib: Annotated[int, Field(ge=1, le=1900)] = 320
    """Memory request and limit of a worker, shared memory included. EFA wants at least 128 where all 32 devices are visible. Engine mocker: 1 or 2."""
    shared_memory_gib: Annotated[int, Field(ge=1, le=512)] = 80
    """/dev/shm of a worker (upstream: 80 GiB with NIXL)."""

    @property
    def gpus(self) -> int:
        """GPUs of one worker."""
        return self.tensor_parallel * self.data_parallel


class Router(Frozen):
    """How the frontend chooses a worker."""

    mode: RouterMode = "kv"
    """kv: the worker that already holds most of the prompt's prefix, which lowers TTFT where prompts share prefixes. round-robin: the next
    one, which keeps ITL even where they do not."""
    overlap_credit: Annotated[float, Field(ge=0, le=10)] | None = None
    """kv only: how much a cached prefix block counts against load (the frontend's own default is 1.0). Higher: lower TTFT of repeated
    prompts, but busy workers get busier (higher ITL there). 0 ignores prefixes."""
    temperature: Annotated[float, Field(ge=0, le=10)] | None = None
    """kv only: randomness of the choice (the frontend's own default is 0, always the best). Higher: load spreads where many prompts share
    one prefix, at a higher TTFT for some."""


class Frontend(Frozen):
    """The OpenAI-compatible HTTP server with the router, on the CPU pool."""

    replicas: Annotated[int, Field(ge=1, le=8)] = 1
    """Frontends. With the kv router each follows the cache events by itself."""
    cpu: Annotated[float, Field(ge=0.1, le=64)] = 8
    """CPUs, request and limit (upstream: 8)."""
    memory_gib: Annotated[int, Field(ge=1, le=256)] = 16
    """Memory, request and limit."""


class KvTransfer(Frozen):
    """How the KV cache goes from prefill to decode workers. Only used by disagg."""

    backend: Literal["libfabric", "ucx"] = "libfabric"
    """What NIXL uses over EFA. ucx is for TRT-LLM only, whose documentation for EFA names it (docs/unverified.md); vLLM's falls back to TCP.
    A wrong one shows as a TTFT of about 100 s; no effect on ITL."""
    privileged: bool = False
    """Run workers privileged. Sources disagree whether IPC_LOCK alone is enough for EFA (docs/unverified.md): the switch if it is not."""


# ── hardware ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class OnDemand(Frozen):
    """Pay as you go; needs the quota "Running On-Demand P instances" and luck."""

    kind: Literal["on-demand"] = "on-demand"


class Spot(Frozen):
    """Cheaper, and taken away with two minutes' notice."""

    kind: Literal["spot"]
    accept_interruption: bool = False
    """disagg is refused without it: losing one decode worker drops every request it serves."""


class Odcr(Frozen):
    """An On-Demand Capacity Reservation that is yours already."""

    kind: Literal["odcr"]
    reservation_id: ReservationId | None = None
    """cr-…; only you know it."""


class CapacityBlock(Frozen):
    """A Capacity Block bought in advance: paid up front, so destroying early saves nothing."""

    kind: Literal["capacity-block"]
    reservation_id: ReservationId | None = None
    """cr-…; only you know it."""


Capacity = Annotated[OnDemand | Spot | Odcr | CapacityBlock, Field(discriminator="kind")]


class CpuPool(Frozen):
    """Nodes for everything that is not a worker: frontend, platform, downloads, readiness."""

    instance_type: str = "m7i.8xlarge"
    """EC2 type from the catalogue. The plan checks that every pod fits what the kubelet leaves of it."""
    nodes: Annotated[int, Field(ge=1, le=16)] = 2
    """Nodes. Two, so that a benchmark does not share a node with the frontend it measures."""
    disk_gib: Annotated[int, Field(ge=30, le=1000)] = 100
    """Root volume (gp3, encrypted)."""


class Hardware(Frozen):
    """GPUs, how they are obtained, and the CPU nodes beside them."""

    gpu: GpuKind | None = None
    """h100 (p5), h200 (p5en, p5e) or b200 (p6-b200): instance type, NICs, EFA per worker and memory follow. Unset for engine mocker only."""
    instance_type: str | None = None
    """An EC2 type of the catalogue with that GPU, where there is a choice (h200: p5en.48xlarge unless set)."""
    capacity: Capacity = OnDemand()
    """on-demand, spot, odcr or capacity-block."""
    placement_group: bool | None = None
    """Cluster placement group. Unset: yes for on-demand, no for the rest (a forced one makes reservations fail)."""
    nic_layout: Literal["device0", "device1"] = "device0"
    """Device index of the EFA-only NICs on cards 1 and up: device0 is AWS's current rule, device1 the older one (docs/unverified.md)."""
    ami_release: str | None = None
    """EKS AMI release of the GPU nodes, like 1.35.0-20261101. Unset: the catalogue's, so that nodes do not change by themselves."""
    root_disk_gib: Annotated[int, Field(ge=100, le=2000)] = 200
    """Root volume of GPU nodes (gp3, encrypted). Images and logs go to the instance store, not here."""
    paused: bool = False
    """True: no GPU nodes and no graph, so nothing serves and no GPU is paid for. Cluster, CPU nodes, weights, platform and caches stay; false again
    and one `pulumi up` resumes. GPU capacity is given back: nobody promises that it is there to resume with."""
    create_timeout_minutes: Annotated[int, Field(ge=10, le=240)] = 60
    """How long `pulumi up` waits for the GPU node group. When it ends, AWS may still deliver: the message says what to do."""
    cpu: CpuPool = CpuPool()


# ── benchmark ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Goodput(Frozen):
    """Limits a request has to keep to count as good, both of them (upstream's recipe for Qwen3-32B: 2000 and 25)."""

    ttft_ms: Annotated[float, Field(gt=0, le=600_000)] = 2000
    """Most milliseconds until the first token."""
    itl_ms: Annotated[float, Field(gt=0, le=60_000)] = 25
    """Most milliseconds between two tokens, on average over the request."""


class _Profile(Frozen):
    repeats: Annotated[int, Field(ge=1, le=20)] = 2
    """How often each point is measured, each time with a seed of its own. With one, nothing is known of the noise."""
    seed: Annotated[int, Field(ge=0, le=1_000_000)] = 100
    """Of the first point and repeat; the others count up from it. The same seed is the same traffic, whatever the stack."""
    warmup: Annotated[int, Field(ge=0, le=10_000)] = 1
    """Requests that do not count, before the first point, for each one in flight at the highest load (a trace: this many times 16). Prompts of
    their own, so that no cache is warmed with what is measured."""
    goodput: Goodput = Goodput()


class FixedProfile(_Profile):
    """Prompts and answers of one length, a fixed number of requests in flight for each GPU: what the stack can do."""

    kind: Literal["fixed"]
    isl: Annotated[int, Field(ge=16, le=1_000_000)]
    """Input of each request, tokens."""
    osl: Annotated[int, Field(ge=2, le=100_000)]
    """Output of each request, tokens; the model has to go on until then."""
    concurrency_per_gpu: Annotated[
        tuple[Annotated[float, Field(gt=0, le=1024)], ...], Field(min_length=1, max_length=32)
    ]
    """Requests in flight for each GPU, one point each. Per GPU, so that stacks of another layout or size get the same load."""
    requests_per_slot: Annotated[int, Field(ge=1, le=1000)] = 10
    """Requests of a point for each one in flight (upstream: 10)."""


class TraceProfile(_Profile):
    """Recorded conversations at their own times: what users of such traffic would see. Its throughput is the trace's, not the stack's."""

    kind: Literal["trace"]
    source: Literal["mooncake", "generated"] = "mooncake"
    """mooncake: the published conversation trace (12,031 requests in 59 minutes, mean 12,035 tokens in and 343 out, 36.6 % of prompt blocks seen
    before). generated: one of the same shape from the seed, without any download."""
    fallback: bool = True
    """Where the published trace cannot be had: go on with the generated one (the results say so) instead of failing with GPUs running."""
    scale: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the trace that is replayed, from its beginning: 0.1 is a tenth of the requests in a tenth of the time."""
    pace: Annotated[float, Field(gt=0, le=100)] = 1.0
    """How many times as fast as recorded the requests arrive."""
    max_input_tokens: Annotated[int, Field(ge=512, le=1_000_000)] | None = None
    """Requests with longer prompts are left out. Unset: all are sent, so the context has to hold 131,072 tokens."""


Profile = Annotated[FixedProfile | TraceProfile, Field(discriminator="kind")]
ProfileName = Annotated[
    str,
    _matching(r"[a-z][a-z0-9-]{0,30}", "1 to 31 lower-case letters, digits and dashes, a letter first", "like chat-4k"),
]
BucketName = Annotated[
    str,
    _matching(
        r"(?!xn--)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]",
        "not the name of an S3 bucket",
        "3 to 63 lower-case letters, digits, dots and dashes; or create",
    ),
]


class Benchmark(Frozen):
    """A benchmark of the stack by a Job on the CPU pool, with AIPerf. Nothing of it exists unless `run` names a profile; `ops bench` does that."""

    run: ProfileName | None = None
    """Profile to run with the next `up`: one of `profiles`, or fixed, mooncake, generated, small (recipe/benchmark.py). Unset: no benchmark."""
    attempt: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Another number measures everything anew. With the same one, a Job that was cut short goes on where it was."""
    reprint: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Another number makes the Job print again what is on the claim, and measure only what is missing: for results whose log is lost."""
    profiles: dict[ProfileName, Profile] = {}
    """Profiles of your own by name; one of a shipped name takes its place."""
    bucket: BucketName | None = None
    """S3 bucket that gets a copy of the results: a name (it has to exist, in any region), or create: one of this stack's, which a destroy keeps. Unset: the
    results are on the perf claim and at the desk only."""
    cpu: Annotated[float, Field(ge=0.25, le=64)] = 8
    """CPUs requested for AIPerf (upstream: 8). Too few, and it measures itself. There is no limit."""
    memory_gib: Annotated[int, Field(ge=2, le=256)] = 16
    """Memory of AIPerf, request and limit (upstream: 16). It holds the prompts of the whole profile."""
    timeout_minutes: Annotated[int, Field(ge=5, le=2880)] = 240
    """Deadline of the whole Job. What was measured until then is kept."""


# ── the rest ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Storage(Frozen):
    """Caches shared by all workers. Sizes are nominal: EFS grows by itself and bills what is used."""

    kind: Literal["efs"] = "efs"
    """EFS, elastic throughput, encrypted, one mount target in the GPU zone."""
    model_gib: Annotated[int, Field(ge=10, le=10_000)] = 100
    """Claim of the weights."""
    compilation_gib: Annotated[int, Field(ge=1, le=1000)] = 50
    """Claim of what engines compile (torch.compile): kept, so that the next start is faster."""
    perf_gib: Annotated[int, Field(ge=1, le=1000)] = 50
    """Claim of benchmark results."""


class Weights(Frozen):
    """How the weights get to the cache, by a Job on the CPU pool."""

    revision: Revision | None = None
    """Commit on Hugging Face. Unset: the catalogue's. A name like main is refused: it moves."""
    wait: bool = True
    """GPU nodes start only when the weights are on disk and verified. False overlaps both: faster, but the GPUs idle meanwhile."""
    memory_gib: Annotated[int, Field(ge=1, le=512)] | None = None
    """Memory of the download Job. From 64 on it uses the fast mode (up to 64 GB of buffers); below, buffers are capped at 8 GB. Unset: 64, and 1
    where only tokenizer and configuration are fetched (engine mocker)."""
    timeout_minutes: Annotated[int, Field(ge=5, le=720)] = 60
    """Deadline of the Job, all attempts together. A repeated run resumes what is there."""
    token: bool = False
    """True: read the secret config `hfToken` and give it to the download. Qwen3 is not gated; a token only raises rate limits."""


class Serving(Frozen):
    """Around the workers."""

    frontend: Frontend = Frontend()
    kv_transfer: KvTransfer = KvTransfer()
    ready_timeout_minutes: Annotated[int, Field(ge=5, le=240)] = 40
    """Deadline of the readiness Job. It ends earlier, with the reason, when something can never become ready."""


class Budget(Frozen):
    """What it may cost."""

    usd_per_hour: Annotated[float, Field(gt=0, le=100_000)]
    """The plan refuses a stack that costs more an hour."""
    ttl_hours: Annotated[int, Field(ge=1, le=24 * 182)]
    """Meant lifetime: a tag on everything, and what the plan's total is for."""


class Access(Frozen):
    """Where it runs and who may reach it. What only you know is unset, and `up` asks for it."""

    region: str = "us-east-2"
    """AWS region; the catalogue knows those with P5 or P6 instances."""
    account_id: AccountId | None = None
    """The account this stack belongs to: every AWS call is refused in any other."""
    zone_id: ZoneId | None = None
    """AZ id (not name) of all nodes and of the cache: where your capacity is."""
    endpoint_cidrs: tuple[EndpointCidr, ...] | None = None
    """Networks that may reach the Kubernetes API: where you run pulumi and kubectl."""
    admin_principals: tuple[PrincipalArn, ...] = ()
    """IAM roles or users that become cluster admins, besides whoever creates the cluster."""
    vpc_cidr: VpcCidr = "10.42.0.0/16"
    """Address range of the VPC."""


class Versions(Frozen):
    """Which releases belong together. The catalogue's table refuses pairs that do not."""

    dynamo: str | None = None
    """Dynamo release: platform chart, operator and runtime images. Unset: the catalogue's."""
    kubernetes: str | None = None
    """EKS version. Unset: the catalogue's. An upgrade goes one minor version at a time."""
    engine: Annotated[str, Field(pattern=r"^v?\d+\.\d+(\.\d+)?\w*$")] | None = None
    """Engine version you count on, like 0.31.0: a release of Dynamo with another one is refused. Unset: what the release ships."""
    driver: Annotated[int, Field(ge=450, le=999)] | None = None
    """Branch of the NVIDIA driver in hardware.ami_release, like 580. Unset: that of the catalogue's AMI."""
    platform_chart: ChartVersion | None = None
    """dynamo-platform. Unset: the release's own, and no other one is accepted."""
    nvidia_device_plugin: ChartVersion | None = None
    """Chart of the NVIDIA device plugin. Unset: the catalogue's. 0.19.0 to 0.19.2 are refused: they break EFA."""
    efa_device_plugin: ChartVersion | None = None
    """Chart of the EFA device plugin. Unset: the catalogue's. b200 needs 0.5.13 or newer."""


class Foundation(Frozen):
    """Where network, cluster, CPU nodes and caches come from."""

    kind: Literal["created"] = "created"
    """created: by this stack, and gone with it."""


class Recipe(Frozen):
    """One stack: a model, how it is served, on what, for how much."""

    model: str
    """Hugging Face id of a model in the catalogue."""
    engine: EngineName
    """What runs the model; `recipe/engines/` turns the tuning into its flags."""
    mode: Mode
    """agg: one pool does prefill and decode. disagg: a pool for each."""
    workers: dict[Role, WorkerPool]
    """agg: {worker: …}. disagg: {prefill: …, decode: …}."""
    engine_tuning: Tuning = Tuning()
    """For all pools; a pool's own `tuning` wins."""
    router: Router = Router()
    hardware: Hardware
    storage: Storage = Storage()
    weights: Weights = Weights()
    serving: Serving = Serving()
    budget: Budget
    access: Access = Access()
    foundation: Foundation = Foundation()
    versions: Versions = Versions()
    benchmark: Benchmark = Benchmark()
    deployment_id: DeploymentId = "main"
    """Part of every name: two people deploying the same stack to one account choose different ones."""
    owner: Annotated[str, Field(pattern=r"^[\w .:/=+@-]{1,128}$")] = "not-set"
    """Tag on everything: whom to ask before deleting it."""

    def tuning(self, role: Role) -> Tuning:
        """The settings of a role's workers, the pool's own over the common ones."""
        return self.workers[role].tuning.over(self.engine_tuning)


def parse(raw: Any, source: str = "recipe") -> Recipe:
    """`raw` (plain data from YAML or JSON) as a Recipe. Raises RecipeError with every problem found."""
    if not isinstance(raw, dict):
        problem = Problem(
            RECIPE_KEY, raw, "not an object", f"the stack file needs config: {PROJECT}:{RECIPE_KEY}: with keys below it"
        )
        raise RecipeError([problem], source)
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        raise RecipeError(from_validation(error, _known_keys(Recipe)), source) from None


def _known_keys(model: type[BaseModel], path: str = "") -> dict[str, tuple[str, ...]]:
    """Dotted path of each object in the recipe to the keys it may hold; pools and capacity kinds by their tag."""
    keys = {path: tuple(model.model_fields)}
    for name, field in model.model_fields.items():
        inner = f"{path}.{name}".lstrip(".")
        for candidate in _models_in(field.annotation):
            if name == "workers":
                keys[inner] = get_args(Role)
                for role in get_args(Role):
                    keys |= _known_keys(candidate, f"{inner}.{role}")
            elif name == "profiles":
                keys |= _known_keys(candidate, f"{inner}.*.{candidate.model_fields['kind'].annotation.__args__[0]}")  # type: ignore[union-attr]
            elif name == "capacity":
                keys |= _known_keys(candidate, f"{inner}.{candidate.model_fields['kind'].annotation.__args__[0]}")  # type: ignore[union-attr]
            else:
                keys |= _known_keys(candidate, inner)
    return keys


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for argument in get_args(annotation) for found in _models_in(argument)]
