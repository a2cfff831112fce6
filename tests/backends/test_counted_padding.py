"""AveragePool whose padding counts and whose windows pass the end, and onnxruntime's two kernels for it."""

from __future__ import annotations

import pytest

from edgec.backends.coral.backend import CoralBackend
from edgec.backends.cpu.backend import CpuBackend
from edgec.backends.protocol import Backend, legalize
from edgec.backends.registry import target
from edgec.ir.graph import Graph
from edgec.testing import assert_same, model, operators


def network(attrs: str, size: int = 8) -> Graph:
    return model(
        f"y = AveragePool<kernel_shape=[3,3], strides=[2,2], {attrs}>(x)",
        f"(float[1,2,{size},{size}] x) => (float[1,2,h,w] y)",
    )


@pytest.mark.parametrize("name", ["cpu", "coral-dev-board"])
@pytest.mark.parametrize(("pads", "left"), [([0] * 4, ["AveragePool"]), ([1, 0, 0, 1], ["Pad", "AveragePool"])])
def test_the_rewrite_is_exact(name: str, pads: list[int], left: list[str]) -> None:
    emitter: Backend = CpuBackend() if name == "cpu" else CoralBackend()
    graph = network(f"ceil_mode=1, count_include_pad=1, pads={pads}")
    before = graph.copy()
    legalize(graph, emitter, target(name))
    assert operators(graph) == left
    assert graph.nodes[-1].attrs["count_include_pad"] == 0
    for side in (before, graph):
        side.outputs[0].shape = None
    assert_same(before, graph)


@pytest.mark.parametrize(
    "attrs",
    [
        "ceil_mode=0, count_include_pad=1, pads=[1,1,1,1]",
        "ceil_mode=1, count_include_pad=0, pads=[1,1,1,1]",
        'ceil_mode=1, count_include_pad=1, auto_pad="SAME_UPPER"',
    ],
)
def test_others_stay(attrs: str) -> None:
    graph = network(attrs)
    before = dict(graph.nodes[0].attrs)
    legalize(graph, CpuBackend(), target("cpu"))
    assert operators(graph) == ["AveragePool"]
    assert graph.nodes[0].attrs == before
