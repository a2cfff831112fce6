"""The preprocessings that networks are usually trained with, to try beside the one that a recipe has.

ImageNet's means and standard deviations are those of torchvision's reference training; the means of BGR pixels those of
Caffe's reference networks; MNIST's those of torch's example.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgec.frontends.recipe_data import PreprocessSpec

_IMAGENET = {"scale": (1 / 255,), "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_RANGES: Mapping[str, Mapping[str, Any]] = {
    "0 to 255": {"scale": (1.0,), "mean": (0.0,), "std": (1.0,)},
    "0 to 1": {"scale": (1 / 255,), "mean": (0.0,), "std": (1.0,)},
    "-1 to 1": {"scale": (1 / 255,), "mean": (0.5,), "std": (0.5,)},
}


def variants(spec: PreprocessSpec) -> dict[str, PreprocessSpec]:
    """Preprocessings by name, the recipe's own first; what is equal to an earlier one is left out.

    Args:
        spec: the recipe's: its size, filter, fit and layout are kept.
    """
    tried: dict[str, PreprocessSpec] = {"as written": spec}
    for name, changes in _changes(spec).items():
        variant = spec.model_copy(update=dict(changes))
        if not any(_same(variant, other) for other in tried.values()):
            tried[name] = variant
    return tried


def _changes(spec: PreprocessSpec) -> dict[str, Mapping[str, Any]]:
    if spec.color == "gray":
        return {**_RANGES, "MNIST's": {"scale": (1 / 255,), "mean": (0.1307,), "std": (0.3081,)}}
    other = "rgb" if spec.color == "bgr" else "bgr"
    named: dict[str, Mapping[str, Any]] = {f"as written, {other.upper()}": {"color": other}}
    for color in ("rgb", "bgr"):
        for name, changes in {**_RANGES, "ImageNet's": _IMAGENET}.items():
            # ImageNet's figures are those of red, green and blue, in whichever order they are fed.
            turned = {key: value[::-1] if color == "bgr" else value for key, value in changes.items()}
            named[f"{name}, {color.upper()}"] = {**turned, "color": color}
    named["Caffe's means, BGR"] = {
        "scale": (1.0,), "mean": (103.939, 116.779, 123.68), "std": (1.0,), "color": "bgr",
    }  # fmt: skip
    return named


def _same(one: PreprocessSpec, other: PreprocessSpec) -> bool:
    if one.color != other.color:
        return False
    pairs = zip(one.affine(), other.affine(), strict=True)
    return all(bool((abs(a - b) <= 1e-6 * (abs(a) + abs(b) + 1e-12)).all()) for a, b in pairs)
