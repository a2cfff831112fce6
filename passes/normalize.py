"""``normalize``: the preprocessing of an input becomes part of the network, so that the device feeds raw pixels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from edgec.ir.errors import UsageError, did_you_mean
from edgec.ir.graph import Constant, Graph, Node, Tensor, consumers
from edgec.passes.framework import input_domain
from edgec.passes.framework.base import Effect, Pass
from edgec.passes.framework.context import Context
from edgec.passes.framework.rewriter import Rewriter, quoted
from edgec.passes.layers.affine import Affine, affine_of, take_up_before
from edgec.passes.layers.linear import LINEAR, padding

Numbers = float | tuple[float, ...]

# Operators that move values without looking at them: a map that is the same for all channels passes through.
_MOVES = frozenset({"Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Identity"})


@dataclass(frozen=True)
class Normalize(Pass):
    """Folds ``x = (scale * raw - mean) / std`` into the first layers; the input then takes ``raw``.

    What the recipe's ``data.preprocess`` says is used where no option says otherwise. Arithmetic with constants that
    the network itself does on its input is folded along with it.
    """

    name: ClassVar[str] = "normalize"
    effect: ClassVar[Effect] = "exact"
    methods: ClassVar[tuple[str, ...]] = ("preprocessing folding",)
    needs: ClassVar[frozenset[str]] = frozenset({"float"})

    input: Annotated[
        str | None, Field(description="the input to fold for; by default every input that data.preprocess describes")
    ] = None
    scale: Annotated[
        Numbers | None,
        Field(description="multiplies raw pixels, one number or one a channel, instead of preprocess.scale"),
    ] = None
    mean: Annotated[
        Numbers | None,
        Field(description="taken away after scale, one number or one a channel, instead of preprocess.mean"),
    ] = None
    std: Annotated[
        Numbers | None, Field(description="divides after mean, one number or one a channel, instead of preprocess.std")
    ] = None

    def __post_init__(self) -> None:
        for key in ("scale", "std"):
            value = getattr(self, key)
            if value is not None and np.any(np.asarray(value) == 0):
                raise ValueError(f"{key} must not be 0")

    def run(self, graph: Graph, ctx: Context) -> None:
        """Folds for each input and notes in the graph what it takes from now on.

        Raises:
            UsageError: ``input`` names no input, or there are not as many values as the input has channels.
        """
        rw = Rewriter(graph, ctx)
        for tensor in self._inputs(graph):
            if input_domain.folded(graph, tensor.name) is not None:
                ctx.missed(tensor.name, "its preprocessing is part of the network already")
                continue
            affine = self._affine(tensor, ctx)
            if affine is not None:
                _check_channels(rw, tensor, affine)
            if _fold_input(rw, tensor, affine) and affine is not None:
                input_domain.record(graph, tensor.name, affine.scale, affine.offset)
        rw.finish()

    def _inputs(self, graph: Graph) -> list[Tensor]:
        inputs = [t for t in graph.inputs if not isinstance(t, Constant)]
        names = [t.name for t in inputs]
        if self.input is not None and self.input not in names:
            raise UsageError(
                "normalize: input",
                f"the model has no input '{self.input}'{did_you_mean(self.input, names)}",
                f"its inputs are {', '.join(names)}",
            )
        if self.input is None and self._overrides and len(inputs) > 1:
            raise UsageError(
                "normalize",
                "the model has several inputs and only one can have these values",
                f"add input, one of {', '.join(names)}",
            )
        return [t for t in inputs if self.input in (None, t.name)]

    @property
    def _overrides(self) -> bool:
        return any(value is not None for value in (self.scale, self.mean, self.std))

    def _affine(self, tensor: Tensor, ctx: Context) -> Affine | None:
        if self._overrides:
            scale = np.asarray(1.0 if self.scale is None else self.scale, np.float64)
            mean = np.asarray(0.0 if self.mean is None else self.mean, np.float64)
            std = np.asarray(1.0 if self.std is None else self.std, np.float64)
            return Affine.of(*np.broadcast_arrays(scale / std, -mean / std))
        known = ctx.config.affine.get(tensor.name)
        return None if known is None else Affine.of(*known)


@dataclass
class _Way:
    """From an input to where its map is taken up.

    Attributes:
        end: the tensor there.
        affine: the input's map and the network's own arithmetic, composed, over the channels of ``end``.
        own: the network's own nodes that are in ``affine``, each with what it reads.
    """

    end: Tensor
    affine: Affine
    own: list[tuple[Node, Tensor]] = field(default_factory=list)


def _fold_input(rw: Rewriter, tensor: Tensor, affine: Affine | None) -> bool:
    """Whether the network takes raw values at ``tensor`` now; reports what was done or why not."""
    way = _walk(rw, tensor, affine)
    if affine is None and not way.own:
        rw.ctx.missed(
            tensor.name, "no preprocessing is known for it: the recipe has no data.preprocess that describes it"
        )
        return False
    if not way.affine.shifts and np.all(way.affine.scale == 1) and not way.own:
        rw.ctx.missed(tensor.name, "its preprocessing leaves pixels as they are")
        return False
    kind = rw.dtype(way.end)
    if rw.is_output(way.end) or kind is None or kind.kind != "f":
        what = "it is an output too" if rw.is_output(way.end) else f"its elements are {kind}, not floats"
        rw.ctx.missed(tensor.name, what)
        return False
    layers = rw.readers(way.end) or []
    reason = _unfit(rw, way, layers)
    if reason is None:
        _bypass(rw, way)
        for layer in layers:
            take_up_before(rw, layer, way.affine)
            rw.did(layer, f"takes raw '{tensor.name}': {_words(way.affine)} folded in")
        return True
    value = _uniform_zero(way.affine)
    if value is not None:
        reason = _unfit(rw, way, layers, padded=True)
    if value is not None and reason is None:
        _bypass(rw, way)
        _pad_in_front(rw, layers, value)
        for layer in layers:
            take_up_before(rw, layer, way.affine)
            rw.did(layer, f"takes raw '{tensor.name}', padded with {value:g}: {_words(way.affine)} folded in")
        return True
    if affine is None:
        rw.ctx.missed(tensor.name, f"the network's own arithmetic on it stays: {reason}")
        return False
    _bypass(rw, way)
    _insert(rw, tensor, way)
    rw.ctx.did(
        tensor.name, f"takes raw values: {_words(way.affine)} inserted as operators, not folded, because {reason}"
    )
    return True


def _walk(rw: Rewriter, tensor: Tensor, affine: Affine | None) -> _Way:
    """Follows an input through the network's own arithmetic, and through nodes that only move values."""
    way = _Way(tensor, affine or Affine.of(1.0, 0.0))
    while True:
        readers = rw.readers(way.end)
        if readers is None or len(readers) != 1 or len(way.end.outputs) != 1:
            return way
        node = readers[0]
        moved = _moved(rw, node, way.affine)
        if moved is not None and node.inputs[0] is way.end:
            way.affine, way.end = moved, node.outputs[0]
            continue
        found = affine_of(rw, node)
        if found is None or found[0] is not way.end:
            return way
        way.own.append((node, way.end))
        way.affine, way.end = way.affine.then(found[1]), node.outputs[0]


