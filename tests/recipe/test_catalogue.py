"""Claims about the tables: they agree with themselves and with what other people counted."""

import re
from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest

from recipe import catalogue
from recipe.catalogue import CPU_INSTANCES, GIB, GPU_INSTANCES, MODELS, PRICES, REGIONS, Entry, GpuInstance, NicLayout

GPU_TYPES = list(GPU_INSTANCES.values())
EVERY_TYPE = [*GPU_TYPES, *CPU_INSTANCES.values()]
LAYOUTS: list[NicLayout] = ["device0", "device1"]

# facts/aws.md §1: type -> (network cards, EFA per GPU, fewest interfaces by the current rule, vpc.amazonaws.com/efa)
EFA_TABLE = {
    "p5.48xlarge": (32, 4, 33, 32),
    "p5e.48xlarge": (32, 4, 33, 32),
    "p5en.48xlarge": (16, 2, 17, 16),
    "p6-b200.48xlarge": (8, 1, 9, 8),
}


def entries() -> Iterator[Entry]:
    yield from MODELS.values()
    yield from EVERY_TYPE
    yield from REGIONS.values()
    yield from PRICES.values()
    for version in catalogue.KUBERNETES.values():
        yield from (version, version.gpu_ami, version.cpu_ami)
    for release in catalogue.DYNAMO.values():
        yield from (release, release.platform_chart)
    yield from (catalogue.NVIDIA_DEVICE_PLUGIN, catalogue.EFA_DEVICE_PLUGIN)


# ── sources and dates ────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_entry_names_a_source_somebody_can_open() -> None:
    openable = re.compile(r"https?://|facts/[a-z-]+\.md|[\w.-]+/[\w.-]+ #\d+|[\w.-]+/[\w.-]+ [\w./-]+@[0-9a-f]{7}")
    for entry in entries():
        sources = entry.model_dump()["sources"]
        assert any(openable.search(source) for source in sources), f"{entry!r}: no URL, facts section or repository"
        assert not any(re.search(r"\b(todo|tbd|fixme|example\.com)\b", source, re.IGNORECASE) for source in sources), (
            f"{entry!r}"
        )


def test_prices_and_versions_carry_a_day_that_has_been() -> None:
    written = date(2026, 11, 24)
    dated = [entry for entry in entries() if "as_of" in type(entry).model_fields]
    assert len(dated) > len(PRICES)
    for entry in dated:
        assert date(2022, 1, 1) < entry.model_dump()["as_of"] <= written, (
            f"{entry!r}: a price or version cannot be from the future"
        )


def test_every_instance_type_has_a_price_row_even_if_no_price_is_known() -> None:
    missing = [row.name for row in EVERY_TYPE if row.name not in PRICES]
    missing += [f"{row.name}/capacity-block" for row in GPU_TYPES if f"{row.name}/capacity-block" not in PRICES]
    assert not missing, "a type without a row would fail the plan instead of saying that no price is known"


def test_a_price_of_another_region_is_not_passed_off_as_this_ones() -> None:
    assert catalogue.price("p5.48xlarge", "us-east-1") is not None
    assert catalogue.price("p5.48xlarge", "eu-north-1") is None


def test_two_p5_cost_what_the_facts_derive() -> None:
    price = catalogue.price("p5.48xlarge")
    assert price is not None
    assert price.usd is not None
    assert 2 * price.usd == pytest.approx(110.08), "facts/aws.md §8: $110.08/h for 16 H100"


# ── models ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", [name for name, row in MODELS.items() if row.published_bytes])
def test_weights_derived_from_the_architecture_match_the_published_size(name: str) -> None:
    model = MODELS[name]
    assert model.weight_bytes == pytest.approx(model.published_bytes, rel=0.01)


def test_qwen3_32b_in_bfloat16_matches_the_published_size_to_the_byte() -> None:
    assert catalogue.model("Qwen/Qwen3-32B").weight_bytes == 65_524_246_528


