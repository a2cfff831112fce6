"""What a network's outputs mean, told by their shapes and by what computes them, or by the recipe's ``results``.

Detectors of the YOLO family are known by the number of their anchors: as many as cells of 8, 16 and 32 pixels fit the
input, or three times as many. A map of probabilities as large as the input is a text detector's. What
is not told for certain is left alone, and the recipe says it.
"""

from __future__ import annotations

from math import prod
from typing import Any

from edgec.frontends.datasets_labels import class_folders
from edgec.frontends.recipe_data import DataSection, PreprocessSpec
from edgec.frontends.recipe_results import ResultsSpec
from edgec.ir.errors import UsageError
from edgec.ir.graph import Graph, Node, Tensor, Variable, producer

#: The file that says it.
RESULTS = "results.json"
# Strides of a detector's grids, finest first.
_STRIDES = ((8, 16, 32), (8, 16, 32, 64), (16, 32), (4, 8, 16, 32), (16, 32, 64), (8, 16))
_ANCHORS_OF_OBJECTS = 3
# What is left of a detector that chose itself: so many boxes at most, of six numbers.
_MOST_CHOSEN, _OF_CORNERS = 1000, 6
# Operators that change neither order nor meaning of a result.
_TAILS = frozenset({"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast", "Dropout", "Transpose"})


def results_of(graph: Graph, spec: ResultsSpec, data: DataSection, where: str = "results") -> dict[str, Any] | None:
    """What results.json says; ``None`` where nothing is known of the outputs.

    Args:
        graph: the original network, with static shapes.
        spec: the recipe's section.
        data: how pictures become its input, and what it is judged by: ``top1`` makes an output of some numbers one of
            classes, which folders of images may name.
        where: how errors begin.

    Raises:
        UsageError: an output or a form that the network does not have, or labels of another number than classes.
    """
    if spec.kind == "none":
        return None
    labels, preprocess, judged = _labels(spec, where), data.preprocess, data.eval
    if labels is None and judged is not None and judged.labels == "folders":
        labels = class_folders(judged.images or ())
    outputs = [tensor for tensor in graph.outputs if isinstance(tensor, Variable)]
    if spec.output is not None:
        outputs = [tensor for tensor in outputs if tensor.name == spec.output]
        if not outputs:
            names = ", ".join(f"'{tensor.name}'" for tensor in graph.outputs)
            raise UsageError(
                f"{where}.output", f"the network has no output '{spec.output}'", f"its outputs are {names}"
            )
    named = (judged is not None and judged.metric == "top1") or labels is not None or spec.kind == "classes"
    for tensor in outputs:
        head = _head(graph, tensor, spec, preprocess, named=named)
        if head is not None:
            if labels is not None and head["classes"] not in (None, len(labels)):
                if spec.labels is not None:
                    what = f"holds {len(labels)} names, and the network tells {head['classes']} classes apart"
                    raise UsageError(f"{where}.labels", what, "write one name a line, in the order of the classes")
                labels = None  # folders of some of the classes
            own = {
                "output": tensor.name,
                "labels": labels,
                "preprocess": _preprocess(graph, preprocess),
                "top": spec.top,
            }
            return {**head, **own, "confidence": spec.confidence, "overlap": spec.overlap}
    if spec.kind != "auto":
        shapes = ", ".join(f"'{tensor.name}' {list(tensor.shape or [])}" for tensor in outputs)
        raise UsageError(
            f"{where}.kind", f"no output is of kind '{spec.kind}' ({shapes})", "correct it, or leave it out"
        )
    return None


def _head(
    graph: Graph, tensor: Variable, spec: ResultsSpec, preprocess: PreprocessSpec | None, *, named: bool
) -> dict[str, Any] | None:
    shape = _static(tensor)
    if shape is None or not shape:
        return None
    entered = _picture(graph, preprocess)
    side = None if entered is None else _sides(entered, preprocess)
    for kind, head in (
        ("score", _score(shape, entered)),
        ("boxes", None if side is None else _boxes(shape, side, spec, tensor)),
        ("mask", None if side is None else _mask(shape, side, tensor)),
        ("classes", _classes(shape, tensor, named=named)),
    ):
        if head is not None and spec.kind in ("auto", kind):
            return {"kind": kind, "input_size": None if side is None else list(side), **head}
    return None


def _boxes(shape: tuple[int, ...], side: tuple[int, int], spec: ResultsSpec, tensor: Tensor) -> dict[str, Any] | None:
    """Anchors and what is said of each, in either order of axes; the form is the recipe's, or else a guess."""
    if spec.form in ("auto", "map") and shape == (1, 1, *side) and _is_probability(tensor):
        return {"form": "map", "channels_first": False, "classes": 1, "strides": []}
    if len(shape) != 3 or shape[0] != 1:
        return None
    for anchors, channels, first in ((shape[1], shape[2], False), (shape[2], shape[1], True)):
        one, several = _grid(side, anchors), _grid(side, anchors, _ANCHORS_OF_OBJECTS)
        if one is not None:
            # YOLOX has its channels last, and an object's score among them; v8 and later have them first. What has an
            # Exp in it is decoded.
            guess = "centres" if first else "objects" if _has_exponential(tensor) else "grid"
        elif several is not None:
            guess = "objects"
        elif not first and channels == _OF_CORNERS and anchors <= _MOST_CHOSEN:
            guess = "corners"
        else:
            continue
        form = guess if spec.form == "auto" else spec.form
        classes = None if form == "corners" else channels - (4 if form == "centres" else 5)
        if (classes is None and channels == _OF_CORNERS) or (classes is not None and classes > 0):
            strides = list(one or several or ())
            return {"form": form, "channels_first": first, "classes": classes, "strides": strides}
    return None


