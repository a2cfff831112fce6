"""A network with its objective as one module: a batch goes in, a loss comes out."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch

from edgec.ir.torch_module.module import TorchModule
from edgec.passes.training.feeding import Batch, Entrance
from edgec.passes.training.objective import Task, Tensors
from edgec.passes.training.teacher import Distance


class Objective(torch.nn.Module):
    """The loss of the task, the distance to a teacher, or both by their shares.

    Args:
        task: what the network should compute; ``None`` with a teacher alone.
        distance: to a teacher, with the adapters that are trained along; ``None`` without one.
        labels: the part of the task where there are both.
    """

    def __init__(self, task: Task | None, distance: Distance | None, labels: float) -> None:
        super().__init__()
        self.distance = distance
        self._share = 1.0 if distance is None else labels if task is not None else 0.0
        self._task = task if self._share > 0 else None

    @property
    def words(self) -> str:
        """What it is, for the report."""
        parts = [self._task.words] if self._task is not None else []
        if self.distance is not None and self._share < 1:
            parts.append(self.distance.words)
        return " and ".join(parts)

    @property
    def taps(self) -> list[str]:
        """Tensors inside the network that are wanted besides its outputs."""
        return [] if self.distance is None or self._share >= 1 else self.distance.taps

    def forward(self, outputs: Tensors, batch: Batch) -> torch.Tensor:
        """The loss of outputs and taps by name."""
        parts = []
        if self._task is not None:
            parts.append(self._share * self._task.loss(outputs, batch))
        if self.distance is not None and self._share < 1:
            parts.append((1 - self._share) * self.distance(outputs, batch))
        return torch.stack(parts).sum()


class Learner(torch.nn.Module):
    """What is trained.

    Args:
        network: the graph's module.
        objective: what is minimised.
        entrance: from the original's feeds to the network's.
        segments: of gradient checkpointing.
        low: compute in bfloat16 where that is safe.
    """

    def __init__(
        self, network: TorchModule, objective: Objective, entrance: Entrance, *, segments: int, low: bool
    ) -> None:
        super().__init__()
        self.network, self.objective = network, objective
        self._entrance, self._segments, self._low = entrance, segments, low

    def forward(self, batch: Batch) -> torch.Tensor:
        """The loss of a batch, which lies on the device of the network."""
        kind = batch.numbers.device.type
        with torch.autocast(kind, torch.bfloat16) if self._low else nullcontext():
            outputs = self.network(self._entrance(batch.feeds), self.objective.taps, self._segments)
        loss: torch.Tensor = self.objective(outputs, batch)
        return loss

    def trained(self) -> list[torch.nn.Parameter]:
        """The parameters that a step changes."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]


Loss = Callable[[Batch], torch.Tensor]
