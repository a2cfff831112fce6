"""What the calibration data say about the layers of a network: what a loss in each does, and how to lose least."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np

from edgec.ir.cost import Cost
from edgec.ir.execution import batch_size
from edgec.ir.graph import Graph
from edgec.passes.calibration.held_out import BOTH_WAYS, ENOUGH_SAMPLES, FEWEST_AT_ONCE, MOST_JUDGES
from edgec.passes.calibration.near_duplicates import MOST_IMAGES, channel_means, groups_of
from edgec.passes.factorize.damage import Damage
from edgec.passes.factorize.images import Images, spread
from edgec.passes.factorize.layers import Layer
from edgec.passes.factorize.observed import Observed
from edgec.passes.factorize.offers import Choice
from edgec.passes.factorize.overriding import Overridable, Weights
from edgec.passes.factorize.refitting import Fit, fit_all, fits_memory, override, plain
from edgec.passes.factorize.samples import Samples, observe, together
from edgec.passes.framework.context import Context
from edgec.passes.layers.linear import CONVOLUTIONS

# Images on which a layer is looked at to see what it could lose.
_LOOKED_AT = 32
# Noise below which nothing is told apart.
_NO_NOISE_DB = 140.0


@dataclass(frozen=True)
class Plan:
    """What layers become.

    Attributes:
        chosen: the layers and their choices, in the graph's order.
        fitted: whether chains are fitted to the data, or to the weights alone.
    """

    chosen: Sequence[tuple[Layer, Choice]]
    fitted: bool


class Evidence:
    """The network and its data, ready to be asked.

    Args:
        graph: as it is before anything is rewritten; it is not changed.
        ctx: the calibration data.
        layers: those that may be compressed.
        others: whose weights a plan may replace besides.

    Raises:
        InputError: there are no samples.
    """

    def __init__(self, graph: Graph, ctx: Context, layers: Sequence[Layer], others: Sequence[Layer] = ()) -> None:
        self._images = Images(graph, ctx)
        self._network = Overridable(graph, list(dict.fromkeys((*layers, *others))))
        self._images.groups = self._resembling(layers)
        self._each = batch_size(graph)
        self._damage = Damage(self._network, self._images, ctx.get(Cost).macs)
        self._numbers = self._images.half(0, _LOOKED_AT)
        self._blocks = deque(together([layer for layer in layers if fits_memory(layer)], len(self._numbers)))
        self._seen: dict[Layer, Samples] = {}
        self._lock = Lock()

    @property
    def independent(self) -> int:
        """How many samples there are that do not resemble each other."""
        return self._images.independent * self._each

    @property
    def few(self) -> bool:
        """Whether what is fitted to the samples may be worse than what is fitted to none."""
        return self.independent < ENOUGH_SAMPLES and (self._images.independent > 1 or self._each < FEWEST_AT_ONCE)

    def held_out(self, plans: Sequence[Plan]) -> list[float] | None:
        """The noise that each plan adds to the outputs on samples that it is not fitted to, in dB of their power.

        Chains are fitted to one half of the samples and judged by the other; where there are very few, the other way
        round, too. ``None`` where the samples have no two halves.
        """
        if self._images.independent < 2:
            return None
        halves = [self._images.half(which, len(self._images.feeds)) for which in (0, 1)]
        pairs = [halves] if self._images.independent >= BOTH_WAYS else [halves, halves[::-1]]
        found = np.zeros(len(plans))
        for fit, judge in pairs:
            images = self._images.only(fit)
            for place, plan in enumerate(plans):
                if not plan.chosen:
                    found[place] += -_NO_NOISE_DB
                    continue
                weights = Weights()
                for (layer, _), made in zip(plan.chosen, self._fitted(plan, images), strict=True):
                    override(weights, layer, made)
                noise = self._damage.noise(weights, [judge[at] for at in spread(len(judge), MOST_JUDGES)])
                found[place] += 10 * np.log10(max(noise, 10 ** (-_NO_NOISE_DB / 10)))
        return [float(each) for each in found / len(pairs)]

    def _fitted(self, plan: Plan, images: Images) -> list[Fit]:
        if not plan.fitted:
            return [plain(layer, choice) for layer, choice in plan.chosen]
        from threadpoolctl import threadpool_limits

        with threadpool_limits(limits=1):
            return fit_all(self._network, plan.chosen, images)

    def _resembling(self, layers: Sequence[Layer]) -> np.ndarray:
        """The group of each batch, of those that resemble each other in what the layers compute on the mean."""
        count = len(self._images.feeds)
        firsts = [layer.nodes[0] for layer in layers]
        if not firsts or not 2 < count <= MOST_IMAGES:
            return np.arange(count)
        names = [node.outputs[0].name for node in firsts]

        def means(number: int) -> list[np.ndarray]:
            values = self._network.run(self._images.feeds[number], names)
            axes = [1 if node.op in CONVOLUTIONS or node.op == "Gemm" else -1 for node in firsts]
            return [np.nan_to_num(channel_means(values[name], axis)) for name, axis in zip(names, axes, strict=True)]

        seen = list(self._images.each(means, threads=self._images.ctx.threads))
        return groups_of([np.stack(of_layer) for of_layer in zip(*seen, strict=True)])

    def observe(self, layer: Layer) -> Observed | None:
        """A layer on its data in the original network; ``None`` where it is too wide or what it reads says nothing.

        To be asked for each layer once, in about their order: what is read of the network in one run is held until it
        is asked for.
        """
        if not fits_memory(layer):
            return None
        with self._lock:
            while layer not in self._seen:
                block = self._blocks.popleft()
                samples = observe(self._network, block, self._images, self._numbers, threads=self._images.ctx.threads)
                self._seen.update(zip(block, samples, strict=True))
            own = self._seen.pop(layer)
        observed = Observed(layer, own)
        return None if observed.unfit else observed

    def damage(
        self, observed: Observed | None, layer: Layer, choices: Sequence[Choice], cost: np.ndarray, lost: np.ndarray
    ) -> np.ndarray:
        """See :meth:`.damage.Damage.curve`."""
        return self._damage.curve(observed, layer, choices, cost, lost)

    def fit(self, chosen: Sequence[tuple[Layer, Choice]]) -> list[Fit]:
        """Chains and biases for the chosen layers, each on what the ones before have left.

        BLAS works on one thread: sums on several would depend on their number.
        """
        from threadpoolctl import threadpool_limits

        with threadpool_limits(limits=1):
            return fit_all(self._network, chosen, self._images)
