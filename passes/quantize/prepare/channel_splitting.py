"""Channels whose rounding harms most are computed twice, half a step apart, and read at half their weights.

The mean of two roundings of x, one of x + s/4 and one of x - s/4 by steps of s, is one by steps of s/2: a quarter of
the noise, for a channel more. (Weights are split so in Zhao et al., "Improving Neural Network Quantization without
Retraining using Outlier Channel Splitting", ICML 2019.) Further along the copies are rounded by chance, which leaves
half of the noise. All of it stays in 8 bits, and any runtime has the kernels.

What each channel's rounding does to the outputs is measured for all of them in one pass (:mod:`.effects` says how),
and channels are taken by the noise that goes for the multiply-accumulates that come.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgec.ir.channels import Channels, Group
from edgec.ir.cost import Cost
from edgec.ir.graph import Graph, Node, Tensor, Variable, consumers
from edgec.passes.calibration.batch_split import split
from edgec.passes.calibration.runner import batches
from edgec.passes.calibration.sqnr_evaluator import SqnrEvaluator
from edgec.passes.framework.context import Context
from edgec.passes.quantize.plan import Prepared
from edgec.passes.quantize.prepare.widening import obstacle, widen, writers
from edgec.passes.quantize.ranges.output_derivatives import looked_at, output_derivatives
from edgec.passes.quantize.scales.affine_parameters import Parameters

if TYPE_CHECKING:
    from edgec.passes.train.engine.slopes import Derivatives

# Batches that are looked at, and random vectors for each.
_BATCHES, _PROBES = 16, 4
# A channel is computed so often at most.
_MOST_COPIES = 4


@dataclass(frozen=True)
class Plan:
    """What is computed more than once.

    Attributes:
        copies: by the number of a group among :class:`.Channels`, how often each of its units is computed.
        steps: by the place of a layer in the graph, the step by whose parts it sets copies apart.
        added: multiply-accumulates that come, as a part of those that there are.
    """

    copies: Mapping[int, np.ndarray]
    steps: Mapping[int, float]
    added: float

    @property
    def channels(self) -> int:
        """How many channels come."""
        return sum(int((copies - 1).sum()) for copies in self.copies.values())

    def apply(self, graph: Graph) -> None:
        """Widens the graph that the plan was made for, or a copy of it."""
        found = Channels(graph).groups
        steps = {graph.nodes[place]: step for place, step in self.steps.items()}
        widen(graph, {found[number]: copies for number, copies in self.copies.items()}, steps)


def split_channels(
    graph: Graph, share: float, ready: Prepared, quantized: Callable[[Graph], Graph], multiple: int, ctx: Context
) -> None:
    """Computes channels of ``graph`` more than once, where the quantized network comes closer to the float one by that.

    Args:
        graph: float and sorted.
        share: of its multiply-accumulates, how many may be added.
        ready: how it will be quantized.
        quantized: a graph with its activations rounded, and its weights as they are: what is wrong with those is fixed
            later, and would hide what is gained here.
        multiple: of channels, that the target's kernels like; a group that has such a number keeps one.
        ctx: the calibration data; it is told what was gained.

    Raises:
        InputError: there are no calibration data, or torch cannot run an operator.
        UsageError: torch is not installed.
    """
    plan = planned(graph, share, ready, multiple, ctx)
    if not plan.copies:
        ctx.missed("the network", f"no channel is worth computing twice for {share:.2%} of the work")
        return
    trial = graph.copy()
    plan.apply(trial)
    judge = SqnrEvaluator(graph, ctx, split(batches(graph, ctx), 1))
    before, after = judge.sqnr_db(quantized(graph)), judge.sqnr_db(quantized(trial))
    figures = {"before_db": before, "after_db": after, "channels": plan.channels, "work": plan.added}
    if after <= before:
        what = f"with {plan.channels} more of them it has {after:.1f} dB instead of {before:.1f} dB"
        ctx.missed("the network", f"channels are computed once: {what}", **figures)
        return
    plan.apply(graph)
    ctx.changed()
    what = f"{plan.channels} channels more, of those whose rounding harms most, copies a part of a step apart"
    ctx.did("the network", f"{what}; {plan.added:.2%} more multiply-accumulates", **figures)


def planned(graph: Graph, share: float, ready: Prepared, multiple: int, ctx: Context) -> Plan:
    """What is computed more than once; the arguments are those of :func:`split_channels`."""
    rounded = {tensor: ready.chosen[activation] for tensor, activation in ready.problem.variables.items()}
    numbered = [(number, group) for number, group in enumerate(ctx.get(Channels).groups) if obstacle(group) is None]
    axes = {c.tensor: c.axis for _, group in numbered for c in group.carriers if c.tensor in rounded}
    if not axes:
        return Plan({}, {}, 0.0)
    noise = _noise(graph, {tensor: rounded[tensor] for tensor in axes}, axes, ctx)
    cost = ctx.get(Cost)
    work = {node: found.macs or 0 for node, found in cost.by_node.items()}
    candidates = [_Candidate.of(group, noise, rounded, work) for _, group in numbered]
    most = budget = share * cost.macs
    while True:
        copies = _chosen(candidates, most, multiple)
        added = _work(candidates, copies, work)
        if added <= budget:
            break
        most *= 0.98 * budget / added
    taken = [place for place, often in enumerate(copies) if (often > 1).any()]
    where = {node: place for place, node in enumerate(graph.nodes)}
    steps = {where[node]: step for place in taken for node, step in candidates[place].steps.items()}
    return Plan({numbered[place][0]: copies[place] for place in taken}, steps, added / max(cost.macs, 1))


@dataclass(frozen=True)
class _Candidate:
    """A group whose channels can be computed more than once.

    Attributes:
        group: the channels.
        behind: by unit, the noise of the tensors that are rounded first behind the layers that write them.
        further: by unit, that of all others.
        work: multiply-accumulates of a unit.
        steps: by layer that writes them, the step of what is rounded first behind it.
    """

    group: Group
    behind: np.ndarray
    further: np.ndarray
    work: np.ndarray
    steps: Mapping[Node, float]

    @staticmethod
    def of(
        group: Group,
        noise: Mapping[Variable, np.ndarray],
        rounded: Mapping[Variable, Parameters],
        work: Mapping[Node, int],
    ) -> _Candidate:
        """From the noise of each position of each tensor, and the multiply-accumulates of each layer."""
        first: set[Variable] = set()
        steps: dict[Node, float] = {}
        for slot in writers(group):
            found = _rounded_behind(slot.node, rounded)
            first.update(found)
            if found:
                steps[slot.node] = rounded[found[0]].scale
        behind, further, units = np.zeros(group.width), np.zeros(group.width), np.zeros(group.width)
        for carrier in group.carriers:
            if carrier.tensor in noise:
                here = carrier.index >= 0
                to = behind if carrier.tensor in first else further
                np.add.at(to, carrier.index[here], noise[carrier.tensor][here])
        for slot in group.slots:
            if slot.role != "rides":
                here = slot.index[slot.index >= 0]
                np.add.at(units, here, work[slot.node] / len(slot.index))
        return _Candidate(group, behind, further, units, steps)

    def gains(self) -> np.ndarray:
        """The noise that goes with each further copy: (copies, units)."""
        often = np.arange(1, _MOST_COPIES + 1)[:, None]
        return -np.diff(self.behind / often**2 + self.further / often, axis=0)


def _chosen(candidates: Sequence[_Candidate], most: float, multiple: int) -> list[np.ndarray]:
    """How often each unit of each candidate is computed.

    Args:
        candidates: the groups.
        most: work that may be added, each copy's counted as if it alone came.
        multiple: copies that come together where a group has such a number of channels.
    """
    copies = [np.ones(candidate.group.width, np.int64) for candidate in candidates]
    blocks: list[tuple[float, int, np.ndarray, float]] = []
    for place, candidate in enumerate(candidates):
        width = candidate.group.width
        gains, work = candidate.gains().reshape(-1), np.maximum(np.tile(candidate.work, _MOST_COPIES - 1), 1.0)
        order = np.argsort(-gains / work, kind="stable")
        each = multiple if width % multiple == 0 else 1
        for start in range(0, len(order), each):
            some = order[start : start + each]
            cost = float(work[some].sum())
            blocks.append((float(gains[some].sum()) / cost, place, some % width, cost))
    added = 0.0
    for ratio, place, units, cost in sorted(blocks, key=lambda block: -block[0]):
        if ratio <= 0:
            break
        if added + cost <= most:
            np.add.at(copies[place], units, 1)
            added += cost
    return copies


def _work(candidates: Sequence[_Candidate], copies: Sequence[np.ndarray], work: Mapping[Node, int]) -> float:
    """The multiply-accumulates that copies add: those of layers between two groups grow by both."""
    longer: dict[Node, dict[int, float]] = {}
    for candidate, often in zip(candidates, copies, strict=True):
        for slot in candidate.group.slots:
            if slot.role != "rides":
                axes = longer.setdefault(slot.node, {})
                more = int((np.append(often, 1)[slot.index] - 1).sum())
                axes[slot.axis] = axes.get(slot.axis, 1.0) + more / len(slot.index)
    return sum(work[node] * (float(np.prod(list(axes.values()))) - 1) for node, axes in longer.items())


def _rounded_behind(node: Node, rounded: Mapping[Variable, Parameters]) -> list[Variable]:
    """What is rounded first on the ways from a layer."""
    found: list[Variable] = []
    waiting: list[Tensor] = list(node.outputs)
    for tensor in waiting:
        if isinstance(tensor, Variable) and tensor in rounded:
            found.append(tensor)
            continue
        for reader in consumers(tensor):
            waiting += [t for t in reader.outputs if t not in waiting]
    return found


def _noise(
    graph: Graph, rounded: Mapping[Variable, Parameters], axes: Mapping[Variable, int], ctx: Context
) -> dict[Variable, np.ndarray]:
    """What rounding each position along an axis of each tensor does to the outputs, relative to their power."""
    option = "quantize: split_channels", ", or write split_channels: 0"
    doing = "what the rounding of channels does to the outputs"

    def squares(made: Derivatives) -> tuple[list[np.ndarray], np.ndarray]:
        moved = [
            _moved_by_channel(by.rounded(values) - values, slopes, axes[tensor])
            for (tensor, by), values, *slopes in zip(rounded.items(), made.values, *made.slopes, strict=True)
        ]
        return moved, made.powers

    some = looked_at(graph, _BATCHES, ctx)
    found = list(output_derivatives(graph, list(rounded), some, _PROBES, ctx, option, doing, squares))
    total = np.maximum(sum(powers for _, powers in found), np.finfo(np.float64).tiny)
    summed = (np.sum(each, axis=0) for each in zip(*(moved for moved, _ in found), strict=True))
    return {tensor: (each / total[:, None]).sum(axis=0) for tensor, each in zip(rounded, summed, strict=True)}


def _moved_by_channel(wrong: np.ndarray, slopes: Sequence[np.ndarray | None], axis: int) -> np.ndarray:
    """How far each result moves by the errors at each position along an axis, squared: (results, positions).

    Rounding errs by chance, here upwards and there downwards: squares add up, and that of a sum has far more variance.
    """
    others = tuple(other for other in range(wrong.ndim) if other != axis)
    none = np.zeros(wrong.shape[axis])
    moved = [none if s is None else np.square(s * wrong).sum(axis=others, dtype=np.float64) for s in slopes]
    return np.stack(moved)
