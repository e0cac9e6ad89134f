"""The recipe: what a person asks for in `stacks/Pulumi.<stack>.yaml`, under the one key `dynamo-recipes:recipe`.

Every key has a type, a unit in its name and a sentence that says what it does; `python -m ops schema` prints them. Whatever
needs more than one key to judge (does it fit, does it match) is judged in `recipe.checks` and `recipe.planner`.
"""

from __future__ import annotations

import ipaddress
import re
from functools import cache
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from recipe.constants import WIDEST_PREFIX
from recipe.errors import Keys, Problem, RecipeError, from_validation, suggest

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
    # `pulumi config set --path` stores digits as a number, which drops leading zeros. Few digits are a slip, not many zeros.
    if isinstance(value, bool) or not isinstance(value, int):
        return value
    return f"{value:012d}" if value >= 10**8 else str(value)


def _network(value: str, example: str) -> ipaddress.IPv4Network:
    try:
        network = ipaddress.ip_network(value, strict=True)
    except ValueError as error:
        raise ValueError(f"not a network: {error} | write it like {example}") from None
    if network.version != 4:
        raise ValueError(f"EKS takes IPv4 networks here | write it like {example}")
    return network


_RFC_1918: Final = tuple(map(ipaddress.IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")))
_NEVER_SEEN: Final = (*_RFC_1918, *map(ipaddress.IPv4Network, ("100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16")))
"""Nobody comes from these over the internet, and EKS refuses reserved addresses (EKS user guide, config-cluster-endpoint)."""
_OWN_ADDRESS: Final = "your address as the internet sees it: `curl -s https://checkip.amazonaws.com`, with /32"


def _endpoint_cidr(value: str) -> str:
    network = _network(value, "198.51.100.7/32")
    if network.prefixlen == 0:
        raise ValueError("opens the API server to everyone | name your own network, like 198.51.100.7/32")
    if network.prefixlen < WIDEST_PREFIX:
        raise ValueError(
            f"wider than a /{WIDEST_PREFIX}, which is nobody's own | name your own network, like 198.51.100.7/32"
        )
    if any(network.overlaps(private) for private in _NEVER_SEEN):
        raise ValueError(f"a private network: EKS takes public addresses only | {_OWN_ADDRESS}")
    return value


def _vpc_cidr(value: str) -> str:
    network = _network(value, "10.42.0.0/16")
    if not 16 <= network.prefixlen <= 20 or not any(network.subnet_of(private) for private in _RFC_1918):
        raise ValueError(
            "a VPC here is between /16 and /20 of a private range (10/8, 172.16/12, 192.168/16) | for example 10.42.0.0/16"
        )
    return value


def _lustre_size(value: int) -> int:
    if value != 1200 and value % 2400:
        near = max(1200, value // 2400 * 2400)
        raise ValueError(
            f"FSx for Lustre comes in 1200, 2400 and multiples of 2400 GiB | {near} or {value // 2400 * 2400 + 2400}"
        )
    return value


def _no_doubles(values: tuple[str, ...] | None) -> tuple[str, ...] | None:
    doubled = sorted({value for value in values or () if (values or ()).count(value) > 1})
    if doubled:
        raise ValueError(f"{', '.join(doubled)} stands here twice | once each")
    return values


NoDoubles: Final = AfterValidator(_no_doubles)
AccountId = Annotated[
    str,
    BeforeValidator(_account, json_schema_input_type=str | int),
    _matching(r"\d{12}", "an AWS account id has 12 digits", "aws sts get-caller-identity"),
]
EndpointCidr = Annotated[str, AfterValidator(_endpoint_cidr)]
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
AmiRelease = Annotated[
    str,
    _matching(
        r"\d+\.\d+\.\d+-\d{8}",
        "not the release of an EKS AMI",
        "it looks like 1.35.7-20260903 (Kubernetes version, then date); `aws ssm get-parameter` gives the newest: docs/unverified.md",
    ),
]
Owner = Annotated[
    str,
    _matching(
        r"[\w .:/=+@-]{1,128}",
        "a tag holds 1 to 128 letters, digits, spaces and . : / = + @ - _",
        "for example you@example.com",
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
StackName = Annotated[
    str,
    _matching(r"[a-z][a-z0-9-]{0,38}[a-z0-9]", "not a name of a stack here", "the STACK of stacks/Pulumi.STACK.yaml"),
]
QualifiedStack = Annotated[
    str,
    _matching(
        r"[\w.-]+/[\w.-]+/[\w.-]+",
        "not a qualified stack name",
        "organization/project/stack, as `pulumi stack ls --all` shows it; a bucket or folder as backend calls every organization `organization`",
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
LustreSize = Annotated[int, Field(ge=1200, le=240_000), AfterValidator(_lustre_size)]
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
    ami_release: AmiRelease | None = None
    """EKS AMI release of the GPU nodes, like 1.35.0-20261101. Unset: the catalogue's, so that nodes do not change by themselves."""
    root_disk_gib: Annotated[int, Field(ge=100, le=2000)] = 200
    """Root volume of GPU nodes (gp3, encrypted). Images and logs go to the instance store, not here."""
    parallel_pull: bool | None = None
    """GPU nodes pull and unpack the layers of an image in parallel (nodeadm's FastImagePull, which AWS calls experimental), onto the instance
    store. Unset: yes where the AMI release is known to hold it; the plan says what it saves."""
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


class EfsModel(Frozen):
    """The weights are on EFS beside the other caches: nothing to size, each node reads up to 1.5 GB/s, and reading is billed."""

    kind: Literal["efs"] = "efs"


class FsxLustreModel(Frozen):
    """The weights are on an FSx for Lustre of the stack's own, PERSISTENT_2 on SSD: one throughput for all nodes together, paid by the hour."""

    kind: Literal["fsx-lustre"]
    size_gib: LustreSize
    """GiB: 1200, 2400 or a multiple of 2400. Paid for whole, whatever is on it."""
    throughput_mb_per_tib: Literal[125, 250, 500, 1000]
    """MB/s for each TiB of the size. Higher: weights are read sooner (plan --cold-start says how much), at a higher price. No effect once they are loaded."""


ModelStorage = Annotated[EfsModel | FsxLustreModel, Field(discriminator="kind")]


class Storage(Frozen):
    """Caches shared by all workers. Sizes are nominal: EFS grows by itself and bills what is used."""

    kind: Literal["efs"] = "efs"
    """EFS, elastic throughput, encrypted, one mount target in the GPU zone."""
    model: ModelStorage = EfsModel()
    """Where the weights are: efs, or fsx-lustre with a size and a throughput. The other caches are on EFS either way."""
    model_gib: Annotated[int, Field(ge=10, le=10_000)] = 100
    """Claim of the weights on EFS. On fsx-lustre the claim has the file system's own size."""
    compilation_gib: Annotated[int, Field(ge=1, le=1000)] = 50
    """Claim of what engines compile (torch.compile): kept, so that the next start is faster."""
    perf_gib: Annotated[int, Field(ge=1, le=1000)] = 50
    """Claim of benchmark results."""


class Weights(Frozen):
    """How the weights get to the cache, by a Job on the CPU pool."""

    revision: Revision | None = None
    """Commit on Hugging Face. Unset: the catalogue's. A name like main is refused: it moves."""
    wait: bool | Literal["overlap"] = True
    """GPU nodes start only when the weights are on disk and verified. False: at once, beside the download. overlap: so long before the download's
    expected end as GPU nodes take at their fastest. Workers start when the weights are verified, whichever it is; the plan says what each saves."""
    loader: Literal["streamed", "default"] | None = None
    """How vLLM reads the weights: streamed (Run:ai's streamer, many reads at once) or its default, one file after the other. Unset: streamed.
    TensorRT-LLM always reads many files at once and has no choice here. The plan says what it saves."""
    loader_concurrency: Annotated[int, Field(ge=1, le=256)] = 16
    """Reads at once of a streaming worker (facts/aws.md §6: 16)."""
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
    """Meant lifetime: a tag on everything, and what the plan's total is for. `ops sweep --expired` destroys a stack whose GPU nodes are older."""


class Access(Frozen):
    """Where it runs and who may reach it. What only you know is unset, and `up` asks for it."""

    region: str = "us-east-2"
    """AWS region; the catalogue knows those with P5 or P6 instances."""
    account_id: AccountId | None = None
    """The account this stack belongs to: every AWS call is refused in any other."""
    zone_id: ZoneId | None = None
    """AZ id (not name) of all nodes and of the cache: where your capacity is."""
    endpoint_cidrs: Annotated[tuple[EndpointCidr, ...] | None, NoDoubles] = None
    """Networks that may reach the Kubernetes API: where you run pulumi and kubectl."""
    admin_principals: Annotated[tuple[PrincipalArn, ...], NoDoubles] = ()
    """IAM roles or users that become cluster admins, besides whoever creates the cluster."""
    vpc_cidr: VpcCidr = "10.42.0.0/16"
    """Address range of the VPC."""


class BaseVersions(Frozen):
    """Which releases of what is once per cluster belong together. The catalogue's table refuses pairs that do not."""

    dynamo: str | None = None
    """Dynamo release: platform chart, operator and runtime images. Unset: the catalogue's."""
    kubernetes: str | None = None
    """EKS version. Unset: the catalogue's. An upgrade goes one minor version at a time."""
    platform_chart: ChartVersion | None = None
    """dynamo-platform. Unset: the release's own, and no other one is accepted."""
    nvidia_device_plugin: ChartVersion | None = None
    """Chart of the NVIDIA device plugin. Unset: the catalogue's. 0.19.0 to 0.19.2 are refused: they break EFA."""
    efa_device_plugin: ChartVersion | None = None
    """Chart of the EFA device plugin. Unset: the catalogue's. b200 needs 0.5.13 or newer."""


class Versions(BaseVersions):
    """Which releases belong together. The catalogue's table refuses pairs that do not."""

    engine: Annotated[str, Field(pattern=r"^v?\d+\.\d+(\.\d+)?\w*$")] | None = None
    """Engine version you count on, like 0.31.0: a release of Dynamo with another one is refused. Unset: what the release ships."""
    driver: Annotated[int, Field(ge=450, le=999)] | None = None
    """Branch of the NVIDIA driver in hardware.ami_release, like 580. Unset: that of the catalogue's AMI."""


class Created(Frozen):
    """Network, cluster, caches and platform are this stack's own, and gone with it."""

    kind: Literal["created"] = "created"


class FromBase(Frozen):
    """They are a base stack's, which several stacks use at once. The weights stay there when this stack goes."""

    kind: Literal["base"]
    stack: StackName = "base"
    """The base: a stack whose recipe has `kind: base`. Its file beside this one says what plans need, its outputs give the ids."""
    reference: QualifiedStack | None = None
    """organization/project/stack of the base. Unset: `stack` in this stack's own organization and project."""


Foundation = Annotated[Created | FromBase, Field(discriminator="kind")]


class Recipe(Frozen):
    """One stack: a model, how it is served, on what, for how much."""

    kind: Literal["model"] = "model"
    """model: what this is. base: a foundation that model stacks share (class Base)."""
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
    foundation: Foundation = Created()
    """Where network, cluster, caches and platform come from: `created` by this stack, or taken from a `base`."""
    versions: Versions = Versions()
    benchmark: Benchmark = Benchmark()
    deployment_id: DeploymentId = "main"
    """Part of every name: two people deploying the same stack to one account choose different ones."""
    owner: Owner = "not-set"
    """Tag on everything: whom to ask before deleting it."""

    def tuning(self, role: Role) -> Tuning:
        """The settings of a role's workers, the pool's own over the common ones."""
        return self.workers[role].tuning.over(self.engine_tuning)


class BaseCpuPool(CpuPool):
    """Nodes for what serves every stack: operator, CoreDNS, the EFS driver. Model stacks bring their own."""

    instance_type: str = "m7i.xlarge"
    """EC2 type from the catalogue. The plan checks that what runs here fits."""
    nodes: Annotated[int, Field(ge=1, le=16)] = 2
    """Nodes. Two, so that CoreDNS outlives one of them."""
    disk_gib: Annotated[int, Field(ge=30, le=1000)] = 50
    """Root volume (gp3, encrypted)."""


class BaseHardware(Frozen):
    """What runs by the hour whether a model is served or not."""

    cpu: BaseCpuPool = BaseCpuPool()


class BaseStorage(Frozen):
    """The file system whose caches outlive model stacks. Claims and their nominal sizes are the model stacks'."""

    kind: Literal["efs"] = "efs"
    """EFS, elastic throughput, encrypted, one mount target in the zone of all nodes."""


class Base(Frozen):
    """A foundation that model stacks share: network, cluster, a few CPU nodes, caches, Dynamo's platform, device plugins."""

    kind: Literal["base"]
    """base: what makes this one, and not the recipe of a model."""
    hardware: BaseHardware = BaseHardware()
    storage: BaseStorage = BaseStorage()
    budget: Budget
    access: Access = Access()
    versions: BaseVersions = BaseVersions()
    deployment_id: DeploymentId = "main"
    """Part of every name: two bases in one account choose different ones."""
    owner: Owner = "not-set"
    """Tag on everything: whom to ask before deleting it."""


KINDS: dict[str, type[Recipe] | type[Base]] = {"model": Recipe, "base": Base}


def parse_any(raw: Any, source: str = "recipe") -> Recipe | Base:
    """`raw` (plain data from YAML or JSON) as what its `kind` says. Raises RecipeError with every problem found."""
    if not isinstance(raw, dict):
        problem = Problem(
            RECIPE_KEY, raw, "not an object", f"the stack file needs config: {PROJECT}:{RECIPE_KEY}: with keys below it"
        )
        raise RecipeError([problem], source)
    kind = raw.get("kind", "model")
    model = KINDS.get(kind) if isinstance(kind, str) else None
    if model is None:
        raise RecipeError([Problem("kind", kind, "not a kind of stack", suggest(str(kind), KINDS))], source)
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise RecipeError(from_validation(error, _keys(model)), source) from None


def parse(raw: Any, source: str = "recipe") -> Recipe:
    """`raw` as the recipe of a model. Raises RecipeError with every problem found, also where it is one of a base."""
    found = parse_any(raw, source)
    if isinstance(found, Base):
        raise RecipeError(
            [Problem("kind", "base", "a foundation, which serves no model", "name a model stack")], source
        )
    return found


ALSO_CALLED: Final = {
    "tp": "tensor_parallel",
    "tensor_parallel_size": "tensor_parallel",
    "ep": "expert_parallel",
    "expert_parallel_size": "expert_parallel",
    "max_model_len": "context_length",
    "max_seq_len": "context_length",
    "max_num_seqs": "max_batch_size",
    "max_num_batched_tokens": "max_batch_tokens",
    "max_num_tokens": "max_batch_tokens",
    "gpu_memory_utilization": "gpu_memory_fraction",
    "free_gpu_memory_fraction": "gpu_memory_fraction",
    "enable_prefix_caching": "prefix_caching",
    "shm_gib": "shared_memory_gib",
    "router_temperature": "temperature",
}
"""What vLLM, TRT-LLM and Dynamo call keys of ours: whoever comes from there is told our word."""


@cache
def _keys(model: type[BaseModel]) -> Keys:
    return Keys(
        by_path=_known_keys(model),
        tags=frozenset(_tag(one) for one in _tagged(model)),
        roles=frozenset(get_args(Role)),
        also_called=ALSO_CALLED,
    )


def _known_keys(model: type[BaseModel], path: str = "") -> dict[str, tuple[str, ...]]:
    """Dotted path of each object in the recipe to the keys it may hold; pools by role, members of a union by their tag."""
    keys = {path: tuple(model.model_fields)}
    for name, field in model.model_fields.items():
        inner = f"{path}.{name}".lstrip(".")
        candidates = _models_in(field.annotation)
        for candidate in candidates:
            if name == "workers":
                keys[inner] = get_args(Role)
                for role in get_args(Role):
                    keys |= _known_keys(candidate, f"{inner}.{role}")
            elif name == "profiles":
                keys |= _known_keys(candidate, f"{inner}.*.{_tag(candidate)}")
            else:
                keys |= _known_keys(candidate, f"{inner}.{_tag(candidate)}" if len(candidates) > 1 else inner)
    return keys


def _tagged(model: type[BaseModel]) -> list[type[BaseModel]]:
    """Every member of every union below `model`: pydantic puts its tag into the place of an error, no stack file has it."""
    found: list[type[BaseModel]] = []
    for field in model.model_fields.values():
        candidates = _models_in(field.annotation)
        found += candidates if len(candidates) > 1 else []
        found += [below for candidate in candidates for below in _tagged(candidate)]
    return found


def _tag(model: type[BaseModel]) -> str:
    return str(get_args(model.model_fields["kind"].annotation)[0])


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for argument in get_args(annotation) for found in _models_in(argument)]
