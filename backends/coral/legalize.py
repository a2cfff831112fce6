"""Rewrites of operators that TFLite's integer kernels lack into those that they have, before quantization.

Each is exact up to float32 rounding. They run on the float graph so that the quantizer calibrates what is emitted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import ClassVar

import numpy as np

from edgec.backends.coral.lowering import RULES
from edgec.backends.defined_operators import inline_definition, tidy
from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable, static_shape, variable_of
from edgec.ir.rules import registering
from edgec.ir.shapes import Shapes
from edgec.passes.framework.context import Context
from edgec.passes.framework.legalization import Legalization

Rewrite = Callable[[Graph, Node], bool]
_REWRITES: dict[str, Rewrite] = {}


#: Registers the rewrite of these operators.
rewrites = registering(_REWRITES)


@dataclass(frozen=True)
class TFLiteOperators(Legalization):
    """Rewrites what TFLite's integer kernels lack into what they have."""

    name: ClassVar[str] = "tflite-operators"
    words: ClassVar[str] = "spelled out for TFLite's integer kernels"

    def rewrite(self, graph: Graph, ctx: Context) -> int:
        return rewrite(graph)


def rewrite(graph: Graph) -> int:
    """Rewrites the graph in place; returns how many nodes were replaced."""
    done, seen, own = 0, set[Node](), set(graph.nodes)
    while changed := _by_rules(graph, seen) or _by_definition(graph, own):
        done += changed
        graph.sort()
        graph.remove_dead()
        Shapes(graph).annotate(graph)
    if done:
        tidy(graph, own)
        graph.sort()
        graph.remove_dead()
    return done


def _by_rules(graph: Graph, seen: set[Node]) -> int:
    """Rewrites nodes that were not seen before; what rules make may have rules of its own, in the next round."""
    fresh = [node for node in graph.nodes if node not in seen]
    seen.update(fresh)
    changed = 0
    for node in fresh:
        rule = _REWRITES.get(node.op) if node.domain in ("", "ai.onnx") else None
        if rule is not None and node.outputs:
            changed += rule(graph, node)
    return changed


def _by_definition(graph: Graph, own: set[Node]) -> int:
    """Puts ONNX's own definition in the place of what has no rule in the lowering, or not in that form."""
    unknown = [node for node in graph.nodes if node.domain in ("", "ai.onnx") and _is_unknown(graph, node)]
    if not unknown:
        return 0
    shapes = Shapes(graph)
    changed = sum(inline_definition(graph, node, shapes) for node in unknown)
    if changed:
        graph.sort()
        tidy(graph, own)
    return changed


def _is_unknown(graph: Graph, node: Node) -> bool:
    if node.op not in RULES:
        return True
    return node.op == "LayerNormalization" and any(t.outputs or t in graph.outputs for t in node.outputs[1:])


def known(tensor: Tensor) -> np.ndarray | None:
    """The values of a constant."""
    return tensor.values if isinstance(tensor, Constant) else None


def shaped(made: Variable, like: Tensor) -> Variable:
    """A tensor declared as another one is."""
    made.shape = None if like.shape is None else list(like.shape)
    made.dtype = like.dtype
    return made


def _with(graph: Graph, node: Node, op: str, x: Tensor, number: np.ndarray | float, label: str) -> Variable:
    """``op(x, number)``, in the shape of x."""
    precision = x.dtype if x.dtype is not None and np.dtype(x.dtype).kind == "f" else np.float32
    other = graph.const(f"{node.name}.{label}", np.asarray(number, precision))
    return shaped(graph.op(op, [x, other], name=f"{node.name}.{label}"), x)


def _clip(graph: Graph, node: Node, x: Tensor, low: float, high: float) -> Variable:
    bounds = [graph.const(f"{node.name}.low", np.float32(low)), graph.const(f"{node.name}.high", np.float32(high))]
    return shaped(graph.op("Clip", [x, *bounds], name=f"{node.name}.clip"), x)


@rewrites("HardSwish")
def hard_swish(graph: Graph, node: Node) -> bool:
    """x * clip(x + 3, 0, 6) / 6."""
    x = node.inputs[0]
    gate = _clip(graph, node, _with(graph, node, "Add", x, 3.0, "shift"), 0.0, 6.0)
    product = shaped(graph.op("Mul", [x, gate], name=f"{node.name}.product"), x)
    graph.replace(node, _with(graph, node, "Mul", product, 1 / 6, "scale"))
    return True


@rewrites("HardSigmoid")
def hard_sigmoid(graph: Graph, node: Node) -> bool:
    """clip(alpha x + beta, 0, 1) as alpha * clip(x + beta / alpha, 0, 1 / alpha): a Relu6 where alpha is 1/6."""
    alpha, beta = float(node.attrs.get("alpha", 0.2)), float(node.attrs.get("beta", 0.5))
    if alpha <= 0:
        return False
    reach = 1 / alpha
    reach = float(round(reach)) if abs(reach - round(reach)) < 1e-5 else reach
    gate = _clip(graph, node, _with(graph, node, "Add", node.inputs[0], beta * reach, "shift"), 0.0, reach)
    graph.replace(node, _with(graph, node, "Mul", gate, 1 / reach, "scale"))
    return True


