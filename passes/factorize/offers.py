"""What a layer could become: the chains of each method at every candidate rank, what they cost and what they keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgec.passes.factorize.layers import Layer
from edgec.passes.factorize.methods import Method
from edgec.passes.framework.budgets import Unit

LEAST_RANK = 2
# So many ranks of a mode are looked at; finer steps would not show in a network's budget.
_MOST_RANKS = 192


@dataclass(frozen=True)
class Limits:
    """Which ranks may be chosen.

    Attributes:
        min_rank: the lowest.
        multiple: ranks are multiples of it, or full.
    """

    min_rank: int = 1
    multiple: int = 1

    @property
    def lowest(self) -> int:
        """The lowest rank that is both."""
        return -(-self.min_rank // self.multiple) * self.multiple

    def upward(self, rank: int, full: int) -> int:
        """The next rank from ``rank`` on that may be chosen."""
        return min(-(-max(rank, self.min_rank) // self.multiple) * self.multiple, full)

    def of_mode(self, full: int) -> np.ndarray:
        """The ranks of a mode that may be chosen, full rank last."""
        ranks = np.arange(self.lowest, full, self.multiple)
        if len(ranks) > _MOST_RANKS:
            ranks = ranks[np.unique(np.linspace(0, len(ranks) - 1, _MOST_RANKS).round().astype(int))]
        return np.append(ranks, full)


@dataclass(frozen=True)
class Choice:
    """A method and its ranks."""

    method: Method
    ranks: tuple[int, ...]

    def words(self) -> str:
        """As remarks give it: ``rank 4``, ``ranks 4 and 5``."""
        return self.method.words(self.ranks)

    def params(self, layer: Layer) -> int:
        """Parameters of the chain, without its bias."""
        return int(self.method.params(layer, np.array([self.ranks]))[0])

    def macs(self, layer: Layer) -> int | None:
        """Multiply-accumulates of the chain; ``None`` where shapes are not known."""
        macs = self.method.macs(layer, np.array([self.ranks]))
        return None if macs is None else int(macs[0])


@dataclass(frozen=True)
class Offer:
    """One method's chains for one layer.

    Attributes:
        ranks: (candidates, modes); the last row is full.
        params: (candidates,), without biases.
        macs: (candidates,), all readers together; ``None`` where shapes are not known.
        kept: (candidates,), part of the squared norm that is kept.
    """

    method: Method
    ranks: np.ndarray
    params: np.ndarray
    macs: np.ndarray | None
    kept: np.ndarray

    def choice(self, row: int) -> Choice:
        """The candidate in a row."""
        return Choice(self.method, tuple(int(rank) for rank in self.ranks[row]))

    def cost(self, layer: Layer, unit: Unit) -> np.ndarray:
        """Of each candidate, in the unit of a budget."""
        return _cost(layer, self.params, self.macs, unit)


def whole_cost(layer: Layer, unit: Unit) -> int:
    """Of the layer as it is, in the unit of a budget; 0 multiply-accumulates where shapes are not known."""
    if unit == "macs":
        return layer.macs or 0
    return layer.params * element_cost(layer, unit)


def least_cost(layer: Layer, methods: Sequence[Method], limits: Limits, unit: Unit, added: int = 0) -> int:
    """The least that a layer can come to cost, as a chain or as it is; it follows from shapes alone.

    Args:
        added: elements of the biases that a chain gets beside its own.
    """
    least = whole_cost(layer, unit)
    for method in methods:
        ranks = candidates(method, layer, limits)
        params = method.params(layer, ranks)
        costs = _cost(layer, params, method.macs(layer, ranks), unit) + element_cost(layer, unit) * added
        least = min(least, int(costs[params < layer.params].min(initial=least)))
    return least


def element_cost(layer: Layer, unit: Unit) -> int:
    """Of one weight or bias of a layer, in the unit of a budget."""
    return {"params": 1, "weight_bytes": layer.weight.dtype.itemsize, "macs": 0}[unit]


def _cost(layer: Layer, params: np.ndarray, macs: np.ndarray | None, unit: Unit) -> np.ndarray:
    if unit == "macs":
        assert macs is not None
        return macs
    return params * element_cost(layer, unit)


def candidates(method: Method, layer: Layer, limits: Limits) -> np.ndarray:
    """The ranks that a method may use for a layer: (candidates, modes), full ranks last."""
    modes = [limits.of_mode(full) for full in method.full(layer)]
    return np.stack(np.meshgrid(*modes, indexing="ij"), axis=-1).reshape(-1, len(modes))


def offers(layer: Layer, methods: Sequence[Method], limits: Limits, kernel: np.ndarray | None = None) -> list[Offer]:
    """What each method offers for a layer; ``kernel`` stands for the layer's own where it is weighted."""
    values = layer.kernel() if kernel is None else kernel
    made = []
    for method in methods:
        ranks = candidates(method, layer, limits)
        kept = method.kept(layer, values, ranks)
        made.append(Offer(method, ranks, method.params(layer, ranks), method.macs(layer, ranks), kept))
    return made


def least_choice(layer: Layer, methods: Sequence[Method], limits: Limits) -> Choice:
    """The chain with the fewest parameters that any of the methods may make."""
    choices = [Choice(m, tuple(int(limits.of_mode(full)[0]) for full in m.full(layer))) for m in methods]
    return min(choices, key=lambda choice: choice.params(layer))
