"""Pad, in all its modes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from edgec.ir.torch_module.lowering import Call, Site, lowers

_NATIVE = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}


@lowers("Pad")
def pad(at: Site) -> Call:
    """Pads and the value are attributes before opset 11, axes come with 18; negative pads cut."""
    mode = str(at.attr("mode", "constant"))
    if at.opset < 11:
        return _padded(at, mode, at.attr("pads", at.attr("paddings")), float(at.attr("value", 0.0)))

    def build(pads: np.ndarray, value: np.ndarray | None = None, axes: np.ndarray | None = None) -> Call:
        number = 0 if value is None or not value.size else value.reshape(-1)[0].item()
        return _padded(at, mode, pads.reshape(-1), number, axes)

    return at.late([1, 2, 3], build)


def _padded(at: Site, mode: str, pads: Sequence[int] | np.ndarray, value: Any, axes: np.ndarray | None = None) -> Call:
    amounts = [int(p) for p in pads]
    half = len(amounts) // 2
    places = range(half) if axes is None else [int(a) for a in axes]
    pairs = {axis: (amounts[i], amounts[half + i]) for i, axis in enumerate(places)}

    def by_axis(rank: int) -> dict[int, tuple[int, int]]:
        return {axis % rank: pair for axis, pair in pairs.items() if any(pair)}

    if mode == "constant":

        def constant(x: Tensor) -> Tensor:
            wanted = by_axis(x.ndim)
            if not wanted:
                return x
            sides = [p for axis in range(x.ndim - 1, min(wanted) - 1, -1) for p in wanted.get(axis, (0, 0))]
            return functional.pad(x, sides, value=value)

        return constant

    def indexed(x: Tensor) -> Tensor:
        for axis, (before, behind) in by_axis(x.ndim).items():
            places = _places(mode, x.shape[axis], before, behind)
            x = x.index_select(axis, torch.as_tensor(places, device=x.device))
        return x

    def native(x: Tensor) -> Tensor:
        wanted = by_axis(x.ndim)
        spatial = x.ndim - 2
        fits = spatial in (1, 2, 3) and x.is_floating_point() and all(axis >= 2 for axis in wanted)
        fits = fits and all(0 <= p < x.shape[axis] for axis, pair in wanted.items() for p in pair)
        if not fits:
            return indexed(x)
        sides = [p for axis in range(x.ndim - 1, 1, -1) for p in wanted.get(axis, (0, 0))]
        return functional.pad(x, sides, mode=_NATIVE[mode])

    if mode not in _NATIVE:
        raise at.refusal(f"its mode is '{mode}'", "pad by constant, reflect, edge or wrap")
    return native


def _places(mode: str, size: int, before: int, behind: int) -> np.ndarray:
    """The elements that a padded axis is made of. What is cut goes first: it is not there to be mirrored."""
    first, last = max(-before, 0), size - max(-behind, 0)
    kept = max(last - first, 0)
    places = np.arange(-max(before, 0), kept + max(behind, 0))
    if mode == "edge":
        places = np.clip(places, 0, kept - 1)
    elif mode == "wrap":
        places = places % max(kept, 1)
    elif kept > 1:
        period = 2 * (kept - 1)
        places = np.abs((places + kept - 1) % period - (kept - 1))
    else:
        places = np.zeros_like(places)
    return places + first
