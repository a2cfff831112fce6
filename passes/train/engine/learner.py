"""A network with its objective as one module: a batch goes in, a loss comes out."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch

from edgec.ir.torch_module.module import TorchModule
from edgec.passes.train.engine.distance import Distance
from edgec.passes.train.engine.feeding import Batch, Entrance
from edgec.passes.train.engine.objective import Task, Tensors

# Of a loss that is divided by.
_LEAST = 1e-30


class Objective(torch.nn.Module):
    """The loss of the task, the distance to a teacher, or both by their shares; while training, hints from inside too.

    Tensors inside say how the outputs can be met, and must not outweigh them: a pruned network's can never be the
    teacher's, and its outputs all the same. So the hints weigh as much as the outputs' loss at most, whatever that is,
    and less and less: at the end of a run the outputs are all that counts.

    Args:
        task: what the network should compute; ``None`` with a teacher alone.
        distance: to a teacher, with the adapters that are trained along; ``None`` without one.
        labels: the part of the task where there are both.
        inside: what the tensors inside weigh beside the outputs, at first.

    Attributes:
        progress: how much of the run is over, from 0 to 1.
    """

    def __init__(self, task: Task | None, distance: Distance | None, labels: float, inside: float = 0.0) -> None:
        super().__init__()
        self.distance, self.progress = distance, 0.0
        self._share = 1.0 if distance is None else labels if task is not None else 0.0
        self._task = task if self._share > 0 else None
        self._inside = inside if self._share < 1 else 0.0

    @property
    def words(self) -> str:
        """What it is, for the report."""
        parts = [self._task.words] if self._task is not None else []
        if self.distance is not None and self._share < 1:
            parts.append(self.distance.words)
        return " and ".join(parts)

    @property
    def by_teacher(self) -> bool:
        """Whether a teacher alone says what the outputs should be."""
        return self._task is None

    @property
    def taps(self) -> list[str]:
        """Tensors inside the network that are wanted besides its outputs."""
        return [] if self.distance is None or not self._inside else self.distance.taps

    def by_outputs(self, outputs: Tensors, batch: Batch) -> torch.Tensor:
        """The loss of outputs by name: what training is for, and what it is judged by."""
        parts = []
        if self._task is not None:
            parts.append(self._share * self._task.loss(outputs, batch))
        if self.distance is not None and self._share < 1:
            parts.append((1 - self._share) * self.distance(outputs, batch))
        return torch.stack(parts).sum()

    def forward(self, outputs: Tensors, batch: Batch) -> torch.Tensor:
        """The loss of outputs and taps by name: what a step makes less."""
        loss = self.by_outputs(outputs, batch)
        if not self.taps or self.distance is None:
            return loss
        hints = self.distance.inside(outputs, batch)
        even = (loss.detach() / hints.detach().clamp_min(_LEAST)).clamp(max=1.0)
        return loss + self._inside * (1 - self.progress) * even * hints


class Learner(torch.nn.Module):
    """What is trained.

    Args:
        network: the graph's module.
        objective: what is minimized.
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

    def judged(self, batch: Batch) -> list[torch.Tensor]:
        """The loss by the outputs, in full precision, and what else must not grow: the squared error to the network's
        own original where only probabilities are compared with it."""
        outputs = self.network(self._entrance(batch.feeds))
        figures = [self.objective.by_outputs(outputs, batch)]
        distance = self.objective.distance
        if self.objective.by_teacher and distance is not None and distance.loose:
            figures.append(distance.squared(outputs, batch))
        return figures

    def tensors_inside(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The network's tensors that are compared with a teacher's, besides its outputs."""
        made: dict[str, torch.Tensor] = self.network(self._entrance(batch.feeds), self.objective.taps)
        return made

    def trained(self) -> list[torch.nn.Parameter]:
        """The parameters that a step changes."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]


Loss = Callable[[Batch], torch.Tensor]
