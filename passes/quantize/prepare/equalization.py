"""Channels of activations made about equally wide, so that the one scale that they share has fine steps for all.

Cross-layer equalization (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV
2019), by what the channels hold on calibration data. A channel is multiplied by a number where a layer computes it, and
divided where one reads it, through whatever stands between (:mod:`.channel_streams`): the float network stays what it
was. How far channels are drawn together is chosen for each stream by the noise that is left: of activations, whose
steps become finer for channels that were narrow, and of the weights that read them, where narrow channels now take part
of the range. What a channel always holds is taken away as well where that is exact (high-bias absorption, ibid.): its
least value in front of layers that do not pad, or its middle where no Relu stands between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgec.ir.graph import Graph, Node, Variable
from edgec.ir.shapes import Shapes
from edgec.passes.calibration.batch_split import split
from edgec.passes.calibration.runner import Tapped, batches, stream
from edgec.passes.calibration.sqnr_evaluator import SqnrEvaluator
from edgec.passes.framework.context import Context
from edgec.passes.framework.rewriter import Rewriter
from edgec.passes.framework.transaction import Transaction
from edgec.passes.layers.affine import Affine, take_up_after, take_up_before
from edgec.passes.quantize.mixed_precision import Try
from edgec.passes.quantize.prepare.equalization_groups import SHIFTED, Stream, streams
from edgec.passes.quantize.prepare.stream_noise import End, Rounding, Seen

# How far narrow channels are widened: not at all (0) to as wide as the widest (1).
_EXPONENTS = (0.25, 0.5, 0.75, 1.0)
# The most that a channel is multiplied by; one that is narrower is dead or nearly so.
_MOST = 16.0
# What the network must gain, in dB: with less, the images that are held out, of the same places as the others, say
# little of those to come. EfficientNet-Lite0 gained 0.5 dB on them and lost 1.0 dB on other photographs.
_LEAST_GAIN_DB = 1.0
# A stream is left as it is where less of its noise than this goes away.
_WORTHWHILE = 0.05


@dataclass(frozen=True)
class Change:
    """What a layer takes up: ``after`` of what it computes, ``before`` of what it reads."""

    after: Affine | None = None
    before: Affine | None = None


def equalized(graph: Graph, rounding: Rounding, ctx: Context) -> dict[Node, Change]:
    """What layers of ``graph`` are to take up so that channels are about equally wide.

    Args:
        graph: float and sorted; not changed.
        rounding: of the target.
        ctx: the calibration data.

    Raises:
        InputError: there are no calibration data.
    """
    found = streams(graph, ctx.get(Shapes))
    if not found or len(graph.graphs()) > 1:
        return {}
    seen = _seen(graph, [tensor for one in found for tensor in one.tensors], ctx)
    changes: dict[Node, Change] = {}
    rw = Rewriter(graph, ctx)
    for one in found:
        affine = _chosen(one, seen, rw, rounding)
        if affine is None:
            continue
        back = Affine(1 / affine.scale, -affine.offset / affine.scale)
        for node in one.writers:
            changes[node] = Change(affine, changes.get(node, Change()).before)
        for node in one.readers:
            changes[node] = Change(changes.get(node, Change()).after, back)
    return changes


def take_up(graph: Graph, changes: Mapping[Node, Change], ctx: Context) -> None:
    """Has the layers of ``graph`` take their changes up. It computes what it did, to rounding."""
    rw = Rewriter(graph, ctx)
    for node, change in changes.items():
        for affine, takes in ((change.before, take_up_before), (change.after, take_up_after)):
            reason = takes(rw, node, affine) if affine is not None else None
            assert reason is None, reason
    rw.finish()


def equalize(graph: Graph, rounding: Rounding, attempt: Try, ctx: Context) -> None:
    """Equalizes the channels of ``graph``, where the quantized network comes closer to the float one by that.

    Args:
        graph: float and sorted.
        rounding: of the target.
        attempt: quantizes a copy of ``graph`` as it is when it is called.
        ctx: the calibration data; it is told what was gained.

    Raises:
        InputError: there are no calibration data.
    """
    changes = equalized(graph, rounding, ctx)
    if not changes:
        return
    judge = SqnrEvaluator(graph, ctx, split(batches(graph, ctx), 1))
    before = judge.sqnr_db(attempt({})[0].quantized)
    transaction = Transaction(graph)
    take_up(graph, changes, ctx)
    after = judge.sqnr_db(attempt({})[0].quantized)
    figures = {"before_db": before, "after_db": after, "layers": len(changes)}
    if after > before + _LEAST_GAIN_DB:
        ctx.did("the network", "channels made about equally wide, before anything was rounded", **figures)
        return
    transaction.undo()
    what = f"channels stay as they are: equally wide, they gave {after:.1f} dB instead of {before:.1f} dB"
    ctx.missed("the network", what, **figures)


def _seen(graph: Graph, tensors: Sequence[Variable], ctx: Context) -> dict[Variable, Seen]:
    """Extremes and power of each channel over the calibration data."""
    network = Tapped(graph, tensors)

    def work(_: int, values: list[dict[str, np.ndarray]]) -> list[Seen]:
        return [_of(values[0][tensor.name]) for tensor in tensors]

    found: list[Seen] = []
    count = 0
    for batch in stream(graph, ctx, [network], work):
        found = batch if not count else [_merged(a, b) for a, b in zip(found, batch, strict=True)]
        count += 1
    return {t: Seen(s.low, s.high, s.mean / count, s.power / count) for t, s in zip(tensors, found, strict=True)}


def _of(values: np.ndarray) -> Seen:
    flat = np.moveaxis(values, 1, 0).reshape(values.shape[1], -1)
    power = np.einsum("cn,cn->c", flat, flat, dtype=np.float64) / flat.shape[1]
    return Seen(flat.min(1), flat.max(1), flat.mean(1, dtype=np.float64), power)


def _merged(one: Seen, other: Seen) -> Seen:
    low, high = np.minimum(one.low, other.low), np.maximum(one.high, other.high)
    return Seen(low, high, one.mean + other.mean, one.power + other.power)


# -- the choice --------------------------------------------------------------------------------------------------------


def _chosen(one: Stream, seen: Mapping[Variable, Seen], rw: Rewriter, rounding: Rounding) -> Affine | None:
    """The map of a stream's channels that leaves least noise; ``None`` where none is worth it."""
    plain = {tensor: seen[tensor] for tensor in one.tensors if rounding.of(tensor)}
    if not plain or not _can_take_up(one, Affine(np.ones(one.width), np.zeros(1)), rw):
        return None
    reads = [End.of(node, node.inputs[0]) for node in one.readers]
    writes = [End.of(node, node.outputs[0]) for node in one.writers]
    offset = _offset(one, plain, rw)
    shifted = {tensor: values.shifted(offset) for tensor, values in plain.items()}
    reach = np.max([np.maximum(np.abs(s.low), np.abs(s.high)) for s in shifted.values()], axis=0)
    usual = np.sqrt(np.max([s.power for s in shifted.values()], axis=0))
    best, least = None, (1 - _WORTHWHILE) * rounding.noise(np.ones(one.width), plain, reads, writes)
    for exponent in _EXPONENTS:
        for size in (reach, usual):
            scale = _widening(size, exponent)
            noise = rounding.noise(scale, shifted, reads, writes)
            if noise < least:
                best, least = Affine(scale, scale * offset), noise
    return best


