"""What the user pins of a model's inputs: the sizes of open dimensions (``--input x:1x3x224x224``), or the values of
whole inputs (``--input sr=16000``)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from edgec.frontends.pinned_values import PinnedValue, checked_value, make_constant, parse_value, shape_of_value
from edgec.frontends.tidying import forget_shapes
from edgec.ir.errors import InputError, UsageError, did_you_mean
from edgec.ir.graph import Graph, Variable

Pin: TypeAlias = "tuple[int, ...] | PinnedValue"
Pins: TypeAlias = Mapping[str, Pin]

_FORM = "write it as NAME:1x3x224x224"
_SHAPE = re.compile(r"[0-9]+(x[0-9]+)*")
# What exporters write for a dimension that has no name: each is a dimension of its own. Paddle writes a question mark,
# keras2onnx None, and -1 comes from tools that keep a shape's numbers as text.
_PLACEHOLDERS = frozenset({"", "?", "*", "-1", "None", "none", "null", "unk", "unknown", "Unknown", "dynamic"})


def parse_pin(text: str) -> tuple[str, Pin]:
    """Name of one ``--input``, with its shape or its value.

    A name may hold colons and equals signs: the last one parts it from what is pinned.

    Raises:
        UsageError: the text has another form.
    """
    where = f"--input {text}"
    name, colon, shape = text.rpartition(":")
    if "=" in text and not (colon and _SHAPE.fullmatch(shape)):
        name, _, value = text.rpartition("=")
        if not name:
            raise UsageError(where, "names no input", "write it as NAME=16000")
        return name, parse_value(value, where)
    if not colon:
        raise UsageError(where, "has no shape and no value", f"{_FORM}, or as NAME=16000")
    if not name:
        raise UsageError(where, "names no input", _FORM)
    if not shape:
        raise UsageError(where, "has an empty shape", _FORM)
    sizes = []
    for part in shape.split("x"):
        if not (part.isascii() and part.isdigit()):
            raise UsageError(where, f"'{part}' is no number", _FORM)
        if int(part) == 0 or len(part) > 9:
            raise UsageError(where, f"{part} is no size of a dimension", "give sizes from 1 to 999999999")
        sizes.append(int(part))
    return name, tuple(sizes)


def parse_pins(texts: Sequence[str]) -> dict[str, Pin]:
    """The pins of all ``--input``; an input may have a shape and a value.

    Raises:
        UsageError: one is of another form, or the same thing is pinned twice.
    """
    pins: dict[str, Pin] = {}
    for text in texts:
        name, pinned = parse_pin(text)
        before = pins.get(name)
        if before is None:
            pins[name] = pinned
        elif isinstance(before, PinnedValue) and isinstance(pinned, tuple) and before.shape is None:
            pins[name] = PinnedValue(before.value, pinned)
        elif isinstance(before, tuple) and isinstance(pinned, PinnedValue):
            pins[name] = PinnedValue(pinned.value, before)
        else:
            raise UsageError(f"--input {text}", f"pins '{name}' for the second time", "pin it once")
    return pins


def as_pins(inputs: Mapping[str, Any]) -> dict[str, Pin]:
    """Pins as Python gives them: a tuple is a shape, anything else a value.

    Raises:
        UsageError: a value is not made of finite numbers.
    """
    return {
        name: pinned if isinstance(pinned, tuple | PinnedValue) else checked_value(pinned, f"inputs['{name}']")
        for name, pinned in inputs.items()
    }


def pin(graph: Graph, pins: Pins, source: str, usual: Pins | None = None, notes: list[str] | None = None) -> None:
    """Gives every input of ``graph`` a static shape, in place; inputs that are pinned to a value become constants.

    A symbol that a pin binds is bound wherever it stands, unless pins give it several sizes: each input then has what
    was pinned for it. The batch, where nothing else is open, is 1. The shapes that the file declares for tensors
    inside, which may be those of another batch size, are dropped where an input was open: inference finds them anew.

    Args:
        graph: the model.
        pins: shapes or values by input name.
        source: the model's file name, for errors.
        usual: shapes by name for inputs that are open and that no pin names; one that does not fit is left alone.
        notes: takes up what was decided for the user.

    Raises:
        UsageError: a pin names no input, has another rank, or contradicts a fixed size, or an input cannot hold it.
        InputError: an input is no tensor, or is left open.
    """
    notes = [] if notes is None else notes
    inputs = {tensor.name: _checked(tensor, source) for tensor in graph.inputs}
    for name, pinned in pins.items():
        if name not in inputs:
            near = did_you_mean(name, list(inputs)).removeprefix(". ")
            known = "the inputs are " + ", ".join(f"'{known}'" for known in inputs) if inputs else "it has no inputs"
            raise UsageError(f"--input {_pinned(name, pinned)}", f"{source} has no input '{name}'", near or known)
    for variable in graph.variables():
        if variable.shape is not None:
            variable.shape = [None if _is_placeholder(size) else size for size in variable.shape]
    shapes = _shapes(inputs, pins, usual or {})
    for name, shape in shapes.items():
        _check(inputs[name], shape, source)
    bound = _bound(inputs, shapes, notes)
    _bind_batches(inputs, shapes, bound, notes)
    opened = False
    for name, tensor in inputs.items():
        declared = tensor.shape
        fixed = None if declared is None else [_bind(size, bound) for size in declared]
        if name in shapes:
            fixed = list(shapes[name])
        if fixed is None:
            fix = f"pin it with --input {name}:1x3x224x224"
            raise InputError(f"{source}: input '{name}'", "has a shape of unknown rank", fix)
        if any(size is None for size in fixed):
            fix = f"pin them with --input {_written(name, _example(fixed))}"
            what = f"has open dimensions ({_shown(declared or [])})"
            raise InputError(f"{source}: input '{name}'", what, fix)
        opened = opened or declared != fixed
        tensor.shape = list(fixed)
    if opened:
        forget_shapes(graph)
    for name, pinned in pins.items():
        if isinstance(pinned, PinnedValue):
            make_constant(graph, inputs[name], pinned, source)
            notes.append(f"input '{name}' is {pinned}, as pinned: a constant, which the network takes no more")


def _checked(tensor: object, source: str) -> Variable:
    """An input that is a tensor of a known element type; raises InputError for any other."""
    if not isinstance(tensor, Variable) or tensor.type_proto is not None:
        kind = getattr(tensor, "type", "constant").removesuffix("_type").replace("_", " ")
        article = "an" if kind[0] in "aeiou" else "a"
        where = f"{source}: input '{getattr(tensor, 'name', '')}'"
        raise InputError(where, f"is {article} {kind}", "edgec takes tensors only")
    if tensor.dtype is None:
        raise InputError(f"{source}: input '{tensor.name}'", "has no element type", "export the network again")
    return tensor


def _shapes(inputs: Mapping[str, Variable], pins: Pins, usual: Pins) -> dict[str, tuple[int, ...]]:
    """The shapes of the inputs that have one of the user's, or one that is usual and fits."""
    shapes = {
        name: shape
        for name, shape in usual.items()
        if name not in pins and isinstance(shape, tuple) and _fits(inputs.get(name), shape)
    }
    for name, pinned in pins.items():
        shape = shape_of_value(pinned, inputs[name].shape) if isinstance(pinned, PinnedValue) else pinned
        if shape is not None:
            shapes[name] = shape
    return shapes


