"""What ``prune`` says of every layer: how many of its channels stayed, and why they did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgec.ir.channels import Group
from edgec.ir.graph import Node
from edgec.passes.framework.context import Context
from edgec.passes.prune.compensation import Refit
from edgec.passes.prune.criteria import Judged

_COMPUTED = "its output channels are not its weights'"


@dataclass(frozen=True)
class Cut:
    """A group that lost units.

    Attributes:
        judged: how it was judged.
        loss: -log of the part that is left of what it carried.
    """

    judged: Judged
    loss: float


def report(
    ctx: Context,
    groups: Sequence[Group],
    reasons: Mapping[Group, str | None],
    cuts: Mapping[Group, Cut],
    masks: Mapping[Node, np.ndarray | None],
    refits: Mapping[Node, Refit],
) -> None:
    """One remark for every layer, in the graph's order.

    Args:
        ctx: gets them.
        groups: all of the graph, as it was.
        reasons: why a group was left as it is.
        cuts: those that lost units.
        masks: the layers, and which of their output channels stayed; ``None`` where that is not known.
        refits: the layers whose output changed.
    """
    of: dict[Node, list[Group]] = {}
    for group in groups:
        for node in group.producers:
            of.setdefault(node, []).append(group)
    for node, mask in masks.items():
        own = of.get(node, [])
        cut = next((cuts[group] for group in own if group in cuts), None) if mask is None or not mask.all() else None
        other = "others of its group went first" if any(group in cuts for group in own) else _COMPUTED
        reason = next((found for group in own if (found := reasons[group])), other)
        refit = refits.get(node)
        fitted = refit is not None and refit.after < refit.before
        figures = _figures(mask, cut, refit)
        if mask is not None and cut is not None:
            ctx.did(node, f"{int(mask.sum())} of {len(mask)} channels kept{_data(cut)}{_fit(refit)}", **figures)
        elif fitted:
            ctx.did(node, f"all channels kept ({reason}){_fit(refit)}", **figures)
        else:
            ctx.missed(node, f"{reason}{_fit(refit)}", **figures)


def _figures(mask: np.ndarray | None, cut: Cut | None, refit: Refit | None) -> dict[str, float]:
    figures: dict[str, float] = {}
    if mask is not None and cut is not None:
        figures = {"channels_before": len(mask), "channels_after": int(mask.sum())}
        figures["lost"] = float(1 - np.exp(-cut.loss))
    if refit is not None:
        figures |= {"output_error": float(np.sqrt(refit.after)), "unfitted_error": float(np.sqrt(refit.before))}
    return figures


def _data(cut: Cut) -> str:
    """What is to be known of the data that a group was judged on."""
    said = ""
    if cut.judged.constant:
        said += f", {cut.judged.constant} constant on the calibration data"
    if cut.judged.rows is not None and cut.judged.rows < 2 * cut.judged.group.width:
        said += f", judged on {cut.judged.rows} observations only: regularized"
    return said


def _fit(refit: Refit | None) -> str:
    if refit is None:
        return ""
    if refit.obstacle is not None:
        return f"; {'bias' if refit.after < refit.before else 'nothing'} fitted: {refit.obstacle}"
    few = f" on {refit.rows} observations of {refit.features} features: regularized"
    return f"; fitted{few if refit.rows < 2 * refit.features else ''}"
