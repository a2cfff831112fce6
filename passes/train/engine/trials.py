"""Short runs from the same start, each at a rate of its own, judged by held-out samples."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Sequence

import numpy as np

from edgec.passes.train.engine.feeding import Batch
from edgec.passes.train.engine.learner import Learner
from edgec.passes.train.engine.parallel import World
from edgec.passes.train.engine.rates import factor
from edgec.passes.train.engine.stepping import Stepping
from edgec.passes.train.training_pass import TrainingPass

# A run ends where the loss of a batch is so many times what the run at the lowest rate saw of it.
_DIVERGED, _LEAST = 16.0, 1e-12
# The part of a run in which the rate rises: a few steps of AdamW that is new to a network do more harm than many later.
_RISE = 0.3


class Trials:
    """Runs of a few steps on copies of a learner, which itself stays as it is.

    Args:
        options: of the pass.
        learner: in front of the first step.
        batches: what is trained on, the same in every run; a longer one begins again.
        sizes: of steps, by parameter.
        world: whose device is computed on; every process makes the same runs.
        judged: the held-out loss of a learner, on each part of the samples.
    """

    def __init__(
        self,
        options: TrainingPass,
        learner: Learner,
        batches: Sequence[Batch],
        sizes: Sequence[float],
        world: World,
        judged: Callable[[Learner], np.ndarray],
    ) -> None:
        self._options, self._learner, self._batches, self._sizes = options, learner, batches, sizes
        self._alone, self._judged = World(0, 1, world.device), judged
        self._lowest, self._seen = math.inf, dict[int, float]()

    def __call__(self, rate: float, steps: int) -> np.ndarray:
        """The held-out loss, on each part, behind so many steps; the rate rises and falls as in a whole run."""
        twin = copy.deepcopy(self._learner).train()
        stepping = Stepping(self._options, twin, twin, self._alone, self._sizes)
        part = functools.partial(factor, self._options.schedule, steps=steps, rise=_RISE)
        lowest, self._lowest = rate <= self._lowest, min(rate, self._lowest)
        for step in range(steps):
            twin.objective.progress = step / steps
            loss = stepping.take(self._batches[step % len(self._batches)], rate * part(step))
            if lowest:
                self._seen[step] = loss
            if not math.isfinite(loss) or loss > _DIVERGED * max(self._seen.get(step, loss), _LEAST):
                return np.full(1, math.inf)
        return self._judged(twin)
