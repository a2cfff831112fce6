"""Where a network is quantized: which nodes run in integers, and which of their tensors are integers then.

A Relu or Clip behind an operator that multiplies or adds is part of it: the sum is never rounded in between, and the
tensor behind the activation is quantized once. Operators that only move values are quantized where a neighbour is; in
between float operators they would only lose precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable, consumers
from edgec.ir.shapes import Shapes
from edgec.passes.framework.target import Scheme
from edgec.passes.layers.linear import output_channels

#: Operators that take weights: the input that holds them.
WEIGHT_INPUT = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}
#: Operators whose accumulator is still exact when a Relu or Clip bounds it.
ACCUMULATES = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Sub", "Mul"})
#: Operators that compute nothing, so that integers gain nothing by themselves.
MOVES = frozenset(
    {"Concat", "DepthToSpace", "Dropout", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Slice"}
    | {"SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
)
# Inputs that are settings, although they may be floats: the bounds of Clip, the scales of Resize, the filling of Pad.
_SETTINGS = {"Clip": (1, 2), "Resize": (1, 2, 3), "Pad": (1, 2, 3), "Upsample": (1,), "Dropout": (1, 2)}

KeepFloat = Callable[[Node], "str | None"]


@dataclass(frozen=True, eq=False)
class Site:
    """A node that runs in integers.

    Attributes:
        node: the operator.
        activations: places of its inputs that are quantized as activations; they may be constants.
        weight: place of the input that is quantized as weights.
        bias: place of the input that is quantized as a bias.
        outputs: the tensors that are quantized behind it: behind ``fused`` where there is any. None where the scheme
            rounds the inputs of layers only.
        fused: the Relu and Clip nodes that are part of it.
    """

    node: Node
    activations: tuple[int, ...]
    weight: int | None
    bias: int | None
    outputs: tuple[Variable, ...]
    fused: tuple[Node, ...] = ()


@dataclass
class Placement:
    """Which nodes run in integers, in the graph's order, and which stay float for what reason."""

    sites: list[Site] = field(default_factory=list)
    left: list[tuple[Node, str]] = field(default_factory=list)


def place(graph: Graph, scheme: Scheme, shapes: Shapes, device: str, keep_float: KeepFloat) -> Placement:
    """Chooses the nodes of ``graph`` that run in integers under ``scheme``.

    Args:
        graph: sorted; not changed.
        scheme: of the target.
        shapes: of ``graph``.
        device: what people call the target, for the reasons.
        keep_float: why the user wants a node in float, ``None`` where not.
    """
    found = Placement()
    outputs = set[Tensor](graph.outputs)
    inside = set(graph.nodes)
    absorbed: set[Node] = set()
    chosen: list[Site] = []

    def refusal(node: Node) -> str | None:
        return float_reason(node, scheme, shapes, device, keep_float, outputs)

    for node in graph.nodes:
        if node in absorbed or not has_float_activation(node, shapes):
            continue
        reason = refusal(node)
        if reason is not None:
            found.left.append((node, reason))
            continue
        fused = []
        tensor = node.outputs[0]
        if node.op in ACCUMULATES:
            for reader in _activations_behind(tensor, outputs):
                if reader not in inside or refusal(reader) is not None:
                    break
                fused.append(reader)
                tensor = reader.outputs[0]
            absorbed.update(fused)
        results = (tensor,) if fused or node.op != "Split" else tuple(t for t in node.outputs if t.name)
        chosen.append(site_of(node, results, tuple(fused), shapes))

    useful = _useful(chosen, graph)
    for site in chosen:
        if site in useful:
            found.sites.append(site)
        else:
            found.left.append((site.node, "only moves values between float operators"))
    order = {node: place for place, node in enumerate(graph.nodes)}
    found.left.sort(key=lambda item: order[item[0]])
    return found


def float_reason(
    node: Node, scheme: Scheme, shapes: Shapes, device: str, keep_float: KeepFloat, outputs: set[Tensor]
) -> str | None:
    """Why a node with float activations stays float; ``None`` where it need not.

    Args:
        node: of a graph whose outputs are ``outputs``.
        scheme, shapes, device, keep_float: as :func:`place` takes them.
    """
    if node.domain not in ("", "ai.onnx", None) or node.op not in scheme.operators:
        return f"{device} has no 8-bit kernel for {node.op}"
    wanted = keep_float(node)
    if wanted is not None:
        return wanted
    strange = {str(shapes.dtype(t)) for t in (*node.inputs, *node.outputs[:1]) if _is_other_float(shapes, t)}
    if strange:
        return f"computes in {sorted(strange)[0]}; only float32 is quantized"
    if any(tensor.outputs or tensor in outputs for tensor in _other_outputs(node)):
        return f"has an output that cannot be quantized ('{node.outputs[1].name}')"
    return _parameters_fault(node, shapes)


