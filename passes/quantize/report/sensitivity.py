"""What 8 bits cost layer by layer, of a network as it would be rounded for a target."""

from __future__ import annotations

from dataclasses import dataclass

from edgec.ir.errors import UsageError
from edgec.ir.graph import Graph
from edgec.passes.framework.context import Context
from edgec.passes.quantize.pair import Pair
from edgec.passes.quantize.plan import Calibration, prepare
from edgec.passes.quantize.report.effects import noise_shares
from edgec.passes.quantize.report.layer_errors import layer_errors
from edgec.passes.quantize.writing import write

# Batches on which the error of each layer is measured.
_LOOKED_AT = 8


@dataclass(frozen=True)
class Sensitivity:
    """One layer.

    Attributes:
        name, operator: the node's.
        alone_db: signal to noise of what it gives, on the float network's values.
        accumulated_db: of the same in the quantized network.
        share: the part of the noise at the network's outputs that comes from its rounding.
        reason: why it is no more exact by itself.
    """

    name: str
    operator: str
    alone_db: float
    accumulated_db: float
    share: float
    reason: str


def sensitivities(graph: Graph, ctx: Context) -> tuple[list[Sensitivity], list[tuple[str, str]]]:
    """Rounds a copy of ``graph`` to the nearest integers and measures every layer.

    Args:
        graph: float, sorted and folded; not changed.
        ctx: the target and the calibration data.

    Returns:
        The layers in the network's order, and the nodes that stay float with the reason.

    Raises:
        UsageError: the target has no 8-bit arithmetic, or torch is not installed.
        InputError: there are no samples, or torch cannot run an operator.
    """
    assert ctx.target is not None, "the caller names one"
    scheme = ctx.target.scheme
    if scheme is None:
        what = f"{ctx.target.title} has no 8-bit arithmetic"
        raise UsageError(f"target '{ctx.target.name}'", what, "name another one with --target")
    copy = graph.copy()
    inner = ctx.derive(copy)
    ready = prepare(copy, scheme, ctx.target, lambda node: None, Calibration("minmax"), inner)
    if not ready.placement.sites:
        return [], [(node.name or node.op, reason) for node, reason in ready.placement.left]
    pair = Pair(copy.copy(), copy)
    write(copy, ready, inner, scheme=scheme, per_channel=True)
    errors = layer_errors(pair, ready.placement.sites, inner, _LOOKED_AT)
    shares = noise_shares(pair, ready.placement.sites, inner)
    found = [
        Sensitivity(
            e.node.name or e.node.op, e.node.op, e.alone_db, e.accumulated_db, shares.get(e.node, 0.0), e.reason
        )
        for e in errors
    ]
    return found, [(node.name or node.op, reason) for node, reason in ready.placement.left]
