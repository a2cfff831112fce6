"""All layers of a quantized network trained together, through the rounding, for what the float network computes.

Layer by layer, each makes up for those before it and none for those behind it. Here the gradient of the outputs, and of
what stands behind each block, reaches every weight (self-distillation without labels; the gradient passes a rounding
as if it were none). Few images are enough: the network is almost right already, and the rate is small.
"""

from __future__ import annotations

from edgec.passes.distill import Distill
from edgec.passes.judging import Part, Split
from edgec.passes.protocol import Context
from edgec.passes.quantization.pair import Pair
from edgec.passes.quantization.samples import Samples
from edgec.passes.streaming import ROLE
from edgec.passes.training_pass import TRAIN, torch_wanted

# Steps of 8 images. The rate is that of weights that are almost right: a higher one moves them across many steps.
_STEPS, _BATCH, _RATE = 120, 8, 5e-5


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
    images = Samples.of(list(Part(whole, parts.fit, size).batches(size)), whole.source)
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
