"""One step of training: the gradient of a batch, shortened where it is too long, taken at a rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from edgec.passes.train.engine.feeding import Batch
from edgec.passes.train.engine.gradients import Gradients
from edgec.passes.train.engine.learner import Learner, Loss
from edgec.passes.train.engine.parallel import World
from edgec.passes.train.engine.rates import step_size
from edgec.passes.train.training_pass import TrainingPass

_MOMENTUM = 0.9
# Runs are short: what is usual of a gradient has to be known after a hundred steps, not after a thousand.
_BETAS = (0.9, 0.99)


class Stepping:
    """Takes steps with a learner, and remembers of them what an optimizer does.

    Args:
        options: of the pass.
        learner: whose parameters are changed.
        loss: of a batch; the learner, or what averages its gradients over processes.
        world: the processes that take part.
        sizes: of the steps of each parameter, as :func:`step_sizes` finds them before training.
    """

    def __init__(
        self, options: TrainingPass, learner: Learner, loss: Loss, world: World, sizes: Sequence[float]
    ) -> None:
        self._learner, self._loss, self._world = learner, loss, world
        self._gradients = Gradients(options.clip)
        self._optimizer = _optimizer(options, learner.trained(), sizes)

    def take(self, batch: Batch, rate: float) -> float:
        """The loss of the batch before the step."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["size"]
        own, weight = self._world.part(batch)
        self._optimizer.zero_grad(set_to_none=True)
        value = weight * self._loss(own.to(self._world.device))
        value.backward()
        self._gradients.shorten(self._learner.trained())
        self._optimizer.step()
        return self._world.mean(value.detach())

    def state(self) -> dict[str, Any]:
        """What the next step depends on."""
        return {"optimizer": self._optimizer.state_dict(), "usual": self._gradients.usual}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes up what :meth:`state` gave."""
        self._optimizer.load_state_dict(state["optimizer"])
        self._gradients.usual = state["usual"]


def step_sizes(learner: Learner) -> list[float]:
    """Of each parameter that is trained, what the rate is multiplied by."""
    return [step_size(parameter) for parameter in learner.trained()]


def _optimizer(
    options: TrainingPass, parameters: Sequence[torch.nn.Parameter], sizes: Sequence[float]
) -> torch.optim.Optimizer:
    """Kernels decay, biases and scales do not; each steps by what its size allows."""
    groups: dict[tuple[float, bool], list[torch.nn.Parameter]] = {}
    for parameter, size in zip(parameters, sizes, strict=True):
        groups.setdefault((size, parameter.ndim > 1), []).append(parameter)
    described = [
        {"params": held, "size": size, "weight_decay": options.weight_decay if decays else 0.0}
        for (size, decays), held in groups.items()
    ]
    if options.optimizer == "sgd":
        return torch.optim.SGD(described, lr=0.0, momentum=_MOMENTUM)
    return torch.optim.AdamW(described, lr=0.0, betas=_BETAS)