def test_fp8_halves_the_linear_weights_but_not_the_embeddings() -> None:
    full, small = catalogue.model("Qwen/Qwen3-32B"), catalogue.model("Qwen/Qwen3-32B-FP8")
    assert full.parameters == small.parameters, "the same architecture"
    embeddings_and_norms = 2 * (2 * full.vocabulary * full.hidden_size + 64 * (2 * 5120 + 2 * 128) + 5120)
    linear = (full.weight_bytes - embeddings_and_norms) // 2
    scales = 2 * linear // (128 * 128)
    assert small.weight_bytes == linear + scales + embeddings_and_norms, "one bfloat16 scale per block of 128 x 128"


def test_one_token_of_qwen3_32b_takes_256_kib_of_kv_cache_and_half_of_it_in_fp8() -> None:
    model = catalogue.model("Qwen/Qwen3-32B")
    assert model.kv_bytes_per_token() == 256 * 1024
    assert model.kv_bytes_per_token("fp8") == 128 * 1024


@pytest.mark.parametrize("name", list(MODELS))
def test_the_cache_claim_holds_the_download(name: str) -> None:
    model = MODELS[name]
    assert model.weight_bytes + model.configuration_bytes < model.cache_gib * GIB


@pytest.mark.parametrize("name", list(MODELS))
def test_yarn_stretches_the_native_context_to_what_the_card_promises(name: str) -> None:
    model = MODELS[name]
    assert model.native_context_tokens * model.yarn_factor == model.yarn_context_tokens
    assert model.native_context_tokens <= model.config_context_tokens <= model.yarn_context_tokens


# ── EFA and interfaces ───────────────────────────────────────────────────────────────────────────────────────────────


def test_the_efa_table_covers_every_gpu_type() -> None:
    assert set(EFA_TABLE) == set(GPU_INSTANCES)


@pytest.mark.parametrize("name", list(EFA_TABLE))
def test_efa_and_interface_counts_are_those_of_the_user_guide(name: str) -> None:
    row = catalogue.gpu_instance(name)
    assert (row.network_cards, row.efa_per_gpu, len(row.network_interfaces()), row.efa_devices) == EFA_TABLE[name]
    assert row.efa_devices % row.gpus == 0, "a worker's EFA limit is GPUs × EFA per GPU: it must divide"
    assert row.efa_for(row.gpus) == row.efa_devices, "a full node uses every device"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("row", GPU_TYPES, ids=lambda row: row.name)
def test_every_layout_brings_all_efa_devices_with_one_address(row: GpuInstance, layout: NicLayout) -> None:
    nics = row.network_interfaces(layout)
    assert sum(nic.type in ("efa", "efa-only") for nic in nics) == row.efa_devices
    assert [(nic.card, nic.device) for nic in nics if nic.type != "efa-only"] == [(0, 0)], (
        "only the primary takes an address"
    )
    assert {nic.card for nic in nics} == set(range(row.network_cards)), "each card carries an EFA device"
    places = [(nic.card, nic.device) for nic in nics]
    assert len(set(places)) == len(places), "EC2 refuses two interfaces at one card and device index"
    assert places[0] == (0, 0), "the primary interface comes first"


@pytest.mark.parametrize("row", GPU_TYPES, ids=lambda row: row.name)
def test_by_the_current_rule_the_primary_interface_is_never_efa(row: GpuInstance) -> None:
    by_place = {(nic.card, nic.device): nic.type for nic in row.network_interfaces("device0")}
    assert by_place[0, 0] == "interface"
    assert by_place[0, 1] == "efa-only"
    assert all(by_place[card, 0] == "efa-only" for card in range(1, row.network_cards))


# ── what is left for pods ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_p5_keeps_550_millicores_back_as_others_measured() -> None:
    # pytorch/ci-infra #529: kubelet reserved 550m of 192 vCPU.
    assert catalogue.gpu_instance("p5.48xlarge").allocatable().cpu_millis == 192_000 - 550


def test_the_frontends_eight_cpus_do_not_fit_an_m7i_2xlarge() -> None:
    # facts/dynamo.md "Observed": it stays Pending there.
    assert catalogue.cpu_instance("m7i.2xlarge").allocatable(100).cpu < 8
    assert catalogue.cpu_instance("m7i.4xlarge").allocatable(100).cpu > 8


