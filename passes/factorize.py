"""``factorize``: large kernels become chains of smaller ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, ClassVar, Literal, TypeVar

import numpy as np
from pydantic import Field

from edgec.ir.cost import Cost
from edgec.ir.errors import UsageError, did_you_mean
from edgec.ir.graph import Graph, Node
from edgec.ir.shapes import Shapes
from edgec.passes.factorization.allocation import Curve, allocate, curve, least, loss_of
from edgec.passes.factorization.chains import write_svd, write_tucker2
from edgec.passes.factorization.decomposition import (
    LowRank,
    Tucker,
    svd_spectrum,
    truncated_svd,
    tucker2,
    tucker2_spectrum,
)
from edgec.passes.factorization.layers import ChainCost, Layer, find_layers
from edgec.passes.linear_layers import LINEAR
from edgec.passes.protocol import Context, Effect, Pass
from edgec.passes.rewriting import Rewriter

DEFAULT_ENERGY = 0.95
# So many ranks of a mode are looked at; finer steps would not show in a network's budget.
_MOST_RANKS = 192

Ranks = tuple[int, int]
T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class Factorize(Pass):
    """Writes convolutions as Tucker-2 chains, pointwise and fully connected layers as two layers of low rank.

    One of ``params``, ``macs``, ``energy`` and ``rank`` says how far; without any of them ``energy`` is 0.95. No chain
    is made that has more parameters than the layer.
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
    energy: Annotated[
        float | None, Field(gt=0, le=1, description="part of its weights' squared norm that each layer keeps at least")
    ] = None
    rank: Annotated[float | None, Field(gt=0, le=1, description="ranks of each layer, as a part of the full ones")] = (
        None
    )
    only: Annotated[
        tuple[str, ...], Field(description="name patterns (* and ?) of the only layers to factorize; all when empty")
    ] = ()
    skip: Annotated[tuple[str, ...], Field(description="name patterns of layers to leave as they are")] = ()
    min_rank: Annotated[int, Field(ge=1, description="no layer gets a lower rank")] = 2
    multiple: Annotated[int, Field(ge=1, description="ranks are multiples of this, or full")] = 1

    def __post_init__(self) -> None:
        given = [key for key in ("params", "macs", "energy", "rank") if getattr(self, key) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other: give one of params, macs, energy, rank")

    def run(self, graph: Graph, ctx: Context) -> None:
        """Factorizes ``graph`` in place.

        Raises:
            UsageError: a pattern matches no layer, or the budget cannot be met.
        """
        self._check_patterns(graph)
        rw = Rewriter(graph, ctx)
        layers = find_layers(graph, ctx.get(Shapes), self._excluded, rw.missed)
        for layer in layers if self.macs is not None else ():
            if layer.macs is None:
                for node in layer.nodes:
                    rw.missed(node, "its multiply-accumulates are not known: its shapes are not static")
        layers = [layer for layer in layers if self.macs is None or layer.macs is not None]
        ranks = self._budgeted(graph, ctx, layers, rw) if self._budget else self._by_layer(ctx, layers, rw)
        chosen = [(layer, pair) for layer, pair in zip(layers, ranks, strict=True) if pair is not None]
        factors = _in_parallel(lambda item: _decompose(item[0], item[1]), chosen, ctx, "factors")
        for (layer, (rank_out, rank_in)), made in zip(chosen, factors, strict=True):
            _write(rw, layer, rank_out, rank_in, made)
        rw.finish()

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

    # -- which ranks ------------------------------------------------------------------------------------------------

    @property
    def _budget(self) -> Literal["params", "macs"] | None:
        return "params" if self.params is not None else "macs" if self.macs is not None else None

    def _candidates(self, full: int) -> np.ndarray:
        """The ranks of a mode that may be chosen, full rank last."""
        lowest = -(-self.min_rank // self.multiple) * self.multiple
        ranks = np.arange(lowest, full, self.multiple)
        if len(ranks) > _MOST_RANKS:
            ranks = ranks[np.unique(np.linspace(0, len(ranks) - 1, _MOST_RANKS).round().astype(int))]
        return np.append(ranks, full)

    def _offers(self, layer: Layer) -> tuple[np.ndarray, np.ndarray]:
        """Every choice of ranks as (out, in) pairs, and the part of the squared norm that each keeps."""
        kernel = layer.kernel()
        if layer.is_matrix:
            full = min(layer.params.out, layer.params.into)
            ranks = self._candidates(full)
            return np.stack([ranks, ranks], axis=1), svd_spectrum(kernel[:, :, 0])[ranks - 1]
        kept = tucker2_spectrum(kernel)
        out, into = (self._candidates(full) for full in (layer.params.out, layer.params.into))
        pairs = np.stack(np.meshgrid(out, into, indexing="ij"), axis=-1).reshape(-1, 2)
        return pairs, kept[pairs[:, 0] - 1, pairs[:, 1] - 1]

    def _budgeted(self, graph: Graph, ctx: Context, layers: Sequence[Layer], rw: Rewriter) -> list[Ranks | None]:
        """Ranks under one budget for the network; ``None`` for a layer that stays whole."""
        unit = self._budget or "params"
        share = self.params if self.params is not None else self.macs or 0.0
        cost = ctx.get(Cost)
        total = cost.params if unit == "params" else cost.macs
        whole = [_costs(layer, unit).whole for layer in layers]
        curves = _in_parallel(lambda layer: self._curve(layer, unit), layers, ctx, "ranks")
        fixed = total - sum(whole)
        points = allocate(curves, share * total - fixed)
        if points is None:
            reachable = (fixed + least(curves)) / max(total, 1)
            what = "parameters" if unit == "params" else "multiply-accumulates"
            raise UsageError(
                f"factorize: {unit}",
                f"the network cannot be brought to {share:.4g} of its {what}; "
                f"the least that can be reached is {_up(reachable)}",
                "raise the budget, lower min_rank or multiple, or prune first",
            )
        ranks: list[Ranks | None] = []
        for layer, c, point in zip(layers, curves, points, strict=True):
            rank_out, rank_in = (int(r) for r in c.choice[point])
            ranks.append((rank_out, rank_in) if rank_out else None)
            if not rank_out:
                alternative = len(c.cost) > 1
                reason = "the budget is met without it, at less error" if alternative else self._dearer(layer)
                for node in layer.nodes:
                    rw.missed(node, reason)
        return ranks

    def _curve(self, layer: Layer, unit: str) -> Curve:
        """What a layer offers under a budget; staying whole is the point with ranks (0, 0)."""
        pairs, kept = self._offers(layer)
        costs, params = _costs(layer, unit), layer.params
        cost = _chain_cost(layer, costs, pairs)
        fits = (cost < costs.whole) & (_chain_cost(layer, params, pairs) < params.whole)
        return curve(
            np.append(cost[fits], costs.whole).astype(np.float64),
            np.append(loss_of(kept[fits]), -1.0),  # below any rounding of log(1)
            np.concatenate([pairs[fits], [[0, 0]]]),
        )

    def _by_layer(self, ctx: Context, layers: Sequence[Layer], rw: Rewriter) -> list[Ranks | None]:
        """Ranks of each layer by itself; ``None`` where a chain would be larger."""
        found = _in_parallel(self._own_ranks, layers, ctx, "ranks")
        ranks: list[Ranks | None] = []
        for layer, pair in zip(layers, found, strict=True):
            cost = int(_chain_cost(layer, layer.params, np.array([pair]))[0])
            if cost >= layer.params.whole:
                for node in layer.nodes:
                    rw.missed(node, _dearer_chain(layer, pair, cost))
                ranks.append(None)
            else:
                ranks.append(pair)
        return ranks

    def _own_ranks(self, layer: Layer) -> Ranks:
        if self.rank is not None:
            out, into = layer.params.out, layer.params.into
            if layer.is_matrix:
                out = into = min(out, into)
            return self._part(self.rank, out), self._part(self.rank, into)
        energy = DEFAULT_ENERGY if self.energy is None else self.energy
        pairs, kept = self._offers(layer)
        cost = _chain_cost(layer, layer.params, pairs)
        # Full rank keeps everything, whatever rounding makes of the sum.
        enough = (kept >= energy) | (pairs == pairs[-1]).all(axis=1)
        best = np.flatnonzero(enough)[np.argmin(cost[enough])]
        return int(pairs[best, 0]), int(pairs[best, 1])

    def _part(self, part: float, full: int) -> int:
        wanted = max(int(np.ceil(part * full - 1e-9)), self.min_rank)
        return min(-(-wanted // self.multiple) * self.multiple, full)

    def _dearer(self, layer: Layer) -> str:
        lowest = [int(self._candidates(full)[0]) for full in (layer.params.out, layer.params.into)]
        if layer.is_matrix:
            lowest = [min(lowest)] * 2
        cost = int(_chain_cost(layer, layer.params, np.array([lowest]))[0])
        if cost >= layer.params.whole or layer.macs is None:
            return _dearer_chain(layer, (lowest[0], lowest[1]), cost)
        macs = int(_chain_cost(layer, layer.macs, np.array([lowest]))[0])
        return f"a chain of {_words(layer, *lowest)} does {macs} multiply-accumulates, the layer {layer.macs.whole}"


def _up(share: float) -> str:
    """A share with four digits, rounded up, so that it can be met when it is asked for."""
    return f"{np.ceil(share * 1e4) / 1e4:.4g}"


def _costs(layer: Layer, unit: str) -> ChainCost:
    return layer.macs if unit == "macs" and layer.macs is not None else layer.params


def _chain_cost(layer: Layer, costs: ChainCost, pairs: np.ndarray) -> np.ndarray:
    return costs.svd(pairs[:, 0]) if layer.is_matrix else costs.tucker2(pairs[:, 0], pairs[:, 1])


def _dearer_chain(layer: Layer, ranks: Ranks, cost: int) -> str:
    return f"a chain of {_words(layer, *ranks)} has {cost} parameters, the layer {layer.params.whole}"


def _words(layer: Layer, rank_out: int, rank_in: int) -> str:
    return f"rank {rank_out}" if layer.is_matrix else f"ranks {rank_in} and {rank_out}"


def _decompose(layer: Layer, ranks: Ranks) -> Tucker | LowRank:
    kernel = layer.kernel()
    return truncated_svd(kernel[:, :, 0], ranks[0]) if layer.is_matrix else tucker2(kernel, *ranks)


def _write(rw: Rewriter, layer: Layer, rank_out: int, rank_in: int, factors: Tucker | LowRank) -> None:
    names = list(layer.nodes)
    figures = {
        "params_before": layer.params.whole,
        "params_after": int(_chain_cost(layer, layer.params, np.array([[rank_out, rank_in]]))[0]),
        "relative_error": factors.relative_error,
    }
    if isinstance(factors, LowRank):
        write_svd(rw, layer, factors)
        method = "SVD"
    else:
        write_tucker2(rw, layer, factors)
        method = "Tucker-2"
    for node in names:
        rw.did(node, f"{method}, {_words(layer, rank_out, rank_in)}", **figures)


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
