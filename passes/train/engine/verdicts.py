"""What weights are judged by, and which of two are better.

Everything here is of outputs: tensors inside, and the adapters that meet them, are means to an end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgec.passes.train.engine.learner import Learner
from edgec.passes.train.engine.rates import gain


@dataclass(frozen=True)
class Verdict:
    """How good weights are; of all of it less is better.

    Attributes:
        cost: what the epoch is chosen by: the held-out loss, or the metric turned so that less is better.
        losses: on each part of the held-out samples: (parts, figures). The first figure is the loss by the outputs;
            others must not grow either.
        sizes: samples of each part.
    """

    cost: float
    losses: np.ndarray
    sizes: np.ndarray

    @property
    def loss(self) -> float:
        """The held-out loss; infinite where it is no number."""
        return float(self.means[0])

    @property
    def parts(self) -> np.ndarray:
        """The loss on each part, weighted so that their mean is the held-out loss."""
        weighted: np.ndarray = self.losses[:, 0] * (self.sizes / self.sizes.mean())
        return weighted

    @property
    def means(self) -> np.ndarray:
        """Of each figure."""
        means: np.ndarray = self.sizes @ self.losses / self.sizes.sum()
        return np.where(np.isfinite(means), means, np.inf)

    def betters(self, other: Verdict) -> bool:
        """Whether these weights are the better ones; of two that the metric says are alike, by the held-out loss."""
        return (self.cost, self.loss) < (other.cost, other.loss)

    def gained(self, start: Verdict) -> bool:
        """Whether the held-out loss is below that of ``start`` by more than chance, and no other figure above."""
        gained, error = gain(start.parts, self.parts)
        return gained > error and self.harmless(start)

    def harmed(self, start: Verdict, times: float = 1.0) -> bool:
        """Whether the held-out loss is above that of ``start``, so many times, by more than chance."""
        gained, error = gain(times * start.parts, self.parts)
        return gained < -error

    def harmless(self, start: Verdict) -> bool:
        """Whether no figure is above that of ``start``."""
        return bool((self.means <= start.means).all())


@dataclass(frozen=True)
class Monitor:
    """Judges the weights that a learner has.

    Attributes:
        name: of the figure that chooses, as a progress line shows it.
        losses: of a learner in evaluation mode, on each part of the held-out samples; see :class:`Verdict`.
        sizes: samples of each part.
        metric: the figure, where it is not the held-out loss.
        higher_is_better: which way that is better.
        held: whether outputs must not move away from what they should be, whatever the metric says.
    """

    name: str
    losses: Callable[[Learner], np.ndarray]
    sizes: np.ndarray
    metric: Callable[[], float] | None = None
    higher_is_better: bool = False
    held: bool = True

    def parts(self, learner: Learner) -> np.ndarray:
        """The loss by the outputs on each part of the held-out samples, whatever the metric is."""
        return Verdict(math.inf, self.losses(learner), self.sizes).parts

    def judge(self, learner: Learner) -> Verdict:
        """The verdict on the weights as they are."""
        known = Verdict(math.inf, self.losses(learner), self.sizes)
        if self.metric is None:
            return Verdict(known.loss, known.losses, self.sizes)
        figure = self.metric()
        cost = -figure if self.higher_is_better else figure
        return Verdict(cost if math.isfinite(cost) else math.inf, known.losses, self.sizes)

    def figure(self, verdict: Verdict) -> float:
        """What the epoch is chosen by, as it was measured."""
        return -verdict.cost if self.metric is not None and self.higher_is_better else verdict.cost

    def accepts(self, verdict: Verdict, start: Verdict) -> bool:
        """Whether weights may take the place of those that came in, which are ``start``."""
        if self.metric is None or verdict.cost == start.cost:
            return verdict.gained(start)
        return verdict.cost < start.cost and (not self.held or verdict.harmless(start))
