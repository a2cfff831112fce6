"""A pass as onnx-graphsurgeon's own examples would write it, and graphs that go there and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from pydantic import Field

from edgec.ir.errors import InputError
from edgec.ir.files import to_bytes
from edgec.ir.graph import Constant, Graph
from edgec.ir.interop import (
    from_graphsurgeon,
    from_model_proto,
    from_onnx_ir,
    to_graphsurgeon,
    to_model_proto,
    to_onnx_ir,
)
from edgec.passes import Context, Effect
from edgec.passes.framework.graphsurgeon_pass import GraphSurgeonPass
from edgec.testing import did, model, outputs, run_pass

BODY = "c = Conv <pads = [1,1,1,1]> (x, w)\nr = Relu (c)\ny = Conv <pads = [1,1,1,1]> (r, v)"


def network() -> Graph:
    return model(BODY, "(float[1,3,8,8] x) => (float[1,3,8,8] y)", "float[4,3,3,3] w, float[3,4,3,3] v")


@dataclass(frozen=True)
class Relu6(GraphSurgeonPass):
    """Bounds every Relu."""

    name: ClassVar[str] = "relu6"
    effect: ClassVar[Effect] = "lossy"
    bound: Annotated[float, Field(gt=0, description="the upper bound")] = 6.0

    def rewrite(self, graph: gs.Graph, ctx: Context) -> None:
        for node in [n for n in graph.nodes if n.op == "Relu"]:
            low = gs.Constant(f"{node.name}_low", np.array(0, np.float32))
            high = gs.Constant(f"{node.name}_high", np.array(self.bound, np.float32))
            out = node.outputs[0]
            node.outputs.clear()
            graph.nodes.append(
                gs.Node("Clip", f"{node.name}_clip", inputs=[node.i(0).outputs[0], low, high], outputs=[out])
            )
            ctx.did(node.name, f"bounded at {self.bound}")


def test_a_pass_on_a_graphsurgeon_graph() -> None:
    graph, before = network(), network()
    ctx = run_pass(Relu6(bound=0.5), graph)
    assert [node.op for node in graph.nodes] == ["Conv", "Clip", "Conv"]
    assert len(did(ctx)) == 1
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)}
    assert not np.allclose(outputs(graph, feeds)["y"], outputs(before, feeds)["y"])
    run_pass(Relu6(bound=1e6), before)
    np.testing.assert_allclose(outputs(before, feeds)["y"], outputs(network(), feeds)["y"], rtol=1e-6)


def test_there_and_back_is_the_same() -> None:
    graph = network()
    graph.metadata["maker"] = "a test"
    before = to_bytes(graph)
    assert to_bytes(from_model_proto(to_model_proto(graph))) == before
    for back in (from_graphsurgeon(to_graphsurgeon(graph)), from_onnx_ir(to_onnx_ir(graph))):
        feeds = {"x": np.ones((1, 3, 8, 8), np.float32)}
        np.testing.assert_array_equal(outputs(back, feeds)["y"], outputs(graph, feeds)["y"])
        assert [node.name for node in back.nodes] == [node.name for node in graph.nodes]
        assert {c.name for c in back.constants()} == {c.name for c in graph.constants()}
    assert to_bytes(graph) == before
    assert isinstance(to_model_proto(graph), onnx.ModelProto)
    assert isinstance(to_graphsurgeon(graph), gs.Graph)


def test_what_cannot_be_exported_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = gs.Graph(nodes=[], inputs=[], outputs=[gs.Variable("y")], name="half")
    with pytest.raises(InputError, match="graph 'half': cannot be exported by onnx-graphsurgeon"):
        from_graphsurgeon(broken)
    graph = network()
    monkeypatch.setattr(Constant, "nbytes", property(lambda self: 3 << 30))
    with pytest.raises(InputError, match=r"has 6\.0 GiB of weights, and a message of ONNX holds 2; save it with"):
        to_model_proto(graph)
