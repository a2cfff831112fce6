"""Rounding and biases learnt block by block, so that each block computes what the float network's computes there.

Layer by layer, each weight is rounded for the output of its own layer. Here that of a whole block counts (BRECQ, Li et
al., "BRECQ: Pushing the Limit of Post-Training Quantization by Block Reconstruction", ICLR 2021), of a residual block
for instance: what one layer does wrong another one may make up for. A block reads what the quantized network computes
in front of it, and keeps what was learnt only where it errs less on images that were not learnt from. How the rounding
is learnt: see :mod:`edgec.passes.train.engine.learnt_rounding`.

All elements of what a block gives count alike. BRECQ weights them by the squared derivatives of the network's outputs
there: so weighted, by channel, the angles regression was as exact, to 0.03 dB on the mean of four seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgec.ir.execution import Feeds
from edgec.ir.graph import Constant, Node, Variable
from edgec.ir.shapes import Shapes
from edgec.passes.calibration.batch_split import Split, spread
from edgec.passes.calibration.prefix_cache import Resuming
from edgec.passes.calibration.runner import Tapped
from edgec.passes.framework.context import Context
from edgec.passes.framework.transaction import Transaction
from edgec.passes.quantize.pair import Pair
from edgec.passes.quantize.recover.block_network import BlockNetwork, Examples
from edgec.passes.quantize.recover.blocks import Block, find_blocks
from edgec.passes.quantize.stored_layers import StoredLayer
from edgec.passes.train.training_pass import torch_wanted

# Bytes of what a block reads and computes that are held at once, beside what lets the networks run from there on; fewer
# images are looked at where they do not suffice.
_MOST_BYTES = 2**29
_STEPS = 150


def reconstruct(pair: Pair, layers: Sequence[StoredLayer], parts: Split, ctx: Context) -> str:
    """Chooses the integers and biases of ``layers`` block by block, in place; what was done, in a few words.

    Args:
        pair: the networks.
        layers: of the quantized one.
        parts: which batches of the calibration data are learnt from, and which judge.
        ctx: the data, the threads and the seed.

    Raises:
        UsageError: torch is not installed.
        InputError: an operator cannot be trained through.
    """
    before, now = Resuming(pair.original, ctx), Resuming(pair.quantized, ctx)
    shapes, blocks = Shapes(pair.original), find_blocks(pair, layers)
    kept = moved = weights = 0
    for number, block in enumerate(blocks):
        integers = [layer.weight.values for layer in block.layers]
        sizes = _Sizes.of(block, shapes)
        if sizes is None:
            ctx.missed(
                block.layers[0].node, "its block is not reconstructed: the shapes that it works on are not known"
            )
        elif _reconstructed(pair, block, _Seen.of(block, sizes, parts, before, now), ctx, number):
            kept += 1
            moved += sum(int((a != layer.weight.values).sum()) for a, layer in zip(integers, block.layers, strict=True))
        weights += sum(values.size for values in integers)
        ctx.progress(number + 1, len(blocks), "reconstructing blocks")
    closer = f"{kept} of {len(blocks)} blocks came closer"
    return f"reconstructed block by block: {closer}, and {moved / max(weights, 1):.1%} of the weights moved a step"


@dataclass(frozen=True)
class _Seen:
    """What both networks compute around a block.

    Attributes:
        examples: of all batches that are looked at.
        fit: how many of the batches are learnt from: the first ones.
        judge: which batches judge.
    """

    examples: Examples
    fit: int
    judge: tuple[int, ...]

    @staticmethod
    def of(block: Block, sizes: _Sizes, parts: Split, before: Resuming, now: Resuming) -> _Seen:
        """Runs both networks, on as many batches as may be held."""
        share = min(1.0, _MOST_BYTES / max(sizes.bytes * len({*parts.fit, *parts.judge}), 1))
        fit, judge = (spread(np.array(n), max(1, int(share * len(n)))) for n in (parts.fit, parts.judge))
        numbers = list(dict.fromkeys([*fit, *judge]))
        exact = _values(before, block.exact_first, (*block.exact_entries, block.exact_exit), sizes.exact, numbers)
        given = _values(now, block.first, block.entries, sizes.given, numbers)
        entries = zip(block.entries, block.exact_entries, strict=True)
        read = {entry.name: exact[twin.name] for entry, twin in entries}
        examples = Examples(given, read, exact[block.exact_exit.name])
        return _Seen(examples, len(fit), tuple(numbers.index(number) for number in judge))

    def feeds(self, batch: int) -> dict[str, np.ndarray]:
        """What the block reads in one batch."""
        return {name: values[batch] for name, values in self.examples.given.items()}


def _values(
    network: Resuming, first: Node, taps: Sequence[Variable], shapes: Mapping[str, tuple[int, ...]], numbers: list[int]
) -> dict[str, np.ndarray]:
    """Tensors by name, (batches, *shape), on the batches of those numbers, in their order."""
    held = {tap.name: np.empty((len(numbers), *shapes[tap.name]), np.float32) for tap in taps}
    places = {number: place for place, number in enumerate(numbers)}

    def observe(number: int, values: Feeds) -> None:
        if number in places:
            for name, x in held.items():
                x[places[number]] = values[name]

    for _ in network.run(first, list(dict.fromkeys(taps)), observe):
        pass
    return held


@dataclass(frozen=True)
class _Sizes:
    """Shapes of what a block reads and computes in a batch, by name.

    Attributes:
        exact: in the float network.
        given: of the entries in the quantized one.
    """

    exact: Mapping[str, tuple[int, ...]]
    given: Mapping[str, tuple[int, ...]]

    @staticmethod
    def of(block: Block, shapes: Shapes) -> _Sizes | None:
        """``None`` where they are not known."""
        exact: dict[str, tuple[int, ...]] = {}
        for tensor in (*block.exact_entries, block.exact_exit):
            shape = shapes.shape(tensor)
            if shape is None or None in shape:
                return None
            exact[tensor.name] = tuple(size or 0 for size in shape)
        entries = zip(block.entries, block.exact_entries, strict=True)
        return _Sizes(exact, {entry.name: exact[twin.name] for entry, twin in entries})

    @property
    def bytes(self) -> int:
        """Of all in a batch."""
        elements = sum(math.prod(shape) for shape in (*self.exact.values(), *self.given.values()))
        return elements * np.dtype(np.float32).itemsize


def _reconstructed(pair: Pair, block: Block, seen: _Seen, ctx: Context, number: int) -> bool:
    """Whether the block errs less with what was learnt; it is as it was otherwise."""
    with torch_wanted("quantize: effort", ", or write effort: balanced"):
        from edgec.passes.train.engine.learnt_rounding import learn_rounding
    network = BlockNetwork.of(pair, block, {name: values.shape[1:] for name, values in seen.examples.given.items()})
    error = _judged(pair, block, seen)
    before = error()
    learnt = learn_rounding(network, seen.examples.first(seen.fit), before, _STEPS, ctx.threads, ctx.seed + number)
    transaction = Transaction(pair.quantized, [constant for layer in block.layers for constant in _constants(layer)])
    for layer, (integers, bias) in zip(block.layers, learnt, strict=True):
        layer.weight.values = integers.astype(layer.weight.dtype)
        values = layer.values()
        layer.write(replace(values, bias=bias.astype(np.float64).reshape(values.bias.shape) / layer.factor))
    if error() < before:
        return True
    transaction.undo()
    return False


def _judged(pair: Pair, block: Block, seen: _Seen) -> Callable[[], float]:
    """What measures the mean squared error of the block as it is, on the batches that judge."""
    entries = {entry: seen.examples.given[entry.name][0] for entry in block.entries}

    def error() -> float:
        network = Tapped(pair.quantized, [block.exit], entries)
        made = (network.run(seen.feeds(batch))[block.exit.name] for batch in seen.judge)
        errors = [np.square(y - seen.examples.wanted[batch]).mean() for y, batch in zip(made, seen.judge, strict=True)]
        return float(np.mean(errors, dtype=np.float64))

    return error


def _constants(layer: StoredLayer) -> list[Constant]:
    scales = [layer.weight_scale] if layer.bias_scale is None else [layer.weight_scale, layer.bias_scale]
    return [layer.weight, layer.bias, *scales]