@rewrites("Swish")
def swish(graph: Graph, node: Node) -> bool:
    """x * sigmoid(alpha x)."""
    x, alpha = node.inputs[0], float(node.attrs.get("alpha", 1.0))
    scaled = x if alpha == 1.0 else _with(graph, node, "Mul", x, alpha, "alpha")
    gate = shaped(graph.op("Sigmoid", [scaled], name=f"{node.name}.sigmoid"), x)
    graph.replace(node, shaped(graph.op("Mul", [x, gate], name=f"{node.name}.product"), x))
    return True


@rewrites("Neg")
def negation(graph: Graph, node: Node) -> bool:
    """A multiplication by -1."""
    if node.inputs[0].dtype != np.float32:
        return False
    graph.replace(node, shaped(_with(graph, node, "Mul", node.inputs[0], -1.0, "minus"), node.outputs[0]))
    return True


@rewrites("Abs")
def absolute(graph: Graph, node: Node) -> bool:
    """The greater one of x and -x."""
    x = node.inputs[0]
    if x.dtype != np.float32:
        return False
    turned = _with(graph, node, "Mul", x, -1.0, "minus")
    graph.replace(node, shaped(graph.op("Max", [x, turned], name=f"{node.name}.max"), node.outputs[0]))
    return True


@rewrites("BatchNormalization")
def batch_normalization(graph: Graph, node: Node) -> bool:
    """A scale and a shift for each channel, where no convolution took them in."""
    numbers = [known(t) for t in node.inputs[1:5]]
    x = node.inputs[0]
    read = any(t.outputs or t in graph.outputs for t in node.outputs[1:])
    if node.attrs.get("training_mode", 0) or any(values is None for values in numbers) or x.shape is None or read:
        return False
    gain, shift, mean, variance = (np.asarray(values, np.float64) for values in numbers)
    scale = gain / np.sqrt(variance + float(node.attrs.get("epsilon", 1e-5)))
    along = (-1, *[1] * (len(x.shape) - 2))
    scaled = _with(graph, node, "Mul", x, scale.reshape(along), "scale")
    shifted = _with(graph, node, "Add", scaled, (shift - mean * scale).reshape(along), "shift")
    graph.replace(node, [shifted, *node.outputs[1:]])
    return True


@rewrites("Div")
def division(graph: Graph, node: Node) -> bool:
    """Division by a known number is multiplication by its inverse."""
    divisor = known(node.inputs[1])
    if divisor is None or divisor.dtype.kind != "f" or not divisor.all() or isinstance(node.inputs[0], Constant):
        return False
    inverse = 1 / divisor.astype(np.float64)
    made = _with(graph, node, "Mul", node.inputs[0], inverse, "inverse")
    graph.replace(node, shaped(made, node.outputs[0]))
    return True


@rewrites("Sum")
def addition(graph: Graph, node: Node) -> bool:
    """A sum of many is a chain of additions of two."""
    total = node.inputs[0]
    for place, term in enumerate(node.inputs[1:], 1):
        total = graph.op("Add", [total, term], name=f"{node.name}.add{place}")
        total.dtype = node.outputs[0].dtype
    if len(node.inputs) == 1:
        return False
    graph.replace(node, shaped(variable_of(total), node.outputs[0]))
    return True


@rewrites("Clip")
def clip(graph: Graph, node: Node) -> bool:
    """Clip from 0 up is Relu; Clip without bounds is nothing."""
    if any(isinstance(t, Variable) and t.name for t in node.inputs[1:]):
        return False
    bounds = [t.values for t in node.inputs[1:] if isinstance(t, Constant)]
    names = [isinstance(t, Constant) for t in (*node.inputs[1:], *[None] * 2)]
    low = float(bounds[0].reshape(-1)[0]) if names[0] else float(node.attrs.get("min", -inf))
    high = float(bounds[-1].reshape(-1)[0]) if names[1] else float(node.attrs.get("max", inf))
    largest = float(np.finfo(np.float32).max)
    if low <= -largest and high >= largest:
        graph.replace(node, node.inputs[0])
        return True
    if low == 0.0 and high >= largest:
        graph.replace(node, shaped(graph.op("Relu", [node.inputs[0]], name=f"{node.name}.relu"), node.outputs[0]))
        return True
    return False


@rewrites("Dropout")
def dropout(graph: Graph, node: Node) -> bool:
    """Nothing at inference."""
    training = known(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2].name else np.zeros(1)
    # A mask that is read, and what drops at random, are the lowering's to answer.
    if any(t.outputs or t in graph.outputs for t in node.outputs[1:]) or training is None or training.any():
        return False
    graph.replace(node, [node.inputs[0], *node.outputs[1:]])
    return True