def _widening(size: np.ndarray, exponent: float) -> np.ndarray:
    part = np.where(size > 0, size / max(float(size.max()), 1e-30), 1.0)
    return np.minimum(part**-exponent, _MOST)


def _offset(one: Stream, plain: Mapping[Variable, Seen], rw: Rewriter) -> np.ndarray:
    """What is added to each channel: minus its least value or its middle; zero where that would not be exact."""
    low = np.min([s.low for s in plain.values()], axis=0).astype(np.float64)
    high = np.max([s.high for s in plain.values()], axis=0).astype(np.float64)
    operators = {node.op for node in one.inside}
    if operators <= SHIFTED:
        offset = -(low + high) / 2
    elif operators <= SHIFTED | {"Relu"}:
        offset = -np.maximum(low, 0)
    else:
        return np.zeros(one.width)
    exact = len(one.writers) == 1 and _can_take_up(one, Affine(np.ones(one.width), offset), rw)
    return offset if exact else np.zeros(one.width)


def _can_take_up(one: Stream, affine: Affine, rw: Rewriter) -> bool:
    back = Affine(1 / affine.scale, -affine.offset / affine.scale)
    reasons = [take_up_after(rw, node, affine, dry=True) for node in one.writers]
    reasons += [take_up_before(rw, node, back, dry=True) for node in one.readers]
    return not any(reasons)
