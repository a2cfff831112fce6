"""Whether an exact rewrite kept the outputs: they may move as far as rounding moves them, and no further.

How far that is depends on what lies inside a network: logits of 55 that are rounded in their last bit move an output of
1e-5 behind a Sigmoid by far more than that output's own last bit. A bound from the outputs' size is tried first. What
exceeds it is held against a measurement: the network in front of the rewrite is run again with every weight and every
input off by a few units in the last place, at random, and what that changes is allowed (the idea is that of stochastic
arithmetic, CESTAC: Vignes, Mathematics and Computers in Simulation 35, 1993). A wrong rewrite changes a weight by
thousands of such units at least.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgec.ir.errors import InputError
from edgec.ir.execution import Session
from edgec.ir.graph import Constant, Graph, Tensor, constant_of

Run = Mapping[str, np.ndarray]
Outputs = Sequence[Run]

# An exact pass reorders sums, whose error grows with the square root of their length times the type's epsilon. What is
# within so many epsilons of the output's largest value, and within this share of it, passes without a measurement.
_EXACT_EPSILONS, _EXACT_SHARE = 32, 0.01
# Through 8-bit tensors a difference in the last bit of a sum can move a value by a whole step.
_EXACT_QUANTIZED = 0.02
# Units in the last place that weights and inputs are off by, in how many draws, and how often the largest change of
# these is allowed. Folding BatchNormalization into a chain of convolutions moves outputs by a third of it at most,
# whether their logits are 0 or -30.
_UNITS, _DRAWS, _ALLOWED, _SEED = 8, 4, 2.0, 0xE5AC7
# Of the smallest numbers of a type there is no smaller part to move by.
_LEAST_STEPS = 4
# Operators that take a constant as a size, a place or a threshold: off by a little, another thing is computed.
_DISCRETE = frozenset(["NonMaxSuppression", "Range", "Resize", "RoiAlign", "Tile", "Upsample"])


@dataclass(frozen=True)
class Difference:
    """How far one output moved.

    Attributes:
        output: its name.
        largest: by how much at most; for an output of whole numbers, how many of them; infinite for another shape.
        allowed: how much was.
        what: the same in words, as a clause.
    """

    output: str
    largest: float
    allowed: float
    what: str


@dataclass(frozen=True)
class _Moved:
    """An output of one run against another's: by how much it moved, and the largest value it had."""

    run: int
    output: str
    largest: float
    scale: float
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    whole_numbers: bool


def inexact(
    before: Outputs,
    after: Outputs,
    *,
    quantized: bool,
    epsilon: float = 0.0,
    rounding: Callable[[], Sequence[Mapping[str, float]]] | None = None,
) -> list[Difference]:
    """The outputs of an exact rewrite that moved by more than rounding explains; the worst run of each.

    Outputs of different runs may differ in shape; those of one run must not, unless rounding alone makes them.

    Args:
        before, after: outputs by name, a mapping for each run.
        quantized: whether values go through 8-bit tensors.
        epsilon: of the coarsest type on the way (:func:`coarsest`); that of an output itself counts in any case.
        rounding: measures how far rounding moves each output of each run (:func:`measured_rounding`); asked only
            where the bound from the outputs' size does not do.
    """
    moved = list(_moved(before, after))
    scales: dict[str, float] = {}
    for one in moved:
        scales[one.output] = max(scales.get(one.output, 0.0), one.scale)
    measured: Sequence[Mapping[str, float]] | None = None
    worst: dict[str, Difference] = {}
    for one in moved:
        allowed = 0.0
        if not one.whole_numbers:
            numbers = np.finfo(before[one.run][one.output].dtype)
            share = min(_EXACT_EPSILONS * max(float(numbers.eps), epsilon), _EXACT_SHARE)
            share = _EXACT_QUANTIZED if quantized else share
            allowed = max(share * scales[one.output], _LEAST_STEPS * float(numbers.smallest_subnormal))
        if one.largest <= allowed:
            continue
        if rounding is not None:
            measured = rounding() if measured is None else measured
            allowed = max(allowed, _ALLOWED * measured[one.run].get(one.output, 0.0))
        if one.largest <= allowed:
            continue
        known = worst.get(one.output)
        if known is None or not one.largest <= known.largest:
            worst[one.output] = Difference(one.output, one.largest, allowed, _words(one, allowed))
    return list(worst.values())


