"""What the rounding of each layer does to the network's outputs, of all layers in one pass over the data.

A layer's own error, by itself, says little about that: what later layers ignore costs nothing. To first order the
outputs move by J e, with e the layer's error on a sample and J the derivative of the outputs by what the layer gives.
For a random vector v of independent numbers of mean 0 and variance 1, the mean of (v . J e)^2 is |J e|^2 (Hutchinson,
"A stochastic estimator of the trace of the influence matrix", 1990), and one run backwards gives v^T J of every layer
at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from edgec.ir.execution import batch_size
from edgec.ir.graph import Variable
from edgec.ir.torch_module.module import TorchModule
from edgec.passes.judging import Part, context, spread
from edgec.passes.protocol import Context
from edgec.passes.quantization.isolation import Output, isolated
from edgec.passes.quantization.pair import Pair
from edgec.passes.streaming import ROLE, Tapped, batches, stream

# Batches that are looked at, and random vectors for each.
_BATCHES, _PROBES = 16, 4
_LEAST_POWER = 1e-12


def output_effects(pair: Pair, outputs: Sequence[Output], results: Sequence[Variable], ctx: Context) -> np.ndarray:
    """The noise that each layer puts on what the network is for, relative to its power.

    Args:
        pair: the networks; they are not changed.
        outputs: of the layers.
        results: tensors of the float network that count: its outputs, or the parts that these join.
        ctx: the calibration data and the seed.

    Returns:
        One number for each of ``outputs``: the sum over ``results`` of noise to signal.

    Raises:
        InputError: torch cannot run an operator, or there are no samples.
    """
    side, names = isolated(pair, outputs)
    network = Tapped(side, [tensor for both in names for tensor in both])
    numbers = spread(np.arange(batches(pair.original, ctx)), _BATCHES)
    part = Part(ctx.data[ROLE], numbers, batch_size(pair.original))
    inner = context(pair.original, ctx, {ROLE: part})

    def errors(number: int, values: list[dict[str, np.ndarray]]) -> list[np.ndarray]:
        return [values[0][alone.name] - values[0][exact.name] for exact, alone in names]

    module = TorchModule(pair.original, any_batch=False)
    chance = torch.Generator().manual_seed(ctx.seed)
    feeds = inner.feeds(pair.original, ROLE)
    total = np.zeros((len(outputs), len(results)))
    power = np.zeros(len(results))
    for made, fed in zip(stream(pair.original, inner, [network], errors), feeds, strict=True):
        shares, signal = _probed(module, fed, outputs, results, made, chance)
        total += shares
        power += signal
    return (total / np.maximum(power, _LEAST_POWER)).sum(axis=1)


def _probed(
    module: TorchModule,
    feeds: Mapping[str, np.ndarray],
    outputs: Sequence[Output],
    results: Sequence[Variable],
    errors: Sequence[np.ndarray],
    chance: torch.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """On one batch: squared effects, (outputs, results), and the power of each result."""
    inputs = {name: torch.from_numpy(np.ascontiguousarray(values)).requires_grad_() for name, values in feeds.items()}
    names = [output.exact.name for output in outputs]
    values = module(inputs, list(dict.fromkeys([*names, *(result.name for result in results)])))
    layers = [values[name] for name in names]
    moved = [torch.from_numpy(error) for error in errors]
    shares = np.zeros((len(outputs), len(results)))
    for place, result in enumerate(results):
        for _ in range(_PROBES):
            vector = torch.randn(values[result.name].shape, generator=chance)
            slopes = torch.autograd.grad(values[result.name], layers, vector, retain_graph=True, allow_unused=True)
            found = [
                0.0 if s is None else float(torch.vdot(s.reshape(-1), e.reshape(-1)))
                for s, e in zip(slopes, moved, strict=True)
            ]
            shares[:, place] += np.square(found) / _PROBES
    return shares, np.array([float(values[result.name].detach().square().sum()) for result in results])