def test_a_64_gib_download_job_does_not_fit_a_64_gib_node() -> None:
    assert catalogue.cpu_instance("m7i.4xlarge").memory_gib == 64
    assert catalogue.cpu_instance("m7i.4xlarge").allocatable(100).memory_gib < 64
    assert catalogue.cpu_instance("m7i.8xlarge").allocatable(100).memory_gib > 64


@pytest.mark.parametrize("row", EVERY_TYPE, ids=lambda row: row.name)
def test_pods_get_less_than_the_type_advertises_and_most_of_it(row: GpuInstance) -> None:
    left = row.allocatable(100)
    assert 0.97 * row.vcpus < left.cpu < row.vcpus
    assert 0.84 * row.memory_gib < left.memory_gib < 0.925 * row.memory_gib
    assert 0 < left.pods <= row.max_pods


def test_huge_pages_for_efa_are_taken_off_the_memory_of_gpu_nodes() -> None:
    row = catalogue.gpu_instance("p5.48xlarge")
    without = 2048 * (1 - 0.075) - (255 + 11 * row.max_pods + 100) / 1024
    assert row.allocatable().memory_gib == pytest.approx(without - 5128 * 2 / 1024, abs=0.01)


def test_a_managed_node_group_caps_pods_below_what_the_interfaces_allow() -> None:
    assert catalogue.cpu_instance("m7i.4xlarge").allocatable(100).pods == 110
    assert catalogue.cpu_instance("m7i.16xlarge").allocatable(100).pods == 250
    assert catalogue.cpu_instance("m7i.xlarge").allocatable(100).pods == 58


def test_raid0_moves_ephemeral_storage_from_the_root_volume_to_the_instance_store() -> None:
    row = catalogue.gpu_instance("p5.48xlarge")
    assert row.allocatable(100).ephemeral_bytes > 20_000 * GIB
    assert row.allocatable(100, raid0=False).ephemeral_bytes == pytest.approx((100 * 0.9 - 1) * GIB)


# ── zones ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("zone_id", list(catalogue.ZONES))
def test_the_second_zone_is_another_one_of_the_same_region_that_eks_takes(zone_id: str) -> None:
    second = catalogue.zone(catalogue.second_zone(zone_id))
    assert second.id != zone_id
    assert second.region == catalogue.region_of(zone_id)
    assert second.eks, "EKS refuses a control-plane subnet there"


def test_zone_ids_start_with_the_short_name_of_their_region() -> None:
    for region in REGIONS.values():
        area, direction, number = region.name.split("-")
        assert region.prefix == f"{area}{direction[0]}{number}", (
            f"{region.name}: ids of zones follow from the region's code"
        )


def test_eks_takes_no_subnet_in_use1_az3() -> None:
    assert not catalogue.zone("use1-az3").eks
    assert "use1-az3" not in {catalogue.second_zone(zone.id) for zone in catalogue.zones("us-east-1")}


# ── versions ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_defaults_belong_together() -> None:
    assert catalogue.check(catalogue.DYNAMO_DEFAULT, catalogue.KUBERNETES_DEFAULT) == []


@pytest.mark.parametrize("version", list(catalogue.KUBERNETES))
def test_an_ami_release_is_built_for_its_kubernetes_version(version: str) -> None:
    row = catalogue.kubernetes(version)
    for ami in (row.gpu_ami, row.cpu_ami):
        assert catalogue.check(catalogue.DYNAMO_DEFAULT, version, ami_release=ami.release) == []


def test_an_old_driver_is_refused_with_both_sides_named() -> None:
    assert catalogue.check("1.6.1", "1.35", driver=570) == [
        "Dynamo 1.6.1 needs NVIDIA driver 580 or newer, the nodes have 570"
    ]


def test_an_ami_of_another_kubernetes_is_refused_with_both_sides_named() -> None:
    (problem,) = catalogue.check("1.6.1", "1.35", ami_release="1.34.7-20260512")
    assert "1.34.7-20260512" in problem
    assert "1.35" in problem


