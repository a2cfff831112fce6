"""What a layer reads at single positions: its kernel times the patch is what onnxruntime computes there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from edgec.ir.errors import EdgecError
from edgec.ir.execution import Session
from edgec.ir.graph import Graph
from edgec.ir.shapes import Shapes
from edgec.passes.factorize import patches
from edgec.passes.factorize.layers import Layer, find_layers
from edgec.testing import model

LIMITS = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


def predicted(graph: Graph, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the one layer of ``graph`` computes at every other position, from its patches and from onnxruntime."""
    [layer] = find_layers(graph, Shapes(graph), lambda node: None, lambda node, reason: None)
    [node] = layer.nodes
    y = Session(graph).run({"x": x})["y"]
    positions = np.arange(0, patches.count(layer, y.shape), 2)
    read = patches.inputs(layer, node, x, y.shape, positions)
    assert read.shape == (len(positions), layer.groups, layer.into, max(int(np.prod(layer.taps)), 1))
    kernel = layer.kernel().reshape(layer.groups, layer.out, layer.into, -1)
    return np.einsum("goit,ngit->ngo", kernel, read), patches.outputs(layer, y, positions)


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[Graph, tuple[int, ...]]:
    spatial = draw(st.integers(1, 3))
    transposed = draw(st.booleans())
    groups, out, into = draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    taps = [draw(st.integers(1, 4 if spatial < 3 else 2)) for _ in range(spatial)]
    size = [draw(st.integers(4, 7)) for _ in range(spatial)]
    strides = [draw(st.integers(1, 3)) for _ in range(spatial)]
    dilations = [draw(st.integers(1, 2)) for _ in range(spatial)]
    attrs = [f"strides = {strides}", f"group = {groups}"]
    way = draw(st.sampled_from(["pads", "SAME_UPPER", "SAME_LOWER", "VALID", "output_shape"]))
    if way == "pads":
        attrs.append(f"pads = {[draw(st.integers(0, 2)) for _ in range(2 * spatial)]}")
    elif way == "output_shape" and transposed:
        attrs.append(f"output_shape = {[s * n + draw(st.integers(0, 1)) for s, n in zip(strides, size, strict=True)]}")
    elif way != "output_shape":
        attrs.append(f'auto_pad = "{way}"')
    if "SAME" not in way:  # onnxruntime takes no dilations beside it
        attrs.append(f"dilations = {dilations}")
    if transposed and way == "pads" and min(strides) > 1:
        attrs.append(f"output_padding = {[draw(st.integers(0, 1)) for _ in range(spatial)]}")
    op = "ConvTranspose" if transposed else "Conv"
    rows, columns = (groups * into, out) if transposed else (groups * out, into)
    weights = f"float[{','.join(map(str, [rows, columns, *taps]))}] w"
    shape = (2, groups * into, *size)
    x = f"float[{','.join(map(str, shape))}] x"
    free = ",".join(["N", "C", "D", "H", "W"][: 2 + spatial])
    return model(f"y = {op} <{', '.join(attrs)}> (x, w)", f"({x}) => (float[{free}] y)", weights), shape


@LIMITS
@given(convolutions(), st.integers(0, 3))
def test_convolutions(case: tuple[Graph, tuple[int, ...]], seed: int) -> None:
    graph, shape = case
    x = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    try:
        made, wanted = predicted(graph, x)
    except EdgecError:
        assume(False)  # nothing is left of the output
        return
    np.testing.assert_allclose(made, wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("body", "x", "weights"),
    [
        ("y = Gemm <transB = 1> (x, w)", (5, 6), "float[3,6] w"),
        ("y = Gemm (x, w)", (5, 6), "float[6,3] w"),
        ("y = Gemm <transA = 1> (x, w)", (6, 5), "float[6,3] w"),
        ("y = MatMul (x, w)", (2, 5, 6), "float[6,3] w"),
        ("y = MatMul (w, x)", (2, 6, 5), "float[3,6] w"),
    ],
    ids=["transB", "gemm", "transA", "right", "left"],
)
def test_matrices(body: str, x: tuple[int, ...], weights: str) -> None:
    free = ",".join("ABC"[: len(x)])
    graph = model(body, f"(float[{','.join(map(str, x))}] x) => (float[{free}] y)", weights)
    made, wanted = predicted(graph, np.random.default_rng(1).standard_normal(x).astype(np.float32))
    np.testing.assert_allclose(made, wanted, atol=1e-5)


def test_a_wrong_stride_is_seen() -> None:
    graph = model("y = Conv <strides = [2, 2]> (x, w)", "(float[1,2,9,9] x) => (float[1,3,4,4] y)", "float[3,2,3,3] w")
    x = np.random.default_rng(1).standard_normal((1, 2, 9, 9)).astype(np.float32)
    [layer] = find_layers(graph, Shapes(graph), lambda node: None, lambda node, reason: None)
    y = Session(graph).run({"x": x})["y"]
    layer.nodes[0].attrs["strides"] = [1, 1]
    read = patches.inputs(layer, layer.nodes[0], x, y.shape, np.arange(16))
    made = np.einsum("goit,ngit->ngo", _flat(layer), read)
    assert np.abs(made - patches.outputs(layer, y, np.arange(16))).max() > 0.1


def _flat(layer: Layer) -> np.ndarray:
    return layer.kernel().reshape(layer.groups, layer.out, layer.into, -1)