def _moved(rw: Rewriter, node: Node, affine: Affine) -> Affine | None:
    """The map behind a node that only moves values or turns integers into floats; ``None`` where it is no such node."""
    kind = rw.dtype(node.inputs[0]) if node.inputs else None
    if node.op == "Cast":
        after = rw.dtype(node.outputs[0])
        widens = kind is not None and after is not None and kind.kind in "ui" and after.kind == "f"
        return affine if widens else None
    if node.op not in _MOVES:
        return None
    if np.all(affine.scale == affine.scale[0]) and np.all(affine.offset == affine.offset[0]):
        return Affine(affine.scale[:1], affine.offset[:1])
    if node.op == "Identity":
        return affine
    if node.op == "Flatten" and node.attrs.get("axis", 1) == 1:
        shape = rw.static(node.inputs[0])
        return None if shape is None else affine.repeated(int(np.prod(shape[2:], dtype=np.int64)))
    return None


def _unfit(rw: Rewriter, way: _Way, layers: list[Node], *, padded: bool = False) -> str | None:
    """Why the layers cannot take the map up; with ``padded`` as if a Pad in front did the padding of convolutions."""
    if not layers:
        return "a subgraph reads it"
    for layer in layers:
        if layer.op not in LINEAR or layer.domain not in ("", "ai.onnx"):
            return f"{quoted(layer)} ({layer.op}) reads it"
        if layer.inputs[0] is not way.end or [t is way.end for t in layer.inputs].count(True) != 1:
            return f"{quoted(layer)} reads it as its weights"
        rank = rw.rank(way.end)
        if layer.op == "MatMul" and rank != 2 and way.affine.scale.size > 1:
            return f"{quoted(layer)} reads it along another axis than the channels"
        kept = None
        if padded and layer.op == "Conv" and padding(layer, (rank or 2) - 2) is not None:
            kept = dict(layer.attrs)
            layer.attrs.pop("pads", None)
            layer.attrs.pop("auto_pad", None)
        reason = take_up_before(rw, layer, way.affine, dry=True)
        if kept is not None:
            layer.attrs.clear()
            layer.attrs.update(kept)
        if reason:
            return reason
    return None