def _fits(tensor: Variable | None, shape: tuple[int, ...]) -> bool:
    """Whether an input is open, and may have this shape."""
    if tensor is None or tensor.shape is None or len(tensor.shape) != len(shape):
        return False
    sizes = [size if isinstance(size, int) and size > 0 else None for size in tensor.shape]
    return None in sizes and all(size in (None, given) for size, given in zip(sizes, shape, strict=True))


def _check(tensor: Variable, shape: tuple[int, ...], source: str) -> None:
    where = f"--input {_written(tensor.name, shape)}"
    declared = tensor.shape
    if declared is None:
        return
    if len(declared) != len(shape):
        what = f"has {_count(len(shape))}, but input '{tensor.name}' of {source} has {len(declared)}"
        raise UsageError(where, what, f"its shape is {_shown(declared)}")
    for axis, (size, given) in enumerate(zip(declared, shape, strict=True)):
        if isinstance(size, int) and size > 0 and size != given:
            what = f"dimension {axis} is {given}, but input '{tensor.name}' of {source} fixes it at {size}"
            raise UsageError(where, what, f"its shape is {_shown(declared)}")


def _bound(inputs: Mapping[str, Variable], shapes: Mapping[str, tuple[int, ...]], notes: list[str]) -> dict[str, int]:
    """The size of each symbol that is pinned to one size wherever it is pinned."""
    sizes: dict[str, dict[int, str]] = {}
    for name, shape in shapes.items():
        for size, given in zip(inputs[name].shape or (), shape, strict=False):
            if isinstance(size, str):
                sizes.setdefault(size, {}).setdefault(given, name)
    for symbol, by_size in sizes.items():
        if len(by_size) > 1:
            said = " and ".join(f"{size} in input '{name}'" for size, name in by_size.items())
            notes.append(f"the dimensions called '{symbol}' are pinned to {said}: they are not taken for the same")
    return {symbol: next(iter(by_size)) for symbol, by_size in sizes.items() if len(by_size) == 1}


def _bind_batches(
    inputs: Mapping[str, Variable], shapes: dict[str, tuple[int, ...]], bound: dict[str, int], notes: list[str]
) -> None:
    """Takes the first dimension for 1 where all others are known: it is the batch."""
    for name, tensor in inputs.items():
        if name in shapes or tensor.shape is None or len(tensor.shape) < 2:
            continue
        fixed = [_bind(size, bound) for size in tensor.shape]
        if fixed[0] is not None or None in fixed[1:]:
            continue
        symbol = tensor.shape[0]
        if isinstance(symbol, str):
            bound[symbol] = 1
        shapes[name] = (1, *(size for size in fixed[1:] if size is not None))
        another = _written(name, (4, *shapes[name][1:]))
        notes.append(f"the batch of input '{name}' is open and taken as 1 (--input {another} would make it 4)")


def _is_placeholder(size: int | str | None) -> bool:
    return isinstance(size, str) and size in _PLACEHOLDERS


def _bind(size: int | str | None, bound: Mapping[str, int]) -> int | None:
    if isinstance(size, str):
        return bound.get(size)
    return size if size is not None and size > 0 else None


def _example(shape: list[int | None]) -> tuple[int, ...]:
    """A pin that would do: one sample, three channels, 224 for the rest."""
    usual = {0: 1, 1: 3 if len(shape) == 4 else 224}
    return tuple(usual.get(axis, 224) if size is None else size for axis, size in enumerate(shape))


def _count(dimensions: int) -> str:
    return f"{dimensions} dimension{'' if dimensions == 1 else 's'}"


def _pinned(name: str, pinned: Pin) -> str:
    return f"{name}={pinned}" if isinstance(pinned, PinnedValue) else _written(name, pinned)


def _written(name: str, shape: tuple[int, ...]) -> str:
    return f"{name}:{_shown(shape)}"


def _shown(shape: list[int | str | None] | tuple[int, ...]) -> str:
    return "x".join("?" if size is None or (isinstance(size, int) and size <= 0) else str(size) for size in shape)
