"""Channels computed more than once: the network gives what it gave, with copies of channels between its layers.

A layer that writes a channel writes it as many times, whatever works channel by channel in between does so on each
copy, and layers that read them have the weights of the channel divided by their number. Copies stand beside each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from edgec.ir.channels import Group, Slot
from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable, consumers, producer
from edgec.ir.shapes import Shapes
from edgec.passes.layers.linear import bias, groups, input_channels

# Operators that do the same to each channel, whatever the others hold.
_CHANNELWISE = frozenset(
    {"Abs", "Add", "AveragePool", "Clip", "Concat", "Div", "Dropout", "Elu", "Erf", "Flatten", "Gelu"}
    | {"GlobalAveragePool", "GlobalMaxPool", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Max", "MaxPool"}
    | {"Min", "Mish", "Mul", "Neg", "PRelu", "Relu", "Resize", "Sigmoid", "Softplus", "Split", "Sub", "Swish", "Tanh"}
)


def writers(group: Group) -> list[Slot]:
    """The weights of the layers that compute channels of a group from others."""
    return [slot for slot in group.slots if slot.role == "produces" and groups(slot.node) == 1]


def obstacle(group: Group) -> str | None:
    """Why channels of a group cannot be computed more than once; ``None`` where they can."""
    if group.fixed is not None or group.channels_per_unit != 1:
        return group.fixed or "its channels hang together"
    indices = [*(slot.index for slot in group.slots), *(carrier.index for carrier in group.carriers)]
    if any(np.bincount(index[index >= 0], minlength=1).max() > 1 for index in indices):
        return "a channel is several positions of a tensor"
    layers = {slot.node for slot in group.slots if slot.role != "rides"}
    for slot in writers(group):
        if not isinstance(bias(slot.node), Constant | None):
            return f"the bias of '{slot.node.name}' is computed"
    for slot in group.slots:
        if len(slot.constant.outputs) > 1:
            return f"'{slot.constant.name}' is read more than once"
        if slot.role != "rides" and not _is_followed(slot):
            return f"'{slot.node.name}' ({slot.node.op}) reads or writes them"
    for carrier in group.carriers:
        for node in (producer(carrier.tensor), *consumers(carrier.tensor)):
            if node is not None and node not in layers and not _is_channelwise(node):
                return f"'{node.name}' ({node.op}) reads or writes them"
    return None


def _is_followed(slot: Slot) -> bool:
    """Whether a layer's weights can be widened as this one's are: dense ones, and those that keep channels apart."""
    node = slot.node
    if node.op == "Conv":
        alone = groups(node) == slot.constant.shape[0] == input_channels(node, slot.constant.shape)
        return groups(node) == 1 or (slot.role == "produces" and alone)
    plain = node.op == "Gemm" and node.attrs.get("beta", 1.0) == 1.0 and not node.attrs.get("transA")
    return plain or (node.op == "MatMul" and slot.role == "consumes")


def _is_channelwise(node: Node) -> bool:
    sized = node.op == "Resize" and len(node.inputs) > 3 and bool(node.inputs[3].name)
    return node.op in _CHANNELWISE and node.domain in ("", "ai.onnx") and not sized


def widen(graph: Graph, copies: Mapping[Group, np.ndarray], steps: Mapping[Node, float]) -> None:
    """Has channels of ``graph`` computed more than once, in place.

    Args:
        graph: of opset 13 at least.
        copies: by group without an :func:`obstacle`, how often each of its units is computed, (width,), 1 at least.
        steps: by layer that writes channels, how far apart the first and the last of very many copies would be; n
            copies lie 1 / n of it apart, about what the channel is. Without a step they are equal.
    """
    counts: defaultdict[Tensor, dict[int, np.ndarray]] = defaultdict(dict)
    shared: defaultdict[Constant, dict[int, np.ndarray]] = defaultdict(dict)
    for group, often in copies.items():
        wanted = np.append(often, 1)
        for slot in group.slots:
            here = wanted[slot.index]
            counts[slot.constant][slot.axis] = counts[slot.constant].get(slot.axis, 1) * here
            if slot.role == "consumes":
                shared[slot.constant][slot.axis] = shared[slot.constant].get(slot.axis, 1) * here
        for carrier in group.carriers:
            found = counts[carrier.tensor]
            found[carrier.axis] = found.get(carrier.axis, 1) * wanted[carrier.index]
    shapes = Shapes(graph)
    for node in graph.nodes:
        if node.op == "Split":
            _split(graph, node, counts, shapes)
        elif node.op == "Conv" and groups(node) > 1 and node.inputs[1] in counts:
            node.attrs["group"] = int(counts[node.inputs[1]][0].sum())
    for tensor, axes in counts.items():
        for axis, here in axes.items():
            if isinstance(tensor, Constant):
                values = np.repeat(tensor.values, here, axis)
                if axis in shared[tensor]:
                    often = np.repeat(shared[tensor][axis], here).astype(values.dtype)
                    values /= often.reshape(-1, *(1,) * (values.ndim - axis - 1))
                tensor.values = values
            elif isinstance(tensor, Variable) and tensor.shape is not None:
                tensor.shape[axis] = int(here.sum())
    for group, often in copies.items():
        for slot in writers(group):
            _set_apart(graph, slot, np.append(often, 1)[slot.index], steps.get(slot.node, 0.0))


def _split(graph: Graph, node: Node, counts: Mapping[Tensor, Mapping[int, np.ndarray]], shapes: Shapes) -> None:
    """States the sizes of the parts, which may have become uneven."""
    whole = shapes.shape(node.inputs[0]) or ()
    axis = int(node.attrs.get("axis", 0)) % max(len(whole), 1)
    if axis not in counts.get(node.inputs[0], {}):
        return
    sizes = []
    for part in node.outputs:
        here = counts.get(part, {}).get(axis)
        length = (shapes.shape(part) or ())[axis]
        sizes.append(int(here.sum()) if here is not None else int(length or 0))
    node.attrs.pop("num_outputs", None)
    del node.inputs[1:]
    node.inputs.append(graph.const(f"{node.name}.split", np.array(sizes, np.int64)))


def _set_apart(graph: Graph, slot: Slot, often: np.ndarray, step: float) -> None:
    """Moves the copies of each channel that a layer writes apart, by its bias."""
    if not step or (often == 1).all():
        return
    total, ends = int(often.sum()), np.cumsum(often)
    number = np.arange(total) - np.repeat(ends - often, often)
    each = np.repeat(often, often)
    offsets = step * ((number + 0.5) / each - 0.5)
    old = bias(slot.node)
    values = old.values if isinstance(old, Constant) else np.zeros(total, np.float32)
    made = graph.const(f"{slot.node.name}.bias", (values + offsets).astype(np.float32))
    del slot.node.inputs[2:]
    slot.node.inputs.append(made)
