"""Pad taken up by the convolutions and poolings that read it, where that computes the same."""

from __future__ import annotations

import numpy as np

from edgec.ir.graph import Node, Tensor, producer
from edgec.passes.framework.rewriter import Rewriter, quoted
from edgec.passes.layers.linear import padding

# Operators whose results are never negative, so that a zero changes no maximum.
NON_NEGATIVE = frozenset({"Relu", "Sigmoid", "HardSigmoid", "Softmax", "Softplus", "Abs", "Exp", "Sqrt"})


def fold_pad(rw: Rewriter, node: Node) -> bool:
    """Moves a constant Pad into every reader's own ``pads``; nothing happens unless all of them can take it."""
    x, out = node.inputs[0], node.outputs[0]
    readers = rw.readers(out)
    if not readers or not all(r.op in ("Conv", "AveragePool", "MaxPool") for r in readers):
        return False
    pads = pads_of(rw, node)
    if pads is None:
        return rw.missed(node, "how much it pads is computed when the network runs")
    if not any(pads):
        return False
    rank = len(pads) // 2
    begins, ends = pads[:rank], pads[rank:]
    if any((*begins[:2], *ends[:2])):
        return rw.missed(node, "it pads samples or channels")
    if min(pads) < 0:
        return rw.missed(node, "it crops")
    value = pad_value(rw, node)
    if value is None:
        return rw.missed(node, f"it pads in mode '{node.attrs.get('mode', 'constant')}' or with a computed value")
    for reader in readers:
        reason = _unfit(rw, reader, x, value, rank - 2, [*begins[2:], *ends[2:]])
        if reason:
            return rw.missed(node, reason)
    for reader in readers:
        own = padding(reader, rank - 2) or []
        reader.attrs.pop("auto_pad", None)
        reader.attrs["pads"] = [a + b for a, b in zip(own, [*begins[2:], *ends[2:]], strict=True)]
        if reader.op == "AveragePool":
            reader.attrs["count_include_pad"] = 1
    rw.did(node, f"folded into {', '.join(map(quoted, readers))}")
    for reader in readers:
        rw.set_input(reader, 0, x)
    return True


def pads_of(rw: Rewriter, node: Node) -> list[int] | None:
    """Begins, then ends, for every axis of a Pad's input; ``None`` where they or its rank are not known."""
    rank = rw.rank(node.inputs[0])
    given = node.attrs.get("pads")
    if given is None:
        given = rw.fixed(node.inputs[1]) if len(node.inputs) > 1 else None
    if given is None or rank is None:
        return None
    given = [int(p) for p in given]
    if len(node.inputs) < 4 or not node.inputs[3].name:
        return given if len(given) == 2 * rank else None
    axes = rw.fixed(node.inputs[3])
    if axes is None:
        return None
    pads = [0] * (2 * rank)
    for place, axis in enumerate(axes.tolist()):
        pads[axis % rank] = given[place]
        pads[axis % rank + rank] = given[place + len(axes)]
    return pads


def pad_value(rw: Rewriter, node: Node) -> float | None:
    """What a Pad in mode ``constant`` pads with; ``None`` in another mode, or where it is computed."""
    if node.attrs.get("mode", "constant") != "constant":
        return None
    if len(node.inputs) > 2 and node.inputs[2].name:
        values = rw.fixed(node.inputs[2])
        return None if values is None or values.size != 1 else float(values.reshape(()))
    return float(node.attrs.get("value", 0.0))


def _unfit(rw: Rewriter, reader: Node, x: Tensor, value: float, spatial: int, pads: list[int]) -> str | None:
    name = quoted(reader)
    if [t is reader.inputs[0] for t in reader.inputs].count(True) > 1:
        return f"{name} reads it twice"
    own = padding(reader, spatial)
    if own is None:
        return f"{name} computes its padding itself (auto_pad {reader.attrs['auto_pad']})"
    if reader.op == "Conv":
        return None if value == 0 else f"it pads with {value:g}, {name} with 0"
    kernel = [int(k) for k in reader.attrs["kernel_shape"]]
    total = [a + b for a, b in zip(own, pads, strict=True)]
    if any(p >= k for p, k in zip(total, kernel * 2, strict=True)):
        return f"it pads as much as the whole kernel of {name}"
    if reader.attrs.get("ceil_mode"):
        return f"{name} rounds its size up"
    if any(d != 1 for d in reader.attrs.get("dilations", [1])):
        return f"{name} is dilated"
    if reader.op == "AveragePool":
        if value != 0:
            return f"it pads with {value:g}, {name} with 0"
        if any(own) and not reader.attrs.get("count_include_pad"):
            return f"{name} leaves its own padding out of the mean"
        return None
    if len(reader.outputs) > 1 and reader.outputs[1].name:
        return f"{name} gives indices, which the padding moves"
    if value == -np.inf or (value == 0 and not any(own) and _is_non_negative(rw, producer(x))):
        return None
    return f"it pads with {value:g}, {name} with nothing"


def _is_non_negative(rw: Rewriter, source: Node | None) -> bool:
    if source is None:
        return False
    if source.op == "Clip" and len(source.inputs) > 1 and source.inputs[1].name:
        low = rw.fixed(source.inputs[1])
        return low is not None and float(low) >= 0
    return source.op in NON_NEGATIVE
