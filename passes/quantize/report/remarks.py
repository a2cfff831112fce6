"""What the report says of a quantized network: each operator, and the layers that are least exact."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from edgec.ir.graph import Graph, Node
from edgec.passes.framework.context import Context
from edgec.passes.framework.remark import Remark
from edgec.passes.framework.target import Scheme
from edgec.passes.quantize.placement.placement import Site
from edgec.passes.quantize.report.layer_errors import LayerError

_NAMED = 3


def nothing_quantized(graph: Graph, left: Iterable[Remark]) -> str | None:
    """What to say to somebody who asked for integers and got none; ``None`` where there are some.

    Args:
        graph: behind :class:`.Quantize`.
        left: what that pass missed.
    """
    if any(node.op in ("QuantizeLinear", "DequantizeLinear") for inside in graph.graphs() for node in inside.nodes):
        return None
    remarks = list(left)
    whole = [remark.what for remark in remarks if remark.node == "the network"]
    reasons = Counter(remark.what for remark in remarks if remark.node != "the network")
    parts = whole[-1:]
    parts += [f"{count} of its operators: {what}" for what, count in reasons.most_common(1)]
    return f"nothing was quantized: {'; '.join(parts)}" if parts else "nothing was quantized"


def remark(
    sites: Iterable[Site],
    scheme: Scheme,
    scales: Mapping[Node, tuple[int, int]],
    errors: Sequence[LayerError],
    shares: Mapping[Node, float],
    ctx: Context,
) -> None:
    """Reports how each operator was quantized and how exact it is, and names the worst.

    Args:
        sites: the operators.
        scheme: of the target.
        scales: by node with weights, how many scales it has and how many were enlarged for its bias.
        errors: of their outputs.
        shares: of the noise at the network's outputs, where that was measured.
        ctx: is told.
    """
    worst: dict[Node, LayerError] = {}
    for error in errors:
        if error.node not in worst or error.alone_db < worst[error.node].alone_db:
            worst[error.node] = error
    for site in sites:
        _one(site, scheme, scales.get(site.node), worst.get(site.node), shares, ctx)
    if shares:
        most = sorted(shares, key=lambda node: -shares[node])[:_NAMED]
        words = "; ".join(f"'{node.name or node.op}' {shares[node]:.1%}" for node in most)
        ctx.did("the layers", f"most of the noise at the outputs: {words}")
    named = sorted(worst.values(), key=lambda error: error.alone_db)[:_NAMED]
    if named:
        words = "; ".join(f"'{e.node.name or e.node.op}' {e.alone_db:.1f} dB ({e.reason})" for e in named)
        ctx.did("the layers", f"least exact by themselves: {words}")


def _one(
    site: Site,
    scheme: Scheme,
    scales: tuple[int, int] | None,
    error: LayerError | None,
    shares: Mapping[Node, float],
    ctx: Context,
) -> None:
    parts: list[str] = [scheme.activations]
    figures: dict[str, float] = {}
    if scales is not None:
        count, widened = scales
        parts.append("int8 weights per channel" if count > 1 else "int8 weights with one scale")
        figures["weight_scales"] = count
        if widened:
            parts.append(f"{widened} weight scales enlarged because the bias would not fit")
            figures["enlarged_scales"] = widened
    if site.fused:
        parts.append(f"{' and '.join(node.op for node in site.fused)} fused")
    if error is not None:
        figures |= {"alone_db": round(error.alone_db, 2), "accumulated_db": round(error.accumulated_db, 2)}
    if site.node in shares:
        figures["noise_share"] = round(shares[site.node], 4)
    ctx.did(site.node, ", ".join(parts), **figures)
