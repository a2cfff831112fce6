"""Small graphs for backend tests, a small quantizer, and a comparison of an emitted file with its graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import NANO, ORIN, Bench, bench, write_bundle

from edgec.backends.coral.backend import lower
from edgec.backends.coral.check import WITHOUT_REFERENCE
from edgec.backends.coral.interpreter import Interpreter
from edgec.backends.coral.lowering import Lowered
from edgec.ir.execution import Session
from edgec.ir.graph import Constant, Graph, Tensor, Variable, consumers
from edgec.ir.shapes import Shapes

Feeds = Mapping[str, np.ndarray]
Maker = Callable[..., Any]

TIED = frozenset(
    [
        "Concat",
        "Split",
        "Resize",
        "MaxPool",
        "Reshape",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Transpose",
        "Pad",
        "Slice",
        "Max",
        "Min",
        "DepthToSpace",
        "SpaceToDepth",
        "ReduceMax",
        "GlobalMaxPool",
        "Identity",
    ]
)
FIXED = {"Sigmoid": (1 / 256, -128), "Softmax": (1 / 256, -128), "Tanh": (1 / 128, 0)}
#: Operators whose second input holds weights, and its output-channel axis.
WEIGHTED = {"Conv": 0, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}


class Builder:
    """A graph under construction, with seeded weights."""

    def __init__(self, opset: int = 17, seed: int = 0) -> None:
        self.graph = Graph(opset=opset)
        self.random = np.random.Generator(np.random.PCG64(seed))

    def input(self, name: str, *shape: int) -> Variable:
        made = Variable(name, np.float32, shape)
        self.graph.inputs.append(made)
        return made

    def weight(self, *shape: int, scale: float = 0.3) -> Constant:
        return self.graph.const("weight", (self.random.normal(size=shape) * scale).astype(np.float32))

    def const(self, values: Any, dtype: Any = np.float32) -> Constant:
        return self.graph.const("constant", np.asarray(values, dtype))

    def ints(self, *values: int) -> Constant:
        return self.const(values, np.int64)

    def __call__(self, op: str, *inputs: Tensor | None, outputs: int = 1, **attrs: Any) -> Any:
        return self.graph.op(op, list(inputs), outputs=outputs, **attrs)


def build(make: Maker, shapes: Sequence[Sequence[int]], opset: int = 17) -> Graph:
    """The graph that ``make(builder, *inputs)`` returns the outputs of."""
    builder = Builder(opset)
    inputs = [builder.input(f"x{i}", *shape) for i, shape in enumerate(shapes)]
    made = make(builder, *inputs)
    outputs = list(made) if isinstance(made, list | tuple) else [made]
    for place, tensor in enumerate(outputs):
        tensor.name, tensor.dtype = f"y{place}", np.dtype(np.float32)
    builder.graph.outputs = outputs
    Shapes(builder.graph).annotate(builder.graph)
    return builder.graph


def noise(graph: Graph, seed: int = 1, low: float = -1.0, high: float = 1.0) -> dict[str, np.ndarray]:
    random = np.random.Generator(np.random.PCG64(seed))
    return {t.name: random.uniform(low, high, t.shape).astype(np.float32) for t in graph.inputs}


def quantized(graph: Graph, feeds: Feeds, per_channel: bool = True) -> Graph:
    """The graph with QuantizeLinear and DequantizeLinear as edgec's quantizer places them, on ranges of ``feeds``."""
    graph = graph.copy()
    variables = [t for t in graph.variables() if t.dtype == np.float32 or t.dtype is None]
    values = Session(graph, taps=variables).run(feeds) | dict(feeds)
    weights = _quantize_weights(graph, per_channel)
    shared = _shared(graph)
    skipped = {t for t in variables if _absorbed(graph, t)}
    scales: dict[Tensor, tuple[np.float32, np.int8]] = {}
    for tensor in variables:
        group = [t for t in variables if shared[t] is shared[tensor]]
        scales[tensor] = _range([values[t.name] for t in group if t not in skipped] or [values[tensor.name]])
        fixed = [FIXED[t.inputs[0].op] for t in group if t.inputs and t.inputs[0].op in FIXED]
        if fixed:
            scales[tensor] = (np.float32(fixed[0][0]), np.int8(fixed[0][1]))
    for tensor in variables:
        if tensor not in skipped:
            _quantize_tensor(graph, tensor, *scales[tensor])
    for node, bias in weights.items():
        (dequantize,) = node.inputs[0].inputs
        (quantize,) = dequantize.inputs[0].inputs
        scale = scales[quantize.inputs[0]][0] * bias.scale
        integers = np.rint(bias.values / scale).astype(np.int32)
        args = [graph.const("bias", integers), graph.const("bias.scale", scale.astype(np.float32))]
        node.inputs[2] = graph.op("DequantizeLinear", args, axis=0)
    graph.sort()
    Shapes(graph).annotate(graph)
    return graph


@dataclass
class _Bias:
    values: np.ndarray
    scale: np.ndarray


