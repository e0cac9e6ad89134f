"""The providers' side of the protocol where the plain programs do not reach: values on the wire, and provider configuration."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pulumi.runtime.proto.provider_pb2 import PropertyDiff

from rehearsal.cloud.values import UNKNOWN, digest
from rehearsal.providers.service import _kind, cluster_changes
from rehearsal.providers.wire import Secrets, decode, encode
from rehearsal.session import Session
from tests.engine.test_empty_program import UP, succeed, things

TOKEN = "hf_" + "notARealOne0123456789"

plain_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**50), 2**50) | st.text() | st.just(UNKNOWN),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(max_size=5), plain_values, max_size=4))
def test_whatever_is_not_secret_arrives_as_it_was_sent(values: dict[str, Any]) -> None:
    assert decode(encode(values, Secrets()), Secrets()) == values


def test_a_secret_stays_one_at_its_place_in_other_words_and_in_base64() -> None:
    sent, seen = Secrets(), Secrets()
    sent.add(("spec", "token"), TOKEN)
    wire = encode({"spec": {"token": TOKEN, "size": 1}}, sent)
    assert decode(wire, seen) == {"spec": {"token": TOKEN, "size": 1}}, "the cloud sees plain values"
    assert seen.paths == {("spec", "token")}
    made = {
        "spec": {"token": "other"},
        "url": f"https://{TOKEN}@host",
        "data": base64.b64encode(TOKEN.encode()).decode(),
    }
    again = Secrets()
    decode(encode(made | {"open": "to all"}, seen), again)
    assert again.paths == {("spec", "token"), ("url",), ("data",)}


def test_a_short_secret_does_not_make_everything_secret_that_contains_it() -> None:
    secrets, again = Secrets(), Secrets()
    secrets.add(("debug",), "1")
    decode(encode({"debug": "1", "zone": "use1-az1"}, secrets), again)
    assert again.paths == {("debug",)}


def test_a_digest_that_the_cloud_kept_is_turned_back_into_what_the_engine_knows() -> None:
    secrets = Secrets()
    secrets.add(("stringData",), {"token": TOKEN})
    stored = {"stringData": {"token": digest(TOKEN), "other": digest("unknown to us")}}
    assert secrets.reveal(stored) == {"stringData": {"token": TOKEN, "other": digest("unknown to us")}}


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("a.b", "UPDATE_REPLACE"),
        ("a.c", "DELETE_REPLACE"),
        ("list[1]", "ADD_REPLACE"),
        ('tags["x.y"]', "UPDATE_REPLACE"),
    ],
)
def test_a_detailed_diff_says_what_happened_at_a_path(path: str, kind: str) -> None:
    old = {"a": {"b": 1, "c": 1}, "list": [1], "tags": {"x.y": 1}}
    new = {"a": {"b": 2}, "list": [1, 2], "tags": {"x.y": 2}}
    assert _kind(path, old, new, True) == PropertyDiff.Kind.Value(kind)
    assert _kind(path, old, new, False) == PropertyDiff.Kind.Value(kind.removesuffix("_REPLACE"))


def kubeconfig(server: str, user: str = "one") -> str:
    return json.dumps(
        {
            "current-context": "main",
            "contexts": [{"name": "main", "context": {"cluster": "gpu", "user": user}}],
            "clusters": [{"name": "gpu", "cluster": {"server": server}}],
        }
    )


@pytest.mark.parametrize(
    ("old", "new", "replaced"),
    [
        ({"kubeconfig": kubeconfig("a")}, {"kubeconfig": kubeconfig("a", "two")}, False),
        ({"kubeconfig": kubeconfig("a")}, {"kubeconfig": kubeconfig("b")}, True),
        ({"kubeconfig": kubeconfig("a")}, {"kubeconfig": UNKNOWN}, True),
        ({"kubeconfig": "~/.kube/a"}, {"kubeconfig": "~/.kube/b"}, True),
        ({"clusterIdentifier": "x", "kubeconfig": kubeconfig("a")}, {"clusterIdentifier": "x", "kubeconfig": UNKNOWN}, False),
        ({"clusterIdentifier": "x", "kubeconfig": kubeconfig("a")}, {"clusterIdentifier": "x", "kubeconfig": kubeconfig("b")}, False),
        ({"clusterIdentifier": "x", "kubeconfig": kubeconfig("a")}, {"clusterIdentifier": "y", "kubeconfig": kubeconfig("a")}, True),
        ({"kubeconfig": kubeconfig("a")}, {"clusterIdentifier": "x", "kubeconfig": kubeconfig("a")}, False),
    ],
    ids=["user", "server", "unknown", "path", "id-unknown", "id-same", "id-changed", "id-added"],
)  # fmt: skip
def test_a_kubernetes_provider_is_replaced_when_the_cluster_is_another(
    old: dict[str, Any], new: dict[str, Any], replaced: bool
) -> None:
    assert bool(cluster_changes(old, new)) is replaced


KUBERNETES = """\
import pulumi

class Of(pulumi.CustomResource):
    arn: pulumi.Output[str]

    def __init__(self, typ, name, opts=None, **props):
        super().__init__(typ, name, {{"arn": None, **props}}, opts)

cluster = Of("aws:plain/cluster:Cluster", "cluster", fixed="{fixed}")
kubeconfig = cluster.arn.apply(lambda arn: arn + "{fixed}")
provider = pulumi.ProviderResource("kubernetes", "inside", {{"kubeconfig": kubeconfig, "clusterIdentifier": "{identifier}"}})
Of("kubernetes:plain/object:Object", "object", pulumi.ResourceOptions(provider=provider, delete_before_replace=True), size={size})
"""


@pytest.mark.engine
def test_a_cluster_made_in_the_same_up_is_previewed_and_its_identifier_decides_on_replacement(
    plain: Callable[[str], Session],
) -> None:
    session = plain(KUBERNETES.format(fixed="a", identifier="one", size=1))
    preview = succeed(session.run(["preview", "--stack", "dev"]))
    assert preview.changes == {"create": 4}, "with its kubeconfig unknown the object is still in the preview"
    succeed(session.run(UP))
    assert things(session) == ["cluster", "object"]

    main = session._source / "__main__.py"
    main.write_text(KUBERNETES.format(fixed="b", identifier="one", size=2))
    preview = succeed(session.run(["preview", "--stack", "dev"]))
    ops = {event.name: event.op for event in preview.events if event.kind == "started"}
    assert ops["inside"] == "update", "an unchanged identifier keeps the provider, whatever the kubeconfig"
    assert ops["object"] == "update", "without an answer from the provider the engine assumes an update"

    main.write_text(KUBERNETES.format(fixed="a", identifier="two", size=1))
    up = succeed(session.run(UP))
    replaced = {event.name for event in up.events if event.op in ("create-replacement", "delete-replaced")}
    assert replaced == {"inside", "object"}, "another cluster means other objects"
