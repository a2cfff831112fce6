"""The ranks of a layer by itself, without a budget for the network: by energy, as a part of the full ones, by noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edgec.passes.factorize.layers import Layer
from edgec.passes.factorize.methods import Method
from edgec.passes.factorize.offers import Choice, Limits, Offer, offers
from edgec.passes.factorize.refitting import plain

_NOTHING = "variational Bayes finds nothing but noise in its weights"


def by_energy(layer: Layer, methods: Sequence[Method], limits: Limits, energy: float) -> Choice:
    """The chain with the fewest parameters that keeps a part of the weights' squared norm."""
    best = [_least_that_keeps(offer, energy) for offer in offers(layer, methods, limits)]
    chosen = min(best, key=lambda choice: choice.params(layer))
    if chosen.method.name == "cp":
        best[best.index(chosen)] = _confirmed(layer, chosen, energy, limits)
    return min(best, key=lambda choice: choice.params(layer))


def by_part(layer: Layer, methods: Sequence[Method], limits: Limits, part: float) -> Choice:
    """Ranks that are a part of the full ones, by the first method that saves parameters."""
    return _first_smaller(
        layer, methods, limits, lambda method: tuple(int(np.ceil(part * most - 1e-9)) for most in method.full(layer))
    )


def above_noise(layer: Layer, methods: Sequence[Method], limits: Limits) -> Choice | str:
    """Ranks by variational Bayes, by the first method that saves parameters; why not, where there is only noise."""
    kernel = layer.kernel()
    found = {method: method.ranks_above_noise(layer, kernel) for method in methods}
    if any(0 in ranks for ranks in found.values()):
        return _NOTHING
    return _first_smaller(layer, methods, limits, found.__getitem__)


def _first_smaller(
    layer: Layer, methods: Sequence[Method], limits: Limits, ranks: Callable[[Method], tuple[int, ...]]
) -> Choice:
    choices = [Choice(m, tuple(map(limits.upward, ranks(m), m.full(layer)))) for m in methods]
    return next((choice for choice in choices if choice.params(layer) < layer.params), choices[0])


def _least_that_keeps(offer: Offer, energy: float) -> Choice:
    """The chain with the fewest parameters that keeps a part of the squared norm."""
    # Full rank keeps everything, whatever rounding makes of the sum.
    enough = np.flatnonzero((offer.kept >= energy) | (offer.ranks == offer.ranks[-1]).all(axis=1))
    return offer.choice(int(enough[np.argmin(offer.params[enough])]))


def _confirmed(layer: Layer, choice: Choice, energy: float, limits: Limits) -> Choice:
    """A CP chain that does keep that part: its curve is only an estimate between the ranks that were looked at."""
    [full] = choice.method.full(layer)
    while choice.params(layer) < layer.params and 1 - plain(layer, choice).chain.relative_error ** 2 < energy:
        rank = choice.ranks[0]
        choice = Choice(choice.method, (limits.upward(max(rank + 1, rank * 17 // 16), full),))
    return choice
