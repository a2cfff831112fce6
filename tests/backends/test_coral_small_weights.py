"""Weights that alone are 8 or 16 bits stay so in the file, and the operators compute as in the graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from edgec.backends.coral.backend import CoralBackend, lower
from edgec.backends.coral.emission import NEEDS_2_7
from edgec.backends.coral.flatbuffer import File
from edgec.backends.coral.verdict import verdict
from edgec.backends.registry import target
from edgec.ir.graph import Graph
from edgec.passes.quantize.quantize import Quantize
from edgec.testing import run_pass

BOARD = target("coral-dev-board")
IMAGE, ROWS = (1, 16, 9, 7), (3, 32)
SMALL = {"int8": np.dtype(np.int8), "float16": np.dtype(np.float16)}


def _flattened(b: Any, x: Any) -> Any:
    """Rows from an image: the weights are permuted for an image whose channels are last."""
    return b("Gemm", b("Flatten", b("Relu", x)), b.weight(40, 16 * 63), b.weight(40), transB=1, alpha=0.3, beta=2.0)


#: node, input shape, and the shape that the weights have in the file.
LAYERS: dict[str, tuple[Callable[..., Any], tuple[int, ...], tuple[int, ...]]] = {
    "Conv": (lambda b, x: b("Conv", x, b.weight(24, 16, 3, 3), b.weight(24), pads=[1] * 4), IMAGE, (24, 3, 3, 16)),
    "Conv, depthwise": (
        lambda b, x: b("Conv", x, b.weight(32, 1, 3, 3), b.weight(32), group=16, strides=[2, 2]),
        IMAGE,
        (1, 3, 3, 32),
    ),
    "Conv, grouped": (lambda b, x: b("Conv", x, b.weight(16, 8, 3, 3), group=2), IMAGE, (8, 3, 3, 8)),
    "Conv, 1 axis": (lambda b, x: b("Conv", x, b.weight(8, 16, 5)), (1, 16, 30), (8, 1, 5, 16)),
    "ConvTranspose": (
        lambda b, x: b("ConvTranspose", x, b.weight(16, 8, 2, 2), b.weight(8), strides=[2, 2]),
        IMAGE,
        (8, 2, 2, 16),
    ),
    "ConvTranspose, grouped, dilated": (
        lambda b, x: b("ConvTranspose", x, b.weight(16, 8, 3, 3), group=2, dilations=[2, 1]),
        IMAGE,
        (8, 5, 3, 8),
    ),
    "Gemm": (lambda b, x: b("Gemm", x, b.weight(32, 20), b.weight(20)), ROWS, (20, 32)),
    "Gemm, transB": (lambda b, x: b("Gemm", x, b.weight(20, 32), b.weight(20), transB=1, alpha=3.0), ROWS, (20, 32)),
    "Gemm behind Flatten": (_flattened, IMAGE, (40, 16 * 63)),
    "MatMul": (lambda b, x: b("MatMul", x, b.weight(32, 20)), (1, 3, 32), (20, 32)),
    "MatMul, batched": (lambda b, x: b("MatMul", x, b.weight(2, 32, 20)), (2, 3, 32), (2, 32, 20)),
}


def _small(graph: Graph, kind: str, **options: Any) -> Graph:
    run_pass(Quantize(weights_only=kind, **options), graph, target=BOARD)
    return graph


def _stored(file: File, dtype: np.dtype) -> list[tuple[int, ...]]:
    read = {place for operator in file.operators for place in operator.inputs if place >= 0}
    return [t.shape for t in (file.tensors[place] for place in sorted(read)) if t.data is not None and t.dtype == dtype]


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("case", LAYERS)
def test_layers(lab: Any, case: str, kind: str) -> None:
    make, shape, stored = LAYERS[case]
    graph = _small(lab.build(make, [shape]), kind)
    found = lab.compared(graph, lab.noise(graph))
    found.close()
    file = found.lowered.file
    assert set(_stored(file, SMALL[kind])) == {stored}
    assert all(np.prod(shape) <= 256 for shape in _stored(file, np.dtype(np.float32)))
    assert (
        file.parameter_bytes < (0.4 if kind == "int8" else 0.6) * lower(lab.build(make, [shape])).file.parameter_bytes
    )
    channels = kind == "int8" and case != "MatMul, batched"
    assert found.lowered.notes == ([NEEDS_2_7] if channels else [])


def test_one_scale_for_all(lab: Any) -> None:
    graph = _small(lab.build(LAYERS["Conv"][0], [IMAGE]), "int8", per_channel=False)
    found = lab.compared(graph, lab.noise(graph))
    found.close()
    assert [(op.kind, op.version) for op in found.lowered.file.operators] == [("DEQUANTIZE", 2), ("CONV_2D", 1)]
    assert found.lowered.notes == []


@pytest.mark.parametrize(("kind", "version"), [("int8", 5), ("float16", 3)])
def test_shared_weights_are_stored_and_unpacked_once(lab: Any, kind: str, version: int) -> None:
    def twice(b: Any, x: Any) -> Any:
        weight = b.weight(16, 16, 3, 3)
        return b("Conv", b("Conv", x, weight), weight)

    graph = _small(lab.build(twice, [IMAGE]), kind)
    found = lab.compared(graph, lab.noise(graph))
    found.close()
    operators = found.lowered.file.operators
    assert [(op.kind, op.version) for op in operators] == [("DEQUANTIZE", version), ("CONV_2D", 1), ("CONV_2D", 1)]


def test_a_corrupted_weight_is_seen(lab: Any) -> None:
    graph = _small(lab.build(LAYERS["Conv"][0], [IMAGE]), "int8")
    found = lab.compared(graph, lab.noise(graph))
    (weights,) = (c for c in graph.constants() if c.dtype == np.int8 and c.values.size > 256)
    changed = weights.values.copy()
    changed[0, 0, 0, 0] += 40
    weights.values = changed
    found.wanted = lab.compared(graph, lab.noise(graph)).wanted
    with pytest.raises(AssertionError):
        found.close()


def test_few_weights_are_float32(lab: Any) -> None:
    """A tensor and an operator take more bytes than they would save."""
    graph = lab.build(lambda b, x: b("Conv", x, b("Cast", b.const(np.ones((4, 16, 1, 1)), np.float16), to=1)), [IMAGE])
    found = lab.compared(graph, lab.noise(graph))
    found.close()
    assert found.kinds == ["CONV_2D"]
    assert found.lowered.notes == []


def test_a_network_of_float16_keeps_its_weights(lab: Any) -> None:
    def halves(b: Any, x: Any) -> Any:
        weight = b.const(b.weight(16, 16, 3, 3).values, np.float16)
        return b("Cast", b("Conv", b("Cast", x, to=10), weight), to=1)

    lowered = lower(lab.build(halves, [IMAGE]))
    assert [operator.kind for operator in lowered.file.operators] == ["DEQUANTIZE", "CONV_2D"]
    assert lowered.file.parameter_bytes == 2 * 16 * 16 * 9 + 4 * 16


def _gemm(b: Any, x: Any, weight: Any, **attrs: Any) -> Any:
    return b("Gemm", x, weight, **attrs)


def _integers(b: Any, zero: int, axis: int, dtype: Any = np.int8) -> Any:
    integers = b.const(np.arange(640).reshape(32, 20) % 100, dtype)
    count = integers.shape[axis]
    args = [b.const(np.linspace(0.1, 0.2, count)), b.const(np.full(count, zero), dtype)]
    return b("DequantizeLinear", integers, *args, axis=axis)


WIDENED = {
    "zero-point": (lambda b, x: _gemm(b, x, _integers(b, 3, 1)), "int8"),
    "inner axis": (lambda b, x: _gemm(b, x, _integers(b, 0, 0)), "int8"),
    "factor": (
        lambda b, x: _gemm(b, x, b("Cast", b.const(np.full((32, 20), 0.1), np.float16), to=1), alpha=0.3),
        "times",
    ),
    "overflow": (
        lambda b, x: _gemm(b, x, b("Cast", b.const(np.full((32, 20), 1e4), np.float16), to=1), alpha=8.0),
        "times",
    ),
    "no layer": (lambda b, x: b("Add", x, b("Cast", b.const(np.ones((20, 1, 32)), np.float16), to=1)), "constant"),
}
NOTES = {
    "int8": (
        "weights '{}' are float32 in the file: they are not int8 with zero-point 0 and scales along the output channel"
    ),
    "times": "weights '{}' are float32 in the file: times {} they are not float16",
    "constant": "constant '{}' of float16 is float32 in the file: only the weights of layers stay small",
}


@pytest.mark.parametrize("case", WIDENED)
def test_what_cannot_stay_small_is_said(lab: Any, case: str) -> None:
    make, words = WIDENED[case]
    graph = lab.build(make, [ROWS])
    (name,) = (c.name for c in graph.constants() if c.values.size >= 256)
    found = lab.compared(graph, lab.noise(graph))
    found.close()
    factor = "0.3" if case == "factor" else "8"
    assert found.lowered.notes == [NOTES[words].format(name, factor)]
    assert "DEQUANTIZE" not in found.kinds


def test_what_computes_with_floats_is_on_the_cpu(lab: Any, tmp_path: Any) -> None:
    graph = _small(lab.build(LAYERS["Conv"][0], [IMAGE]), "int8")
    judged = verdict(lower(graph).file)
    assert [entry["reason"] for entry in judged.operators] == [
        "it unpacks weights for an operator that computes with floats",
        "it is not int8",
    ]
    assert (judged.mapped, judged.parameter_bytes) == (0, 0)
    emitted = CoralBackend().emit(graph, BOARD, tmp_path, [lab.noise(graph)])
    assert emitted.notes == [
        "int8 weights of float operators with a scale for each channel need TensorFlow Lite 2.7 or newer on the board; "
        "float16, and 'per_channel: false', do not",
        "estimate: the Edge TPU runs 0 of 2 operators; DEQUANTIZE (node 'conv') and what follows run on the CPU: it "
        "unpacks weights for an operator that computes with floats",
    ]
