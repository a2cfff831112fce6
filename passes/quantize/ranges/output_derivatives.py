"""How the network's outputs depend on its tensors, batch after batch of the calibration data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from edgec.ir.execution import Feeds, batch_size
from edgec.ir.graph import Graph, Variable
from edgec.passes.calibration.batch_split import spread
from edgec.passes.calibration.dataset import ROLE, Part
from edgec.passes.calibration.joined_outputs import joined_parts
from edgec.passes.calibration.runner import batches, each
from edgec.passes.framework.context import Context
from edgec.passes.train.training_pass import torch_wanted

if TYPE_CHECKING:
    from edgec.passes.train.engine.slopes import Derivatives

T = TypeVar("T")


def looked_at(graph: Graph, most: int, ctx: Context, samples: int | None = None) -> tuple[int, ...]:
    """Which batches are looked at: at most so many, evenly spread, of the first ``samples`` or of all."""
    count, size = batches(graph, ctx), batch_size(graph)
    usable = count if samples is None else min(count, -(-samples // size))
    return spread(np.arange(usable), most)


def output_derivatives(
    graph: Graph,
    tensors: Sequence[Variable],
    numbers: tuple[int, ...],
    rounds: int,
    ctx: Context,
    option: tuple[str, str],
    doing: str,
    work: Callable[[Derivatives], T],
) -> Iterator[T]:
    """What ``work`` makes of tensors and the derivatives of the outputs, or of their parts, along random vectors.

    Every batch is a thread's own: where threads share one they wait for each other, which takes many times the time as
    soon as anything else runs.

    Args:
        graph: sorted; not changed.
        tensors: of it.
        numbers: of the batches.
        rounds: random vectors for each batch.
        ctx: the data, the seed and the threads; it is told how far this is.
        option: what wants this, and what else helps where torch is missing.
        doing: what this is for, for the user.
        work: gets what was found of ``tensors`` on a batch along a vector for each result, which are the outputs or
            the parts that they join; called on several threads at once.

    Yields:
        What ``work`` returned, by batch and vector, in order.

    Raises:
        InputError: torch cannot run an operator, or there are no samples.
        UsageError: torch is not installed.
    """
    with torch_wanted(*option):
        from edgec.passes.train.engine.slopes import Slopes
        from edgec.passes.train.engine.threads import torch_threads
    inner = ctx.derive(graph, data={ROLE: Part(ctx.data[ROLE], numbers, batch_size(graph))})
    results = [joined.tensor.name for joined in joined_parts(graph)]
    slopes, names = Slopes(graph, ctx.seed), [tensor.name for tensor in tensors]

    def one(number: int, feeds: Feeds) -> list[T]:
        return [work(slopes.derivatives(feeds, names, results, number, probe)) for probe in range(rounds)]

    with torch_threads(1):
        for number, made in enumerate(each(inner, inner.feeds(graph, ROLE), one)):
            yield from made
            ctx.progress(number + 1, len(numbers), doing)
