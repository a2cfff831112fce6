"""All layers of a quantized network trained together, through the rounding, for what the float network computes.

Layer by layer, each makes up for those before it and none for those behind it. Here the gradient of the outputs, and of
what stands behind each block, reaches every weight (self-distillation without labels; the gradient passes a rounding
as if it were none). Few images are enough: the network is almost right already, and the rate is small.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from edgec.passes.distill import Distill
from edgec.passes.judging import Part, Split
from edgec.passes.protocol import Context
from edgec.passes.quantization.pair import Pair
from edgec.passes.streaming import ROLE
from edgec.passes.training_pass import TRAIN, torch_wanted

# Steps of 8 images. The rate is that of weights that are almost right: a higher one moves them across many steps.
_STEPS, _BATCH, _RATE = 120, 8, 5e-5


@dataclass(frozen=True)
class Images:
    """Samples in memory, without labels.

    Attributes:
        feeds: by input, all samples on the first axis.
        source: where they are from.
    """

    feeds: dict[str, np.ndarray]
    source: str
    labels: None = field(default=None, init=False)

    def __len__(self) -> int:
        return len(next(iter(self.feeds.values())))

    def batches(self, size: int) -> Iterator[dict[str, np.ndarray]]:
        """As :meth:`.DataSet.batches`."""
        for start in range(0, len(self), size):
            yield {name: values[start : start + size] for name, values in self.feeds.items()}


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
        from edgec.passes.training.run import train
    whole = ctx.data[ROLE]
    size = -(-len(whole) // parts.count)
    read = list(Part(whole, parts.fit, size).batches(size))
    images = Images({name: np.concatenate([feeds[name] for feeds in read]) for name in read[0]}, whole.source)
    epochs = max(1, round(_STEPS * _BATCH / len(images)))
    options = Distill(epochs=epochs, batch=_BATCH, rate=_RATE, monitor="loss")
    inner = Context(
        pair.quantized,
        target=ctx.target,
        data={TRAIN: images},
        affine=ctx.affine,
        seed=ctx.seed,
        threads=ctx.threads,
        original=pair.original,
        progress=ctx.progress,
    )
    train(options, pair.quantized, inner)
    return f"trained together for what the float network computes, {epochs} epochs of {len(images)} images"
