"""``factorize``: large kernels become chains of smaller ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Annotated, ClassVar, Literal, TypeVar

import numpy as np
from pydantic import Field

from edgec.ir.cost import Cost
from edgec.ir.errors import UsageError, did_you_mean
from edgec.ir.graph import Graph, Node
from edgec.ir.shapes import Shapes
from edgec.passes.factorization.allocation import Curve, allocate, curve, least, loss_of
from edgec.passes.factorization.chains import write_chain
from edgec.passes.factorization.evidence import Evidence
from edgec.passes.factorization.latency import BLOCK, Latency
from edgec.passes.factorization.layers import Layer, find_layers
from edgec.passes.factorization.methods import CP, Method, methods_for
from edgec.passes.factorization.offers import Choice, Limits, Offer, Unit, least_choice, offers, whole_cost
from edgec.passes.factorization.overriding import new_biases
from edgec.passes.factorization.refitting import Fit, plain
from edgec.passes.factorization.stages import relative_error
from edgec.passes.linear_layers import LINEAR
from edgec.passes.protocol import Context, Effect, Pass
from edgec.passes.rewriting import Rewriter

DEFAULT_ENERGY = 0.95
# The smallest layers that together hold no more of the budget are not looked at where that takes runs of the network.
_TOO_SMALL = 0.02
_LEAST_RANK = 2
_BUDGETS: tuple[Unit, ...] = ("params", "macs", "weight_bytes")
_WORDS: dict[Unit, str] = {"params": "parameters", "macs": "multiply-accumulates", "weight_bytes": "bytes of weights"}
_WAYS = (*_BUDGETS, "latency", "energy", "rank", "vbmf")

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class Considered:
    """A layer with the methods that could be used for it."""

    layer: Layer
    methods: list[Method]


@dataclass(frozen=True)
class Factorize(Pass):
    """Writes convolutions and fully connected layers as chains of smaller layers.

    Where calibration data are at hand, chains are fitted to what the layers compute on them, one layer after the other,
    and under a budget each layer's ranks follow from what its compression does to the network's outputs.

    One of ``params``, ``macs``, ``weight_bytes``, ``latency``, ``energy``, ``rank`` and ``vbmf`` says how far; without
    any of them ``energy`` is 0.95. No chain is made that has more parameters than the layer.
    """

    name: ClassVar[str] = "factorize"
    effect: ClassVar[Effect] = "lossy"
    needs: ClassVar[frozenset[str]] = frozenset({"float"})

    params: Annotated[
        float | None,
        Field(gt=0, le=1, description="part of the network's parameters to keep: one budget for all layers"),
    ] = None
    macs: Annotated[
        float | None,
        Field(gt=0, le=1, description="part of the network's multiply-accumulates to keep: one budget for all"),
    ] = None
    weight_bytes: Annotated[
        float | None,
        Field(gt=0, le=1, description="part of the network's bytes of weights to keep: one budget for all"),
    ] = None
    latency: Annotated[
        float | None,
        Field(gt=0, le=1, description="part of the network's time in onnxruntime here to keep: one budget for all"),
    ] = None
    energy: Annotated[
        float | None, Field(gt=0, le=1, description="part of its weights' squared norm that each layer keeps at least")
    ] = None
    rank: Annotated[float | None, Field(gt=0, le=1, description="ranks of each layer, as a part of the full ones")] = (
        None
    )
    vbmf: Annotated[
        bool, Field(description="ranks of each layer by variational Bayes: what rises above the noise in its weights")
    ] = False
    method: Annotated[
        Literal["auto", "tucker", "svd", "spatial", "cp"],
        Field(description="how kernels of more than one tap are written; auto chooses for each layer"),
    ] = "auto"
    only: Annotated[
        tuple[str, ...], Field(description="name patterns (* and ?) of the only layers to factorize; all when empty")
    ] = ()
    skip: Annotated[tuple[str, ...], Field(description="name patterns of layers to leave as they are")] = ()
    data_aware: Annotated[
        bool, Field(description="fit chains to the calibration data, where there are any, instead of to the weights")
    ] = True
    min_rank: Annotated[
        int | None,
        Field(ge=1, description="no layer gets a lower rank; without it 2, or what the recipe's targets want at least"),
    ] = None
    multiple: Annotated[
        int | None,
        Field(ge=1, description="ranks are multiples of this, or full; without it of what the recipe's targets want"),
    ] = None

    def __post_init__(self) -> None:
        given = [key for key in _WAYS if getattr(self, key)]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other: give one of {', '.join(_WAYS)}")

    def run(self, graph: Graph, ctx: Context) -> None:
        """Factorizes ``graph`` in place.

        Raises:
            UsageError: a pattern matches no layer, or the budget cannot be met.
        """
        self._for(ctx)._run(graph, ctx)

    def _for(self, ctx: Context) -> Factorize:
        """With the ranks that all targets of the recipe like, where no others are asked for."""
        boards = [*ctx.targets, *([ctx.target] if ctx.target is not None else [])]
        least = max([_LEAST_RANK, *(board.least_channels for board in boards)])
        multiple = math.lcm(BLOCK if self.latency else 1, *(board.channel_multiple for board in boards))
        return replace(self, min_rank=self.min_rank or least, multiple=self.multiple or multiple)

    def _run(self, graph: Graph, ctx: Context) -> None:
        self._check_patterns(graph)
        rw = Rewriter(graph, ctx)
        considered = self._considered(find_layers(graph, ctx.get(Shapes), self._excluded, rw.missed), rw)
        aware = self.data_aware and "calibration" in ctx.data
        if self.latency or (aware and self._budget):
            considered = self._worth_a_look(considered, ctx, rw)
        evidence = Evidence(graph, ctx, [item.layer for item in considered]) if aware and considered else None
        latency = self._timed(graph, ctx, considered) if self.latency else None
        if latency is not None:
            choices = self._within_time(latency, ctx, considered, evidence, rw)
        elif self._budget:
            choices = self._budgeted(ctx, considered, evidence, rw)
        else:
            choices = self._by_layer(ctx, considered, rw)
        chosen = [(item.layer, choice) for item, choice in zip(considered, choices, strict=True) if choice is not None]
        if evidence is not None:
            fits = evidence.fit(chosen)
        else:
            fits = _in_parallel(lambda item: plain(*item), chosen, ctx, "factors")
        for (layer, choice), fit in zip(chosen, fits, strict=True):
            _write(rw, layer, choice, fit, latency.figures(layer, choice) if latency is not None else {})
        rw.finish()
        if latency is not None and chosen:
            latency.conclude(graph, self.latency or 1.0)

    # -- which layers -----------------------------------------------------------------------------------------------

    def _check_patterns(self, graph: Graph) -> None:
        names = [node.name for node in graph.nodes if node.op in LINEAR]
        for option in ("only", "skip"):
            for pattern in getattr(self, option):
                if not any(fnmatchcase(name, pattern) for name in names):
                    raise UsageError(
                        f"factorize: {option}",
                        f"'{pattern}' matches no Conv, ConvTranspose, Gemm or MatMul{did_you_mean(pattern, names)}",
                        "'edgec inspect' lists the layers",
                    )

    def _excluded(self, node: Node) -> str | None:
        if self.only and not any(fnmatchcase(node.name, pattern) for pattern in self.only):
            return "not named by 'only'"
        skipped = next((pattern for pattern in self.skip if fnmatchcase(node.name, pattern)), None)
        return None if skipped is None else f"named by 'skip' ({skipped})"

    def _considered(self, layers: Sequence[Layer], rw: Rewriter) -> list[Considered]:
        kept = []
        for layer in layers:
            methods = methods_for(layer, self.method)
            if self.macs is not None and layer.macs is None:
                methods = "its multiply-accumulates are not known: its shapes are not static"
            elif self.latency is not None and layer.macs is None:
                methods = "its time cannot be measured: its shapes are not static"
            if isinstance(methods, str):
                _left(rw, layer, methods)
            else:
                kept.append(Considered(layer, methods))
        return kept

    def _worth_a_look(self, considered: Sequence[Considered], ctx: Context, rw: Rewriter) -> list[Considered]:
        """All but the smallest layers, which together take a few hundredths of the budget at most."""
        unit = self._budget or "macs"
        room = _TOO_SMALL * float(self.latency or getattr(self, unit)) * int(getattr(ctx.get(Cost), unit))
        small: set[int] = set()
        for index in sorted(range(len(considered)), key=lambda i: whole_cost(considered[i].layer, unit)):
            room -= whole_cost(considered[index].layer, unit)
            if room < 0:
                break
            small.add(index)
            _left(rw, considered[index].layer, f"with the smallest it holds less than {_TOO_SMALL:.0%} of the budget")
        return [item for index, item in enumerate(considered) if index not in small]

    # -- which ranks ------------------------------------------------------------------------------------------------

    @property
    def _budget(self) -> Unit | None:
        return next((unit for unit in _BUDGETS if getattr(self, unit) is not None), None)

    @property
    def _limits(self) -> Limits:
        return Limits(self.min_rank or _LEAST_RANK, self.multiple or 1)

    def _budgeted(
        self, ctx: Context, considered: Sequence[Considered], evidence: Evidence | None, rw: Rewriter
    ) -> list[Choice | None]:
        """What each layer becomes under one budget for the network; ``None`` for one that stays whole."""
        unit = self._budget or "params"
        share = float(getattr(self, unit))
        total = int(getattr(ctx.get(Cost), unit))
        fixed = total - sum(whole_cost(item.layer, unit) for item in considered)
        found = _in_parallel(lambda item: self._curve(item, unit, evidence), considered, ctx, "ranks")
        curves = [c for c, _ in found]
        points = allocate(curves, share * total - fixed)
        if points is None:
            raise UsageError(
                f"factorize: {unit}",
                f"the network cannot be brought to {share:.4g} of its {_WORDS[unit]}; "
                f"the least that can be reached is {_up((fixed + least(curves)) / max(total, 1))}",
                "raise the budget, lower min_rank or multiple, or prune first",
            )
        choices: list[Choice | None] = []
        for item, (c, options), point in zip(considered, found, points, strict=True):
            chosen = int(c.choice[point])
            choices.append(None if chosen < 0 else options[chosen])
            if chosen < 0:
                alternative = len(c.cost) > 1
                reason = "the budget is met without it, at less error" if alternative else self._dearer(item)
                _left(rw, item.layer, reason)
        return choices

    def _timed(self, graph: Graph, ctx: Context, considered: Sequence[Considered]) -> Latency:
        """The times of the layers and of what they could become. Nothing else runs meanwhile."""
        found = _in_parallel(lambda item: offers(item.layer, item.methods, self._limits), considered, ctx, "ranks")
        return Latency(graph, ctx, [item.layer for item in considered], found)

    def _within_time(
        self,
        latency: Latency,
        ctx: Context,
        considered: Sequence[Considered],
        evidence: Evidence | None,
        rw: Rewriter,
    ) -> list[Choice | None]:
        """What each layer becomes under a budget of time; ``None`` for one that stays whole."""

        def one(index: int) -> tuple[Curve, list[Choice]]:
            timed = latency.timed[index]
            return _curve(considered[index], timed.offers, timed.costs(), timed.whole, evidence)

        found = _in_parallel(one, range(len(considered)), ctx, "ranks")
        choices = latency.choose(found, self.latency or 1.0)
        for item, timed, choice in zip(considered, latency.timed, choices, strict=True):
            if choice is None:
                _left(rw, item.layer, timed.why_whole() or self._dearer(item))
        return choices

    def _by_layer(self, ctx: Context, considered: Sequence[Considered], rw: Rewriter) -> list[Choice | None]:
        """What each layer becomes by itself; ``None`` where a chain would be larger."""
        found = _in_parallel(self._own_choice, considered, ctx, "ranks")
        choices: list[Choice | None] = []
        for item, choice in zip(considered, found, strict=True):
            if isinstance(choice, str):
                reason = choice
            elif choice.params(item.layer) >= item.layer.params:
                reason = _dearer_chain(item.layer, choice)
            else:
                choices.append(choice)
                continue
            choices.append(None)
            _left(rw, item.layer, reason)
        return choices

    def _own_choice(self, item: Considered) -> Choice | str:
        layer, limits = item.layer, self._limits
        if self.rank is not None or self.vbmf:
            choices = []
            for method in item.methods:
                full = method.full(layer)
                if self.rank is not None:
                    wanted = tuple(int(np.ceil(self.rank * most - 1e-9)) for most in full)
                else:
                    wanted = method.ranks_above_noise(layer, layer.kernel())
                    if 0 in wanted:
                        return "variational Bayes finds nothing but noise in its weights"
                choices.append(Choice(method, tuple(map(limits.upward, wanted, full))))
            return next((choice for choice in choices if choice.params(layer) < layer.params), choices[0])
        energy = DEFAULT_ENERGY if self.energy is None else self.energy
        best = [_least_that_keeps(offer, energy) for offer in offers(layer, item.methods, limits)]
        chosen = min(best, key=lambda choice: choice.params(layer))
        if chosen.method is CP:
            best[best.index(chosen)] = _confirmed(layer, chosen, energy, limits)
        return min(best, key=lambda choice: choice.params(layer))

    def _curve(self, item: Considered, unit: Unit, evidence: Evidence | None) -> tuple[Curve, list[Choice]]:
        found = offers(item.layer, item.methods, self._limits)
        costs = [offer.cost(item.layer, unit) for offer in found]
        if evidence is not None and unit != "macs":  # what is fitted gets biases, whether it had any or not
            size = item.layer.weight.dtype.itemsize if unit == "weight_bytes" else 1
            costs = [cost + new_biases(item.layer) * size for cost in costs]
        return _curve(item, found, costs, whole_cost(item.layer, unit), evidence)

    def _dearer(self, item: Considered) -> str:
        layer = item.layer
        lowest = least_choice(layer, item.methods, self._limits)
        if lowest.params(layer) >= layer.params or layer.macs is None:
            return _dearer_chain(layer, lowest)
        macs = lowest.macs(layer)
        return f"a chain of {lowest.words()} does {macs} multiply-accumulates, the layer {layer.macs}"


def _curve(
    item: Considered, found: Sequence[Offer], priced: Sequence[np.ndarray], whole: float, evidence: Evidence | None
) -> tuple[Curve, list[Choice]]:
    """What a layer offers under a budget, by index into the choices; staying whole is the point of choice -1.

    Args:
        found: what each method offers.
        priced: what each candidate of each method costs: (candidates,).
        whole: what the layer costs.
    """
    layer = item.layer
    observed = evidence.observe(layer) if evidence is not None else None
    costs, losses, options = [np.zeros(0)], [np.zeros(0)], []
    for offer, cost in zip(found, priced, strict=True):
        fits = np.flatnonzero((cost < whole) & (offer.params < layer.params))
        costs.append(cost[fits].astype(np.float64))
        lost = 1 - offer.kept[fits]
        if observed is not None:
            # Weights that the data do not excite count less; but not for nothing, since data are few.
            seen = 1 - observed.kept(offer.method, offer.ranks[fits])
            lost = np.sqrt(np.maximum(lost, 1e-12) * np.maximum(seen, 1e-12))
        losses.append(lost)
        options += [offer.choice(int(row)) for row in fits]
    best = curve(np.concatenate(costs), np.concatenate(losses), np.arange(len(options)))
    options = [options[int(index)] for index in best.choice]
    loss = loss_of(1 - best.loss)
    if evidence is not None and options:
        loss = evidence.damage(observed, layer, options, best.cost, best.loss)
    # The whole layer loses nothing: a little less than what rounding leaves of a chain of full rank.
    points = curve(np.append(best.cost, whole), np.append(loss, -1e-12), np.append(np.arange(len(options)), -1))
    return points, options


def _least_that_keeps(offer: Offer, energy: float) -> Choice:
    """The chain with the fewest parameters that keeps a part of the squared norm."""
    # Full rank keeps everything, whatever rounding makes of the sum.
    enough = np.flatnonzero((offer.kept >= energy) | (offer.ranks == offer.ranks[-1]).all(axis=1))
    return offer.choice(int(enough[np.argmin(offer.params[enough])]))


def _confirmed(layer: Layer, choice: Choice, energy: float, limits: Limits) -> Choice:
    """A CP chain that does keep that part: its curve is only an estimate between the ranks that were looked at."""
    [full] = choice.method.full(layer)
    while choice.params(layer) < layer.params and 1 - plain(layer, choice).chain.relative_error ** 2 < energy:
        rank = choice.ranks[0]
        choice = Choice(choice.method, (limits.upward(max(rank + 1, rank * 17 // 16), full),))
    return choice


def _up(share: float) -> str:
    """A share with four digits, rounded up, so that it can be met when it is asked for."""
    return f"{np.ceil(share * 1e4) / 1e4:.4g}"


def _dearer_chain(layer: Layer, choice: Choice) -> str:
    return f"a chain of {choice.words()} has {choice.params(layer)} parameters, the layer {layer.params}"


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


def _in_parallel(work: Callable[[T], U], items: Sequence[T], ctx: Context, what: str) -> list[U]:
    """Results in the order of ``items``, the same on any number of threads: BLAS gets one thread in each."""
    from threadpoolctl import threadpool_limits

    results: list[U] = []
    with threadpool_limits(limits=1):
        if ctx.threads > 1 and len(items) > 1:
            with ThreadPoolExecutor(max_workers=ctx.threads) as pool:
                results = list(_counted(pool.map(work, items), len(items), ctx, what))
        else:
            results = list(_counted(map(work, items), len(items), ctx, what))
    return results


def _counted(results: Iterable[U], total: int, ctx: Context, what: str) -> Iterable[U]:
    for done, result in enumerate(results, 1):
        ctx.progress(done, total, what)
        yield result
