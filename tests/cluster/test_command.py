"""`ops rehearse STACK --control-plane`: the same proof for a person."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ops import control_plane
from ops.variants import each_stack
from rehearsal.cluster import Cluster, crd
from rehearsal.cluster.controlplane import KUBECONFIG
from rehearsal.errors import SetupError
from tests.recipe.samples import gpu_pool

ON_GPUS = next(one for one in each_stack() if one.gpu)


@pytest.fixture(autouse=True)
def same_cluster(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KUBECONFIG, str(cluster.kubeconfig))


def test_the_proof_names_every_node_and_what_runs_there(capsys: pytest.CaptureFixture[str]) -> None:
    plan = ON_GPUS.plan("shown")
    proof = control_plane.prove(plan)
    assert proof.ok
    assert proof.graph_checked == (crd.find() is not None)
    assert proof.objects >= len(plan.objects.all()) - (not proof.graph_checked)
    control_plane.show(proof)
    said = capsys.readouterr()
    assert said.err == ""
    for node in plan.placement.gpu_nodes:
        assert f"{plan.names.prefix}-{node.node}: " in said.out
    assert "nodes are pretended" in said.out


def test_the_same_can_be_proved_twice_in_a_row() -> None:
    plan = each_stack()[0].plan("twice")
    assert control_plane.prove(plan).ok
    again = control_plane.prove(plan)
    assert again.ok, f"the namespace of the first one was still going: {again.refused}"


def test_an_operators_own_definition_of_graphs_is_not_overwritten(graphs: Cluster, tmp_path: Path) -> None:
    path = crd.find()
    assert path is not None
    held = graphs.api.read(crd.read(path))
    assert held is not None

    class Theirs:
        host = "https://theirs"

        def read(self, _: object) -> dict[str, object]:
            assert held is not None
            return held | {"spec": held["spec"] | {"conversion": {"strategy": "Webhook"}}}

    with pytest.raises(SetupError, match="an operator installed"):
        crd.install(Theirs(), path)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", [None, "a: [", "just words", "kind: Service"])
def test_a_crd_that_is_named_and_is_none_is_said(
    text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "crd.yaml"
    if text is not None:
        file.write_text(text)
    monkeypatch.setenv(crd.VARIABLE, str(file))
    with pytest.raises(SetupError, match=r"crd\.yaml"):
        crd.read(crd.find() or Path())


def test_pods_without_a_place_are_named_with_the_schedulers_words(capsys: pytest.CaptureFixture[str]) -> None:
    plan = ON_GPUS.plan("short")
    fewer = plan.model_copy(update={"gpu_pool": gpu_pool(plan).model_copy(update={"count": 0})})
    proof = control_plane.prove(fewer)
    assert not proof.ok
    assert len(proof.waiting) == sum(worker.replicas for worker in plan.workers)
    control_plane.show(proof)
    assert "waits: 0/" in capsys.readouterr().err


def test_what_the_server_refuses_ends_it_with_the_servers_words(
    graphs: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = each_stack()[0].plan("wrong")
    graph = plan.objects.graph | {"spec": plan.objects.graph["spec"] | {"backendFramework": "tgi"}}
    proof = control_plane.prove(plan.model_copy(update={"objects": plan.objects.model_copy(update={"graph": graph})}))
    assert not proof.ok
    control_plane.show(proof)
    assert "Unsupported value" in capsys.readouterr().err
    assert dataclasses.replace(proof, refused=()).ok


@pytest.mark.engine
def test_the_command_proves_first_and_then_rehearses(tmp_path: Path) -> None:
    from ops.app import app

    out = tmp_path / "out.json"
    result = CliRunner().invoke(app, ["rehearse", each_stack()[0].stack, "--control-plane", "--json", str(out)])
    assert result.exit_code == 0, result.output
    assert result.output.index("control plane:") < result.output.index("preview")
    assert '"control_plane"' in out.read_text()
