"""quantize: layers whose integer kernel gives floats are not rounded for readers that take floats."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest

from edgec.backends.registry import target
from edgec.ir.execution import seeded_feeds, sqnr_db
from edgec.ir.files import to_bytes
from edgec.ir.graph import Graph
from edgec.passes.quantize.quantize import Quantize
from edgec.testing import Samples, missed, model, operators, outputs, run_pass

HEAD = "[fc] s = Gemm(x, w, b)\n"
VECTOR = "(float[1,16] x) => (float[1,n] y)"
WEIGHTS = "float[16,4] w, float[4] b"


def quantized(
    body: str, weights: str = WEIGHTS, board: str = "cpu", shape: str = VECTOR
) -> tuple[Graph, list[tuple[str, str]]]:
    graph = model(body, shape, weights)
    data = Samples([{"x": 2 * feeds["x"] - 1} for feeds in seeded_feeds(graph, samples=8)])
    ctx = run_pass(Quantize(effort="fast"), graph, target=target(board), data={"calibration": data})
    return graph, missed(ctx)


def rounded(graph: Graph) -> list[str]:
    """The operators whose results are rounded."""
    return [
        node.inputs[0].inputs[0].op for node in graph.nodes if node.op == "QuantizeLinear" and node.inputs[0].inputs
    ]


@pytest.mark.parametrize("last", ["[fc] y = Gemm(x, w, b)", "[fc] y = MatMul(x, w)"])
def test_the_last_product_gives_floats(last: str) -> None:
    graph, _ = quantized(last)
    assert rounded(graph) == []
    assert operators(graph).count("QuantizeLinear") == 1
    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    session = ort.InferenceSession(to_bytes(graph), settings, providers=["CPUExecutionProvider"])
    assert session.get_outputs()[0].type == "tensor(float)"


def test_its_numbers_are_finer_than_eight_bits() -> None:
    """The outputs err by the rounding of inputs and weights alone, where Coral's are rounded once more."""
    body = "[fc] y = Gemm(x, w, b)"
    x = {"x": np.linspace(-1, 1, 16, dtype=np.float32)[None]}
    wanted = outputs(model(body, VECTOR, WEIGHTS), x)
    (fine, _), (coarse, _) = quantized(body), quantized(body, board="coral-dev-board")
    assert rounded(coarse) == ["Gemm"]
    assert sqnr_db(wanted, outputs(fine, x)) > sqnr_db(wanted, outputs(coarse, x))


def test_operators_in_float_read_it_as_it_is() -> None:
    graph, _ = quantized(HEAD + "y = Sin(s)")
    assert rounded(graph) == []


def test_a_relu_behind_it_is_part_of_it() -> None:
    graph, _ = quantized(HEAD + "y = Relu(s)")
    assert rounded(graph) == []


def test_what_only_moves_it_stays_float_and_says_so() -> None:
    graph, left = quantized(
        HEAD + "[flat] y = Reshape(s, shape)",
        WEIGHTS + ", int64[2] shape = {2, 2}",
        shape="(float[1,16] x) => (float[2,2] y)",
    )
    assert rounded(graph) == []
    assert left == [("flat", "only moves floats that a layer gives unrounded")]


def test_it_is_rounded_where_integers_are_computed_from_it() -> None:
    graph, left = quantized(HEAD + "y = Add(s, s)")
    assert rounded(graph) == ["Gemm", "Add"]
    assert left == []


def test_a_move_of_what_is_rounded_anyway_stays_in_integers() -> None:
    body = HEAD + "a = Add(s, s)\n[flat] m = Reshape(a, shape)\ny = Identity(m)"
    graph, left = quantized(body, WEIGHTS + ", int64[2] shape = {2, 2}", shape="(float[1,16] x) => (float[2,2] y)")
    assert left == []
    assert rounded(graph) == ["Gemm", "Add", "Reshape", "Identity"]
