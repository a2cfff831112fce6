"""A budget of time: what layers and their chains take in onnxruntime here, and ranks that bring the network under it.

A handful of chains of each layer are timed by themselves, as nodes, on what the layer reads; between them the time is
interpolated over the multiply-accumulates. What they save is taken from the time of the network. Since times by
themselves are not those within the network, the network with the chosen chains is timed too, before there are factors
for them, and the choice is made again where it missed the budget.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgec.ir.errors import UsageError
from edgec.ir.execution import Feeds, seeded_feeds
from edgec.ir.graph import Graph
from edgec.ir.shapes import Shapes
from edgec.passes.factorize import timing
from edgec.passes.factorize.allocation import Curve, allocate, curve
from edgec.passes.factorize.layers import Layer
from edgec.passes.factorize.offers import Choice, Offer
from edgec.passes.framework.budgets import ENOUGH
from edgec.passes.framework.context import Context

# Ranks are multiples of this where the recipe asks for no other: onnxruntime's convolutions compute 8 or 16 channels at
# a time, and those whose channels are no multiple of 4 by a slower way.
BLOCK = 8
# How far the network may be from the budget.
TOLERANCE = 0.03
# Chains that are timed of a layer with one method, and of each method where there are several.
_ONE, _EACH = 8, 5
# Seconds that all layers' chains take together, and what one of them gets at most and at least.
_SECONDS, _LONGEST, _SHORTEST = 5.0, 0.04, 0.01
_WHOLE_SECONDS = 0.5
# The network is timed by itself so often. What is timed while it is slower than this much of its best is timed again
# after a pause, for as many seconds in all.
_REPEATS = 3
_QUIET, _PAUSE, _PATIENCE = 1.2, 0.5, 30.0
# Choices that are tried in the network; before each, chains that were chosen by interpolation are timed so often.
_ATTEMPTS, _REFINEMENTS = 3, 3
_LEAST_RATE = 0.1

Found = tuple[Curve, list[Choice]]


class Table:
    """The time of one layer and of its chains, in ms.

    Args:
        layer: its shapes are static.
        offers: what each method offers for it.
        clock: times the layer, then chains of it.
        alike: a table of a layer that takes the same, whose times hold for this one too.

    Attributes:
        whole: of the layer as it is.
        known: of chains that were timed.
    """

    whole: float
    known: dict[Choice, float]
    # By method: multiply-accumulates and times between which others lie, both rising.
    _points: dict[str, tuple[np.ndarray, np.ndarray]]

    def __init__(self, layer: Layer, offers: Sequence[Offer], clock: _Clock, alike: Table | None) -> None:
        self.layer, self.offers, self._clock = layer, offers, clock
        if alike is not None:
            self.whole, self.known, self._points = alike.whole, alike.known, alike._points
            return
        choices = _ladder(layer, offers)
        self.whole, *times = clock.alone(layer, choices)
        self.known = dict(zip(choices, times, strict=True))
        self._points = {}
        for name in {choice.method.name for choice in choices}:
            own = [(c.macs(layer) or 1, ms) for c, ms in self.known.items() if c.method.name == name]
            macs, taken = np.array(sorted(own), np.float64).T
            rising = np.maximum.accumulate(taken) + np.minimum.accumulate(taken[::-1])[::-1]
            self._points[name] = macs, rising / 2

    def costs(self) -> list[np.ndarray]:
        """The time of each candidate of each method, as timed or interpolated: (candidates,).

        It is infinite for methods of which nothing was timed.
        """
        found = []
        for offer in self.offers:
            assert offer.macs is not None
            times = self._between(offer.method.name, offer.macs)
            for choice, ms in self.known.items():
                if choice.method is offer.method:
                    times[(offer.ranks == choice.ranks).all(axis=1)] = ms
            found.append(times)
        return found

    def of(self, choice: Choice) -> float:
        """The time of a chain, as timed or interpolated."""
        ms = self.known.get(choice)
        return float(self._between(choice.method.name, np.array([choice.macs(self.layer)]))[0]) if ms is None else ms

    def look_at(self, choice: Choice) -> bool:
        """Times a chain; returns whether it had not been timed before."""
        if choice in self.known:
            return False
        whole, ms = self._clock.alone(self.layer, [choice])
        self.known[choice] = ms / whole * self.whole
        return True

    def why_whole(self) -> str | None:
        """Why the layer is better left; ``None`` where no chain was timed."""
        if not self.known:
            return None
        best, ms = min(self.known.items(), key=lambda item: item[1])
        if ms < self.whole:
            return ENOUGH
        return f"a chain of {best.words()} takes {ms:.3g} ms here, the layer {self.whole:.3g} ms"

    def priced(self, known: Curve, options: Sequence[Choice]) -> Curve:
        """The layer's curve at the times that are known by now, without chains that are no faster than the layer."""
        cost = np.array([self.whole if place < 0 else self.of(options[place]) for place in known.choice])
        faster = (known.choice < 0) | (cost < self.whole)
        return curve(cost[faster], known.loss[faster], known.choice[faster])

    def _between(self, method: str, macs: np.ndarray) -> np.ndarray:
        if method not in self._points:
            return np.full(len(macs), np.inf)
        known, times = self._points[method]
        return np.asarray(np.exp(np.interp(np.log(np.maximum(macs, 1)), np.log(known), np.log(times))))


