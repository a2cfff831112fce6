"""A graph as a torch module: its float weights are parameters, and go back into the graph by identity."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from edgec.ir.errors import UsageError, did_you_mean
from edgec.ir.graph import Constant, Graph, Tensor
from edgec.ir.torch_module.conversion import to_numpy, to_torch
from edgec.ir.torch_module.lowering import Mode
from edgec.ir.torch_module.program import MODE_SLOT, Program, lower, segments
from edgec.ir.torch_module.quantization import dequantized, quantized
from edgec.ir.torch_module.trained import Weight

_STATISTICS = (3, 4)
# A scale is learnt down to this part of what it was.
_LEAST_FACTOR = 2.0**-6


class _Graph:
    """What a module knows of its graph; copies of the module are of the same graph."""

    def __init__(self, graph: Graph, program: Program) -> None:
        self.program = program
        self.inputs = [tensor for tensor in graph.inputs if not isinstance(tensor, Constant)]
        self.outputs = list(graph.outputs)
        self.tensors: dict[str, Tensor] = {tensor.name: tensor for tensor in program.slots}
        self.timetables: dict[tuple[str, ...], list[Any]] = {}
        self.statistics: list[Constant] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> _Graph:
        return self


class TorchModule(torch.nn.Module):
    """``graph``, to be trained.

    Parameters are named for the constants: that of ``0.weight`` is ``module.get_parameter("0.weight")``, and
    ``state_dict()`` has it under that name. (Where torch cannot have a name, because a part of it is empty or belongs
    to ``nn.Module``, that part gets an underscore.) A constant that several nodes share is one parameter. Constants
    that are not trained are buffers. Which are which: see :mod:`edgec.ir.torch_module.trained`.

    ``copy.deepcopy`` gives a module of the same graph with weights of its own: a teacher, an average of weights.
    ``torch.autocast`` and ``torch.func.functional_call`` work as with any module; it cannot be pickled (its
    ``state_dict`` can).

    Args:
        graph: what is lowered, sorted. Later changes to it are not seen.
        frozen: names of nodes whose weights stay as they are (parameters that need no gradient).
        any_batch: run at every batch size, whatever the graph was exported at; see
            :mod:`edgec.ir.batch_flow`. Otherwise it runs at the shapes that the graph declares.
        batch_statistics: in training mode, BatchNormalization that is not frozen normalizes by the batch and moves the
            running statistics, as torch's does, at the node's own momentum. Without it they stay and are used.
        scales: learn the scales of Q and DQ too, by ``factors``; see :mod:`edgec.ir.torch_module.learnt_scales`.

    Raises:
        InputError: an operator, or a use of one, cannot be lowered, or samples of a batch do not stay apart; the line
            names the node.
        UsageError: no node has a name of ``frozen``.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        frozen: Collection[str] = (),
        any_batch: bool = True,
        batch_statistics: bool = False,
        scales: bool = False,
    ) -> None:
        super().__init__()
        program = lower(graph, frozen, any_batch, scales)
        self._graph = _Graph(graph, program)
        self._batch_statistics = batch_statistics
        self._held: dict[int, tuple[torch.nn.Module, str]] = {}  # by slot
        self.factors = torch.nn.ParameterList(torch.ones(shape) for shape in program.factors)
        for constant, weight in program.weights.items():
            self._hold(constant, torch.nn.Parameter(_initial(weight), requires_grad=constant not in program.frozen))
        statistics = {
            node.inputs[place] for node in graph.nodes if node.op == "BatchNormalization" for place in _STATISTICS
        }
        for tensor, values in program.buffers.items():
            self._hold(tensor, to_torch(values))
            if batch_statistics and tensor in statistics and isinstance(tensor, Constant):
                self._graph.statistics.append(tensor)

    @property
    def batch_axes(self) -> dict[str, int | None]:
        """For each output the axis along which the samples lie, where the batch size can change."""
        return dict(self._graph.program.batch_axes)

    def parameter_of(self, constant: Constant) -> torch.nn.Parameter | None:
        """The parameter that a constant of the graph has become, ``None`` where it is not trained."""
        program = self._graph.program
        return getattr(*self._held[program.slots[constant]]) if constant in program.weights else None

    def forward(
        self, feeds: Mapping[str, torch.Tensor], taps: Sequence[str] = (), segments: int = 1
    ) -> dict[str, torch.Tensor]:
        """Outputs and taps by name.

        Args:
            feeds: values of the inputs by name.
            taps: names of tensors inside the graph that are wanted besides the outputs.
            segments: gradient checkpointing: with more than one, the steps run in so many segments, only what passes
                from one to the next is kept, and backward runs each segment again. About the square root of the
                number of layers keeps the least.

        Raises:
            UsageError: an input is missing, or no tensor has a name of ``taps``.
        """
        held = self._graph
        values: list[Any] = [None] * held.program.size
        mode = Mode(self._batch_statistics and self.training)
        values[MODE_SLOT] = mode
        for slot, (module, name) in self._held.items():
            values[slot] = getattr(module, name)
        for scale in held.program.scales:
            values[held.program.slots[scale]] = self._scale(scale)
        for tensor in held.inputs:
            if tensor.name not in feeds:
                raise UsageError("the feeds", f"have no values for the model's input '{tensor.name}'")
            values[held.program.slots[tensor]] = feeds[tensor.name]
        rows = self._rows(tuple(taps))
        if segments > 1 and torch.is_grad_enabled():
            self._run_in_segments(rows, values, segments)
        else:
            _run(rows, values)
        wanted = [*held.outputs, *(held.tensors[name] for name in taps)]
        return {tensor.name: self._given(tensor, values) for tensor in wanted}

    def write_back(self) -> list[Constant]:
        """Gives each constant that training has changed a new array, and returns those constants.

        They are the very constants that the module was made of, in the type that they had: float weights, the
        integers of quantized ones, scales where they are learnt, and running statistics where the batch moves them. No
        other is touched.
        """
        program = self._graph.program
        changed = self._write_scales()  # what integers mean depends on them
        for constant in (*program.weights, *self._graph.statistics):
            tensor = getattr(*self._held[program.slots[constant]])
            values = _values(tensor, program.weights.get(constant), constant)
            if not np.array_equal(values, constant.values, equal_nan=values.dtype.kind == "f"):
                constant.values = values
                changed.append(constant)
        return changed

    def _scale(self, constant: Constant) -> torch.Tensor:
        """A learnt scale as it is now: never 0, whatever became of its factors."""
        program = self._graph.program
        value: torch.Tensor = getattr(*self._held[program.slots[constant]])
        for number in program.scales[constant].factors:
            value = value * self.factors[number].abs().clamp(min=_LEAST_FACTOR)
        return value

    def _write_scales(self) -> list[Constant]:
        scales, changed = self._graph.program.scales, []
        for constant, scale in scales.items():
            values = to_numpy(self._scale(constant)).astype(constant.dtype)
            if scale.product_of is not None:  # they come behind what they are the products of
                values = (scale.product_of[0].values * scale.product_of[1].values).reshape(values.shape)
            if any((self.factors[number].detach() != 1).any() for number in scale.factors):
                constant.values = values
                changed.append(constant)
        return changed

    def _hold(self, tensor: Tensor, value: torch.Tensor) -> None:
        """Registers a parameter or buffer under the tensor's name, dots being submodules."""
        module: torch.nn.Module = self
        *path, name = tensor.name.split(".")
        for part in path:
            while part not in module._modules and (not part or hasattr(module, part)):
                part += "_"
            if part not in module._modules:
                module.add_module(part, torch.nn.Module())
            module = module._modules[part]
        while not name or hasattr(module, name):
            name += "_"
        if isinstance(value, torch.nn.Parameter):
            module.register_parameter(name, value)
        else:
            module.register_buffer(name, value)
        self._held[self._graph.program.slots[tensor]] = module, name

    def _rows(self, taps: tuple[str, ...]) -> list[Any]:
        held = self._graph
        if taps not in held.timetables:
            for name in taps:
                if name not in held.tensors:
                    raise UsageError("taps", f"no tensor is named '{name}'{did_you_mean(name, list(held.tensors))}")
            kept = [held.program.slots[t] for t in (*held.outputs, *(held.tensors[name] for name in taps))]
            held.timetables[taps] = held.program.timetable(kept)
        return held.timetables[taps]

    def _given(self, tensor: Tensor, values: list[Any]) -> torch.Tensor:
        value: torch.Tensor = values[self._graph.program.slots[tensor]]
        kind = self._graph.program.types.get(tensor)
        return value.to(kind) if kind is not None and value.dtype != kind else value

    def _run_in_segments(self, rows: list[Any], values: list[Any], count: int) -> None:
        """Runs the steps segment by segment under torch's checkpointing; what a segment leaves is its result."""
        mode = values[MODE_SLOT]
        for start, end in segments(rows, count):
            segment = _Segment(rows[start:end], len(values), mode)
            results = checkpoint(
                segment, *[values[slot] for slot in segment.taken], use_reentrant=False, preserve_rng_state=False
            )
            for slot in segment.freed:
                values[slot] = None
            for slot, result in zip(segment.left, results, strict=True):
                values[slot] = result


