"""Optimization profiles from the recipe: the batch sizes that an engine is to take, the least, the usual, the most.

    targets:
      - jetson-orin-nano:
          profiles:
            images: {min: [1, 3, 224, 224], opt: [4, 3, 224, 224], max: [8, 3, 224, 224]}

Only the first dimension, the batch's, may vary, by the same sizes for all inputs. The network is compiled at one batch
size, which lies in the profile; :mod:`.dynamic_batch` makes it open in the files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from edgec.ir.errors import UsageError, did_you_mean
from edgec.ir.graph import Graph
from edgec.passes.framework.target import Target

OPTION = "profiles"
ENDS = ("min", "opt", "max")
_LARGEST = 1 << 20
_EXAMPLE = "write {min: [1, 3, 224, 224], opt: [4, 3, 224, 224], max: [8, 3, 224, 224]}"
_FIXED = "write the same sizes in all three; give only the first dimension, the batch's, a range"

#: ``where("images", "min")`` is the place of the recipe at which an error begins.
Where = Callable[..., str]


@dataclass(frozen=True)
class ShapeProfile:
    """The shapes that one input may have: the first dimensions rise from ``least`` to ``most``, the others are alike.

    Attributes:
        least, usual, most: the shapes; kernels are chosen for the usual one.
        where: its place in the recipe, as an error begins.
    """

    least: tuple[int, ...]
    usual: tuple[int, ...]
    most: tuple[int, ...]
    where: str = ""

    @property
    def batches(self) -> tuple[int, int, int]:
        """The three batch sizes."""
        return self.least[0], self.usual[0], self.most[0]

    def as_dict(self) -> dict[str, list[int]]:
        """For the bundle's manifest, by the recipe's names."""
        return dict(zip(ENDS, map(list, (self.least, self.usual, self.most)), strict=True))


def configured(target: Target, options: Mapping[str, Any], where: Where) -> Target:
    """The target with the recipe's options for it.

    Raises:
        UsageError: an option is none, or no profile.
    """
    for name, value in options.items():
        if name != OPTION:
            near = did_you_mean(name, [OPTION])
            raise UsageError(where(name), "unknown option", f"the only option here is {OPTION}{near}")
        if not isinstance(value, Mapping) or not value:
            raise UsageError(where(name), "must name the model's inputs, each with its shapes", _EXAMPLE)
    found = {name: _profile(name, value, where) for name, value in options.get(OPTION, {}).items()}
    first = next(iter(found), "")
    for profile in found.values():
        if profile.batches != found[first].batches:
            what = f"has other batch sizes than '{first}' ({_listed(profile)} and {_listed(found[first])})"
            fix = "all inputs take the samples of one batch: write the same sizes"
            raise UsageError(profile.where, what, fix)
    return replace(target, options={**target.options, OPTION: found})


def profiles_of(target: Target) -> Mapping[str, ShapeProfile]:
    """The profiles that the recipe gave, by input; none where the shapes are static."""
    found: Mapping[str, ShapeProfile] = target.options.get(OPTION, {})
    return found


def check_inputs(graph: Graph, target: Target) -> None:
    """Holds the profiles against the inputs of ``graph``, whose shapes are static.

    Raises:
        UsageError: one names no input, has another rank or other sizes, does not hold the shape that the network is
            compiled at, or is missing.
    """
    profiles = profiles_of(target)
    inputs = {tensor.name: tuple(tensor.shape or ()) for tensor in graph.inputs}
    for name, profile in profiles.items():
        if name not in inputs:
            near = did_you_mean(name, list(inputs)).removeprefix(". ")
            known = "the inputs are " + ", ".join(f"'{known}'" for known in inputs)
            raise UsageError(profile.where, f"the model has no input '{name}'", near or known)
        shape = inputs[name]
        written = "x".join(map(str, shape))
        if len(shape) != len(profile.least):
            what = f"has {len(profile.least)} dimensions, and input '{name}' has {len(shape)}"
            raise UsageError(profile.where, what, f"its shape is {written}")
        for axis, (size, given) in enumerate(zip(shape[1:], profile.least[1:], strict=True), 1):
            if size != given:
                what = f"dimension {axis} is {given}, and input '{name}' has {size} there"
                raise UsageError(profile.where, what, f"its shape is {written}")
        least, _, most = profile.batches
        batch = shape[0]
        assert isinstance(batch, int)
        if not least <= batch <= most:
            what = f"goes from {least} to {most} samples, and the network is compiled at {batch} ({written})"
            raise UsageError(profile.where, what, f"let it hold {batch}, or pin the model with --input")
    for name, shape in inputs.items():
        if profiles and name not in profiles and shape:
            where = next(iter(profiles.values())).where.rpartition(".")[0]
            what = f"has none for input '{name}', whose first dimension is the batch's too"
            raise UsageError(where, what, "give each input a profile")


def _profile(name: str, value: object, where: Where) -> ShapeProfile:
    place = where(OPTION, name)
    if not isinstance(value, Mapping) or set(value) != set(ENDS):
        raise UsageError(place, "must hold min, opt and max, a shape each", _EXAMPLE)
    shapes = [_shape(value[end], where(OPTION, name, end)) for end in ENDS]
    if len({len(shape) for shape in shapes}) > 1:
        ranks = ", ".join(str(len(shape)) for shape in shapes)
        raise UsageError(place, f"min, opt and max have {ranks} dimensions", "write shapes of one rank")
    for axis in range(1, len(shapes[0])):
        sizes = [shape[axis] for shape in shapes]
        if len(set(sizes)) > 1:
            what = f"dimension {axis} varies ({', '.join(map(str, sizes))}), and only the batch may"
            raise UsageError(place, what, _FIXED)
    for low, high in ((0, 1), (1, 2)):
        if shapes[low][0] > shapes[high][0]:
            what = f"{ENDS[low]} has {shapes[low][0]} samples, more than {ENDS[high]} with {shapes[high][0]}"
            raise UsageError(place, what, "let them rise: min, opt, max")
    return ShapeProfile(shapes[0], shapes[1], shapes[2], place)


def _shape(value: object, place: str) -> tuple[int, ...]:
    sizes = value if isinstance(value, list | tuple) else []
    if not sizes or not all(type(size) is int and 0 < size <= _LARGEST for size in sizes):
        raise UsageError(place, "must be a list of sizes from 1 on", _EXAMPLE)
    return tuple(sizes)


def _listed(profile: ShapeProfile) -> str:
    return "/".join(map(str, profile.batches))
