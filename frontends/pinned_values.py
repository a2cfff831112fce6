"""Inputs that the user pins to a value: ``--input sr=16000`` makes a constant of the input ``sr``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgec.ir.errors import UsageError
from edgec.ir.graph import Constant, Graph, Node, Variable

_FORM = "write it as NAME=16000 or NAME=[[0, 1], [2, 3]]"
# How much of a value a message shows.
_SHOWN = 40


@dataclass(frozen=True)
class PinnedValue:
    """What an input is pinned to.

    Attributes:
        value: a number, a truth value, nested lists of them, or an array.
        shape: of the input, where it is pinned too.
    """

    value: Any
    shape: tuple[int, ...] | None = None

    def __str__(self) -> str:
        """As it is written behind the equals sign."""
        shown = json.dumps(np.asarray(self.value).tolist() if isinstance(self.value, np.ndarray) else self.value)
        return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."


def parse_value(text: str, where: str) -> PinnedValue:
    """The value behind the equals sign: JSON's numbers, truth values and lists.

    Raises:
        UsageError: it is something else; the line begins with ``where``.
    """
    if not text:
        raise UsageError(where, "has an empty value", _FORM)
    try:
        value = json.loads({"True": "true", "False": "false"}.get(text, text))
    except (ValueError, RecursionError):
        raise UsageError(where, f"'{text}' is no value", _FORM) from None
    return checked_value(value, where)


def checked_value(value: Any, where: str) -> PinnedValue:
    """A value that an input may be pinned to.

    Raises:
        UsageError: it holds something other than finite numbers, or its rows differ in length.
    """
    try:
        array = np.asarray(value)
    except ValueError:
        raise UsageError(where, "has rows of different lengths", "give rows of one length") from None
    if array.dtype.kind not in "biuf" or not array.size:
        raise UsageError(where, "is made of something other than numbers", _FORM)
    if not np.isfinite(array).all():
        raise UsageError(where, "holds NaN or infinity", "pin it to finite numbers")
    return PinnedValue(value)


def shape_of_value(pinned: PinnedValue, declared: list[int | str | None] | None) -> tuple[int, ...] | None:
    """The shape that a value pins its input to; ``None`` where it is one number, which fills whatever shape there is.

    Args:
        pinned: the value.
        declared: the input's shape in the model; ``None`` where not even the rank is known.
    """
    if pinned.shape is not None:
        return pinned.shape
    array = np.asarray(pinned.value)
    if declared is None or (array.size > 1 or array.ndim == len(declared)):
        return array.shape
    # One number is as good as a vector of one: it fills a scalar, and the open side of a vector is one element.
    return (1,) if len(declared) == 1 and not _is_size(declared[0]) else None


def make_constant(graph: Graph, tensor: Variable, pinned: PinnedValue, source: str) -> None:
    """Puts a constant in the place of an input of ``graph``, whose shape is static, in place.

    Raises:
        UsageError: the input's element type cannot hold the value, or its shape is another.
    """
    where = f"--input {tensor.name}={pinned}"
    shape = tuple(int(size) for size in tensor.shape or () if isinstance(size, int))
    array = np.asarray(pinned.value)
    if array.size != 1 and array.shape != shape:
        what = f"is of shape {_times(array.shape)}, but input '{tensor.name}' of {source} takes {_times(shape)}"
        raise UsageError(where, what, "give it that shape, or one number for all of it")
    held = _converted(array, np.dtype(tensor.dtype), where, tensor.name)
    values = np.full(shape, held.reshape(-1)[0], held.dtype) if array.size == 1 else held
    graph.inputs = [other for other in graph.inputs if other is not tensor]
    for inside in graph.graphs():
        for place, output in enumerate(inside.outputs):
            if output is tensor:
                inside.outputs[place] = _given_out(inside, tensor)
    constant = Constant(tensor.name, values)
    constant.doc_string, constant.metadata = tensor.doc_string, tensor.metadata
    graph.replace_uses(tensor, constant)


def _given_out(graph: Graph, tensor: Variable) -> Variable:
    """What an output becomes that was the input itself: the signature wants a computed tensor of that name."""
    name = tensor.name
    computed = Variable(name, tensor.dtype, tensor.shape)
    tensor.name = graph.fresh(f"{name}.input")
    graph.nodes.append(Node("Identity", graph.fresh(f"{name}.identity"), {}, [tensor], [computed]))
    return computed


def _converted(array: np.ndarray, dtype: np.dtype, where: str, name: str) -> np.ndarray:
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        whole = array.dtype.kind in "biu" or bool(np.all(array == np.round(array)))
        if not whole or array.min() < limits.min or array.max() > limits.max:
            what = f"input '{name}' is of {dtype}, which cannot hold it"
            raise UsageError(where, what, f"pin it to whole numbers from {limits.min} to {limits.max}")
    elif dtype.kind == "b":
        if not np.isin(array, (0, 1)).all():
            raise UsageError(where, f"input '{name}' is of {dtype}", "pin it to true or false")
    elif dtype.kind in "SUO":
        raise UsageError(where, f"input '{name}' holds text", "end the network behind it, or export it without it")
    with np.errstate(over="ignore"):
        held = array.astype(dtype)
    if dtype.kind not in "iub" and not np.isfinite(held.astype(np.float64)).all():
        raise UsageError(where, f"input '{name}' is of {dtype}, which cannot hold it", "pin it to smaller numbers")
    return held


def _is_size(size: int | str | None) -> bool:
    return isinstance(size, int) and size > 0


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "one number"