def candidates(graph: Graph, shapes: Shapes) -> list[Variable]:
    """The activations that some target may want quantized: every float32 tensor that no fused activation bounds."""
    outputs = set(graph.outputs)
    found = [t for t in graph.inputs if isinstance(t, Variable) and shapes.dtype(t) == np.float32]
    for node in graph.nodes:
        for tensor in node.outputs:
            fused = node.op in ACCUMULATES and any(True for _ in _activations_behind(tensor, outputs))
            if tensor.name and not fused and shapes.dtype(tensor) == np.float32:
                found.append(tensor)
    return found


def _activations_behind(tensor: Tensor, outputs: set[Tensor]) -> Iterator[Node]:
    """The chain of Relu and Clip nodes that alone read ``tensor``."""
    while tensor not in outputs and len(tensor.outputs) == 1:
        reader = tensor.outputs[0]
        bounds = all(isinstance(t, Constant) or not t.name for t in reader.inputs[1:])
        if reader.op not in ("Relu", "Clip") or reader.domain or reader.inputs[0] is not tensor or not bounds:
            return
        yield reader
        tensor = reader.outputs[0]


def site_of(node: Node, results: tuple[Variable, ...], fused: tuple[Node, ...], shapes: Shapes) -> Site:
    """A node as it runs in integers, with ``results`` rounded behind ``fused``."""
    weight = WEIGHT_INPUT.get(node.op)
    if weight is not None and not isinstance(node.inputs[weight], Constant):
        weight = None
    bias = None
    if weight is not None and len(node.inputs) > 2 and node.inputs[2].name:
        bias = 2
    settings = _SETTINGS.get(node.op, ())
    activations = tuple(
        index
        for index, tensor in enumerate(node.inputs)
        if index not in (weight, bias) and index not in settings and shapes.dtype(tensor) == np.float32
    )
    return Site(node, activations, weight, bias, results, fused)


def _parameters_fault(node: Node, shapes: Shapes) -> str | None:
    """Why the weights or the bias of a node cannot be quantized."""
    if node.op in ("Conv", "ConvTranspose", "Gemm"):
        if not isinstance(node.inputs[1], Constant):
            return "its weights are computed by the network"
        if len(node.inputs) > 2 and node.inputs[2].name:
            bias = node.inputs[2]
            if not isinstance(bias, Constant):
                return "its bias is computed by the network"
            channels = output_channels(node, node.inputs[1].shape)
            if int(np.prod(bias.shape, dtype=np.int64)) not in (1, channels) or (
                len(bias.shape) > 0 and bias.shape[-1] not in (1, channels)
            ):
                return f"its bias of shape {list(bias.shape)} is not one number for each of {channels} outputs"
    if node.op in ("Clip", "Pad") and any(not isinstance(t, Constant) and t.name for t in node.inputs[1:]):
        return "its settings are computed by the network"
    return None


def _useful(sites: list[Site], graph: Graph) -> set[Site]:
    """The sites that compute, and those that move values for one that does, or at the ends of the network."""
    by_output: dict[Tensor, Site] = {tensor: site for site in sites for tensor in site.outputs}
    by_node = {site.node: site for site in sites}
    useful = {site for site in sites if site.node.op not in MOVES}
    inputs = set(graph.inputs)
    for site in sites:
        reads = [site.node.inputs[index] for index in site.activations]
        if any(t in inputs or by_output.get(t) in useful for t in reads):
            useful.add(site)
    for site in reversed(sites):
        if any(by_node.get(reader) in useful for tensor in site.outputs for reader in consumers(tensor)):
            useful.add(site)
    return useful


def has_float_activation(node: Node, shapes: Shapes) -> bool:
    """Whether a node turns floats that the network computes into floats, and does not only change their type."""
    if node.op == "Cast":
        return False
    settings = _SETTINGS.get(node.op, ())
    reads = any(
        isinstance(t, Variable) and t.name and index not in settings and _is_float(shapes, t)
        for index, t in enumerate(node.inputs)
    )
    return reads and any(t.name and _is_float(shapes, t) for t in node.outputs)


def _is_float(shapes: Shapes, tensor: Tensor) -> bool:
    dtype = shapes.dtype(tensor)
    return dtype is not None and (dtype.kind == "f" or dtype.name == "bfloat16")


def _is_other_float(shapes: Shapes, tensor: Tensor) -> bool:
    return bool(tensor.name) and _is_float(shapes, tensor) and shapes.dtype(tensor) != np.float32


def _other_outputs(node: Node) -> list[Variable]:
    return [] if node.op == "Split" else [t for t in node.outputs[1:] if t.name]
