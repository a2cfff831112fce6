"""A teacher: a network whose outputs, and tensors inside it, the student is to meet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from edgec.ir.errors import UsageError
from edgec.ir.graph import Graph, Variable
from edgec.ir.shapes import Shapes
from edgec.ir.torch_module.layout import channels_last
from edgec.ir.torch_module.module import TorchModule
from edgec.passes.framework import input_domain
from edgec.passes.train.engine.feeding import Batch, Entrance

# Where tensors inside are matched by name: what stands behind a block, at most so many, evenly spread.
_BLOCKS = frozenset({"Add", "Relu", "Clip", "LeakyRelu", "PRelu", "HardSwish", "Mul", "Sigmoid", "Elu", "Selu", "Gelu"})
_MOST_MATCHED = 6
# Bytes of answers that are kept, so that the teacher runs once over the data and not once an epoch.
_MOST_BYTES = 1 << 29


@dataclass(frozen=True)
class Match:
    """A tensor of the student and the one of the teacher that it is to meet; channels are axis 1.

    Attributes:
        student, teacher: their names.
        adapter: (teacher's channels, student's channels) where they differ; ``None`` where not.
    """

    student: str
    teacher: str
    adapter: tuple[int, int] | None


class Teacher:
    """A network that is only asked.

    Args:
        graph: the teacher; it takes the original model's feeds.
        student: the graph that is trained.
        matches: tensors inside.
        samples: of the data set.
        device: where it runs.

    Raises:
        InputError: an operator of it cannot be run in torch.
        UsageError: its outputs are not the student's.
    """

    def __init__(
        self, graph: Graph, student: Graph, matches: Sequence[Match], samples: int, device: torch.device, where: str
    ) -> None:
        self.outputs = _paired(graph, student, where)
        self.matches = list(matches)
        # A teacher may itself take raw values, whether the student does or not.
        self._entrance = Entrance({tensor.name: input_domain.folded(graph, tensor.name) for tensor in graph.inputs})
        self._module = channels_last(TorchModule(graph)).to(device).eval()
        self._module.requires_grad_(False)
        self._samples = samples
        self._known = torch.zeros(samples, dtype=torch.bool)
        self._answers: dict[str, torch.Tensor] | None = {}

    def __deepcopy__(self, memo: dict[int, object]) -> Teacher:
        return self  # whoever learns from it, it is the same

    def __call__(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Outputs and matched tensors by the teacher's names."""
        numbers = batch.numbers.cpu()
        if self._answers and bool(self._known[numbers].all()):
            return {name: kept[numbers].to(batch.numbers.device) for name, kept in self._answers.items()}
        taps = [match.teacher for match in self.matches if match.teacher not in self.outputs.values()]
        with torch.no_grad():
            made = {name: x.float() for name, x in self._module(self._entrance(batch.feeds), taps).items()}
        self._keep(numbers, made)
        return made

    def _keep(self, numbers: torch.Tensor, made: Mapping[str, torch.Tensor]) -> None:
        if self._answers is None:
            return
        if not self._answers:
            each = sum(x[0].numel() * 4 for x in made.values())
            if each * self._samples > _MOST_BYTES:
                self._answers = None
                return
            self._answers = {name: torch.empty((self._samples, *x.shape[1:])) for name, x in made.items()}
        for name, x in made.items():
            self._answers[name][numbers] = x.cpu()
        self._known[numbers] = True


def _paired(graph: Graph, student: Graph, where: str) -> dict[str, str]:
    """For each output of the student that of the teacher: of the same name, or else in the same place."""
    names = {tensor.name for tensor in graph.outputs}
    same = all(tensor.name in names for tensor in student.outputs)
    if not same and len(graph.outputs) != len(student.outputs):
        what = f"has {len(graph.outputs)} outputs, the network {len(student.outputs)}"
        raise UsageError(where, what, "name a teacher with the network's outputs")
    others = {tensor.name: tensor for tensor in graph.outputs}
    pairs = {}
    for place, tensor in enumerate(student.outputs):
        other = others[tensor.name] if same else graph.outputs[place]
        if list(other.shape or ())[1:] != list(tensor.shape or ())[1:]:
            what = f"computes '{other.name}' of shape {list(other.shape or ())}, the network {list(tensor.shape or ())}"
            raise UsageError(where, what, "name a teacher whose outputs have the network's shapes")
        pairs[tensor.name] = other.name
    return pairs


def find_matches(student: Graph, teacher: Graph, named: Mapping[str, str], where: str) -> list[Match]:
    """The tensors inside that are compared: those that are named, else those of the same name behind blocks.

    Raises:
        UsageError: a name is unknown, or shapes differ in more than the channels.
    """
    shapes, others = Shapes(student), Shapes(teacher)
    mine = {tensor.name: tensor for node in student.nodes for tensor in node.outputs}
    its = {tensor.name: tensor for node in teacher.nodes for tensor in node.outputs}
    if named:
        return [_named(own, other, mine, its, shapes, others, where) for own, other in named.items()]
    outputs = {tensor.name for tensor in student.outputs}
    found = []
    for node in student.nodes:
        tensor = node.outputs[0]
        if node.op in _BLOCKS and tensor.name in its and tensor.name not in outputs:
            match = _match(tensor, its[tensor.name], shapes, others)
            if isinstance(match, Match):
                found.append(match)
    if len(found) > _MOST_MATCHED:
        step = len(found) / _MOST_MATCHED
        found = [found[int((place + 1) * step) - 1] for place in range(_MOST_MATCHED)]
    return found


def _named(
    own: str, other: str, mine: Mapping[str, Variable], its: Mapping[str, Variable], shapes: Shapes, others: Shapes,
    where: str,
) -> Match:  # fmt: skip
    for name, known, whose in ((own, mine, "the network"), (other, its, "the teacher")):
        if name not in known:
            raise UsageError(where, f"{whose} has no tensor '{name}'", "'edgec inspect --text' shows the names")
    match = _match(mine[own], its[other], shapes, others)
    if isinstance(match, str):
        raise UsageError(where, match, "match tensors of the same size")
    return match


def _match(own: Variable, other: Variable, shapes: Shapes, others: Shapes) -> Match | str:
    mine, its = shapes.shape(own), others.shape(other)
    if mine is None or its is None or len(mine) != len(its) or len(mine) < 2 or mine[2:] != its[2:]:
        return f"'{own.name}' is of shape {list(mine or ())} and '{other.name}' of {list(its or ())}"
    if mine[1] == its[1]:
        return Match(own.name, other.name, None)
    if mine[1] is None or its[1] is None:
        return f"the channels of '{own.name}' or of '{other.name}' are not known"
    return Match(own.name, other.name, (its[1], mine[1]))
