"""Networks run over the calibration data, a batch at a time, on several threads, with results in a fixed order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from edgec.ir.errors import InputError
from edgec.ir.execution import Feeds, Session, batch_size
from edgec.ir.graph import Graph, Tensor, Variable
from edgec.passes.calibration.dataset import ROLE
from edgec.passes.framework.context import Context

T = TypeVar("T")


class Tapped:
    """A network that is run as far as some of its tensors.

    Args:
        graph: it is not changed, and later changes are not seen.
        tensors: whose values are wanted; inputs of the model may be among them.
        given: tensors inside it that are fed, with a value of each, so that what computes them does not run.
    """

    def __init__(
        self, graph: Graph, tensors: Sequence[Variable], given: Mapping[Variable, np.ndarray] | None = None
    ) -> None:
        given = given or {}
        mapped: dict[Tensor, Tensor] = {}
        part = graph.copy(mapped)
        part.outputs = []
        for tensor, values in given.items():
            fed = Variable(tensor.name, values.dtype, list(values.shape))
            part.replace_uses(mapped[tensor], fed)
            part.inputs.append(fed)
        taps = [mapped[t] for t in dict.fromkeys(tensors) if t not in graph.inputs and t not in given]
        part.outputs = [tap for tap in taps if isinstance(tap, Variable)]
        part.remove_dead()
        if given:
            part.inputs = [tensor for tensor in part.inputs if tensor.outputs]
        outputs, part.outputs = part.outputs, []
        self._session = Session(part, outputs, blocked=True) if outputs else None

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The wanted values by the tensors' names, the model's inputs among them.

        Raises:
            InputError: onnxruntime does not run the network.
        """
        return {**feeds, **(self._session.run(feeds) if self._session is not None else {})}


def batches(graph: Graph, ctx: Context) -> int:
    """How many batches the calibration data make."""
    return -(-len(ctx.data[ROLE]) // batch_size(graph))


def stream(
    graph: Graph, ctx: Context, networks: Sequence[Tapped], work: Callable[[int, list[dict[str, np.ndarray]]], T]
) -> Iterator[T]:
    """What ``work`` makes of each batch, in the order of the data, on the context's threads.

    Args:
        graph: whose inputs the data feed.
        ctx: the data and the threads.
        networks: what is run.
        work: gets the number of the batch and the values of each network; called on several threads at once.

    Raises:
        InputError: there are no samples.
    """

    def one(number: int, feeds: Mapping[str, np.ndarray]) -> T:
        return work(number, [network.run(feeds) for network in networks])

    return each(ctx, ctx.feeds(graph, ROLE), one)


def each(ctx: Context, feeds: Iterable[Mapping[str, np.ndarray]], work: Callable[[int, Feeds], T]) -> Iterator[T]:
    """As :func:`stream`, of any batches, for work that gets them as they are."""
    found = False
    threads = max(1, ctx.threads)
    with ThreadPoolExecutor(threads) as pool:
        running: deque[Future[T]] = deque()
        for number, batch in enumerate(feeds):
            found = True
            running.append(pool.submit(work, number, batch))
            if len(running) > threads:  # as many batches are in memory as are worked on, and one that comes next
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    if not found:
        raise InputError(ctx.data[ROLE].source, "has no samples to calibrate with", "name a data set that has some")


def check_finite(tensor: Variable, values: np.ndarray, batch: int) -> None:
    """Raises InputError where an activation is not finite."""
    if not np.isfinite(values).all():
        fault = "NaN" if np.isnan(values).any() else "infinite"
        raise InputError(
            f"tensor '{tensor.name}'",
            f"is {fault} on batch {batch} of the calibration data",
            "correct the data or its preprocessing, or the weights in front of it",
        )