class _Segment:
    """Some steps in a row as a function of what they take from before; run again, it moves no statistics.

    Attributes:
        taken: the slots that it reads and does not fill.
        left: those that it fills and others read.
        freed: those that nobody reads behind it.
    """

    def __init__(self, rows: list[Any], size: int, mode: Mode) -> None:
        self._rows, self._size, self._mode = rows, size, mode
        filled: set[int] = {MODE_SLOT}
        taken: dict[int, None] = {}
        for _, reads, writes, _ in rows:
            taken.update(dict.fromkeys(slot for slot in reads if slot not in filled))
            filled.update(writes)
        self.taken = list(taken)
        self.freed = {slot for *_, dead in rows for slot in dead}
        self.left = [slot for slot in sorted(filled - {MODE_SLOT}) if slot not in self.freed]

    def __call__(self, *operands: Any) -> tuple[Any, ...]:
        values: list[Any] = [None] * self._size
        for slot, operand in zip(self.taken, operands, strict=True):
            values[slot] = operand
        values[MODE_SLOT] = self._mode
        self._mode = Mode(self._mode.batch_statistics, updating=False)
        _run(self._rows, values)
        return tuple(values[slot] for slot in self.left)


def _run(rows: list[Any], values: list[Any]) -> None:
    for call, reads, writes, dead in rows:
        result = call(*[values[slot] for slot in reads])
        if len(writes) == 1:
            values[writes[0]] = result
        else:
            for slot, value in zip(writes, result if isinstance(result, tuple) else (result,), strict=False):
                values[slot] = value
        for slot in dead:
            values[slot] = None


def _initial(weight: Weight) -> torch.Tensor:
    if weight.dequantizer is None:
        return to_torch(weight.constant.values)
    return dequantized(to_torch(weight.constant.values), weight.dequantizer)


def _values(tensor: torch.Tensor, weight: Weight | None, constant: Constant) -> np.ndarray:
    if weight is not None and weight.dequantizer is not None:
        return quantized(tensor.detach(), weight.dequantizer, constant.dtype)
    return to_numpy(tensor).astype(constant.dtype, copy=False)
