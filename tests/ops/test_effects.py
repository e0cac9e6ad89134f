"""What a change does to a resource that runs: the rules of `ops.effects` on recordings made by hand, and docs/edits.md by them."""

from __future__ import annotations

from typing import Any

from ops.edits import HEADER, line, table
from ops.effects import Effect, effects
from ops.stacks import ROOT
from rehearsal.cloud import rules

DOCUMENT = ROOT / "docs" / "edits.md"
GPU = {"key": "nvidia.com/gpu", "value": "true", "effect": "NO_SCHEDULE"}


def resource(name: str, typ: str, **more: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "inputs": {}, "parent": "", "provider": "", "refers": {}, "ignore_changes": [], "replace_on_changes": [], "trigger": None,
        "protect": False, "custom": True,
    }  # fmt: skip
    return {**plain, "name": name, "type": typ, **more}


def after(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> dict[str, Effect]:
    found = effects({one["name"]: one for one in old}, {one["name"]: one for one in new})
    return {effect.name: effect for effect in found.values()}


def group(nodes: int = 2, taints: Any = (GPU,), **more: Any) -> dict[str, Any]:
    return resource("gpu", rules.NODE_GROUP, **more) | {
        "inputs": {"scalingConfig": {"desiredSize": nodes}, "taints": list(taints), **more.get("inputs", {})}
    }


def test_the_document_says_what_the_rules_say() -> None:
    rows = [row for row in DOCUMENT.read_text(encoding="utf-8").splitlines() if row.startswith("|")]
    assert rows[0] == line(HEADER)
    assert rows == table(), "put what `python -m ops.edits` prints into docs/edits.md"


def test_what_is_equal_is_left_alone() -> None:
    assert after([group()], [group()]) == {}


def test_a_field_of_creation_replaces_and_names_itself() -> None:
    old, new = (resource("role", rules.ROLE, inputs={"name": name, "tags": {"a": name}}) for name in "xy")
    found = after([old], [new])["role"]
    assert found.what == "replaced"
    assert found.decides == ["name"], "the tag changes too, but is not why"
    assert {one.path for one in found.fields} == {"name", "tags.a"}


def test_whoever_refers_to_a_replaced_resource_by_a_field_of_creation_is_replaced_and_says_why() -> None:
    def both(cidr: str) -> list[dict[str, Any]]:
        vpc = resource("vpc", rules.VPC, inputs={"cidrBlock": cidr})
        table_ = resource("table", rules.ROUTE_TABLE, inputs={"vpcId": "vpc-id"}, refers={"vpcId": ["vpc"]})
        gateway = resource("gateway", rules.IGW, inputs={"vpcId": "vpc-id"}, refers={"vpcId": ["vpc"]})
        return [vpc, table_, gateway]

    found = after(both("10.0.0.0/16"), both("10.1.0.0/16"))
    assert {name: effect.what for name, effect in found.items()} == {
        "vpc": "replaced", "table": "replaced", "gateway": "changed"
    }, "a gateway is moved to the next VPC (rules.py)"  # fmt: skip
    assert found["table"].fields[0].because == "vpc"


def test_a_changed_template_rolls_its_nodes_and_gives_them_up() -> None:
    def both(disk: int) -> list[dict[str, Any]]:
        template = resource("template", rules.LAUNCH_TEMPLATE, inputs={"disk": disk})
        nodes = group(inputs={"launchTemplate": {"id": "template-id"}}, refers={"launchTemplate": ["template"]})
        return [template, nodes]

    found = after(both(1), both(2))
    assert (found["template"].what, found["gpu"].what) == ("changed", "rolled")
    assert found["gpu"].lost == "2 GPU nodes", "the capacity goes back to AWS first, and may not come again"


def test_only_fewer_gpu_nodes_are_a_loss() -> None:
    assert after([group(2)], [group(3)])["gpu"].lost == ""
    assert after([group(3)], [group(2)])["gpu"].lost == "1 of 3 GPU nodes"
    assert after([group(2)], [])["gpu"].lost == "2 GPU nodes"
    assert after([], [group(2)])["gpu"].lost == ""


def test_cpu_nodes_are_no_loss() -> None:
    assert after([group(taints=())], [])["gpu"].lost == ""


def test_the_weights_are_lost_with_their_file_system_only() -> None:
    old, new = (resource("files", rules.FILE_SYSTEM, inputs={"creationToken": token}) for token in "xy")
    assert after([old], [new])["files"].lost
    changed = resource("files", rules.FILE_SYSTEM, inputs={"creationToken": "x", "throughputMode": "bursting"})
    assert not after([old], [changed])["files"].lost


def test_a_lustre_that_shrinks_takes_the_weights_along_and_one_that_grows_does_not() -> None:
    small, large = (resource("files", rules.LUSTRE, inputs={"storageCapacity": size}) for size in (2400, 4800))
    assert after([large], [small])["files"].lost
    grown = after([small], [large])["files"]
    assert grown.what == "changed"
    assert not grown.lost


def test_ignored_paths_are_ignored_in_lists_and_quoted_keys() -> None:
    def template(hours: str, kind: str = "instance") -> dict[str, Any]:
        return resource(
            "template",
            rules.LAUNCH_TEMPLATE,
            inputs={"tagSpecifications": [{"resourceType": kind, "tags": {"ttl-hours": hours}}]},
            ignore_changes=['tagSpecifications[*].tags["ttl-hours"]'],
        )

    assert after([template("1")], [template("2")]) == {}
    assert after([template("1")], [template("1", "volume")])["template"].what == "changed"


def test_a_trigger_replaces_and_says_which_part_of_it_changed() -> None:
    old, new = (resource("job", rules.JOB, trigger={"count": count, "same": 1}) for count in (1, 2))
    found = after([old], [new])["job"]
    assert (found.what, [one.path for one in found.fields]) == ("replaced", ["(replacement trigger).count"])


def test_config_maps_change_in_place_only_where_their_provider_says_so() -> None:
    def both(value: str, mutable: str) -> list[dict[str, Any]]:
        provider = resource("k8s", "pulumi:providers:kubernetes", inputs={"enableConfigMapMutable": mutable})
        return [provider, resource("map", rules.CONFIG_MAP, inputs={"data": {"a": value}}, provider="k8s")]

    assert after(both("1", "true"), both("2", "true"))["map"].what == "changed"
    assert after(both("1", "false"), both("2", "false"))["map"].what == "replaced"


def test_objects_are_replaced_with_the_provider_of_their_cluster() -> None:
    def both(identifier: str) -> list[dict[str, Any]]:
        provider = resource(
            "k8s", "pulumi:providers:kubernetes", inputs={"clusterIdentifier": identifier, "kubeconfig": identifier}
        )
        return [provider, resource("job", rules.JOB, provider="k8s")]

    found = after(both("a"), both("b"))
    assert found["job"].what == "replaced"
    assert "k8s" not in found, "a provider is no resource of anybody's bill"
