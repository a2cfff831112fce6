"""What a network should compute: the labels, its own input, or what a function of the user's says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from edgec.ir.errors import InputError, UsageError
from edgec.ir.graph import Graph, producer
from edgec.passes.train.engine.feeding import Batch

Tensors = Mapping[str, torch.Tensor]
Loss = Callable[[Tensors, Batch], torch.Tensor]
# Of probabilities whose logarithm is taken.
_LEAST = 1e-8


@dataclass(frozen=True)
class Task:
    """What the network should compute, without a teacher.

    Attributes:
        loss: of outputs by name.
        words: what it is, for the report.
        classes: whether the first output is of scores of classes.
    """

    loss: Loss
    words: str
    classes: bool = False


def find_task(
    kind: str, graph: Graph, labels: np.ndarray | None, source: str, function: Callable[..., Any] | None, where: str
) -> Task | None:
    """The loss of that kind for a network and its data; ``None`` where ``auto`` finds nothing to go by.

    Args:
        kind: the option ``loss``.
        graph: the network; its first output is judged, or the first one of its input's shape.
        labels: of the training samples.
        source: of those, for errors.
        function: what ``python:`` names.
        where: the option, for errors.

    Raises:
        UsageError: the loss wants labels, or labels of another kind.
        InputError: a label is no class of the network.
    """
    if function is not None:
        own = function
        return Task(lambda outputs, batch: own(outputs, batch.feeds, batch.labels), kind)
    output = graph.outputs[0].name
    if labels is not None:
        whole = labels.dtype.kind in "iub"
        if kind == "cross_entropy" or (kind == "auto" and whole):
            if not whole:
                raise UsageError(
                    where, f"cross_entropy wants labels that are classes, not {labels.dtype.name}", "use mse"
                )
            _check_classes(graph, labels, source)
            score = log_probabilities(graph, output)
            words = "cross entropy with the labels"
            return Task(lambda outputs, batch: functional.nll_loss(score(outputs), _classes(batch)), words, True)
        distance, name = (functional.l1_loss, "l1") if kind == "l1" else (functional.mse_loss, "mse")
        return Task(
            lambda outputs, batch: distance(outputs[output], _like(batch.labels, outputs[output])),
            f"{name} to the labels",
        )
    if kind == "cross_entropy":
        raise UsageError(where, "cross_entropy wants labels, and data.train has none", "add labels, or a teacher")
    pair = _reconstruction(graph)
    if pair is None:
        if kind == "auto":
            return None
        what = f"{kind} wants labels, or an output of the shape of the input, and there is neither"
        raise UsageError(where, what, "add labels to data.train, or a teacher")
    distance, name = (functional.l1_loss, "l1") if kind == "l1" else (functional.mse_loss, "mse")
    made, read = pair
    return Task(lambda outputs, batch: distance(outputs[made], batch.feeds[read]), f"{name} to the input")


def log_probabilities(graph: Graph, output: str, temperature: float = 1.0) -> Callable[[Tensors], torch.Tensor]:
    """From outputs by name to logarithms of the probabilities of classes, (samples, classes).

    Where the network ends in Softmax its outputs are probabilities already.
    """
    [tensor] = [tensor for tensor in graph.outputs if tensor.name == output]
    node = producer(tensor)
    ready = node is not None and node.op == "Softmax"

    def of(outputs: Tensors) -> torch.Tensor:
        scores = outputs[output].float()
        if ready:
            scores = scores.clamp_min(_LEAST).log()
        return functional.log_softmax(scores / temperature, dim=1)

    return of


def _classes(batch: Batch) -> torch.Tensor:
    assert batch.labels is not None
    return batch.labels.long().reshape(len(batch))


def _like(labels: torch.Tensor | None, output: torch.Tensor) -> torch.Tensor:
    assert labels is not None
    return labels.to(output.dtype).reshape(output.shape)


def _check_classes(graph: Graph, labels: np.ndarray, source: str) -> None:
    output = graph.outputs[0]
    shape = list(output.shape or ())
    if len(shape) != 2 or not isinstance(shape[1], int):
        what = f"is of shape {shape}, and classes want one of (samples, classes)"
        raise UsageError(f"output '{output.name}'", what, "use mse, or a python: loss")
    flat = labels.reshape(len(labels), -1)
    if flat.shape[1] != 1:
        raise InputError(source, f"has labels of {flat.shape[1]} numbers each, not a class", "give one class a sample")
    wrong = np.flatnonzero((flat[:, 0] < 0) | (flat[:, 0] >= shape[1]))
    if len(wrong):
        what = f"label {int(flat[wrong[0], 0])} of sample {wrong[0]} is no class of the network's {shape[1]}"
        raise InputError(source, what, f"labels are 0 to {shape[1] - 1}")


def _reconstruction(graph: Graph) -> tuple[str, str] | None:
    """The first output that has the shape of an input, and that input."""
    for output in graph.outputs:
        for tensor in graph.inputs:
            if output.shape and tensor.shape and list(output.shape) == list(tensor.shape):
                return output.name, tensor.name
    return None
