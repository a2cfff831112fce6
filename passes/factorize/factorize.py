"""``factorize``: large kernels become chains of smaller ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from edgec.ir.cost import Cost
from edgec.ir.errors import InputError
from edgec.ir.graph import Graph
from edgec.ir.shapes import Shapes
from edgec.passes.calibration.held_out import MARGIN_DB
from edgec.passes.calibration.parallel import in_parallel
from edgec.passes.factorize.chains import write_chain
from edgec.passes.factorize.evidence import Evidence, Plan
from edgec.passes.factorize.latency import BLOCK, Latency
from edgec.passes.factorize.layers import Layer, find_layers
from edgec.passes.factorize.methods import MethodOption, methods_for
from edgec.passes.factorize.offers import LEAST_RANK, Choice, Limits, offers, whole_cost
from edgec.passes.factorize.own_ranks import above_noise, by_energy, by_part
from edgec.passes.factorize.reference_solver import Solver, solved_by
from edgec.passes.factorize.refitting import Fit, plain
from edgec.passes.factorize.stages import relative_error
from edgec.passes.factorize.within_budget import Budget, Considered, dearer, dearer_chain, layer_curve
from edgec.passes.framework.base import Effect, Pass
from edgec.passes.framework.budgets import UNITS, Count, Macs, MinRank, Params, Share, Unit, give_one_of
from edgec.passes.framework.context import Context
from edgec.passes.framework.layer_choice import check_layers, excluded, in_bodies
from edgec.passes.framework.rewriter import Rewriter
from edgec.passes.framework.target import wanted_channels

DEFAULT_ENERGY = 0.95
# The smallest layers that together hold no more of the budget are not looked at where that takes runs of the network.
_TOO_SMALL = 0.02
_WAYS = (*UNITS, "latency", "energy", "rank", "vbmf")
_DATA = "the calibration data"


@dataclass(frozen=True)
class _Decided:
    """What layers become, or why they stay whole.

    Attributes:
        considered: the layers.
        choices: one each.
        fitted: whether chains are fitted to the data.
    """

    considered: Sequence[Considered]
    choices: Sequence[Choice | str]
    fitted: bool

    @property
    def chosen(self) -> list[tuple[Layer, Choice]]:
        """The layers that become chains."""
        pairs = zip(self.considered, self.choices, strict=True)
        return [(item.layer, choice) for item, choice in pairs if not isinstance(choice, str)]

    @property
    def plan(self) -> Plan:
        """As evidence judges it."""
        return Plan(self.chosen, self.fitted)


@dataclass(frozen=True)
class Factorize(Pass):
    """Factorizes convolutions and fully connected layers into chains of smaller ones, of low rank.

    Where calibration data are at hand, chains are fitted to what the layers compute on them, one layer after the other,
    and under a budget each layer's ranks follow from what its compression does to the network's outputs.

    One of ``params``, ``macs``, ``weight_bytes``, ``latency``, ``energy``, ``rank`` and ``vbmf`` says how far; without
    any of them ``energy`` is 0.95. No chain is made that has more parameters than the layer.
    """

    name: ClassVar[str] = "factorize"
    effect: ClassVar[Effect] = "lossy"
    methods: ClassVar[tuple[str, ...]] = (
        "low-rank factorization",
        "Tucker-2",
        "SVD",
        "spatial SVD",
        "CP",
        "VBMF",
        "whitening",
    )
    needs: ClassVar[frozenset[str]] = frozenset({"float"})
    shares: ClassVar[frozenset[str]] = frozenset({*UNITS, "latency"})

    params: Params = None
    macs: Macs = None
    weight_bytes: Annotated[
        Share, Field(description="part of the network's bytes of weights to keep: one budget for all")
    ] = None
    latency: Annotated[
        Share, Field(description="part of the network's time in onnxruntime here to keep: one budget for all")
    ] = None
    energy: Annotated[Share, Field(description="part of its weights' squared norm that each layer keeps at least")] = (
        None
    )
    rank: Annotated[Share, Field(description="ranks of each layer, as a part of the full ones")] = None
    vbmf: Annotated[
        bool, Field(description="ranks of each layer by variational Bayes: what rises above the noise in its weights")
    ] = False
    method: Annotated[
        MethodOption, Field(description="how kernels of more than one tap are written; auto chooses for each layer")
    ] = "auto"
    solver: Annotated[
        Solver, Field(description="what decomposes kernels by Tucker-2 and CP; tensorly, the reference, is slower")
    ] = "edgec"
    only: Annotated[
        tuple[str, ...], Field(description="name patterns (* and ?) of the only layers to factorize; all when empty")
    ] = ()
    skip: Annotated[tuple[str, ...], Field(description="name patterns of layers to leave as they are")] = ()
    data_aware: Annotated[
        bool, Field(description="fit chains to the calibration data, where there are any, instead of to the weights")
    ] = True
    min_rank: MinRank = None
    multiple: Annotated[
        Count,
        Field(description="ranks are multiples of this, or full; without it of what the recipe's targets want"),
    ] = None

    def __post_init__(self) -> None:
        give_one_of([key for key in _WAYS if getattr(self, key)], _WAYS)

    def run(self, graph: Graph, ctx: Context) -> None:
        """Factorizes ``graph`` in place.

        Raises:
            UsageError: a pattern matches no layer, or the budget cannot be met.
        """
        self.for_targets(ctx)._run(graph, ctx)

    def for_targets(self, ctx: Context) -> Factorize:
        """With the ranks that all targets of the recipe like, where no others are asked for."""
        least, multiple = wanted_channels(ctx.config.boards)
        return replace(
            self,
            min_rank=self.min_rank or max(least, LEAST_RANK),
            multiple=self.multiple or math.lcm(BLOCK if self.latency else 1, multiple),
        )

    def _run(self, graph: Graph, ctx: Context) -> None:
        check_layers(self, graph)
        rw = Rewriter(graph, ctx)
        found = find_layers(graph, ctx.get(Shapes), lambda node: excluded(self, node.name), rw.missed)
        everything = considered = self._considered(found, rw)
        aware = self.data_aware and "calibration" in ctx.data
        budget = None if self._unit is None else self._budget(self._unit, ctx, considered, aware)
        if budget is not None:
            budget.check()  # here, because what follows may run the network for minutes
        if self.latency or (aware and budget is not None):
            considered, budget = self._worth_a_look(considered, budget, ctx)
        evidence = None
        if aware and considered:
            layers, others = ([item.layer for item in items] for items in (considered, everything))
            evidence = Evidence(graph, ctx, layers, others)
        latency = self._timed(graph, ctx, considered) if self.latency else None
        if latency is not None:
            choices = self._within_time(latency, ctx, considered, evidence)
        elif budget is not None:
            choices = budget.spend(ctx, evidence)
        else:
            choices = in_parallel(self._by_itself, considered, ctx, "ranks")
        plan = _Decided(considered, choices, evidence is not None)
        if evidence is not None and plan.chosen and evidence.few and not ctx.config.validated_outside:
            plan = self._confirmed(plan, everything, ctx, evidence)
        self._write(graph, ctx, rw, plan, everything, evidence, latency)

    def _write(
        self,
        graph: Graph,
        ctx: Context,
        rw: Rewriter,
        plan: _Decided,
        everything: Sequence[Considered],
        evidence: Evidence | None,
        latency: Latency | None,
    ) -> None:
        """Rewrites the layers, and says of each what became of it."""
        small = set(everything) - set(plan.considered)
        for item in everything:
            if item in small:
                _left(rw, item.layer, f"with the smallest it holds less than {_TOO_SMALL:.0%} of the budget")
        for item, choice in zip(plan.considered, plan.choices, strict=True):
            if isinstance(choice, str):
                _left(rw, item.layer, choice)
        chosen = plan.chosen
        if evidence is not None and plan.fitted:
            fits = evidence.fit(chosen)
        else:
            fits = in_parallel(lambda item: plain(*item), chosen, ctx, "factors")
        for (layer, choice), fit in zip(chosen, fits, strict=True):
            _write(rw, layer, choice, fit, latency.figures(layer, choice) if latency is not None else {})
        rw.finish()
        for node, reason in in_bodies(graph):
            ctx.missed(node, reason)
        if latency is not None and chosen:
            latency.conclude(graph, self.latency or 1.0)

    def _confirmed(
        self, plan: _Decided, everything: Sequence[Considered], ctx: Context, evidence: Evidence
    ) -> _Decided:
        """The plan where it is the best on samples that it was not fitted to; else one that is fitted to none."""
        without = [replace(plan, fitted=False)]
        if self._unit is not None:
            free = self._budget(self._unit, ctx, everything, aware=False)
            without.append(_Decided(everything, free.spend(ctx, None), fitted=False))
        count = evidence.independent
        try:
            noise = evidence.held_out([decided.plan for decided in (plan, *without)])
        except InputError:
            return plan  # the data are at fault: fitted to all of them, it names the batch
        if noise is None:
            said = "one sample, or all resemble each other" if count == 1 else f"{count} samples at once"
            ctx.missed(_DATA, f"nothing is fitted to them: {said}, and none can be held out to judge by")
            return without[-1]
        best = int(np.argmin([noise[0] + MARGIN_DB / count, *noise[1:]]))
        if best == 0:
            return plan
        why = f"{-noise[0]:.1f} dB with them, {-noise[best]:.1f} dB without, on samples held out"
        ctx.missed(_DATA, f"nothing is fitted to them: {count} independent samples, {why}")
        return without[best - 1]

    # -- which layers -----------------------------------------------------------------------------------------------

    def _considered(self, layers: Sequence[Layer], rw: Rewriter) -> list[Considered]:
        kept = []
        for layer in layers:
            methods = methods_for(layer, self.method)
            if not isinstance(methods, str):
                methods = solved_by(self.solver, methods)
            if self.macs is not None and layer.macs is None:
                methods = "its multiply-accumulates are not known: its shapes are not static"
            elif self.latency is not None and layer.macs is None:
                methods = "its time cannot be measured: its shapes are not static"
            if isinstance(methods, str):
                _left(rw, layer, methods)
            else:
                kept.append(Considered(layer, methods))
        return kept

    def _worth_a_look(
        self, considered: list[Considered], budget: Budget | None, ctx: Context
    ) -> tuple[list[Considered], Budget | None]:
        """All but the smallest layers, which together take a few hundredths of the budget, unless it takes them too."""
        unit = self._unit or "macs"
        room = _TOO_SMALL * float(self.latency or getattr(self, unit)) * int(getattr(ctx.get(Cost), unit))
        small: set[Considered] = set()
        for item in sorted(considered, key=lambda item: whole_cost(item.layer, unit)):
            room -= whole_cost(item.layer, unit)
            if room < 0:
                break
            small.add(item)
        large = [item for item in considered if item not in small]
        if budget is not None and not budget.over(large).reachable:
            return considered, budget
        return large, None if budget is None else budget.over(large)

    # -- which ranks ------------------------------------------------------------------------------------------------

    @property
    def _unit(self) -> Unit | None:
        return next((unit for unit in UNITS if getattr(self, unit) is not None), None)

    @property
    def _limits(self) -> Limits:
        return Limits(self.min_rank or LEAST_RANK, self.multiple or 1)

    def _budget(self, unit: Unit, ctx: Context, considered: Sequence[Considered], aware: bool) -> Budget:
        total = int(getattr(ctx.get(Cost), unit))
        return Budget(unit, float(getattr(self, unit)), total, considered, self._limits, fitted=aware)

    def _timed(self, graph: Graph, ctx: Context, considered: Sequence[Considered]) -> Latency:
        """The times of the layers and of what they could become. Nothing else runs meanwhile."""
        found = in_parallel(lambda item: offers(item.layer, item.methods, self._limits), considered, ctx, "ranks")
        return Latency(graph, ctx, [item.layer for item in considered], found)

    def _within_time(
        self, latency: Latency, ctx: Context, considered: Sequence[Considered], evidence: Evidence | None
    ) -> list[Choice | str]:
        """What each layer becomes under a budget of time, or why it stays whole."""
        found = in_parallel(
            lambda pair: layer_curve(pair[0].layer, pair[1].offers, pair[1].costs(), pair[1].whole, evidence),
            list(zip(considered, latency.timed, strict=True)),
            ctx,
            "ranks",
        )
        choices = latency.choose(found, self.latency or 1.0)
        return [
            choice or timed.why_whole() or dearer(item, self._limits)
            for item, timed, choice in zip(considered, latency.timed, choices, strict=True)
        ]

    def _by_itself(self, item: Considered) -> Choice | str:
        """What a layer becomes without a budget for the network, or why it stays whole."""
        layer, methods, limits = item.layer, item.methods, self._limits
        choice: Choice | str
        if self.rank is not None:
            choice = by_part(layer, methods, limits, self.rank)
        elif self.vbmf:
            choice = above_noise(layer, methods, limits)
        else:
            choice = by_energy(layer, methods, limits, DEFAULT_ENERGY if self.energy is None else self.energy)
        if isinstance(choice, str) or choice.params(layer) < layer.params:
            return choice
        return dearer_chain(layer, choice)


def _left(rw: Rewriter, layer: Layer, reason: str) -> None:
    for node in layer.nodes:
        rw.missed(node, reason)


def _write(rw: Rewriter, layer: Layer, choice: Choice, fit: Fit, timed: Mapping[str, float]) -> None:
    names = list(layer.nodes)
    figures: dict[str, float] = {"params_before": layer.params, "params_after": choice.params(layer)}
    figures |= timed
    figures["relative_error"] = relative_error(layer.kernel(), fit.chain.stages)
    how = ""
    if fit.rows:
        figures |= {"output_error": fit.chain.relative_error, "samples": fit.rows}
        how = ", fitted to the data"
        if fit.rows < fit.size:
            how += f" ({fit.rows} samples for {fit.size} inputs: held to the weights where they do not tell)"
    elif fit.unfit:
        how = f", for its weights alone: {fit.unfit}"
    for node in names:
        if node in fit.biases:
            values = fit.biases[node] / float(node.attrs.get("beta", 1.0))
            rw.set_constant(node, 2, values.astype(layer.weight.dtype), f"{node.name or node.op.lower()}.bias")
    write_chain(rw, layer, choice.method.name, fit.chain.stages)
    for node in names:
        rw.did(node, f"{choice.method.title}, {choice.words()}{how}", **figures)
