"""Weights whose products two by two fit into 16 bits."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.backends.registry import target
from edgec.ir.execution import Session, sqnr_db, stacked
from edgec.ir.graph import Graph, Node
from edgec.passes.quantize.quantize import Quantize
from edgec.passes.quantize.recover.weight_pairs import LARGEST, largest_pair, multiplies_pairs, rows
from edgec.testing import Samples, model, run_pass

NETWORKS = {
    "Conv": ("y = Conv (x, w)", "(float[1,6,8,8] x) => (float[1,8,h,v] y)", "float[8,6,3,3] w"),
    "Conv of 3 channels": ("y = Conv (x, w)", "(float[1,3,8,8] x) => (float[1,8,h,v] y)", "float[8,3,3,3] w"),
    "grouped": ("y = Conv <group = 2> (x, w)", "(float[1,6,8,8] x) => (float[1,8,h,v] y)", "float[8,3,3,3] w"),
    "Gemm": ("y = Gemm (x, w)", "(float[4,7] x) => (float[4,8] y)", "float[7,8] w"),
    "Gemm, transposed": ("y = Gemm <transB = 1> (x, w)", "(float[4,7] x) => (float[4,8] y)", "float[8,7] w"),
    "MatMul": ("y = MatMul (x, w)", "(float[1,4,9] x) => (float[1,4,8] y)", "float[9,8] w"),
    "matrices": ("y = MatMul (x, w)", "(float[2,4,9] x) => (float[2,4,8] y)", "float[2,9,8] w"),
}


def samples(graph: Graph, seed: int) -> Samples:
    """Pixels: all of the range is used, as where two products overflow."""
    random = np.random.default_rng(seed)
    shape = [int(size) for size in graph.inputs[0].shape or ()]
    return Samples([{"x": random.choice([0, 0.9, 1.0], shape).astype(np.float32)} for _ in range(12)])


def stored(graph: Graph) -> tuple[Node, np.ndarray]:
    node = next(node for node in graph.nodes if node.op in ("Conv", "Gemm", "MatMul"))
    return node, node.inputs[1].inputs[0].inputs[0].values


@pytest.mark.parametrize("effort", ["fast", "balanced"])
@pytest.mark.parametrize("network", NETWORKS)
def test_this_cpu_computes_what_the_file_says(network: str, effort: str) -> None:
    body, signature, weights = NETWORKS[network]
    random = np.random.default_rng(0)
    graph = model(body, signature, weights, seed=1)
    for constant in graph.constants():  # of one sign, so that neighbours overflow
        constant.values = np.abs(random.normal(1, 0.1, constant.shape)).astype(np.float32)
    before, data = graph.copy(), samples(graph, 1)
    run_pass(Quantize(effort=effort), graph, target=target("cpu"), data={"calibration": data})
    node, integers = stored(graph)
    assert int(largest_pair(rows(node, integers.astype(np.int16))).max()) <= LARGEST
    feeds = samples(graph, 2).feeds
    exact, said, computed = (
        stacked(list(map(session.run, feeds)))
        for session in (Session(before), Session(graph), Session(graph, optimize=True))
    )
    assert sqnr_db(exact, said) > 35
    assert sqnr_db(said, computed) > 45  # integer kernels round once more; what saturates is below 25 dB


def test_a_depthwise_convolution_multiplies_in_32_bits() -> None:
    node = Node("Conv", attrs={"group": 8})
    assert not multiplies_pairs(node, (8, 1, 3, 3))
    assert multiplies_pairs(Node("Conv"), (8, 1, 3, 3))
    graph = model(
        "y = Conv <group = 8> (x, w)",
        "(float[1,8,8,8] x) => (float[1,8,h,v] y)",
        "float[8,1,3,3] w",
        w=np.ones((8, 1, 3, 3)),
    )
    run_pass(Quantize(effort="fast"), graph, target=target("cpu"), data={"calibration": samples(graph, 1)})
    assert (stored(graph)[1] == 127).all()


def test_other_schemes_use_all_of_the_range() -> None:
    graph = model(*NETWORKS["MatMul"], w=np.ones((9, 8)))
    run_pass(Quantize(effort="fast"), graph, target=target("coral-dev-board"), data={"calibration": samples(graph, 1)})
    assert (stored(graph)[1] == 127).all()


@pytest.mark.parametrize(
    ("inputs", "expected"), [([1, 2, 3, 4], 7), ([1, -2, -3, -4], 7), ([9, 1, 2, -9, 5], 10), ([3], 3), ([], 0)]
)
def test_the_largest_pair(inputs: list[int], expected: int) -> None:
    assert int(largest_pair(np.array([inputs], np.int16))[0]) == expected
