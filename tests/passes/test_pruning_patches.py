"""Patches times weights is what the layer computes, for every way of sliding."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.ir.execution import seeded_feeds
from edgec.ir.graph import Constant, Graph
from edgec.ir.shapes import Shapes
from edgec.passes.layers.im2col import from_matrix, patches, refit_obstacle, weight_matrix, written_at
from edgec.passes.layers.windows import Window
from edgec.testing import corrupt, model, outputs

# Node, input, output, weights.
LAYERS = {
    "padded": ("Conv <pads = [1, 1, 1, 1]> (x, w)", "2,3,7,6", "2,4,7,6", "4,3,3,3"),
    "uneven": ("Conv <pads = [0, 2, 1, 0], strides = [2, 3]> (x, w)", "2,3,7,6", "2,4,3,3", "4,3,3,2"),
    "dilated": ("Conv <dilations = [2, 1], pads = [2, 0, 2, 0]> (x, w)", "1,3,7,6", "1,4,7,5", "4,3,3,2"),
    "same upper": ('Conv <auto_pad = "SAME_UPPER", strides = [2, 2]> (x, w)', "1,3,7,6", "1,4,4,3", "4,3,3,3"),
    "same lower": ('Conv <auto_pad = "SAME_LOWER", strides = [2, 2]> (x, w)', "1,3,7,6", "1,4,4,3", "4,3,3,3"),
    "valid": ('Conv <auto_pad = "VALID"> (x, w)', "1,3,7,6", "1,4,5,4", "4,3,3,3"),
    "one axis": ("Conv <pads = [1, 1], strides = [2]> (x, w)", "2,3,9", "2,4,5", "4,3,3"),
    "three axes": ("Conv (x, w)", "1,2,4,4,4", "1,3,3,3,3", "3,2,2,2,2"),
    "transposed": ("ConvTranspose <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w)", "2,3,4,5", "2,4,8,10", "3,4,4,4"),
    "transposed with gaps": ("ConvTranspose <strides = [3, 2]> (x, w)", "1,3,4,5", "1,4,11,10", "3,4,2,2"),
    "transposed, dilated": (
        "ConvTranspose <strides = [2, 1], dilations = [1, 2], output_padding = [1, 0], pads = [0, 1, 1, 0]> (x, w)",
        "1,3,4,5",
        "1,4,9,8",
        "3,4,3,3",
    ),
    "transposed, same": (
        'ConvTranspose <strides = [2, 2], auto_pad = "SAME_UPPER"> (x, w)', "1,3,4,5", "1,4,8,10", "3,4,3,3"
    ),
    "gemm": ("Gemm(x, w)", "5,6", "5,4", "6,4"),
    "gemm, transposed weights": ("Gemm <transB = 1> (x, w)", "5,6", "5,4", "4,6"),
    "matmul": ("MatMul(x, w)", "2,5,6", "2,5,4", "6,4"),
}  # fmt: skip


def layer(name: str) -> Graph:
    text, read, written, weights = LAYERS[name]
    return model(f"y = {text}", f"(float[{read}] x) => (float[{written}] y)", f"float[{weights}] w")


def by_patches(graph: Graph, feeds: dict[str, np.ndarray], at: np.ndarray) -> np.ndarray:
    """The layer's output at chosen positions, from its patches."""
    [node] = graph.nodes
    weight = node.inputs[1]
    assert isinstance(weight, Constant)
    shapes = Shapes(graph)
    read, written = (tuple(d or 0 for d in shapes.shape(t) or ()) for t in (node.inputs[0], node.outputs[0]))
    window = Window.of(node, weight.shape, read, written) if "Conv" in node.op else None
    phases = window.phases() if window is not None else [np.arange(1)]
    matrix = weight_matrix(node, weight.values)
    found = np.zeros((len(at), matrix.shape[0]))
    for phase, rows, taken in patches(node, window, feeds["x"], at, written):
        found[rows] = np.einsum("rit,oit->ro", taken, matrix[:, :, phases[phase]])
    return found


@pytest.mark.parametrize("name", LAYERS)
def test_patches_times_weights_is_what_the_layer_computes(name: str) -> None:
    graph = layer(name)
    feeds = seeded_feeds(graph, samples=1)[0]
    y = outputs(graph, feeds)["y"]
    channels = y.shape[1] if "Conv" in graph.nodes[0].op else y.shape[-1]
    at = np.random.default_rng(0).permutation(y.size // channels)
    wanted = written_at(graph.nodes[0], y, at)
    np.testing.assert_allclose(by_patches(graph, feeds, at), wanted, atol=1e-5)
    corrupt(graph)
    assert np.abs(by_patches(graph, feeds, at) - wanted).max() > 0.1


@pytest.mark.parametrize("name", LAYERS)
def test_weights_come_back_in_their_own_layout(name: str) -> None:
    [node] = layer(name).nodes
    weight = node.inputs[1]
    assert isinstance(weight, Constant)
    back = from_matrix(node, weight_matrix(node, weight.values).astype(np.float64), weight.values)
    assert back.dtype == weight.dtype
    np.testing.assert_array_equal(back, weight.values)


@pytest.mark.parametrize(
    ("text", "weights", "reason"),
    [
        ("Conv <group = 2> (x, w)", "4,1,1,1", "grouped convolution (2 groups)"),
        ("Gemm <alpha = 2.0> (x, w)", "2,3", "its product is transposed or scaled"),
        ("MatMul(w, x)", "2,3", "its weights stand on the left, or are no matrix"),
        ("MatMul(x, w)", "2,2,3", "its weights stand on the left, or are no matrix"),
        ("MatMul(x, x)", "2,3", "its weights are computed when the network runs"),
    ],
)
def test_what_is_not_fitted_has_a_reason(text: str, weights: str, reason: str) -> None:
    graph = model(f"y = {text}", "(float[1,2,4,4] x) => (float y)", f"float[{weights}] w")
    [node] = graph.nodes
    weight = next((t for t in node.inputs if isinstance(t, Constant)), node.inputs[1])
    assert refit_obstacle(node, weight) == reason