def _grid(side: tuple[int, int], anchors: int, times: int = 1) -> tuple[int, ...] | None:
    """The strides whose cells are as many as anchors."""
    for strides in _STRIDES:
        if any(length % strides[-1] for length in side):
            continue
        if times * sum(prod(length // stride for length in side) for stride in strides) == anchors:
            return strides
    return None


def _mask(shape: tuple[int, ...], side: tuple[int, int], tensor: Tensor) -> dict[str, Any] | None:
    """A class for each place, or the scores of classes for each; at an eighth of the input's sides at least."""
    number = tensor.dtype is not None and tensor.dtype.kind in "iu"
    places = shape[-2:]
    fits = all(place * 8 >= length and length % place == 0 for place, length in zip(places, side, strict=True))
    if not fits or shape[0] != 1:
        return None
    if len(shape) == 4 and shape[1] > 1 and not number:
        return {"classes": shape[1], "channels_first": True}
    if number and prod(shape) == prod(places):
        return {"classes": None, "channels_first": False}
    return None


def _score(shape: tuple[int, ...], entered: Variable | None) -> dict[str, Any] | None:
    same = entered is not None and _static(entered) == shape and len(shape) > 2
    return {"classes": None} if same else None


def _classes(shape: tuple[int, ...], tensor: Tensor, *, named: bool) -> dict[str, Any] | None:
    """One number for each class; known by a Softmax, by names, or because the network is judged by them."""
    last = _meaning(tensor)
    by_softmax = last is not None and last.op in ("Softmax", "LogSoftmax")
    if shape[0] != 1 or prod(shape) != max(shape) or prod(shape) < 2 or not (by_softmax or named):
        return None
    return {"classes": prod(shape), "logits": not _is_probability(tensor)}


def _is_probability(tensor: Tensor) -> bool:
    last = _meaning(tensor)
    return last is not None and last.op in ("Softmax", "Sigmoid", "HardSigmoid")


def _meaning(tensor: Tensor) -> Node | None:
    """The node that gives an output its values, views of it set aside."""
    node = producer(tensor)
    while node is not None and node.op in _TAILS:
        node = producer(node.inputs[0])
    return node


def _has_exponential(tensor: Tensor, depth: int = 12) -> bool:
    """Whether sizes are decoded inside: an Exp lies among the last operators."""
    level = [producer(tensor)]
    for _ in range(depth):
        nodes = [node for node in level if node is not None]
        if any(node.op == "Exp" for node in nodes):
            return True
        level = [producer(t) for node in nodes if node.op not in ("Conv", "Gemm", "MatMul") for t in node.inputs]
    return False


def _picture(graph: Graph, preprocess: PreprocessSpec | None) -> Variable | None:
    """The input that pictures go to; ``None`` where none has four axes."""
    inputs = [tensor for tensor in graph.inputs if isinstance(tensor, Variable)]
    if preprocess is not None and preprocess.input is not None:
        inputs = [tensor for tensor in inputs if tensor.name == preprocess.input]
    shape = _static(inputs[0]) if len(inputs) == 1 else None
    return inputs[0] if shape is not None and len(shape) == 4 else None


def _sides(entered: Variable, preprocess: PreprocessSpec | None) -> tuple[int, int]:
    shape = _static(entered)
    assert shape is not None
    last = preprocess is not None and preprocess.layout == "nhwc"
    return (shape[1], shape[2]) if last else (shape[2], shape[3])


def _preprocess(graph: Graph, preprocess: PreprocessSpec | None) -> dict[str, Any] | None:
    entered = _picture(graph, preprocess)
    if preprocess is None or entered is None:
        return None
    scale, offset = preprocess.affine()
    own = {key: getattr(preprocess, key) for key in ("color", "resize", "fit", "layout")}
    size = None if preprocess.size is None else list(preprocess.size)
    return {**own, "size": size, "scale": scale.tolist(), "offset": offset.tolist(), "input": entered.name}


def _labels(spec: ResultsSpec, where: str) -> list[str] | None:
    if spec.labels is None:
        return None
    try:
        lines = spec.labels.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise UsageError(f"{where}.labels", f"'{spec.labels}' cannot be read ({reason})", "correct the file") from None
    names = [line.strip() for line in lines]
    while names and not names[-1]:
        names.pop()
    if not names or not all(names):
        raise UsageError(f"{where}.labels", f"'{spec.labels}' has empty lines", "write one name a line")
    return names


def _static(tensor: Tensor) -> tuple[int, ...] | None:
    shape = tensor.shape
    if shape is None or not all(isinstance(size, int) for size in shape):
        return None
    return tuple(size for size in shape if isinstance(size, int))
