"""Bands chosen from data: those that tell the classes apart, or those that the reduced image lacks most."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edgec.ir.execution import Feeds, Session
from edgec.ir.frequency_bank import Overlay
from edgec.ir.graph import Graph, Variable
from edgec.passes.calibration.runner import each
from edgec.passes.framework.context import Context
from edgec.passes.overlay.stage import Light, write_stage

_LEAST = 1e-12


@dataclass(frozen=True)
class Selected:
    """The bands that were chosen.

    Attributes:
        bands: their names, in the transform's order.
        why: what they were chosen by.
        scores: of all bands, by name.
    """

    bands: tuple[str, ...]
    why: str
    scores: dict[str, float]


def select_bands(count: int, overlay: Overlay, graph: Graph, x: Variable, light: Light, ctx: Context) -> Selected:
    """The ``count`` best bands.

    With labels in the training data: by Fisher's criterion, the variance of the classes' means over the variance within
    classes, of the logarithm of each image's energy in the band. Without: by their part of what the reduced image
    lacks.

    Args:
        count: at least 1; all bands where there are no more.
        overlay: its transform and block.
        graph: the network; not changed.
        x: its input.
        light: how that gives luminance.
        ctx: the data.
    """
    whole = replace(overlay, bands=None, magnitude="square", log=False, low=0.0, chroma=False, center=False)
    energies, labels = _energies(whole, graph, x, light, ctx)
    names = whole.chosen
    if labels is not None and len(np.unique(labels)) > 1:
        values = np.log(energies + _LEAST)
        means = np.stack([values[labels == label].mean(axis=0) for label in np.unique(labels)])
        within = np.mean([values[labels == label].var(axis=0) for label in np.unique(labels)], axis=0)
        scores, why = means.var(axis=0) / np.maximum(within, _LEAST), "tells the classes of data.train apart"
    else:
        total = energies.sum(axis=1, keepdims=True)
        scores = (energies / np.maximum(total, _LEAST)).mean(axis=0)
        why = "holds most of what the reduced image lacks"
    best = sorted(np.argsort(-scores, kind="stable")[:count])
    return Selected(tuple(names[i] for i in best), why, dict(zip(names, scores.tolist(), strict=True)))


def _energies(
    overlay: Overlay, graph: Graph, x: Variable, light: Light, ctx: Context
) -> tuple[np.ndarray, np.ndarray | None]:
    """Of each image the energy in each band, (images, bands), and the images' classes where they are known."""
    role = "train" if "train" in ctx.data and _classes(ctx) is not None else "calibration"
    alone = Graph(opset=graph.opset)
    given = Variable(x.name, np.float32, list(x.shape or []))
    alone.inputs.append(given)
    alone.outputs.append(write_stage(alone, given, overlay, light, "bands"))
    session = Session(alone)
    name = session.outputs[0]

    def energy(_: int, feeds: Feeds) -> np.ndarray:
        found: np.ndarray = session.run(feeds)[name].mean(axis=(2, 3), dtype=np.float64)
        return found

    found = np.concatenate(list(each(ctx, ctx.feeds(graph, role), energy)))
    labels = _classes(ctx) if role == "train" else None
    return (found, None) if labels is None else (found[: len(labels)], labels)


def _classes(ctx: Context) -> np.ndarray | None:
    """The labels of the training data where they are class numbers."""
    labels = getattr(ctx.data.get("train"), "labels", None)
    if labels is None:
        return None
    values = np.asarray(labels)
    return values if values.ndim == 1 and values.dtype.kind in "iu" else None
