"""What a model's inputs take, and whether a data set gives it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgec.frontends.preprocess import Preprocess
from edgec.frontends.recipe_data import PreprocessSpec
from edgec.ir.errors import InputError, UsageError, did_you_mean
from edgec.ir.graph import Graph
from edgec.ir.sample_axis import sample_shapes_of

Shape = tuple[int | str | None, ...]
Inputs = Mapping[str, tuple[Shape, np.dtype]]
"""For each input of a model its shape, the sample axis first, and its dtype."""


@dataclass(frozen=True)
class Feed:
    """The input that images go into: ``shape`` is one sample's."""

    name: str
    shape: Shape
    dtype: np.dtype


def inputs_of(graph: Graph) -> Inputs:
    """What a model's inputs take; those that it takes whole have a sample axis of 1 in front of their own."""
    shapes = sample_shapes_of(graph)
    return {tensor.name: (shapes[tensor.name], np.dtype(tensor.dtype)) for tensor in graph.inputs}


def times(shape: Sequence[int | str | None]) -> str:
    """``3x224x224``; a side that is open is ``?``."""
    return "x".join(str(side) if isinstance(side, int) else "?" for side in shape) or "one number"


def agrees(shape: Sequence[int | str | None], wanted: Sequence[int | str | None]) -> bool:
    """Whether the sides that both know are the same."""
    return len(shape) == len(wanted) and all(
        not (isinstance(a, int) and isinstance(b, int)) or a == b for a, b in zip(shape, wanted, strict=True)
    )


def quoted(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def feed_images(spec: PreprocessSpec, inputs: Inputs, where: str) -> Feed:
    """The input that images feed.

    Raises:
        UsageError: the model has no input that takes what ``spec`` makes of an image; the fix says which
            keys of ``data.preprocess`` to set.
    """
    name = _input_name(spec, inputs, where)
    shape, dtype = inputs[name]
    wanted = tuple(shape[1:])
    made = Preprocess(spec).sample_shape
    if not agrees(made, wanted):
        size = "own size" if spec.size is None else f"size {times(spec.size)}"
        layout = ", nhwc" if spec.layout == "nhwc" else ""
        raise UsageError(
            where,
            f"images come out as {times(made)} ({spec.color}, {size}{layout})"
            f" but the model's input '{name}' takes {times(wanted)}",
            _mend(spec, wanted),
        )
    if dtype == np.uint8:
        scale, offset = spec.affine()
        if (scale != 1).any() or offset.any():
            raise UsageError(
                where,
                f"the model's input '{name}' takes uint8 pixels, and data.preprocess changes their scale",
                "leave out scale, mean and std",
            )
    elif dtype.kind != "f":
        raise UsageError(
            where, f"the model's input '{name}' takes {dtype}, which no image gives", "use arrays: FILE.npz"
        )
    return Feed(name, wanted, dtype)


def _input_name(spec: PreprocessSpec, inputs: Inputs, where: str) -> str:
    names = list(inputs)
    if spec.input is not None and spec.input not in inputs:
        near = did_you_mean(spec.input, names)
        raise UsageError(
            where,
            f"data.preprocess.input is '{spec.input}', and the model has no such input",
            f"its inputs are {quoted(names)}" + near,
        )
    if len(names) != 1:
        raise UsageError(
            where,
            f"images feed one input, and the model has {len(names)} ({quoted(names)})",
            "use arrays or python, which feed them all",
        )
    return names[0]


def _mend(spec: PreprocessSpec, wanted: Shape) -> str:
    layouts = [spec.layout, "nhwc" if spec.layout == "nchw" else "nchw"]
    for layout in layouts if len(wanted) == 3 else []:
        channels, *size = wanted if layout == "nchw" else (wanted[2], *wanted[:2])
        if channels not in (1, 3, "", None) and isinstance(channels, int):
            continue
        changes = [] if layout == spec.layout else [f"layout: {layout}"]
        if channels in (1, 3) and channels != spec.channels:
            changes.append("color: gray" if channels == 1 else "color: rgb")
        if all(isinstance(side, int) for side in size) and spec.size is not None and tuple(size) != spec.size:
            changes.append(f"size: [{size[0]}, {size[1]}]")
        if changes:
            return f"set {' and '.join(changes)}"
    return "use arrays: FILE.npz, which are fed as they are"


def without_batch(sample: np.ndarray, wanted: Shape) -> np.ndarray:
    """A sample that was given with a batch axis of 1, where the input has one, without it."""
    return sample[0] if sample.ndim == len(wanted) and wanted[0] == 1 and len(sample) == 1 else sample


def rows_of(shape: tuple[int, ...], name: str, inputs: Inputs) -> tuple[int, ...]:
    """The shape of an array as rows, a sample each; the values lie as they do in ``shape``.

    Args:
        shape: of the array as it is: rows, or whole inputs on a first axis of their own.
        name: of the input.
        inputs: of the model.
    """
    wanted = inputs[name][0]
    batch = wanted[0]
    if len(shape) == len(wanted) + 1 and isinstance(batch, int) and agrees(shape[1:], wanted):
        return (shape[0] * batch, *shape[2:])
    return shape


def check_sample(where: str, name: str, shape: Sequence[int], dtype: np.dtype, inputs: Inputs, *, rows: bool) -> None:
    """Raises InputError where an array is not what the input ``name`` takes.

    Args:
        where: the file and the array, for the message.
        shape: one sample's shape.
        rows: the samples lie on the first axis of an array, which the message then says.
    """
    wanted, wanted_dtype = inputs[name]
    if not agrees(shape, wanted[1:]):
        what = "holds samples of shape" if rows else "is of shape"
        fix = f"reshape it to {'samples' if rows else 'one sample'} of {times(wanted[1:])}"
        if rows and agrees(shape, wanted[2:]):
            fix = "put the samples on the first axis: array[numpy.newaxis]"
        raise InputError(where, f"{what} {times(shape)}, but the model's input '{name}' takes {times(wanted[1:])}", fix)
    if dtype.newbyteorder("=") != wanted_dtype:
        raise InputError(
            where,
            f"is {dtype.newbyteorder('=')}, but the model's input '{name}' takes {wanted_dtype}",
            f"convert it with array.astype('{wanted_dtype}')",
        )


def check_finite(array: np.ndarray, where: str, numbers: Sequence[int]) -> None:
    """Raises InputError with the number of the first sample (first axis) that holds NaN or infinity."""
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return
    bad = ~np.isfinite(array.reshape(len(array), -1)).all(axis=1)
    raise InputError(
        where,
        f"sample {numbers[int(bad.argmax())]} holds NaN or infinity",
        "take it out, or repair what wrote it",
    )
