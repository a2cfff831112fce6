"""Shapes that the user pins for inputs whose dimensions are open: ``--input x:1x3x224x224``."""

from __future__ import annotations

from collections.abc import Mapping

from edgec.ir.errors import InputError, UsageError, did_you_mean
from edgec.ir.graph import Graph, Variable

Pins = Mapping[str, tuple[int, ...]]

_FORM = "write it as NAME:1x3x224x224"


def parse_pin(text: str) -> tuple[str, tuple[int, ...]]:
    """Name and shape of one ``--input``; a name may hold colons, the last one parts it from the shape.

    Raises:
        UsageError: the text has another form.
    """
    where = f"--input {text}"
    name, colon, shape = text.rpartition(":")
    if not colon:
        raise UsageError(where, "has no shape", _FORM)
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


def pin(graph: Graph, pins: Pins, source: str, usual: Pins | None = None) -> None:
    """Gives every input of ``graph`` a static shape, in place.

    A symbol that a pin binds is bound wherever it stands. The shapes that the file declares for tensors inside, which
    may be those of another batch size, are dropped where an input was open: inference finds them anew.

    Args:
        graph: the model.
        pins: shapes by input name.
        source: the model's file name, for errors.
        usual: shapes by name for inputs that are open and that no pin names; one that does not fit is left alone.

    Raises:
        UsageError: a pin names no input, has another rank, or contradicts a fixed size or another pin.
        InputError: an input is no tensor, or is left open.
    """
    inputs = {tensor.name: tensor for tensor in graph.inputs}
    left = {name: shape for name, shape in (usual or {}).items() if name not in pins and _fits(inputs.get(name), shape)}
    pins = {**left, **pins}
    for name in pins:
        if name not in inputs:
            near = did_you_mean(name, list(inputs)).removeprefix(". ")
            known = "the inputs are " + ", ".join(f"'{known}'" for known in inputs) if inputs else "it has no inputs"
            raise UsageError(f"--input {_written(name, pins[name])}", f"{source} has no input '{name}'", near or known)
    bound: dict[str, tuple[int, str]] = {}
    for name, shape in pins.items():
        _check(inputs[name], shape, source, bound)
    opened = False
    for tensor in graph.inputs:
        if not isinstance(tensor, Variable) or tensor.type_proto is not None:
            kind = getattr(tensor, "type", "constant").removesuffix("_type").replace("_", " ")
            article = "an" if kind[0] in "aeiou" else "a"
            raise InputError(f"{source}: input '{tensor.name}'", f"is {article} {kind}", "edgec takes tensors only")
        if tensor.dtype is None:
            raise InputError(f"{source}: input '{tensor.name}'", "has no element type", "export the network again")
        declared = tensor.shape
        fixed = None if declared is None else [_bind(size, bound) for size in declared]
        if tensor.name in pins:
            fixed = list(pins[tensor.name])
        if fixed is None:
            mend = f"pin it with --input {tensor.name}:1x3x224x224"
            raise InputError(f"{source}: input '{tensor.name}'", "has a shape of unknown rank", mend)
        if any(size is None for size in fixed):
            mend = f"pin them with --input {_written(tensor.name, _example(fixed))}"
            what = f"has open dimensions ({_shown(declared or [])})"
            raise InputError(f"{source}: input '{tensor.name}'", what, mend)
        opened = opened or declared != fixed
        tensor.shape = list(fixed)
    if opened:
        _forget_shapes(graph)


def _fits(tensor: object, shape: tuple[int, ...]) -> bool:
    """Whether an input is open, and may have this shape."""
    if not isinstance(tensor, Variable) or tensor.shape is None or len(tensor.shape) != len(shape):
        return False
    sizes = [size if isinstance(size, int) and size > 0 else None for size in tensor.shape]
    return None in sizes and all(size in (None, given) for size, given in zip(sizes, shape, strict=True))


def _check(tensor: object, shape: tuple[int, ...], source: str, bound: dict[str, tuple[int, str]]) -> None:
    assert isinstance(tensor, Variable)
    where = f"--input {_written(tensor.name, shape)}"
    declared = tensor.shape
    if declared is None:
        return
    if len(declared) != len(shape):
        what = f"has {len(shape)} dimensions, but input '{tensor.name}' of {source} has {len(declared)}"
        raise UsageError(where, what, f"its shape is {_shown(declared)}")
    for axis, (size, given) in enumerate(zip(declared, shape, strict=True)):
        if isinstance(size, int) and size > 0:
            if size != given:
                what = f"dimension {axis} is {given}, but input '{tensor.name}' of {source} fixes it at {size}"
                raise UsageError(where, what, f"its shape is {_shown(declared)}")
        elif isinstance(size, str):
            before, name = bound.setdefault(size, (given, tensor.name))
            if before != given:
                what = f"'{size}' is {given} here, but {before} in input '{name}'"
                raise UsageError(where, what, "pin it to one size in both")


def _bind(size: int | str | None, bound: Mapping[str, tuple[int, str]]) -> int | None:
    if isinstance(size, str):
        return bound[size][0] if size in bound else None
    return size if size is not None and size > 0 else None


def _forget_shapes(graph: Graph) -> None:
    for inside in graph.names.graphs():
        for node in inside.nodes:
            for tensor in node.outputs:
                if isinstance(tensor, Variable) and tensor.type_proto is None:
                    tensor.shape = None


def _example(shape: list[int | None]) -> tuple[int, ...]:
    """A pin that would do: one sample, three channels, 224 for the rest."""
    usual = {0: 1, 1: 3 if len(shape) == 4 else 224}
    return tuple(usual.get(axis, 224) if size is None else size for axis, size in enumerate(shape))


def _written(name: str, shape: tuple[int, ...]) -> str:
    return f"{name}:{_shown(shape)}"


def _shown(shape: list[int | str | None] | tuple[int, ...]) -> str:
    return "x".join("?" if size is None or (isinstance(size, int) and size <= 0) else str(size) for size in shape)
