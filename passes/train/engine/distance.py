"""How far a student is from its teacher: by its outputs, and by tensors inside it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.nn import functional

from edgec.ir.graph import Graph
from edgec.passes.train.engine.adapters import Adapters
from edgec.passes.train.engine.feeding import Batch
from edgec.passes.train.engine.objective import Tensors, log_probabilities
from edgec.passes.train.engine.teacher import Teacher

# Of a power that is divided by.
_LEAST = 1e-12


class Distance(torch.nn.Module):
    """The two distances, and the adapters that are trained along.

    Args:
        teacher: whom.
        student: the graph that is trained.
        original: the teacher's graph.
        classes: whether outputs of (samples, classes) are scores of classes.
        temperature: that softens those.
        own: whether the teacher is what the student was made of.
        typical: samples on which the power of what is to be met is measured, which errors are divided by.
    """

    def __init__(
        self,
        teacher: Teacher,
        student: Graph,
        original: Graph,
        *,
        classes: bool,
        temperature: float,
        own: bool,
        typical: Batch,
    ) -> None:
        super().__init__()
        self._teacher, self._temperature, self._own = teacher, temperature, own
        self._soft = {}
        for tensor in student.outputs:
            shape = list(tensor.shape or ())
            if classes and len(shape) == 2 and isinstance(shape[1], int) and shape[1] > 1:
                other = teacher.outputs[tensor.name]
                of = (student, tensor.name), (original, other)
                self._soft[tensor.name] = tuple(log_probabilities(graph, name, temperature) for graph, name in of)
        answers = teacher(typical)
        self._power = {name: max(float(x.square().mean()), _LEAST) for name, x in answers.items()}
        self.adapters = Adapters([match.adapter for match in teacher.matches])

    @property
    def words(self) -> str:
        """What it is, for the report."""
        kind = (
            f"divergence from the teacher at temperature {self._temperature:g}" if self._soft else "mse to the teacher"
        )
        count = len(self._teacher.matches)
        return kind + (f" and to {count} tensors inside it" if count else "")

    @property
    def loose(self) -> bool:
        """Whether outputs may drift from those of the network's own original unseen: probabilities are the same of
        scores that are all too high."""
        return self._own and bool(self._soft)

    @property
    def taps(self) -> list[str]:
        """Tensors of the student that are compared, besides outputs."""
        return list(dict.fromkeys(match.student for match in self._teacher.matches))

    def forward(self, outputs: Tensors, batch: Batch) -> torch.Tensor:
        """By the outputs alone."""
        wanted = self._teacher(batch)
        losses = []
        for name, other in self._teacher.outputs.items():
            if name in self._soft:
                own, its = self._soft[name]
                apart = functional.kl_div(own(outputs), its(wanted), reduction="batchmean", log_target=True)
                losses.append(apart * self._temperature**2)
            else:
                losses.append(self._error(outputs[name], wanted, other))
        return torch.stack(losses).mean()

    def squared(self, outputs: Tensors, batch: Batch) -> torch.Tensor:
        """The squared error of all outputs, by the power of what is wanted, whatever else they are compared by."""
        wanted = self._teacher(batch)
        errors = [self._error(outputs[name], wanted, other) for name, other in self._teacher.outputs.items()]
        return torch.stack(errors).mean()

    def inside(self, outputs: Tensors, batch: Batch) -> torch.Tensor:
        """By the tensors inside, of which there are some."""
        wanted = self._teacher(batch)
        errors = [
            self._error(self.adapters.adapted(place, outputs[match.student]), wanted, match.teacher)
            for place, match in enumerate(self._teacher.matches)
        ]
        return torch.stack(errors).mean()

    def solve_adapters(self, batches: Iterable[tuple[Tensors, Batch]]) -> None:
        """Makes of the student's tensors inside what is nearest to the teacher's.

        Args:
            batches: the student's tensors by name, and what they were computed of.
        """

        def pairs(outputs: Tensors, batch: Batch) -> list[tuple[torch.Tensor, torch.Tensor]]:
            wanted = self._teacher(batch)
            return [(outputs[match.student], wanted[match.teacher]) for match in self._teacher.matches]

        if self.adapters.needed:
            self.adapters.solve(pairs(*batch) for batch in batches)

    def _error(self, made: torch.Tensor, wanted: Tensors, name: str) -> torch.Tensor:
        """The squared error by the power of what is wanted."""
        return (made.float() - wanted[name]).square().mean() / self._power[name]
