"""Values that go beyond what the integers of their tensor can stand for.

Ranges come from the calibration samples, and other samples may reach further. What does is cut off at the end of the
range: an error that has no bound, unlike rounding's. So it is counted, on samples that the ranges do not come from.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass

import numpy as np

from edgec.ir.execution import Feeds, Session, batch_size
from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable, consumers
from edgec.passes.quantize.scales.affine_parameters import Parameters, Range


@dataclass(frozen=True)
class Saturated:
    """What was counted of one quantized activation.

    Attributes:
        name: of the tensor; of the model's output where it is one.
        scale, zero_point: of its integers.
        range: what the integers stand for.
        reached: the least and the greatest value.
        count: values beyond the range by more than half a step, which is all that rounding alone would move them.
        share: of all values, from 0 to 1.
        samples: how many samples have such a value. A tensor whose first dimension does not hold the samples of a
            batch counts all samples of a batch that has one.
    """

    name: str
    scale: float
    zero_point: int
    range: Range
    reached: Range
    count: int
    share: float
    samples: int


def saturation(graph: Graph, feeds: Iterable[Feeds], *, threads: int = 1) -> list[Saturated]:
    """Counts the values of each quantized activation that its integers cannot stand for.

    The network is run as it stands, rounded activations and weights included. Only counts are kept of a run, so that
    memory does not grow with the number of samples.

    Args:
        graph: with QuantizeLinear and DequantizeLinear; not changed. Activations have one scale for the whole tensor.
        feeds: what the graph's inputs are fed, a batch at a time.
        threads: how many threads an operator may use.

    Returns:
        Every activation of the main graph that a QuantizeLinear reads, the largest share first; empty where there are
        none or no feeds.

    Raises:
        InputError: onnxruntime does not run the graph on the feeds.
    """
    outputs = set(graph.outputs)
    counters = [_Counter(node, outputs) for node in graph.nodes if _rounds_an_activation(node)]
    if not counters:
        return []
    fed = {tensor.name for tensor in graph.inputs}
    taps = [one.tensor for one in counters if one.tensor.name not in fed and one.tensor not in outputs]
    session = Session(graph, list(dict.fromkeys(taps)), threads=threads, blocked=True)
    size = batch_size(graph)
    for batch in feeds:
        values = {**batch, **session.run(batch)}
        for counter in counters:
            counter.add(values[counter.tensor.name], size)
    results = [counter.result() for counter in counters if counter.values]
    return sorted(results, key=lambda one: one.share, reverse=True)


def _rounds_an_activation(node: Node) -> bool:
    if node.op != "QuantizeLinear" or not isinstance(node.inputs[0], Variable):
        return False
    scale = node.inputs[1]
    return isinstance(scale, Constant) and scale.values.size == 1


class _Counter:
    """Counts the values of what one QuantizeLinear reads."""

    def __init__(self, node: Node, outputs: Container[Tensor]) -> None:
        self.tensor = node.inputs[0]
        self.parameters = _parameters(node)
        rounding = self.parameters.scale / 2
        span = self.parameters.range
        self.low, self.high = np.float32(span.low - rounding), np.float32(span.high + rounding)
        self.name = _public_name(node, outputs)
        self.values = self.count = self.samples = 0
        self.reached: Range | None = None

    def add(self, values: np.ndarray, size: int) -> None:
        """Counts one batch of ``size`` samples."""
        if not values.size:
            return
        self.values += values.size
        reached = Range.of(values)
        self.reached = reached if self.reached is None else self.reached.union(reached)
        if reached.low >= self.low and reached.high <= self.high:
            return
        beyond = (values < self.low) | (values > self.high)
        self.count += int(np.count_nonzero(beyond))
        if values.ndim and values.shape[0] % size == 0:
            self.samples += int(beyond.reshape(size, -1).any(axis=1).sum())
        else:
            self.samples += size if beyond.any() else 0

    def result(self) -> Saturated:
        """What was counted so far."""
        assert self.reached is not None, "a value was counted"
        by, share = self.parameters, self.count / self.values
        return Saturated(self.name, by.scale, by.zero_point, by.range, self.reached, self.count, share, self.samples)


def _parameters(node: Node) -> Parameters:
    scale, *zero_point = node.inputs[1:3]
    assert isinstance(scale, Constant), "a scale is stored in the model"
    if not zero_point or not isinstance(zero_point[0], Constant):  # ONNX's default
        return Parameters(float(scale.values.reshape(())), 0, "uint8")
    stored = zero_point[0].values
    return Parameters(
        float(scale.values.reshape(())), int(stored.reshape(())), "int8" if stored.dtype == np.int8 else "uint8"
    )


def _public_name(node: Node, outputs: Container[Tensor]) -> str:
    """The tensor's name; that of the model's output where what is read back from the integers is one."""
    read_back = (tensor for reader in consumers(node.outputs[0]) for tensor in reader.outputs)
    return next((tensor.name for tensor in read_back if tensor in outputs), node.inputs[0].name)
