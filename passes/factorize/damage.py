"""How much the network's outputs suffer from what is taken from a single layer.

An error of a layer's weights, or of its output, says little about that: what later layers ignore costs nothing.
Measured on the capsule autoencoder of the examples, halving the error of an early layer's output lowers that of the
network's ten times, and the same of a late layer's twice. So every layer is compressed alone to a few sizes, the
network is run, and the rest of its curve follows by interpolation between the logarithms of the error of the weights,
which is known at every size, and of that of the outputs, which is not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgec.passes.factorize.images import Images
from edgec.passes.factorize.layers import Layer
from edgec.passes.factorize.observed import Observed
from edgec.passes.factorize.offers import Choice
from edgec.passes.factorize.overriding import Overridable, Weights
from edgec.passes.factorize.refitting import fit_one, override, plain

# Sizes at which each layer is tried, and rounds of alternation for its chain.
_SIZES, _ROUNDS = 6, 2
# Images that the network is run on for each: at most, at least, and as many as this many multiply-accumulates allow.
_MOST_IMAGES, _FEWEST_IMAGES, _WORK = 16, 4, 3_000_000_000


class Damage:
    """Measures what a compressed layer does to the outputs.

    Args:
        network: the original.
        images: the calibration data.
        macs: multiply-accumulates of one run.
    """

    def __init__(self, network: Overridable, images: Images, macs: int) -> None:
        self._network, self._images = network, images
        # Not those that layers are observed on: a chain that only knows its samples by heart must not look good.
        self._held_out = images.half(1, min(max(_WORK // max(macs, 1), _FEWEST_IMAGES), _MOST_IMAGES))
        self._original = {n: self._outputs(n, Weights()) for n in self._held_out}

    def curve(
        self, observed: Observed | None, layer: Layer, choices: Sequence[Choice], cost: np.ndarray, lost: np.ndarray
    ) -> np.ndarray:
        """The noise that each choice adds to the outputs, relative to their power.

        Args:
            observed: the layer on its data; ``None`` where it is too wide for that.
            layer: the only one that is compressed.
            choices: in the order of rising cost.
            cost: of each.
            lost: what each loses of the layer, falling, on any scale.

        Returns:
            Falling, one a choice: sums of the squared error over all outputs, each by its own power.
        """
        ladder = np.linspace(np.log(cost[0]), np.log(cost[-1]), _SIZES)
        tried = np.unique([int(np.abs(np.log(cost) - step).argmin()) for step in ladder])
        found = []
        for place in tried:
            choice, weights = choices[int(place)], Weights()
            fit = plain(layer, choice) if observed is None else fit_one(observed, choice, rounds=_ROUNDS, bend=False)
            override(weights, layer, fit)
            found.append(self.noise(weights))
        # Larger chains cannot be worse; what says otherwise is the noise of few images.
        noise = np.maximum.accumulate(np.maximum(found, 1e-14)[::-1])[::-1]
        x = np.log(np.maximum(lost, 1e-12))
        made = np.exp(np.interp(-x, -x[tried], np.log(noise)))
        return np.asarray(made * (1 + 1e-6 * np.maximum(lost, 1e-12)))  # ties go to what loses less of the layer

    def noise(self, weights: Weights, numbers: Sequence[int] | None = None) -> float:
        """The noise of the network with other weights on some of the batches, those held out where none are given."""

        def one(number: int) -> np.ndarray:
            was = self._original.get(number) or self._outputs(number, Weights())
            made = self._outputs(number, weights)
            sums = []
            for name in self._network.outputs:
                before, behind = was[name].astype(np.float64), made[name].astype(np.float64)
                power = np.sum(before**2)
                # Where another number of boxes is found than before, nothing is left of the output.
                same = before.shape == behind.shape
                sums.append((power, np.sum((before - behind) ** 2) if same else power))
            return np.array(sums)

        power, noise = np.sum(list(self._images.each(one, self._held_out if numbers is None else numbers)), axis=0).T
        return float(np.sum(noise / np.maximum(power, 1e-30)))

    def _outputs(self, number: int, weights: Weights) -> dict[str, np.ndarray]:
        return self._network.run(self._images.feeds[number], self._network.outputs, weights)
