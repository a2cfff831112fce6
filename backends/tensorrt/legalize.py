"""Rewrites of operators that the oldest TensorRT of a board does not know into those that it does.

They run on the float graph, before quantization, and are exact up to float32 rounding. What has no rewrite is named.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from edgec.backends.tensorrt.versions import Rules
from edgec.ir.errors import EmitError
from edgec.ir.graph import Graph, Node, Tensor, Variable
from edgec.ir.rules import registering
from edgec.ir.shapes import Shapes

Rewrite = Callable[[Graph, Node], None]
_REWRITES: dict[str, Rewrite] = {}
rewrites = registering(_REWRITES)
_NOT_THE_PARSERS = frozenset({"Constant", "QuantizeLinear", "DequantizeLinear"})


def rewrite(graph: Graph, rules: Rules, where: str) -> int:
    """Rewrites ``graph`` in place; returns how many nodes were replaced.

    Raises:
        EmitError: an operator is not known to that TensorRT, and there is no rewrite of it.
    """
    done = 0
    for inside, node in [(one, node) for one in graph.graphs() for node in one.nodes]:
        if _known(node, rules):
            continue
        rule = _REWRITES.get(node.op) if node.domain in ("", "ai.onnx", None) else None
        if rule is None:
            what = f"{rules.tensorrt} has no {f'{node.domain}.' if node.domain else ''}{node.op}"
            raise EmitError(f"{where}: node '{node.name or node.op}'", what, _mend(node, rules))
        rule(inside, node)
        done += 1
    if done:
        graph.sort()
        graph.remove_dead()
    return done


def missing_operators(graphs: Iterable[Graph], rules: Rules) -> list[Node]:
    """The nodes that the parser does not know."""
    return [node for graph in graphs for node in graph.nodes if not _known(node, rules)]


def _known(node: Node, rules: Rules) -> bool:
    return node.domain in ("", "ai.onnx", None) and (node.op in rules.operators or node.op in _NOT_THE_PARSERS)


def _mend(node: Node, rules: Rules) -> str:
    if node.domain not in ("", "ai.onnx", None):
        return "export the network with standard operators, or cut it there with --outputs"
    return f"replace it in the network, or compile for a board with a TensorRT newer than {rules.tensorrt[9:]}"


class _Writer:
    """Nodes in the place of another one, named after it."""

    def __init__(self, graph: Graph, node: Node) -> None:
        self._graph, self._node = graph, node
        self._dtype = np.dtype(node.inputs[0].dtype or np.float32)

    def number(self, label: str, value: float) -> Tensor:
        return self._graph.const(f"{self._node.name}.{label}", np.asarray(value, self._dtype))

    def op(self, op: str, label: str, *inputs: Tensor, like: Tensor | None = None, **attrs: Any) -> Variable:
        made = self._graph.op(op, list(inputs), name=f"{self._node.name}.{label}", before=self._node, **attrs)
        made.dtype = self._dtype
        if like is not None and like.shape is not None:
            made.shape = list(like.shape)
        return made

    def done(self, result: Tensor) -> None:
        self._graph.replace(self._node, result)


@rewrites("HardSwish")
def hard_swish(graph: Graph, node: Node) -> None:
    """x * HardSigmoid(x) with slope 1/6 and offset 1/2, as ONNX defines it."""
    write, x = _Writer(graph, node), node.inputs[0]
    gate = write.op("HardSigmoid", "gate", x, like=x, alpha=1 / 6, beta=0.5)
    write.done(write.op("Mul", "product", x, gate, like=x))


@rewrites("Mish")
def mish(graph: Graph, node: Node) -> None:
    """x * tanh(softplus(x))."""
    write, x = _Writer(graph, node), node.inputs[0]
    gate = write.op("Tanh", "gate", write.op("Softplus", "softplus", x, like=x), like=x)
    write.done(write.op("Mul", "product", x, gate, like=x))


@rewrites("Gelu")
def gelu(graph: Graph, node: Node) -> None:
    """x / 2 * (1 + erf(x / sqrt 2)), or its approximation by tanh where the node asks for that."""
    write, x = _Writer(graph, node), node.inputs[0]
    if node.attrs.get("approximate", "none") == "tanh":
        cube = write.op("Mul", "cube", write.op("Mul", "square", x, x, like=x), x, like=x)
        bent = write.op("Add", "bent", x, write.op("Mul", "part", cube, write.number("c", 0.044715), like=x), like=x)
        inner = write.op("Mul", "inner", bent, write.number("root", math.sqrt(2 / math.pi)), like=x)
        gate = write.op("Tanh", "tanh", inner, like=x)
    else:
        gate = write.op("Erf", "erf", write.op("Mul", "inner", x, write.number("root", math.sqrt(0.5)), like=x), like=x)
    shifted = write.op("Add", "shifted", gate, write.number("one", 1.0), like=x)
    half = write.op("Mul", "half", x, write.number("two", 0.5), like=x)
    write.done(write.op("Mul", "product", half, shifted, like=x))


@rewrites("Reciprocal")
def reciprocal(graph: Graph, node: Node) -> None:
    """1 / x."""
    write = _Writer(graph, node)
    write.done(write.op("Div", "quotient", write.number("one", 1.0), node.inputs[0], like=node.inputs[0]))


@rewrites("LayerNormalization")
def layer_normalization(graph: Graph, node: Node) -> None:
    """Mean and variance over the axes from ``axis`` on, then scale and bias.

    Raises:
        EmitError: the rank is not known, or the mean or deviation is an output of its own.
    """
    write, x = _Writer(graph, node), node.inputs[0]
    shape = Shapes(graph).shape(x)
    if shape is None or any(t.name and (t.outputs or t in graph.outputs) for t in node.outputs[1:]):
        what = "is a LayerNormalization of unknown rank, or whose mean is read"
        raise EmitError(f"node '{node.name or node.op}'", what, "export the network with static shapes")
    axes = list(range(int(node.attrs.get("axis", -1)) % len(shape), len(shape)))
    apart = write.op("Sub", "centred", x, _mean(graph, write, x, axes, "mean"), like=x)
    variance = _mean(graph, write, write.op("Mul", "squares", apart, apart, like=x), axes, "variance")
    least = write.op("Add", "least", variance, write.number("epsilon", node.attrs.get("epsilon", 1e-5)))
    result = write.op("Div", "normal", apart, write.op("Sqrt", "deviation", least), like=x)
    result = write.op("Mul", "scaled", result, node.inputs[1], like=x)
    if len(node.inputs) > 2 and node.inputs[2].name:
        result = write.op("Add", "shifted", result, node.inputs[2], like=x)
    write.done(result)


def _mean(graph: Graph, write: _Writer, x: Tensor, axes: list[int], label: str) -> Variable:
    if graph.opset < 18:
        return write.op("ReduceMean", label, x, axes=axes, keepdims=1)
    return write.op("ReduceMean", label, x, graph.const(f"{label}.axes", np.array(axes, np.int64)), keepdims=1)
