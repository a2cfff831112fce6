"""A graph as a flat list of calls: made once, run many times.

Values live in numbered slots. What depends on constants alone is computed while the list is made. When a run is done
with a value its slot is cleared, so that a run without gradients holds no more than what is still needed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from edgec.ir.batch_flow import BatchFlow
from edgec.ir.errors import InputError, InputErrors, UsageError, did_you_mean
from edgec.ir.graph import Constant, Graph, Node, Tensor, producer
from edgec.ir.torch_module.conversion import TYPES
from edgec.ir.torch_module.known_shapes import KnownShapes, evaluate
from edgec.ir.torch_module.learnt_scales import LearntScale, learnt_scales
from edgec.ir.torch_module.lowering import MODE, Call, Site, place_of
from edgec.ir.torch_module.operators import RULES
from edgec.ir.torch_module.trained import Weight, weights

#: Slots that every program has: what is left out, the run's mode, and outputs that nobody asks for.
NOTHING_SLOT, MODE_SLOT, UNWANTED_SLOT = range(3)


@dataclass(frozen=True)
class Step:
    """A call, the slots that it reads and the slots that it fills."""

    call: Call
    reads: tuple[int, ...]
    writes: tuple[int, ...]


@dataclass
class Program:
    """A lowered graph.

    Attributes:
        steps: in order of execution.
        slots: the slot of each tensor that the program has.
        weights: what is trained, and where it goes.
        buffers: the other constants that steps read, and what was computed from constants alone.
        frozen: those of the weights that are to stay as they are.
        scales: the scales that are learnt.
        factors: the shapes of what they are multiplied with.
        types: what an integer tensor that steps hold as floats is to be given out as.
        batch_axes: for each output, the axis that its samples lie along; ``None`` where it is the same for every batch.
    """

    steps: list[Step] = field(default_factory=list)
    slots: dict[Tensor, int] = field(default_factory=dict)
    weights: dict[Constant, Weight] = field(default_factory=dict)
    buffers: dict[Tensor, np.ndarray] = field(default_factory=dict)
    frozen: set[Constant] = field(default_factory=set)
    scales: dict[Constant, LearntScale] = field(default_factory=dict)
    factors: list[tuple[int, ...]] = field(default_factory=list)
    types: dict[Tensor, torch.dtype] = field(default_factory=dict)
    batch_axes: dict[str, int | None] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """How many slots a run needs."""
        return len(self.slots) + 3

    def slot(self, tensor: Any) -> int:
        """The slot of an operand."""
        if tensor is None:
            return NOTHING_SLOT
        return MODE_SLOT if tensor is MODE else self.slots.setdefault(tensor, self.size)

    def timetable(self, kept: Iterable[int]) -> list[tuple[Call, tuple[int, ...], tuple[int, ...], tuple[int, ...]]]:
        """The steps, each with the slots that nobody reads behind it; those in ``kept`` stay."""
        seen = {*kept, NOTHING_SLOT, MODE_SLOT}
        rows = []
        for step in reversed(self.steps):
            dead = tuple(slot for slot in dict.fromkeys((*step.reads, *step.writes)) if slot not in seen)
            seen.update(step.reads, step.writes)
            rows.append((step.call, step.reads, step.writes, dead))
        return rows[::-1]


def lower(graph: Graph, frozen: Collection[str], any_batch: bool, scales: bool) -> Program:
    """Lowers ``graph``, with scales that are learnt where ``scales``.

    Raises:
        InputError: an operator, or a use of one, cannot be lowered, or the batch size cannot change.
        UsageError: no node has a name of ``frozen``.
    """
    _refuse_unknown(graph)
    program = Program()
    program.weights = weights(graph)
    stays = _frozen_nodes(graph, frozen)
    for constant, weight in program.weights.items():
        if not stays.isdisjoint(weight.layers):
            program.frozen.add(constant)
    if scales:
        program.factors, program.scales = learnt_scales(graph, program.weights, program.frozen)
    apart = program.weights.keys() | program.scales.keys()
    known: dict[Tensor, np.ndarray] = {
        c: c.values for c in graph.constants() if c not in apart and c.dtype.name in TYPES
    }
    shapes = KnownShapes(graph, known)
    flow = BatchFlow(graph, shapes) if any_batch and BatchFlow.applies(graph, shapes) else None
    for tensor in graph.inputs:
        program.slot(tensor)
    for node in graph.nodes:
        if flow is not None:
            flow.visit(node, known)
        latent = _latent(program, node)
        site = Site(node, graph.opset, shapes, known, flow, frozen=node in stays, latent=latent)
        call = RULES[node.op](site)
        if all(tensor is None or tensor in known for tensor in site.reads):
            evaluate(call, site, known)
        else:
            reads = tuple(_operand(program, tensor, known, node) for tensor in site.reads)
            program.steps.append(Step(call, reads, tuple(_result(program, t) for t in node.outputs)))
    for tensor in graph.outputs:
        _operand(program, tensor, known, producer(tensor))
    for tensor in program.slots:
        declared = shapes.dtype(tensor)
        if declared is not None and declared.name in TYPES and declared.kind in "iu":
            program.types[tensor] = TYPES[declared.name]
    program.batch_axes = {t.name: None if flow is None else flow.axis(t) for t in graph.outputs}
    return program


def _latent(program: Program, node: Node) -> str | None:
    """The integers that a trained weight in front of a DequantizeLinear stands for, by name."""
    first = node.inputs[0] if node.inputs else None
    weight = program.weights.get(first) if isinstance(first, Constant) else None
    return None if weight is None or weight.dequantizer is None else weight.constant.dtype.name


def _result(program: Program, tensor: Tensor) -> int:
    return program.slot(tensor) if tensor.name else UNWANTED_SLOT


def _operand(program: Program, tensor: Tensor | None, known: dict[Tensor, np.ndarray], reader: Node | None) -> int:
    if tensor in known:
        program.buffers[tensor] = known[tensor]
    elif isinstance(tensor, Constant) and tensor in program.scales:
        program.buffers[tensor] = tensor.values
    elif isinstance(tensor, Constant) and tensor not in program.weights:
        where = place_of(reader) if reader is not None else f"output '{tensor.name}'"
        raise InputError(where, f"torch has no elements of type {tensor.dtype}", "convert the model to float32")
    return program.slot(tensor)


def _refuse_unknown(graph: Graph) -> None:
    missing: dict[tuple[str, str], InputError] = {}
    for node in graph.nodes:
        if node.domain in ("", "ai.onnx") and node.op in RULES:
            continue
        if (node.domain, node.op) not in missing:
            of = f" of domain '{node.domain}'" if node.domain not in ("", "ai.onnx") else ""
            missing[node.domain, node.op] = InputError(
                place_of(node), f"operator '{node.op}'{of} cannot be trained", "end the network before it with --cut"
            )
    if len(missing) == 1:
        raise next(iter(missing.values()))
    if missing:
        raise InputErrors(list(missing.values()))


def _frozen_nodes(graph: Graph, frozen: Collection[str]) -> set[Node]:
    names = {node.name: node for node in graph.nodes if node.name}
    for name in frozen:
        if name not in names:
            raise UsageError("frozen", f"no node is named '{name}'{did_you_mean(name, list(names))}")
    return {names[name] for name in frozen}


def segments(steps: Sequence[Any], count: int) -> list[tuple[int, int]]:
    """``steps`` in ``count`` runs of about the same length, as (first, behind the last)."""
    count = max(1, min(count, len(steps)))
    bounds = [len(steps) * i // count for i in range(count + 1)]
    return list(pairwise(bounds))