@pytest.mark.parametrize(
    ("changes", "both"),
    [
        ({"engine": "vllm", "engine_version": "0.30.0"}, ("vllm 0.31.0", "0.30.0")),
        ({"engine": "trtllm", "engine_version": "1.2.0"}, ("trtllm 1.3.0rc29", "1.2.0")),
        ({"driver": 575}, ("580", "575")),
        ({"platform_chart": "1.5.1"}, ("Dynamo 1.6.1", "1.5.1")),
        ({"nvidia_device_plugin": "0.19.1"}, ("aws-efa-k8s-device-plugin", "0.19.1")),
        ({"efa_device_plugin": "v0.5.12", "gpu": "b200"}, ("b200", "v0.5.12")),
        ({"ami_release": "1.33.8-20260304"}, ("1.35", "1.33.8-20260304")),
    ],
)
def test_a_wrong_pair_is_refused_with_both_sides_named(changes: dict[str, Any], both: tuple[str, str]) -> None:
    (problem,) = catalogue.check("1.6.1", "1.35", **changes)
    assert all(side in problem for side in both), problem


@pytest.mark.parametrize(
    "changes",
    [
        {"engine": "vllm", "engine_version": "0.31.0"},
        {"platform_chart": "1.6.1"},
        {"nvidia_device_plugin": "0.19.3"},
        {"nvidia_device_plugin": "0.18.2"},
        {"efa_device_plugin": "v0.5.12", "gpu": "h100"},
        {"efa_device_plugin": "v0.5.13", "gpu": "b200"},
    ],
)
def test_a_right_pair_is_not(changes: dict[str, Any]) -> None:
    assert catalogue.check("1.6.1", "1.35", **changes) == []


def test_a_kubernetes_the_chart_does_not_take_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        catalogue.KUBERNETES, "1.29", catalogue.kubernetes("1.33").model_copy(update={"version": "1.29"})
    )
    (problem,) = catalogue.check("1.6.1", "1.29")
    assert "1.30" in problem
    assert "1.29" in problem


def test_the_default_kubernetes_is_in_standard_support_when_this_was_written() -> None:
    assert catalogue.kubernetes().standard_support_until > date(2026, 11, 24), (
        "extended support costs six times as much"
    )


def test_worker_images_carry_the_efa_variant_only_where_asked() -> None:
    release = catalogue.versions()
    assert release.runtime_image("vllm") == "nvcr.io/nvidia/ai-dynamo/vllm-runtime:1.6.1"
    assert release.runtime_image("trtllm", efa=True) == "nvcr.io/nvidia/ai-dynamo/tensorrtllm-runtime:1.6.1-efa"


def test_the_device_plugin_is_none_of_the_releases_that_break_efa() -> None:
    # facts/aws.md §5: 0.19.0 to 0.19.2.
    version = tuple(int(part) for part in catalogue.NVIDIA_DEVICE_PLUGIN.version.split("."))
    assert not (0, 19, 0) <= version <= (0, 19, 2)
    assert catalogue.NVIDIA_DEVICE_PLUGIN_IMAGE.endswith(f":v{catalogue.NVIDIA_DEVICE_PLUGIN.version}")


# ── unknown names ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_typo_is_answered_with_the_nearest_known_name() -> None:
    with pytest.raises(catalogue.UnknownName) as caught:
        catalogue.model("Qwen/Qwen3-32b")
    assert caught.value.nearest == "Qwen/Qwen3-32B"
    assert "did you mean Qwen/Qwen3-32B?" in str(caught.value)


def test_a_name_like_no_other_gets_the_list_and_no_guess() -> None:
    with pytest.raises(catalogue.UnknownName) as caught:
        catalogue.gpu_instances("tpu-v9000")
    assert caught.value.nearest is None
    assert "h100, h200, b200" in str(caught.value)


def test_h200_means_p5en_unless_the_recipe_says_otherwise() -> None:
    assert [row.name for row in catalogue.gpu_instances("h200")] == ["p5en.48xlarge", "p5e.48xlarge"]
