"""What training left in a network, taken as it is when the network is used: Dropout, BatchNormalization, noise."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgec.ir.errors import InputError
from edgec.ir.graph import Constant, Graph, Node, Tensor, producer
from edgec.ir.order import dependencies
from edgec.ir.shapes import Shapes

_STANDARD = ("", "ai.onnx")
_RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
)
# The opsets from which on a mask is of truth values, and true; from which BatchNormalization has a training mode; and
# from which the axes of ReduceMean are an input.
_TRUTH_MASKS, _TRUE_MASKS, _TRAINING_MODE, _AXES_INPUT = 10, 12, 14, 18
# A mask of more elements is computed from the shape when the network runs.
_LARGEST_MASK = 16 << 20
_EVALUATION = "export the network in evaluation mode (model.eval())"


def leave_training(graph: Graph, source: str, notes: list[str]) -> None:
    """Settles, in place, Dropout whose mask is read or that drops, and BatchNormalization in training mode.

    Args:
        graph: sorted and named, in the opset that it was written in.
        source: the model's file name, for errors.
        notes: takes up what was decided for the user.

    Raises:
        InputError: whether a node is in training mode is known only when the network runs, or what only training
            reads is read.
    """
    shapes: Shapes | None = None
    for inside in graph.graphs():
        for node in [n for n in inside.nodes if n.domain in _STANDARD]:
            if node.op == "Dropout" and _needs_settling(inside, node, source):
                shapes = shapes or Shapes(graph)
                _settle_dropout(inside, node, shapes, notes)
            elif node.op == "BatchNormalization" and _is_training(inside, node):
                shapes = shapes or Shapes(graph)
                _spell_out(inside, node, shapes, source, notes)


def _is_training(graph: Graph, node: Node) -> bool:
    """Whether a BatchNormalization goes by the statistics of its input; before opset 14 that is told by its outputs."""
    if graph.opset >= _TRAINING_MODE:
        return bool(node.attrs.get("training_mode", 0))
    return any(tensor.name for tensor in list(node.outputs)[1:])


def refuse_noise(graph: Graph, source: str) -> None:
    """Raises InputError where an output depends on random numbers: nothing that is made of it could be compared."""
    seen: set[Node] = set()
    pending = [producer(tensor) for tensor in graph.outputs]
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        random = next((n for n in _with_bodies(node) if n.op in _RANDOM and n.domain in _STANDARD), None)
        if random is not None:
            where = f"{source}: node '{random.name}' ({random.op})"
            what = "draws random numbers, so the network computes something else in every run"
            raise InputError(where, what, "make what it draws an input of the network, or a constant, and export again")
        pending += [producer(tensor) for tensor in dependencies(node)]


def _with_bodies(node: Node) -> list[Node]:
    return [node, *(inner for body in node.subgraphs(recursive=True) for inner in body.nodes)]


def _needs_settling(graph: Graph, node: Node, source: str) -> bool:
    """Whether a Dropout is more than the identity that the pass fold takes it for."""
    return _is_read(graph, node.outputs[1:]) or _in_training(node, source)


def _is_read(graph: Graph, tensors: Sequence[Tensor]) -> bool:
    return any(t.name and (t.outputs or any(output is t for output in graph.outputs)) for t in tensors)


def _settle_dropout(graph: Graph, node: Node, shapes: Shapes, notes: list[str]) -> None:
    ratio, training = ([*node.inputs, None, None])[1:3]
    drops = isinstance(training, Constant) and bool(np.any(training.values))
    if drops and not (isinstance(ratio, Constant) and not np.any(ratio.values)):
        notes.append(
            f"node '{node.name}' (Dropout) is in training mode, where it drops at random: taken as in inference,"
            " where it drops nothing"
        )
    x = node.inputs[0]
    if _is_read(graph, node.outputs[1:]):
        graph.replace_uses(node.outputs[1], _mask(graph, node, x, shapes))
    graph.replace_uses(node.outputs[0], x)
    graph.erase(node)


def _in_training(node: Node, source: str) -> bool:
    training = node.inputs[2] if len(node.inputs) > 2 else None
    if training is None or not training.name:
        return False
    if not isinstance(training, Constant):
        where = f"{source}: node '{node.name}' (Dropout)"
        what = f"takes its training mode from '{training.name}', which is known only when the network runs"
        pinned = f"pin it with --input {training.name}=false" if producer(training) is None else _EVALUATION
        raise InputError(where, what, pinned)
    return bool(np.any(training.values))


def _mask(graph: Graph, node: Node, x: Tensor, shapes: Shapes) -> Tensor:
    """What a Dropout that drops nothing says it kept: all true; before opset 12 onnxruntime gives zeros for it."""
    kind = np.dtype(bool) if graph.opset >= _TRUTH_MASKS else np.dtype(shapes.dtype(x) or np.float32)
    shape = shapes.shape(x)
    name = f"{node.name}.mask"
    value = int(graph.opset >= _TRUE_MASKS)
    if shape is not None and None not in shape and math.prod(d or 0 for d in shape) <= _LARGEST_MASK:
        return graph.const(name, np.full([d or 0 for d in shape], value, kind))
    dimensions = graph.op("Shape", [x], name=f"{name}.shape", before=node)
    filler = Constant("value", np.full(1, value, kind))
    return graph.op("ConstantOfShape", [dimensions], name=name, before=node, value=filler)


def _spell_out(graph: Graph, node: Node, shapes: Shapes, source: str, notes: list[str]) -> None:
    """BatchNormalization by the statistics of its input, and what they become of, in operators of their own.

    Source: the ONNX operators' text, ``BatchNormalization`` of opset 14 and later.
    """
    x, scale, shift, old_mean, old_variance = node.inputs
    shape = shapes.shape(x)
    where = f"{source}: node '{node.name}' (BatchNormalization)"
    if _is_read(graph, node.outputs[3:]):
        raise InputError(where, "is in training mode, and what it keeps for gradients is read", _EVALUATION)
    spatial = bool(node.attrs.get("spatial", 1)) and shape is not None and len(shape) > 1
    if not spatial or shape is None or not isinstance(scale, Constant) or not isinstance(shift, Constant):
        raise InputError(where, "is in training mode in a form that is not spelt out", _EVALUATION)
    axes = [axis for axis in range(len(shape)) if axis != 1]
    broadcast = (-1, *[1] * (len(shape) - 2))
    kind = scale.dtype
    name = node.name

    def mean(tensor: Tensor, label: str) -> Tensor:
        if graph.opset >= _AXES_INPUT:
            along = graph.const(f"{name}.axes", np.array(axes))
            return graph.op("ReduceMean", [tensor, along], name=f"{name}.{label}", before=node)
        return graph.op("ReduceMean", [tensor], name=f"{name}.{label}", before=node, axes=axes)

    def op(op: str, inputs: list[Tensor], label: str) -> Tensor:
        return graph.op(op, list(inputs), name=f"{name}.{label}", before=node)

    def number(value: float, label: str) -> Constant:
        return graph.const(f"{name}.{label}", np.array(value, kind))

    means = mean(x, "mean")
    centred = op("Sub", [x, means], "centred")
    variance = mean(op("Mul", [centred, centred], "square"), "variance")
    epsilon = number(float(node.attrs.get("epsilon", 1e-5)), "epsilon")
    deviation = op("Sqrt", [op("Add", [variance, epsilon], "more")], "deviation")
    normal = op("Div", [centred, deviation], "normal")
    scaled = op("Mul", [normal, graph.const(f"{name}.scale", scale.values.reshape(broadcast))], "scaled")
    y = op("Add", [scaled, graph.const(f"{name}.shift", shift.values.reshape(broadcast))], "shifted")
    graph.replace_uses(node.outputs[0], y)
    momentum = float(node.attrs.get("momentum", 0.9))
    for place, (old, new, label) in enumerate(((old_mean, means, "mean"), (old_variance, variance, "variance")), 1):
        if not _is_read(graph, node.outputs[place : place + 1]):
            continue
        flat = op("Reshape", [new, graph.const(f"{name}.flat", np.array([-1]))], f"flat_{label}")
        kept = op("Mul", [old, number(momentum, "momentum")], f"kept_{label}")
        fresh = op("Mul", [flat, number(1 - momentum, "rest")], f"fresh_{label}")
        graph.replace_uses(node.outputs[place], op("Add", [kept, fresh], f"running_{label}"))
    graph.erase(node)
    notes.append(
        f"node '{name}' (BatchNormalization) is in training mode: it goes by the statistics of its own input, as the"
        f" file says; {_EVALUATION} for one that goes by those of training"
    )