@rewrites("Gemm")
def gemm(graph: Graph, node: Node) -> bool:
    """alpha and beta go into the weights and the bias; what is no row of known numbers is added behind."""
    alpha, beta = float(node.attrs.get("alpha", 1.0)), float(node.attrs.get("beta", 1.0))
    weight, changed = known(node.inputs[1]), False
    bias = node.inputs[2] if len(node.inputs) > 2 and node.inputs[2].name else None
    row = known(bias) if bias is not None else None
    columns = node.outputs[0].shape[1] if node.outputs[0].shape else None
    if weight is None:
        return _computed_gemm(graph, node, bias, alpha, beta)
    if bias is not None and (row is None or row.size not in (1, columns) or (row.ndim > 1 and row.shape[0] != 1)):
        product = shaped(graph.op("Gemm", node.inputs[:2], name=f"{node.name}.product", **node.attrs), node.outputs[0])
        added = bias if beta == 1.0 else _with(graph, node, "Mul", bias, beta, "beta")
        graph.replace(node, shaped(graph.op("Add", [product, added], name=f"{node.name}.add"), node.outputs[0]))
        return True
    if alpha != 1.0:
        node.inputs[1] = graph.const(f"{node.inputs[1].name}.alpha", weight * np.float32(alpha))
        node.attrs["alpha"] = 1.0
        changed = True
    if row is not None and beta != 1.0:
        node.inputs[2] = graph.const(f"{node.inputs[2].name}.beta", row * np.float32(beta))
        node.attrs["beta"] = 1.0
        changed = True
    return changed


def _computed_gemm(graph: Graph, node: Node, bias: Tensor | None, alpha: float, beta: float) -> bool:
    """A Gemm whose second matrix is computed as well: MatMul, and what else it does spelled out."""
    sides = []
    for side, flag in zip(node.inputs[:2], ("transA", "transB"), strict=True):
        if node.attrs.get(flag, 0):
            turned = graph.op("Transpose", [side], name=f"{node.name}.{flag}", perm=[1, 0])
            turned.dtype, turned.shape = side.dtype, None if side.shape is None else list(side.shape[::-1])
            side = turned
        sides.append(side)
    made = shaped(graph.op("MatMul", sides, name=f"{node.name}.product"), node.outputs[0])
    if alpha != 1.0:
        made = _with(graph, node, "Mul", made, alpha, "alpha")
    if bias is not None:
        added = bias if beta == 1.0 else _with(graph, node, "Mul", bias, beta, "beta")
        made = graph.op("Add", [made, added], name=f"{node.name}.add")
    graph.replace(node, shaped(made, node.outputs[0]))
    return True


@rewrites("MatMul")
def matmul(graph: Graph, node: Node) -> bool:
    """What has a vector on one side is a product of matrices; one with an Add of a known row is a Gemm."""
    return _vector_matmul(graph, node) or biased_matmul(graph, node)


def _vector_matmul(graph: Graph, node: Node) -> bool:
    """A vector is a row on the left and a column on the right, and goes from the result again."""
    sides = list(node.inputs)
    if any(side.shape is None for side in sides) or all(len(side.shape or ()) > 1 for side in sides):
        return False
    gone = []
    for place, axis in ((0, 0), (1, 1)):
        side = sides[place]
        if len(side.shape or ()) > 1:
            continue
        gone.append(-2 if place == 0 else -1)
        if isinstance(side, Constant):
            sides[place] = graph.const(f"{side.name}.matrix", np.expand_dims(side.values, axis))
            continue
        axes = graph.const(f"{node.name}.axis{place}", np.array([axis], np.int64))
        wide = graph.op("Unsqueeze", [side, axes], name=f"{node.name}.matrix{place}")
        wide.dtype, wide.shape = side.dtype, [1, *static_shape(side)] if place == 0 else [*static_shape(side), 1]
        sides[place] = wide
    product = graph.op("MatMul", sides, name=f"{node.name}.product")
    product.dtype = node.outputs[0].dtype
    lead = np.broadcast_shapes(*(static_shape(side)[:-2] for side in sides))
    product.shape = [*lead, static_shape(sides[0])[-2], static_shape(sides[1])[-1]]
    axes = graph.const(f"{node.name}.axes", np.array(gone, np.int64))
    graph.replace(node, shaped(graph.op("Squeeze", [product, axes], name=f"{node.name}.squeeze"), node.outputs[0]))
    return True


def biased_matmul(graph: Graph, node: Node) -> bool:
    """MatMul of matrices and an Add of a known row are a Gemm, so that the bias stays 32 bits wide."""
    weight, product = known(node.inputs[1]), node.outputs[0]
    source = node.inputs[0]
    if weight is None or weight.ndim != 2 or source.shape is None or len(source.shape) != 2:
        return False
    if len(product.outputs) != 1 or product.outputs[0].op != "Add" or product in graph.outputs:
        return False
    add = product.outputs[0]
    bias = next((t for t in add.inputs if isinstance(t, Constant)), None)
    if bias is None or bias.values.size != weight.shape[1] or (len(bias.shape) > 1 and bias.shape[-1] == 1):
        return False
    row = graph.const(f"{bias.name}.row", bias.values.reshape(-1))
    made = graph.op("Gemm", [source, node.inputs[1], row], name=node.name)
    graph.replace(add, shaped(made, add.outputs[0]))
    return True
