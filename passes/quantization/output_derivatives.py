"""How the network's outputs depend on its tensors, batch after batch of the calibration data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from edgec.ir.execution import batch_size
from edgec.ir.graph import Graph, Variable
from edgec.passes.joined_outputs import joined_parts
from edgec.passes.judging import Part, context, spread
from edgec.passes.protocol import Context
from edgec.passes.streaming import ROLE, batches
from edgec.passes.training_pass import torch_wanted


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
) -> Iterator[tuple[list[np.ndarray], list[list[np.ndarray | None]], np.ndarray]]:
    """Tensors and the derivatives of the outputs, or of the parts that these join, along random vectors.

    Args:
        graph: sorted; not changed.
        tensors: of it.
        numbers: of the batches.
        rounds: random vectors for each batch.
        ctx: the data, the seed and the threads; it is told how far this is.
        option: what wants this, and what else helps where torch is missing.
        doing: what this is for, for the user.

    Yields:
        For each batch and vector the tensors' values, by output part the derivatives (``None`` where a part does not
        depend on a tensor), and the power of each part.

    Raises:
        InputError: torch cannot run an operator, or there are no samples.
        UsageError: torch is not installed.
    """
    with torch_wanted(*option):
        from edgec.passes.training.slopes import Slopes
    inner = context(graph, ctx, {ROLE: Part(ctx.data[ROLE], numbers, batch_size(graph))})
    results = [joined.tensor.name for joined in joined_parts(graph)]
    slopes, names = Slopes(graph, ctx.seed, ctx.threads), [tensor.name for tensor in tensors]
    for number, feeds in enumerate(inner.feeds(graph, ROLE)):
        for _ in range(rounds):
            made = slopes.derivatives(feeds, names, results)
            yield made.values, made.slopes, made.powers
        ctx.progress(number + 1, len(numbers), doing)