@dataclass(frozen=True)
class _Attempt:
    """A choice that was timed.

    Attributes:
        chosen: one a layer; ``None`` where it stays whole.
        estimate: ms of all layers by themselves.
        loss: the sum of all layers'.
        reached: part of the network's time.
    """

    chosen: list[Choice | None]
    estimate: float
    loss: float
    reached: float


class Latency:
    """The times of one network and of its layers.

    Args:
        graph: as it is before anything is rewritten.
        ctx: its calibration data, or else noise, are what the network is timed on.
        layers: those that may become chains; their shapes are static.
        found: what the methods offer for each of them.

    Attributes:
        timed: one a layer.

    Raises:
        InputError: an input of the network has no static shape.
    """

    def __init__(self, graph: Graph, ctx: Context, layers: Sequence[Layer], found: Sequence[Sequence[Offer]]) -> None:
        self._ctx, self._layers = ctx, layers
        self._clock = _Clock(graph, ctx, sum(1 + _EACH * len(offers) for offers in found))
        self.timed: list[Table] = []
        alike: dict[str, Table] = {}
        for done, (layer, offers) in enumerate(zip(layers, found, strict=True), 1):
            key = _geometry(layer, ctx.get(Shapes))
            table = Table(layer, offers, self._clock, alike.get(key))
            alike.setdefault(key, table)
            self.timed.append(table)
            ctx.progress(done, len(layers), "times")

    def choose(self, found: Sequence[Found], share: float) -> list[Choice | None]:
        """What each layer becomes so that the network takes ``share`` of its time; ``None`` where it stays whole.

        Args:
            found: of each layer its curve, whose costs are those of :attr:`timed`, and what the points stand for.
            share: above 0, to 1.

        Raises:
            UsageError: it cannot be brought there.
        """
        layers = sum(table.whole for table in self.timed)
        rate = 1.0  # of what is saved in the network to what is saved in layers by themselves
        further = 0.0  # how much less is aimed at than was asked for, after that was missed
        tried: list[_Attempt] = []
        for _ in range(_ATTEMPTS):
            attempt = self._attempt(found, layers - (1 - share + further) * self._clock.total / rate)
            if any(attempt.chosen == before.chosen for before in tried):
                break
            tried.append(attempt)
            missed = attempt.reached - share
            if abs(missed) <= TOLERANCE * share:
                break
            saved = layers - attempt.estimate
            if saved > 0:
                rate = max((1 - attempt.reached) * self._clock.total / saved, _LEAST_RATE)
            further = further + missed / 2 if missed > 0 else 0.0
        good = [attempt for attempt in tried if attempt.reached <= share * (1 + TOLERANCE)]
        if not good:
            tried.append(self._attempt(found, -np.inf))
            good = [attempt for attempt in tried if attempt.reached <= share * (1 + TOLERANCE)]
        if not good:
            least = min(attempt.reached for attempt in tried)
            raise UsageError(
                "factorize: latency",
                f"the network cannot be brought to {share:.4g} of its time in onnxruntime on this machine; the least "
                f"that was reached is {np.ceil(100 * least) / 100:.4g}",
                "raise the budget, lower min_rank or multiple, or prune first",
            )
        return min(good, key=lambda attempt: attempt.loss).chosen

    def figures(self, layer: Layer, choice: Choice) -> dict[str, float]:
        """For the remark of a layer that becomes a chain."""
        table = next(table for table in self.timed if table.layer is layer)
        return {"ms_before": table.whole, "ms_after": table.of(choice)}

    def conclude(self, graph: Graph, share: float) -> None:
        """Times the network as it has become, beside the original, and says so."""
        after, before = self._clock.of(graph), self._clock.total
        self._ctx.did(
            "the network",
            f"takes {after / before:.3g} of its time in onnxruntime on one thread of this machine, of which "
            f"{share:.4g} was to be kept; other machines, and other runs, may come to other ranks",
            ms_before=before,
            ms_after=after,
        )

    def _attempt(self, found: Sequence[Found], budget: float) -> _Attempt:
        """The best choice for a budget of the layers' times, or the fastest where it seems out of reach, timed.

        Chains that are chosen by what lies between others are timed, and then the choice is made again.
        """
        for again in range(_REFINEMENTS, -1, -1):
            curves = [table.priced(*item) for table, item in zip(self.timed, found, strict=True)]
            points = allocate(curves, budget) or [0] * len(curves)
            chosen = [_at(c, options, p) for c, (_, options), p in zip(curves, found, points, strict=True)]
            pairs = [(table, choice) for table, choice in zip(self.timed, chosen, strict=True) if choice is not None]
            if not again or not sum(table.look_at(choice) for table, choice in pairs):
                break
        picked = list(zip(curves, points, strict=True))
        return _Attempt(
            chosen,
            sum(float(c.cost[p]) for c, p in picked),
            sum(float(c.loss[p]) for c, p in picked),
            self._clock.with_chains(list(zip(self._layers, chosen, strict=True))) / self._clock.total,
        )


