"""Where a network is quantized for a compiler that fuses layers by itself: in front of those that have weights.

TensorRT moves Q and DQ over whatever they commute with and fuses an operator with the Q behind it, so rounding once, at
the input of each layer with weights, leaves it free to run what lies between in integers too. Where a convolution is
summed with a shortcut, the shortcut is rounded and the convolution's own branch is not: the sum is then fused into the
convolution and never rounded in between (``NVIDIA/TensorRT#1992``).
"""

from __future__ import annotations

from collections.abc import Mapping

from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable, producer, static_shape
from edgec.ir.shapes import Shapes
from edgec.passes.framework.target import Scheme
from edgec.passes.layers.linear import input_channels, output_channels
from edgec.passes.quantize.placement.placement import (
    WEIGHT_INPUT,
    KeepFloat,
    Placement,
    Site,
    float_reason,
    has_float_activation,
    site_of,
)


def place_at_inputs(graph: Graph, scheme: Scheme, shapes: Shapes, device: str, keep_float: KeepFloat) -> Placement:
    """Chooses the layers of ``graph`` that run in integers under ``scheme``; as :func:`.placement.place`."""
    found = Placement()
    outputs = set[Tensor](graph.outputs)
    layers: dict[Node, int] = {}
    for node in graph.nodes:
        if not has_float_activation(node, shapes):
            continue
        if node.op not in WEIGHT_INPUT and node.op != "Add":
            # What has no weights is the compiler's to fuse or to run on integers.
            continue
        reason = float_reason(node, scheme, shapes, device, keep_float, outputs)
        if reason is None and node.op == "Add":
            shortcut = _shortcut(node, layers, outputs)
            if shortcut is not None:
                found.sites.append(Site(node, (shortcut,), None, None, ()))
            continue
        reason = reason or _weightless(node) or _narrow(node, scheme)
        if reason is None:
            layers[node] = len(layers)
            found.sites.append(site_of(node, (), (), shapes))
        else:
            found.left.append((node, reason))
    return found


def _weightless(node: Node) -> str | None:
    return (
        None if isinstance(node.inputs[WEIGHT_INPUT[node.op]], Constant) else "its weights are computed by the network"
    )


def _narrow(node: Node, scheme: Scheme) -> str | None:
    """Why a layer that has few channels stays in float."""
    shape = static_shape(node.inputs[WEIGHT_INPUT[node.op]])
    fewest = min(input_channels(node, shape), output_channels(node, shape))
    if fewest >= scheme.fewest_channels:
        return None
    return f"has {fewest} channels; with fewer than {scheme.fewest_channels} it is faster in float"


def _shortcut(node: Node, layers: Mapping[Node, int], outputs: set[Tensor]) -> int | None:
    """Which input of a sum is the shortcut beside a convolution that takes the sum; ``None`` where there is none.

    Of two convolutions the later one takes the sum; ``layers`` are numbered in order.
    """
    fusing = [
        (layers[maker], index)
        for index, tensor in enumerate(node.inputs)
        if (maker := producer(tensor)) is not None
        and maker in layers
        and len(tensor.outputs) == 1
        and tensor not in outputs
    ]
    if len(node.inputs) != 2 or not fusing or not all(isinstance(t, Variable) for t in node.inputs):
        return None
    return 1 - max(fusing)[1]
