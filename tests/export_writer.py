"""ONNX files written node by node, for random networks: names, weights, and forms that differ with the opset."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


@dataclass
class Writer:
    """An ONNX file while it is written as exporters do: ``end`` is the tensor at its end, of shape (1, *shape)."""

    random: np.random.Generator
    opset: int
    batch: int | str
    end: str = ""
    shape: tuple[int, ...] = ()
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[TensorProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    outputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    traits: list[str] = field(default_factory=list)
    padding: str = ""  # of tokens: a tensor (1, 1, 1, tokens), true where there is none

    def name(self, kind: str) -> str:
        return f"{kind.lower()}_{len(self.nodes) + len(self.weights)}"

    def chance(self, part: float) -> bool:
        return bool(self.random.random() < part)

    def pick(self, *values: object) -> object:
        return values[int(self.random.integers(len(values)))]

    def const(self, values: object, dtype: type = np.float32) -> str:
        name = self.name("w")
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def noise(self, *shape: int) -> str:
        return self.const(self.random.standard_normal(shape) / np.sqrt(max(int(np.prod(shape[1:])), 1)))

    def ints(self, *values: int) -> str:
        return self.const(values, np.int64)

    def op(self, op: str, *inputs: str, **attributes: object) -> str:
        return self.ops(op, 1, *inputs, **attributes)[0]

    def ops(self, op: str, count: int, *inputs: str, **attributes: object) -> list[str]:
        outputs = [self.name(op) + f"_{number}" for number in range(count)]
        self.nodes.append(helper.make_node(op, list(inputs), outputs, self.name(op), **attributes))
        return outputs

    def takes(self, name: str, dtype: int, *shape: int) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, dtype, [self.batch, *shape]))
        return name

    def gives(self, tensor: str, dtype: int, shape: list[int | str]) -> None:
        """Ends the network, or a branch of it, at a tensor."""
        name = f"out{len(self.outputs)}"
        self.nodes.append(helper.make_node("Identity", [tensor], [name], f"{name}_identity"))
        self.outputs.append(helper.make_tensor_value_info(name, dtype, shape))

    def reduced(self, op: str, x: str, axes: list[int], keep: int) -> str:
        if self.opset >= 18:
            return self.op(op, x, self.ints(*axes), keepdims=keep)
        return self.op(op, x, axes=axes, keepdims=keep)

    def reshaped(self, x: str, *shape: int) -> str:
        """To (1, *shape), in one of the forms that exporters write."""
        whole = -1 if isinstance(self.batch, str) else 1
        form = self.pick("static", "zero", "allowzero")
        if form == "zero":
            return self.op("Reshape", x, self.ints(0, *shape))
        if form == "allowzero" and self.opset >= 14:
            return self.op("Reshape", x, self.ints(whole, *shape), allowzero=1)
        return self.op("Reshape", x, self.ints(whole, *shape))

    def activated(self, x: str) -> str:
        kind = self.pick("Relu", "Relu", "Clip", "Sigmoid", "HardSwish", "Swish", "LeakyRelu", "none")
        if kind == "Clip":
            return self.op("Clip", x, self.const(0), self.const(6))
        if kind == "Swish":
            return self.op("Mul", x, self.op("Sigmoid", x))
        if kind == "HardSwish" and self.opset < 14:
            return self.op("Relu", x)
        return x if kind == "none" else self.op(str(kind), x)

    def linear(self, x: str, inputs: int, outputs: int) -> str:
        return self.op("Add", self.op("MatMul", x, self.const(self.matrix(inputs, outputs))), self.noise(outputs))

    def matrix(self, inputs: int, outputs: int) -> np.ndarray:
        return self.random.standard_normal((inputs, outputs)) / np.sqrt(inputs)
