"""What the calibration data say about the layers of a network: what a loss in each does, and how to lose least."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from threading import Lock

import numpy as np

from edgec.ir.cost import Cost
from edgec.ir.graph import Graph
from edgec.passes.factorization.damage import Damage
from edgec.passes.factorization.images import Images
from edgec.passes.factorization.layers import Layer
from edgec.passes.factorization.observed import Observed
from edgec.passes.factorization.offers import Choice
from edgec.passes.factorization.overriding import Overridable
from edgec.passes.factorization.refitting import Fit, fit_all, fits_memory
from edgec.passes.factorization.samples import Samples, observe, together
from edgec.passes.protocol import Context

# Images on which a layer is looked at to see what it could lose.
_LOOKED_AT = 32


class Evidence:
    """The network and its data, ready to be asked.

    Args:
        graph: as it is before anything is rewritten; it is not changed.
        ctx: the calibration data.
        layers: those that may be compressed.

    Raises:
        InputError: there are no samples.
    """

    def __init__(self, graph: Graph, ctx: Context, layers: Sequence[Layer]) -> None:
        self._images = Images(graph, ctx)
        self._network = Overridable(graph, layers)
        self._damage = Damage(self._network, self._images, ctx.get(Cost).macs)
        self._numbers = self._images.half(0, _LOOKED_AT)
        self._blocks = deque(together([layer for layer in layers if fits_memory(layer)], len(self._numbers)))
        self._seen: dict[Layer, Samples] = {}
        self._lock = Lock()

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
