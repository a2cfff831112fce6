"""Whether what is fitted to few samples is better than what is fitted to none, on samples that are held out.

Both are made from one half of the samples and judged by the other, where there are very few the other way round, too.
Samples that resemble each other are in one half, and count once.
"""

from __future__ import annotations

import numpy as np

from edgec.ir.graph import Graph, Variable
from edgec.passes.calibration.near_duplicates import MOST_IMAGES, channel_means, groups_of
from edgec.passes.calibration.runner import Tapped, batches, stream
from edgec.passes.framework.context import Context
from edgec.passes.layers.linear import CONVOLUTIONS, LINEAR

#: From so many independent samples on, a fit to them has never been worse than none.
ENOUGH_SAMPLES = 64
#: With fewer than this each half is judged by what the other gives.
BOTH_WAYS = 8
#: A batch of fewer samples cannot stand for itself; one of more is fitted to, although it cannot be taken apart.
FEWEST_AT_ONCE = 8
#: Samples that judge.
MOST_JUDGES = 16
#: What is fitted must be better by so many dB, by the number of samples: few of them judge badly.
MARGIN_DB = 4.0


def groups_of_batches(graph: Graph, ctx: Context) -> np.ndarray:
    """The group of each batch, of those that resemble each other in what the layers compute on the mean: (batches,).

    Raises:
        InputError: there are no samples.
    """
    count = batches(graph, ctx)
    layers = [node for node in graph.nodes if node.op in LINEAR and isinstance(node.outputs[0], Variable)]
    if count > MOST_IMAGES or not layers:
        return np.arange(count)

    def means(number: int, values: list[dict[str, np.ndarray]]) -> list[np.ndarray]:
        found = []
        for node in layers:
            axis = 1 if node.op in CONVOLUTIONS or node.op == "Gemm" else -1
            # What is not finite is an error where it is read.
            found.append(np.nan_to_num(channel_means(values[0][node.outputs[0].name], axis)))
        return found

    taps = [node.outputs[0] for node in layers]
    seen = list(stream(graph, ctx, [Tapped(graph, taps)], means))
    return groups_of([np.stack(of_layer) for of_layer in zip(*seen, strict=True)])