def _uniform_zero(affine: Affine) -> float | None:
    """The raw value that becomes 0, where it is one for all channels."""
    scale, offset = np.broadcast_arrays(affine.scale, affine.offset)
    if np.any(scale == 0):
        return None
    zero = -offset / scale
    return float(zero[0]) if np.allclose(zero, zero[0], rtol=1e-12, atol=0) else None


def _bypass(rw: Rewriter, way: _Way) -> None:
    for node, x in reversed(way.own):
        rw.did(node, "the network's own arithmetic on its input: folded with the preprocessing")
        out = node.outputs[0]
        rw.replace(node, x)
        if way.end is out:
            way.end = x


def _pad_in_front(rw: Rewriter, layers: list[Node], value: float) -> None:
    """The padding of convolutions as a Pad of their input; those that pad alike share one."""
    made: dict[tuple[int, ...], Tensor] = {}
    for layer in layers:
        x = layer.inputs[0]
        kind = rw.dtype(x)
        weights = layer.inputs[1]
        spatial = len(weights.shape or ()) - 2
        pads = padding(layer, spatial) if layer.op == "Conv" else None
        if not pads or not any(pads):
            continue
        key = tuple(pads)
        if key not in made:
            name = f"{layer.name or 'conv'}.pad"
            amounts = np.array([0, 0, *pads[:spatial], 0, 0, *pads[spatial:]], np.int64)
            constants = [
                rw.graph.const(f"{name}.pads", amounts),
                rw.graph.const(f"{name}.value", np.array(value, kind)),
            ]
            shape = rw.static(x)
            padded = (
                None
                if shape is None
                else tuple(int(d + amounts[i] + amounts[i + len(shape)]) for i, d in enumerate(shape))
            )
            made[key] = rw.insert(layer, "Pad", [x, *constants], name=name, shape=padded, dtype=kind)
        layer.attrs.pop("auto_pad", None)
        layer.attrs["pads"] = [0] * len(pads)
        rw.set_input(layer, 0, made[key])


def _insert(rw: Rewriter, tensor: Tensor, way: _Way) -> None:
    """Mul and Add behind the end of the way, for all that read it."""
    readers = consumers(way.end)
    kind, shape = rw.dtype(way.end), rw.shape(way.end)
    rank = len(shape) if shape is not None else 4
    x = way.end
    for op, values, neutral in (("Mul", way.affine.scale, 1), ("Add", way.affine.offset, 0)):
        if np.all(values == neutral):
            continue
        aligned = values.reshape((1, -1) + (1,) * (rank - 2)) if values.size > 1 else values.reshape(())
        constant = rw.graph.const(f"{tensor.name}.{'scale' if op == 'Mul' else 'offset'}", aligned.astype(kind))
        x = rw.insert(
            _first(rw, readers), op, [x, constant], name=f"{tensor.name}.{op.lower()}", shape=shape, dtype=kind
        )
    for reader in readers:
        for place, read in enumerate(reader.inputs):
            if read is way.end:
                rw.set_input(reader, place, x)


def _first(rw: Rewriter, readers: list[Node]) -> Node:
    """Of nodes that read a tensor, one of the main graph to put operators in front of; the pipeline sorts."""
    return next((node for node in readers if rw.owns(node)), rw.graph.nodes[0])


def _check_channels(rw: Rewriter, tensor: Tensor, affine: Affine) -> None:
    shape = rw.shape(tensor)
    channels = shape[1] if shape is not None and len(shape) > 1 else None
    count = max(affine.scale.size, affine.offset.size)
    if count > 1 and channels is not None and count != channels:
        raise UsageError(
            "normalize",
            f"{count} values a channel are given, but input '{tensor.name}' has {channels} channels",
            "give one value, or one for each channel",
        )


def _words(affine: Affine) -> str:
    if affine.shifts:
        return f"scale {_list(affine.scale)} and offset {_list(affine.offset)}"
    return f"scale {_list(affine.scale)}"


def _list(values: np.ndarray) -> str:
    values = values[:1] if np.all(values == values[0]) else values
    return ", ".join(f"{value:.6g}" for value in values[:4]) + (", ..." if values.size > 4 else "")
