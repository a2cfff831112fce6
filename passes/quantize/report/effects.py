"""What the rounding of each layer does to the network's outputs, of all layers in one pass over the data.

A layer's own error, by itself, says little about that: what later layers ignore costs nothing. To first order the
outputs move by J e, with e the layer's error on a sample and J the derivative of the outputs by what the layer gives.
For a random vector v of independent numbers of mean 0 and variance 1, the mean of (v . J e)^2 is |J e|^2 (Hutchinson,
"A stochastic estimator of the trace of the influence matrix", 1990), and one run backwards gives v^T J of every layer
at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgec.ir.execution import Feeds, batch_size
from edgec.ir.graph import Node
from edgec.passes.calibration.batch_split import spread
from edgec.passes.calibration.dataset import ROLE, Part
from edgec.passes.calibration.joined_outputs import joined_parts
from edgec.passes.calibration.runner import Tapped, batches, each
from edgec.passes.framework.context import Context
from edgec.passes.quantize.pair import Pair
from edgec.passes.quantize.placement.placement import Site
from edgec.passes.quantize.recover.isolation import Output, isolated, layer_outputs
from edgec.passes.train.training_pass import torch_wanted

# Batches that are looked at.
_BATCHES = 16
_LEAST_POWER = 1e-12


def output_effects(pair: Pair, outputs: Sequence[Output], ctx: Context) -> np.ndarray:
    """The noise that each layer puts on what the network is for, relative to its power.

    Args:
        pair: the networks; they are not changed.
        outputs: of the layers.
        ctx: the calibration data and the seed.

    Returns:
        One number for each of ``outputs``: noise to signal, summed over the network's outputs, or the parts that these
        join.

    Raises:
        InputError: torch cannot run an operator, or there are no samples.
        UsageError: torch is not installed.
    """
    with torch_wanted("quantize", ", or leave out precision: auto and sensitivity"):
        from edgec.passes.train.engine.slopes import Slopes
        from edgec.passes.train.engine.threads import torch_threads
    side, names, _ = isolated(pair, outputs)
    network = Tapped(side, [tensor for both in names for tensor in both])
    numbers = spread(np.arange(batches(pair.original, ctx)), _BATCHES)
    part = Part(ctx.data[ROLE], numbers, batch_size(pair.original))
    inner = ctx.derive(pair.original, data={ROLE: part})

    slopes = Slopes(pair.original, ctx.seed)
    inside = [output.exact.name for output in outputs]
    wanted = [joined.tensor.name for joined in joined_parts(pair.original)]

    def moved(number: int, feeds: Feeds) -> tuple[np.ndarray, np.ndarray]:
        values = network.run(feeds)
        errors = [values[alone.name] - values[exact.name] for exact, alone in names]
        return slopes.moved(feeds, inside, errors, wanted, number)

    total, power = np.zeros((len(outputs), len(wanted))), np.zeros(len(wanted))
    with torch_threads(1):
        for squares, signal in each(inner, inner.feeds(pair.original, ROLE), moved):
            total += squares
            power += signal
    return (total / np.maximum(power, _LEAST_POWER)).sum(axis=1)


def noise_shares(pair: Pair, sites: Sequence[Site], ctx: Context) -> dict[Node, float]:
    """By operator of the quantized network, the part of the noise at the outputs that comes from its rounding."""
    outputs = layer_outputs(pair, sites)
    effects = output_effects(pair, outputs, ctx)
    total = float(effects.sum()) or 1.0
    shares: dict[Node, float] = {}
    for output, effect in zip(outputs, effects, strict=True):
        shares[output.site.node] = shares.get(output.site.node, 0.0) + float(effect) / total
    return shares
