"""All layers of a quantized network trained together, through the rounding, for what the float network computes.

Layer by layer, each makes up for those before it and none for those behind it. Here the gradient of the outputs, and of
what stands behind each block, reaches every weight (self-distillation without labels; the gradient passes a rounding
as if it were none). Few images are enough: the network is almost right already, and the rate is small.
"""

from __future__ import annotations

import math

import numpy as np

from edgec.ir.execution import batch_size
from edgec.ir.graph import Graph
from edgec.ir.shapes import Shapes
from edgec.passes.calibration.batch_split import Split
from edgec.passes.calibration.dataset import ROLE, InMemory, Part
from edgec.passes.framework.context import Context
from edgec.passes.quantize.pair import Pair
from edgec.passes.train.distill import Distill
from edgec.passes.train.training_pass import TRAIN, torch_wanted

# How many images are seen, and at most at once. The rate is that of weights that are almost right: a higher one moves
# them across many steps.
_SEEN, _BATCH, _RATE = 960, 8, 5e-5
# Bytes that all tensors of a batch may take; gradients come on top.
_MOST_BYTES = 1 << 29


def train_rounded(pair: Pair, parts: Split, ctx: Context) -> str:
    """Trains the weights and biases of ``pair.quantized`` in place; what was done, in a few words.

    Args:
        pair: the networks.
        parts: which batches are trained on.
        ctx: the calibration data.

    Raises:
        UsageError: torch is not installed.
        InputError: an operator cannot be trained through.
    """
    with torch_wanted("quantize: effort", ", or write effort: balanced"):
        from edgec.passes.train.engine.run import train
    whole = ctx.data[ROLE]
    size = -(-len(whole) // parts.count)
    images = InMemory.of(list(Part(whole, parts.fit, size).batches(size)), whole.source)
    epochs = max(1, round(_SEEN / len(images)))
    options = Distill(epochs=epochs, batch=_batch(pair.quantized), rate=_RATE, monitor="loss")
    # Neither the recipe's metric nor what a killed run left is of this: it trains for the float network's outputs.
    inner = ctx.derive(pair.quantized, data={TRAIN: images}, original=pair.original, metric=None, checkpoints=None)
    train(options, pair.quantized, inner)
    return f"trained together for what the float network computes, {epochs} epochs of {len(images)} images"


def _batch(graph: Graph) -> int:
    """How many images are trained on at once: all that is computed of them is in memory together."""
    shapes = Shapes(graph)
    known = (shapes.shape(tensor) for tensor in graph.variables())
    elements = sum(math.prod(size or 1 for size in shape) for shape in known if shape is not None)
    each = elements * np.dtype(np.float32).itemsize / batch_size(graph)
    return int(np.clip(_MOST_BYTES / max(each, 1), 1, _BATCH))
