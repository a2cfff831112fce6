"""BatchNormalization and arithmetic with constants, taken up by the layer in front or the layers behind."""

from __future__ import annotations

from edgec.ir.graph import Node, Tensor, producer, static_shape
from edgec.passes.framework.rewriter import Rewriter, quoted
from edgec.passes.layers.affine import Affine, affine_of, is_inference, take_up_after, take_up_before
from edgec.passes.layers.linear import LINEAR

# Sums of sums of layers are looked through so far.
_DEEPEST = 32


def fold_affine(rw: Rewriter, node: Node) -> bool:
    """Folds a per-channel affine node into the layer that it follows, else into all layers that follow it."""
    normalization = node.op == "BatchNormalization"
    if normalization and not is_inference(node):
        return rw.missed(node, "it is in training mode")
    after = _into_the_layer_before(rw, node)
    if after is None:
        return True
    before = _into_the_layers_behind(rw, node)
    if before is None:
        return True
    if normalization and _into_the_branches(rw, node):
        return True
    reason = after or before
    if normalization and affine_of(rw, node) is None:
        return rw.missed(node, "its statistics are computed when the network runs")
    if reason:
        return rw.missed(node, reason)
    if normalization:
        return rw.missed(node, "no layer that could take it up stands in front of it or behind it")
    return False


def matmul_to_gemm(rw: Rewriter, node: Node) -> bool:
    """MatMul of a two-dimensional input with a constant matrix, then Add of a constant row: one Gemm."""
    if len(node.inputs) != 2:
        return False
    for x, constant in (node.inputs, reversed(node.inputs)):
        row, source = rw.fixed(constant), producer(x)
        if row is None or source is None or source.op != "MatMul" or not rw.single_use(x):
            continue
        weights = source.inputs[1]
        matrix = rw.is_fixed(weights) and rw.rank(weights) == 2 and rw.rank(source.inputs[0]) == 2
        if not matrix or row.dtype.kind != "f" or row.ndim > 2 or row.size not in (1, static_shape(weights)[-1]):
            continue
        if row.ndim == 2 and row.shape[0] != 1:
            continue
        source.op = "Gemm"
        rw.set_input(source, 2, constant)
        rw.did(source, f"MatMul and {quoted(node)} became one Gemm")
        rw.replace(node, x)
        return True
    return False


def _into_the_layer_before(rw: Rewriter, node: Node) -> str | None:
    """``None`` when folded, else why not; an empty reason where the node could not be expected to fold."""
    for x in node.inputs:
        source = producer(x)
        if source is None or source.op not in LINEAR or source.domain not in ("", "ai.onnx"):
            continue
        if not rw.is_fixed(source.inputs[1]) and node.op != "BatchNormalization":
            continue  # a product of two activations: a scale behind it is no mistake of the exporter's
        found = affine_of(rw, node, _channel_axis(rw, source, x))
        if found is None or found[0] is not x:
            continue
        if not rw.single_use(x):
            return f"{quoted(source)} in front of it has other readers"
        reason = take_up_after(rw, source, found[1])
        if reason is None:
            rw.did(node, f"folded into {quoted(source)}")
            rw.replace(node, x)
        # An Add behind a MatMul of higher rank is how a layer with a bias is written; there is nothing to fold it into.
        return "" if reason and source.op == "MatMul" and node.op in ("Add", "Sub") else reason
    return ""


def _into_the_layers_behind(rw: Rewriter, node: Node) -> str | None:
    out = node.outputs[0]
    layers = rw.readers(out)
    if not layers or not all(reader.op in LINEAR and reader.domain in ("", "ai.onnx") for reader in layers):
        return ""
    found: tuple[Tensor, Affine] | None = None
    for layer in layers:
        if [t is out for t in layer.inputs].count(True) != 1 or layer.inputs[0] is not out:
            return ""
        found = affine_of(rw, node, _channel_axis(rw, layer, out))
        if found is None or (not rw.is_fixed(layer.inputs[1]) and node.op != "BatchNormalization"):
            return ""
        reason = take_up_before(rw, layer, found[1], dry=True)
        if reason:
            return reason
    assert found is not None
    names = ", ".join(map(quoted, layers))
    for layer in layers:
        take_up_before(rw, layer, found[1])
        rw.set_input(layer, 0, found[0])
    rw.did(node, f"folded into {names}")
    return None


def _into_the_branches(rw: Rewriter, node: Node) -> bool:
    """Folds a BatchNormalization behind a Concat of channels, or a sum, into the layers that feed it, all of them."""
    found = affine_of(rw, node)
    if found is None:
        return False
    shares = _shares(rw, found[0], found[1])
    if shares is None or any(take_up_after(rw, layer, affine, dry=True) for layer, affine in shares):
        return False
    for layer, affine in shares:
        take_up_after(rw, layer, affine)
    rw.did(node, f"folded into {', '.join(quoted(layer) for layer, _ in shares)}")
    rw.replace(node, found[0])
    return True


def _shares(rw: Rewriter, x: Tensor, affine: Affine, depth: int = 0) -> list[tuple[Node, Affine]] | None:
    """What each layer that feeds ``x`` has to compute of its result; ``None`` where something else feeds it."""
    source = producer(x)
    if source is None or not rw.single_use(x) or depth > _DEEPEST:
        return None
    if source.op in LINEAR and source.domain in ("", "ai.onnx"):
        return [(source, affine)] if source.op != "MatMul" and rw.is_fixed(source.inputs[1]) else None
    shapes = [rw.shape(tensor) for tensor in source.inputs]
    parts: list[Affine] = []
    if source.op == "Concat" and int(source.attrs.get("axis", 0)) == 1:
        start = 0
        for shape in shapes:
            if shape is None or len(shape) < 2 or shape[1] is None:
                return None
            parts.append(affine.part(start, start + shape[1]))
            start += shape[1]
    elif (
        source.op == "Add"
        and shapes[0] is not None
        and shapes[0] == shapes[1]
        and source.inputs[0] is not source.inputs[1]
    ):
        parts = [affine, Affine.of(affine.scale, 0.0)]
    else:
        return None
    several = [_shares(rw, tensor, part, depth + 1) for tensor, part in zip(source.inputs, parts, strict=True)]
    return None if None in several else [share for shares in several for share in shares or ()]


def _channel_axis(rw: Rewriter, layer: Node, tensor: Tensor) -> int:
    rank = rw.rank(tensor)
    return rank - 1 if layer.op == "MatMul" and rank is not None else 1
