"""One try: a copy of the network, pruned to a part of its size and factorized down to the budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from edgec.ir.channels import Channels
from edgec.ir.cost import Cost
from edgec.ir.graph import Graph
from edgec.ir.shapes import Shapes
from edgec.passes.calibration.dataset import ROLE, DataSet
from edgec.passes.factorize.factorize import Factorize
from edgec.passes.factorize.layers import find_layers
from edgec.passes.factorize.methods import methods_for
from edgec.passes.factorize.offers import Limits, least_choice, whole_cost
from edgec.passes.framework.base import Pass
from edgec.passes.framework.budgets import Unit, UnreachableBudget
from edgec.passes.framework.context import Context
from edgec.passes.framework.layer_choice import excluded
from edgec.passes.framework.remark import Remark
from edgec.passes.framework.settling import settle
from edgec.passes.layers.linear import LINEAR
from edgec.passes.prune.prune import Prune

# Prune takes a layer down to this part by its ratio: as far as it goes.
_ALL = 1 - 1e-9
# Factorize may add biases where layers have none.
_ROUNDS = 4


@dataclass(frozen=True)
class Budget:
    """What a network may cost.

    Attributes:
        unit: what is counted.
        keep: the part that is asked for.
        total: what the network costs before.
    """

    unit: Unit
    keep: float
    total: int

    @property
    def limit(self) -> float:
        return self.keep * self.total

    def of(self, graph: Graph) -> int:
        """What a graph costs."""
        return int(getattr(Cost(graph), self.unit))


@dataclass(frozen=True)
class Made:
    """What a try came to.

    Attributes:
        graph: a copy, compressed.
        pruned_to: what was left behind pruning, as a part of the whole, in the unit of the budget.
        done, left: the remarks of both passes, in their order.
        factorized: whether there was anything left for it to do.
    """

    graph: Graph
    pruned_to: float
    done: Sequence[Remark]
    left: Sequence[Remark]
    factorized: bool


@dataclass(frozen=True)
class Passes:
    """The two passes, as the options say, without their budgets.

    Attributes:
        prune: with any ratio; ``None`` where no channel of a layer that is named can go.
        factorize: without a budget.
    """

    prune: Prune | None
    factorize: Factorize

    @classmethod
    def of(cls, graph: Graph, ctx: Context, prune: Prune, factorize: Factorize) -> Passes:
        """Those with the patterns that match a layer which has channels to cut; the others are only factorized."""
        names = {node.name for group in ctx.get(Channels).groups for node in group.producers}

        def matching(patterns: Sequence[str]) -> tuple[str, ...]:
            return tuple(p for p in patterns if any(fnmatchcase(name, p) for name in names))

        only = matching(prune.only)
        if not names or (prune.only and not only):
            return cls(None, factorize)
        return cls(replace(prune, only=only, skip=matching(prune.skip)), factorize)


def attempt(
    graph: Graph, budget: Budget, passes: Passes, part: float, ctx: Context, data: Mapping[str, DataSet]
) -> Made | None:
    """A try; ``None`` where the budget is out of its reach.

    Args:
        graph: the original; it is not changed.
        budget: for the network.
        passes: how.
        part: how much of the network pruning leaves; 1 leaves all.
        ctx: the seed and the threads.
        data: what the passes are fitted to.
    """
    made, done, left = pruned(graph, budget, passes, part, ctx, data)
    if made is None:
        return None
    return factorized(made, budget, passes, ctx, data, done, left)


def pruned(
    graph: Graph,
    budget: Budget,
    passes: Passes,
    part: float,
    ctx: Context,
    data: Mapping[str, DataSet],
) -> tuple[Graph | None, list[Remark], list[Remark]]:
    """A copy, pruned, with the remarks; no graph where that cannot be."""
    made = graph.copy()
    if part >= 1 or passes.prune is None:
        return made, [], []
    own = ctx.derive(made, data=data, validated_outside=True)
    given: dict[str, Any] = {"macs": part} if budget.unit == "macs" else {"params": part}
    if _run(replace(passes.prune, ratio=None, **given), made, own):
        return made, own.done, [_said("not pruned", remark) for remark in own.left]
    return None, [], []


def factorized(
    graph: Graph,
    budget: Budget,
    passes: Passes,
    ctx: Context,
    data: Mapping[str, DataSet],
    done: Sequence[Remark],
    left: Sequence[Remark],
) -> Made | None:
    """A copy, factorized down to the budget; ``None`` where that cannot be."""
    cost = budget.of(graph)
    part = cost / max(budget.total, 1)
    if cost <= budget.limit:
        return Made(graph, part, tuple(done), tuple(left), False)
    target = budget.limit
    for _ in range(_ROUNDS):
        made = graph.copy()
        own = ctx.derive(made, data=data, validated_outside=True)
        given: dict[str, Any] = {budget.unit: target / cost}
        if not _run(replace(passes.factorize, **given), made, own):
            return None
        above = budget.of(made) - budget.limit
        if above <= 0:
            behind = [_said("not factorized", remark) for remark in own.left]
            return Made(made, part, (*done, *own.done), (*left, *behind), True)
        target -= above
        if target <= 0:
            return None
    return None


def floor(graph: Graph, budget: Budget, passes: Passes, ctx: Context) -> tuple[Graph, float]:
    """A copy that has lost every channel that can go, and the part of the cost that pruning can be asked to leave.

    The part counts the biases that fitted layers may get.
    """
    made = graph.copy()
    if passes.prune is None:
        return made, 1.0
    own = ctx.derive(made, data={})
    _run(replace(passes.prune, ratio=_ALL, criterion="l2", refit=False), made, own)
    unit: Unit = "macs" if budget.unit == "macs" else "params"
    before, behind = Cost(graph), Cost(made)
    # Half a unit more, so that rounding cannot take the last one away.
    least = getattr(behind, unit) + 0.5 + (0 if unit == "macs" else _missing_biases(made))
    return made, min(least / max(getattr(before, unit), 1), 1.0)


def reachable(graph: Graph, budget: Budget, passes: Passes, ctx: Context) -> float:
    """The part of the cost that can be promised: the fewest channels, and the shortest chains of what is left."""
    made, _ = floor(graph, budget, passes, ctx)
    own = ctx.derive(made, data={})
    step = passes.factorize
    limits = Limits(step.min_rank or 1, step.multiple or 1)
    cost = float(budget.of(made))
    for layer in find_layers(made, own.get(Shapes), lambda node: excluded(step, node.name), own.missed):
        methods = methods_for(layer, step.method)
        if isinstance(methods, str):
            continue
        chain = least_choice(layer, methods, limits)
        params = chain.params(layer)
        if params < layer.params:
            each = params * (layer.weight.dtype.itemsize if budget.unit == "weight_bytes" else 1)
            whole = whole_cost(layer, budget.unit)
            cost -= max(whole - ((chain.macs(layer) or whole) if budget.unit == "macs" else each), 0)
    if budget.unit != "macs" and ROLE in ctx.data:
        cost += _missing_biases(made) * (4 if budget.unit == "weight_bytes" else 1)
    return cost / max(budget.total, 1)


def _run(step: Pass, graph: Graph, ctx: Context) -> bool:
    """Runs a pass; whether its budget could be met. Any other error of the user's, a library that is missing, say, is
    raised."""
    try:
        step.run(graph, ctx)
    except UnreachableBudget:
        return False
    settle(graph, "compress")
    return True


def _missing_biases(graph: Graph) -> int:
    """Elements of the biases that layers do not have and might get."""
    shapes = Shapes(graph)
    found = 0
    for node in graph.nodes:
        if node.op in LINEAR and (node.op == "MatMul" or len(node.inputs) < 3 or not node.inputs[2].name):
            shape = shapes.shape(node.outputs[0]) or ()
            axis = 1 if node.op != "MatMul" else -1
            found += (shape[axis] or 0) if len(shape) > 1 else 0
    return found


def _said(by: str, remark: Remark) -> Remark:
    return replace(remark, what=f"{by}: {remark.what}")