def _quantize_weights(graph: Graph, per_channel: bool) -> dict[Any, _Bias]:
    biases = {}
    for node in list(graph.nodes):
        if node.op in WEIGHTED and isinstance(node.inputs[1], Constant):
            weight = node.inputs[1].values
            axis = 0 if node.attrs.get("transB") else WEIGHTED[node.op]
            others = tuple(a for a in range(weight.ndim) if a != axis)
            top = np.abs(weight).max(axis=others) if per_channel else np.abs(weight).max(keepdims=True).reshape(1)
            scale = (np.maximum(top, 1e-6) / 127).astype(np.float32)
            along = [-1 if a == axis else 1 for a in range(weight.ndim)] if per_channel else [1] * weight.ndim
            integers = np.clip(np.rint(weight / scale.reshape(along)), -127, 127).astype(np.int8)
            args = [graph.const("w", integers), graph.const("w.scale", scale if per_channel else scale[0])]
            node.inputs[1] = graph.op("DequantizeLinear", args, axis=axis)
            if len(node.inputs) > 2 and isinstance(node.inputs[2], Constant):
                groups = int(node.attrs.get("group", 1)) if node.op == "ConvTranspose" and per_channel else 1
                biases[node] = _Bias(node.inputs[2].values, np.tile(scale, groups))
        elif node.op in ("Add", "Sub", "Mul", "PRelu", "Max", "Min", "Concat"):
            for place, tensor in enumerate(node.inputs):
                if isinstance(tensor, Constant) and node.op != "Max" and node.op != "Min":
                    scale, zero = _range([tensor.values])
                    args = [graph.const("c.scale", scale), graph.const("c.zero", zero)]
                    node.inputs[place] = graph.op(
                        "DequantizeLinear", [graph.op("QuantizeLinear", [tensor, *args]), *args]
                    )
    return biases


def _absorbed(graph: Graph, tensor: Variable) -> bool:
    """Whether a Relu or Clip alone reads a tensor that a computing operator made."""
    readers = tensor.outputs
    if not tensor.inputs or any(tensor is t for t in graph.outputs) or len(readers) != 1:
        return False
    return readers[0].op in ("Relu", "Clip") and tensor.inputs[0].op not in TIED


def _shared(graph: Graph) -> dict[Tensor, Tensor]:
    group: dict[Tensor, Tensor] = {t: t for t in graph.variables()}
    for node in graph.nodes:
        if node.op in TIED:
            first = group[node.outputs[0]]
            for tensor in (*node.inputs, *node.outputs[1:]):
                if isinstance(tensor, Variable) and tensor.name and tensor.dtype == np.float32:
                    old = group[tensor]
                    group = {t: first if g is old else g for t, g in group.items()}
    return group


def _range(values: Sequence[np.ndarray]) -> tuple[np.float32, np.int8]:
    low = min(0.0, *(float(v.min()) for v in values))
    high = max(0.0, *(float(v.max()) for v in values))
    scale = np.float32(max(high - low, 1e-2) / 255)
    return scale, np.int8(np.clip(round(-128 - low / float(scale)), -128, 127))


def _quantize_tensor(graph: Graph, tensor: Variable, scale: np.float32, zero: np.int8) -> None:
    readers = consumers(tensor)
    args = [graph.const("scale", scale), graph.const("zero", zero)]
    real = graph.op("DequantizeLinear", [graph.op("QuantizeLinear", [tensor, *args]), *args])
    for node in readers:
        for place, read in enumerate(node.inputs):
            if read is tensor:
                node.inputs[place] = real
    for place, output in enumerate(graph.outputs):
        if output is tensor:
            real.name, tensor.name = tensor.name, f"{tensor.name}.float"
            real.dtype = tensor.dtype
            graph.outputs[place] = real


@dataclass
class Comparison:
    """A file against its graph.

    Attributes:
        lowered: the file.
        wanted, fast, plain: outputs of onnxruntime, LiteRT with XNNPACK, LiteRT's reference kernels.
    """

    lowered: Lowered
    wanted: dict[str, np.ndarray]
    fast: dict[str, np.ndarray]
    plain: dict[str, np.ndarray]

    @property
    def kinds(self) -> list[str]:
        """The operators in the file."""
        return [operator.kind for operator in self.lowered.file.operators]

    def steps(self, plain: bool = True) -> int:
        """The largest difference to onnxruntime, in steps of the output's integers; the reference kernels' if asked."""
        worst = 0
        for port in self.lowered.outputs:
            assert port.quantization is not None, f"{port.name} is float"
            for found in (self.fast, self.plain) if plain else (self.fast,):
                error = np.abs(found[port.name] - self.wanted[port.name]).max() / port.quantization.scale[0]
                worst = max(worst, round(float(error)))
        return worst

    def close(self) -> None:
        """Asserts that float outputs agree."""
        for name, values in self.wanted.items():
            size = float(np.abs(values).max())
            for found in (self.fast, self.plain):
                np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-5 * max(size, 1e-3))


def compared(graph: Graph, feeds: Feeds) -> Comparison:
    """Lowers a graph and runs it and its file."""
    lowered = lower(graph)
    contents = lowered.file.to_bytes()
    fast = Interpreter(contents, lowered.inputs, lowered.outputs).run(feeds)
    plain = fast
    if not any(operator.kind in WITHOUT_REFERENCE for operator in lowered.file.operators):
        plain = Interpreter(contents, lowered.inputs, lowered.outputs, reference=True).run(feeds)
    return Comparison(lowered, Session(graph).run(feeds), fast, plain)


@pytest.fixture(scope="session")
def lab() -> Any:
    """The functions of this file."""
    from types import SimpleNamespace

    return SimpleNamespace(build=build, noise=noise, quantized=quantized, compared=compared, Builder=Builder)


@pytest.fixture(scope="session")
def nano_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("nano") / "bundle", NANO)


@pytest.fixture(scope="session")
def orin_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("orin") / "bundle", ORIN, samples=2)


@pytest.fixture
def nano(nano_bundle: Path, tmp_path: Path) -> Bench:
    return bench(nano_bundle, tmp_path, "8.2.1")


@pytest.fixture
def orin(orin_bundle: Path, tmp_path: Path) -> Bench:
    return bench(orin_bundle, tmp_path, "10.3.0")
