"""The rules that turn operators into calls of torch, and what a rule may ask about its node.

A rule runs once, when the module is made: it reads the attributes and whatever operands are known by then, and returns
a call on tensors. Everything that does not depend on the samples is worked out there, so that a run only calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from edgec.ir.batch_flow import BatchFlow
from edgec.ir.errors import InputError
from edgec.ir.graph import Node, Tensor
from edgec.ir.rules import registering
from edgec.ir.shapes import Shapes
from edgec.ir.torch_module.conversion import to_numpy

#: Takes tensors (``None`` for an operand that is left out), gives a tensor, or a tuple of them for several outputs.
Call = Callable[..., Any]
Rule = Callable[["Site"], Call]

#: The rule of each operator of the standard domain; filled by :data:`lowers`.
RULES: dict[str, Rule] = {}


#: Registers the rule for these operators.
lowers = registering(RULES)


@dataclass(frozen=True)
class Mode:
    """How one run treats BatchNormalization.

    Attributes:
        batch_statistics: normalize by the statistics of the batch, not by the running ones.
        updating: let the batch move the running ones; not while a checkpointed segment is run a second time.
    """

    batch_statistics: bool
    updating: bool = True


#: An operand of a call that is not a tensor: the run's :class:`Mode`.
MODE = object()


class Site:
    """One node, as its rule sees it.

    Attributes:
        node: the node.
        opset: version of the standard operators.
        frozen: whether its weights are not to be trained.
        latent: the integers (by numpy's name) that a trained float weight stands for here, where it does: the node is
            then a DequantizeLinear whose first operand is that weight.
        reads: what the call takes: inputs of the node, ``None`` for one left out, or :data:`MODE`.
    """

    def __init__(
        self,
        node: Node,
        opset: int,
        shapes: Shapes,
        known: Mapping[Tensor, np.ndarray],
        flow: BatchFlow | None,
        *,
        frozen: bool = False,
        latent: str | None = None,
    ) -> None:
        self.node = node
        self.opset = opset
        self.frozen = frozen
        self.latent = latent
        self._shapes = shapes
        self._known = known
        self._flow = flow
        self.reads: list[Any] = [tensor if tensor.name else None for tensor in node.inputs]

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute."""
        return self.node.attrs.get(name, default)

    def has(self, place: int) -> bool:
        """Whether that input is given."""
        return place < len(self.node.inputs) and bool(self.node.inputs[place].name)

    def wanted(self, place: int) -> bool:
        """Whether that output is asked for."""
        return place < len(self.node.outputs) and bool(self.node.outputs[place].name)

    def known(self, place: int) -> np.ndarray | None:
        """The elements of an input that neither samples nor training change; ``None`` where there are none."""
        return self._known.get(self.node.inputs[place]) if self.has(place) else None

    def shape(self, place: int) -> tuple[int | None, ...] | None:
        """The dimensions of an input at the batch size that the graph declares."""
        return self._shapes.shape(self.node.inputs[place])

    def dtype(self, place: int) -> np.dtype | None:
        """The element type that the graph declares for an input."""
        return self._shapes.dtype(self.node.inputs[place])

    def rank(self, place: int) -> int:
        """The number of dimensions of an input.

        Raises:
            InputError: it is not known.
        """
        shape = self.shape(place)
        if shape is None:
            raise self.refusal("the rank of its input is not known", "export the network with its shapes")
        return len(shape)

    def sizes(self, place: int) -> tuple[int, ...] | None:
        """The dimensions behind batch and channels, ``None`` unless all are known."""
        shape = self.shape(place)
        if shape is None or any(d is None for d in shape[2:]):
            return None
        return tuple(int(d) for d in shape[2:] if d is not None)

    def batch_axis(self, place: int) -> int | None:
        """The axis of an input along which the samples lie; ``None`` where it has none, or the batch size is fixed."""
        return None if self._flow is None else self._flow.axis(self.node.inputs[place])

    def output_batch_axis(self, place: int = 0) -> int | None:
        """The same for an output."""
        return None if self._flow is None else self._flow.axis(self.node.outputs[place])

    def take(self, *places: int) -> None:
        """Says which inputs the call takes; all of them unless this is called."""
        self.reads = [self.node.inputs[place] if self.has(place) else None for place in places]

    def late(self, places: Sequence[int], build: Callable[..., Call]) -> Call:
        """A call that is made from the elements of the inputs at ``places`` and takes the others.

        It is made now where all of them are known, otherwise anew in each run.
        """
        given = [place for place in places if self.has(place)]
        others = [place for place in range(len(self.node.inputs)) if place not in places]
        if all(self.known(place) is not None for place in given):
            self.take(*others)
            return build(*[self.known(place) for place in places])

        def call(*tensors: torch.Tensor | None) -> Any:
            values = [tensors[p] if p < len(tensors) else None for p in places]
            made = build(*[None if v is None else to_numpy(v) for v in values])
            return made(*[tensors[place] for place in others])

        return call

    def refusal(self, what: str, fix: str) -> InputError:
        """The error for a node that cannot be lowered."""
        return InputError(place_of(self.node), what, fix)


def place_of(node: Node) -> str:
    """A node, as errors name it."""
    label = node.name or next((t.name for t in node.outputs), "")
    return f"node '{label}' ({node.op})"