def measured_rounding(graph: Graph, feeds: Sequence[Run], outputs: Outputs) -> list[dict[str, float]]:
    """How far rounding moves each output of each run, by name: the largest change that a few random draws make.

    In a draw every weight and every value of an input is off by :data:`_UNITS` units in the last place of its type, up
    or down. Infinite stands for an output whose shape a draw changes: nothing can be said of its values in that run.

    Args:
        graph: the network; it is left as it is.
        feeds: of each run.
        outputs: what ``graph`` gives for them.
    """
    weights = _weights(graph)
    largest: list[dict[str, float]] = [{} for _ in feeds]
    for draw in range(_DRAWS):
        random = np.random.Generator(np.random.PCG64([_SEED, draw]))
        known: dict[Tensor, Tensor] = {}
        twin = graph.copy(known)
        for weight in weights:
            copied = constant_of(known[weight])
            copied.values = _off(weight.values, random)
        session = Session(twin)
        for index, (one, exact) in enumerate(zip(feeds, outputs, strict=True)):
            try:
                run = session.run({name: _off(values, random) for name, values in one.items()})
            except InputError:  # a size inside was computed of what is off: nothing can be said of this run
                largest[index] = dict.fromkeys(exact, float("inf"))
                continue
            for moved in _moved([exact], [run]):
                largest[index][moved.output] = max(largest[index].get(moved.output, 0.0), moved.largest)
    return largest


def coarsest(graph: Graph) -> float:
    """The epsilon of the least precise float type among a network's inputs and constants; 0.0 where there is none.

    An output may be declared more precise than what it is computed from: exporters leave a Cast to double in a head.
    """
    kinds = {np.dtype(t.dtype) for t in (*graph.inputs, *graph.constants()) if t.dtype is not None}
    return max((float(np.finfo(kind).eps) for kind in kinds if kind.kind == "f"), default=0.0)


def _moved(before: Outputs, after: Outputs) -> Iterator[_Moved]:
    for index, (run, other) in enumerate(zip(before, after, strict=True)):
        for name, old in run.items():
            new = other[name]
            whole_numbers = old.dtype.kind != "f"
            finite = np.isfinite(old) if not whole_numbers else np.ones(old.shape, bool)
            scale = 0.0 if whole_numbers else float(np.max(np.abs(old), where=finite, initial=0.0))
            if old.shape != new.shape:
                largest = float("inf")
            elif whole_numbers:
                largest = float(np.count_nonzero(old != new))
            else:
                with np.errstate(invalid="ignore"):
                    apart = np.abs(old.astype(np.float64) - new.astype(np.float64))
                apart = np.where(old == new, 0.0, apart)  # infinities that agree
                largest = float(np.max(np.where(np.isnan(old) & np.isnan(new), 0.0, apart), initial=0.0))
            yield _Moved(index, name, largest, scale, (old.shape, new.shape), whole_numbers)


def _words(moved: _Moved, allowed: float) -> str:
    old, new = moved.shapes
    if old != new:
        return f"made output '{moved.output}' of shape {list(new)} where it was {list(old)}"
    if moved.whole_numbers:
        return f"changed {moved.largest:g} values of output '{moved.output}' (allowed {allowed:g})"
    return f"moved output '{moved.output}' by {moved.largest:.3g} (allowed {allowed:.3g})"


def _weights(graph: Graph) -> list[Constant]:
    """The float constants that values of the inputs are computed with; not those that sizes are computed with."""
    computed: set[Tensor] = set(graph.inputs)
    weights: dict[Constant, None] = {}
    for node in graph.nodes:
        if node.op in ("Shape", "Size") or not any(tensor in computed for tensor in node.inputs):
            continue
        computed.update(node.outputs)
        if node.op in _DISCRETE:
            continue
        # An exponent that is a little off 2 has no value where what it raises is negative.
        own = node.inputs[:1] if node.op == "Pow" else node.inputs
        weights.update((t, None) for t in own if isinstance(t, Constant) and _floating(t.dtype))
    return list(weights)


def _floating(dtype: np.dtype) -> bool:
    return dtype.kind == "f"


def _off(values: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Values each off by some units in the last place, up or down; what is not finite, zero or no float stays."""
    if not _floating(values.dtype):
        return values
    sign = random.integers(0, 2, values.shape, np.int8) * 2 - 1
    with np.errstate(invalid="ignore", over="ignore"):
        off = values * (1 + sign.astype(values.dtype) * values.dtype.type(_UNITS * np.finfo(values.dtype).eps))
    return np.where(np.isfinite(off), off, values).astype(values.dtype)