class _Clock:
    """Times a network, and its layers by themselves.

    Args:
        graph: as it is before anything is rewritten; later changes are not seen where that matters.
        ctx: its data and its shapes.
        count: layers and chains that will be timed at first.

    Attributes:
        total: ms of the network.
    """

    def __init__(self, graph: Graph, ctx: Context, count: int) -> None:
        self._graph, self._original, self._shapes = graph, graph.copy(), ctx.get(Shapes)
        known = "calibration" in ctx.data
        self._feeds = next(ctx.feeds(graph, "calibration")) if known else seeded_feeds(graph, samples=1)[0]
        self._seconds = float(np.clip(_SECONDS / max(count, 1), _SHORTEST, _LONGEST))
        self.total = float("inf")
        self._patience = _PATIENCE
        for _ in range(_REPEATS):
            self._timed([], _WHOLE_SECONDS)

    def alone(self, layer: Layer, choices: Sequence[Choice]) -> list[float]:
        """ms of a layer as it is, then of chains of it."""
        graph, twin = timing.alone(self._graph, layer, self._shapes)
        graphs = [graph, *(timing.with_chains(graph, [(twin, choice)]) for choice in choices)]
        feeds = seeded_feeds(graph, samples=1)[0]
        return self._timed([(one, feeds) for one in graphs], self._seconds)

    def of(self, other: Graph) -> float:
        """ms of a graph with the network's inputs."""
        return self._timed([(other, self._feeds)], _WHOLE_SECONDS)[0]

    def with_chains(self, chosen: Sequence[tuple[Layer, Choice | None]]) -> float:
        """ms of the network with these chains."""
        pairs = [(layer, choice) for layer, choice in chosen if choice is not None]
        return self.of(timing.with_chains(self._graph, pairs)) if pairs else self.total

    def _timed(self, others: Sequence[tuple[Graph, Feeds]], seconds: float) -> list[float]:
        """ms of graphs that run in turn with the network, on a machine on which that takes :attr:`total`.

        Other work on a machine takes its memory's time, which slows large layers several times more than small ones,
        often for seconds. So what was timed while the network was far slower than it can be is timed again, while there
        is patience left; what was timed beside the fastest counts.
        """
        found = []
        while True:
            start = time.monotonic()
            found.append(timing.milliseconds([(self._original, self._feeds), *others], seconds))
            self.total = min(self.total, found[-1][0])
            if found[-1][0] <= _QUIET * self.total or self._patience <= 0:
                break
            time.sleep(_PAUSE)
            self._patience -= time.monotonic() - start
        total, *times = min(found)
        return [ms / total * self.total for ms in times]


def _at(c: Curve, options: Sequence[Choice], point: int) -> Choice | None:
    place = int(c.choice[point])
    return None if place < 0 else options[place]


def _ladder(layer: Layer, found: Sequence[Offer]) -> list[Choice]:
    """Chains of each method from the smallest to the largest, in steps of one ratio: those that keep most of the
    weights for their multiply-accumulates, with less of these than the layer and fewer parameters."""
    most = _ONE if len(found) == 1 else _EACH
    choices = []
    for offer in found:
        assert offer.macs is not None and layer.macs is not None
        rows = np.flatnonzero((offer.macs < layer.macs) & (offer.params < layer.params))
        if len(rows):
            best = curve(offer.macs[rows].astype(np.float64), 1 - offer.kept[rows], rows)
            size = np.log(np.maximum(best.cost, 1))
            steps = {int(np.abs(size - step).argmin()) for step in np.linspace(size[0], size[-1], most)}
            choices += [offer.choice(int(best.choice[step])) for step in sorted(steps)]
    return choices


def _geometry(layer: Layer, shapes: Shapes) -> str:
    """What the time of a layer depends on: the same for layers that take the same."""
    nodes = [
        (
            sorted((key, str(value)) for key, value in node.attrs.items()),
            [shapes.shape(tensor) for tensor in (*node.inputs, *node.outputs)],
            [reader.op for reader in node.outputs[0].outputs],
        )
        for node in layer.nodes
    ]
    return str((layer.kind, layer.groups, layer.shape, layer.weight.dtype.name, nodes))
