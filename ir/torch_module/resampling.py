"""Resize and Upsample: torch's own interpolation where it is the same, otherwise sums of weighted taps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from edgec.ir.torch_module.lowering import Call, Site, lowers
from edgec.ir.torch_module.sampling import Axis, Sampling, Taps, taps

_COORDINATES = frozenset(
    {
        "half_pixel",
        "half_pixel_symmetric",
        "pytorch_half_pixel",
        "align_corners",
        "asymmetric",
        "tf_crop_and_resize",
        "tf_half_pixel_for_nn",
    }
)
_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


@lowers("Upsample")
def upsample(at: Site) -> Call:
    """Resize of opset 10 under its old name."""
    sampling = Sampling(_mode(at), "asymmetric", "floor")
    if at.opset < 9:
        at.take(0)
        return _resized(sampling, None, np.array(at.attr("scales")), None, at)
    return at.late([1], lambda scales: _resized(sampling, None, scales, None, at))


@lowers("Resize")
def resize(at: Site) -> Call:
    if at.opset < 11:
        sampling = Sampling(_mode(at), "asymmetric", "floor")
        return at.late([1], lambda scales: _resized(sampling, None, scales, None, at))
    sampling = Sampling(
        _mode(at),
        str(at.attr("coordinate_transformation_mode", "half_pixel")),
        str(at.attr("nearest_mode", "round_prefer_floor")),
        float(at.attr("cubic_coeff_a", -0.75)),
        bool(at.attr("exclude_outside", 0)),
        bool(at.attr("antialias", 0)),
    )
    if sampling.coordinates not in _COORDINATES:
        raise at.refusal(f"its coordinates are '{sampling.coordinates}'", "export the network at a newer opset")

    def build(roi: np.ndarray | None, scales: np.ndarray | None, sizes: np.ndarray | None = None) -> Call:
        return _resized(sampling, roi, scales, sizes, at)

    return at.late([1, 2, 3], build)


def _mode(at: Site) -> str:
    mode = str(at.attr("mode", "nearest"))
    mode = "linear" if mode == "bilinear" else mode
    if mode not in ("nearest", "linear", "cubic"):
        raise at.refusal(f"its mode is '{mode}'", "resize by nearest, linear or cubic")
    return mode


def _resized(
    sampling: Sampling, roi: np.ndarray | None, scales: np.ndarray | None, sizes: np.ndarray | None, at: Site
) -> Call:
    chosen = at.attr("axes")
    policy = str(at.attr("keep_aspect_ratio_policy", "stretch"))
    beyond = float(at.attr("extrapolation_value", 0.0))
    batch = at.batch_axis(0)
    plans: dict[tuple[int, ...], Call] = {}

    def plan(shape: Sequence[int]) -> Call:
        places = [a % len(shape) for a in chosen] if chosen is not None else list(range(len(shape)))
        axes = _axes(shape, places, roi, scales, sizes, policy, sampling.coordinates, batch)
        return _native(shape, axes, sampling) or _by_taps(axes, sampling, beyond)

    def call(x: Tensor) -> Tensor:
        # Of the batch only its place matters, so that batches of all sizes share one plan.
        key = (1, *x.shape[1:]) if batch == 0 else tuple(x.shape)
        if key not in plans:
            plans[key] = plan(key)
        return plans[key](x)

    return call


def _axes(
    shape: Sequence[int],
    places: Sequence[int],
    roi: np.ndarray | None,
    scales: np.ndarray | None,
    sizes: np.ndarray | None,
    policy: str,
    coordinates: str,
    batch: int | None,
) -> dict[int, Axis]:
    """The axes that change, by place; the batch's axis never does."""
    if batch in places:
        kept = [i for i, place in enumerate(places) if place != batch]
        roi = roi if roi is None or not roi.size else roi.reshape(2, -1)[:, kept]
        scales, sizes = (v if v is None or not v.size else v[kept] for v in (scales, sizes))
        places = [places[i] for i in kept]
    whole = np.tile([0.0, 1.0], (len(places), 1)).T
    window = whole if roi is None or not roi.size else roi.reshape(2, -1)
    made: dict[int, Axis] = {}
    if sizes is not None and sizes.size:
        wanted = [int(s) for s in sizes]
        factors = [s / shape[p] for s, p in zip(wanted, places, strict=True)]
        if policy != "stretch":
            factor = min(factors) if policy == "not_larger" else max(factors)
            factors = [factor] * len(factors)
            wanted = [int(np.floor(factor * shape[p] + 0.5)) for p in places]
    else:
        assert scales is not None
        factors = [float(s) for s in scales]
        spans = window[1] - window[0] if coordinates == "tf_crop_and_resize" else np.ones(len(places))
        wanted = [int(np.floor(shape[p] * w * f)) for p, w, f in zip(places, spans, factors, strict=True)]
    for i, place in enumerate(places):
        axis = Axis(shape[place], wanted[i], factors[i], (float(window[0, i]), float(window[1, i])))
        same = axis.size == axis.output and axis.scale == 1.0
        if not same or (coordinates == "tf_crop_and_resize" and axis.window != (0.0, 1.0)):
            made[place] = axis
    return made


def _native(shape: Sequence[int], axes: dict[int, Axis], sampling: Sampling) -> Call | None:
    """torch's interpolation, where it takes the same elements with the same weights."""
    spatial = len(shape) - 2
    if not axes or spatial not in _LINEAR or min(axes) < 2 or sampling.antialias or sampling.exclude_outside:
        return None
    sizes = [axes[a].output if a in axes else shape[a] for a in range(2, len(shape))]
    if sampling.mode == "nearest":
        for axis in axes.values():
            times, rest = divmod(axis.output, axis.size)
            found = taps(axis, sampling)
            if rest or found.outside is not None or (found.places[:, 0] != np.arange(axis.output) // times).any():
                return None
        return lambda x: functional.interpolate(x, sizes, mode="nearest")
    exact = all(axis.scale * axis.size == axis.output and axis.output > 1 for axis in axes.values())
    aligned = sampling.coordinates == "align_corners"
    if not exact or not (aligned or sampling.coordinates in ("half_pixel", "pytorch_half_pixel")):
        return None
    if sampling.mode == "linear":
        return lambda x: functional.interpolate(x, sizes, mode=_LINEAR[spatial], align_corners=aligned)
    if spatial == 2 and sampling.cubic_a == -0.75:
        return lambda x: functional.interpolate(x, sizes, mode="bicubic", align_corners=aligned)
    return None


def _by_taps(axes: dict[int, Axis], sampling: Sampling, beyond: float) -> Call:
    found = {place: taps(axis, sampling) for place, axis in axes.items()}

    def call(x: Tensor) -> Tensor:
        for place, of in found.items():
            x = _along(x, place, of)
        for place, of in found.items():
            if of.outside is not None and of.outside.any():
                x = torch.where(_on(of.outside, x, place), torch.full_like(x, beyond), x)
        return x

    return call


def _along(x: Tensor, place: int, of: Taps) -> Tensor:
    indices: Any = torch.as_tensor(of.places.reshape(-1), device=x.device)
    picked = x.index_select(place, indices)
    if of.weights is None:
        return picked
    weights = torch.as_tensor(of.weights, device=x.device).to(x.dtype)
    parts = picked.unflatten(place, of.places.shape)
    return (parts * weights.reshape(*of.places.shape, *[1] * (x.ndim - place - 1))).sum(place + 1)


def _on(mask: np.ndarray, x: Tensor, place: int) -> Tensor:
    return torch.as_tensor(mask, device=x.device).reshape([-1 if i == place else 1 for i in range(x.ndim)])
