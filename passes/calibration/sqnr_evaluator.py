"""How far the outputs of what is tried are from the original's, on the samples that it is judged by."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgec.ir.execution import Session, batch_size, seeded_feeds
from edgec.ir.graph import Graph
from edgec.ir.signal import sqnr_scores
from edgec.passes.calibration.batch_split import Split
from edgec.passes.calibration.dataset import ROLE, Part
from edgec.passes.calibration.joined_outputs import apart, joined_parts
from edgec.passes.framework.context import Context

# Samples of noise where there are no data.
_NOISE = 8


class SqnrEvaluator:
    """Measures networks against the original.

    Args:
        graph: the original.
        ctx: the data, and the seed of the noise that stands for data where there are none.
        split: which of the data; ``None`` for noise.
    """

    def __init__(self, graph: Graph, ctx: Context, split: Split | None) -> None:
        self._feeds: list[Mapping[str, np.ndarray]] = []
        if split is None:
            self._feeds.extend(seeded_feeds(graph, ctx.seed, _NOISE))
        else:
            part = Part(ctx.data[ROLE], split.judge, batch_size(graph))
            self._feeds.extend(ctx.derive(graph, data={ROLE: part}).feeds(graph, ROLE))
        self._parts = joined_parts(graph)
        self._original = self._run(graph)

    def sqnr_db(self, graph: Graph) -> float:
        """Of a network's outputs, in dB; infinite where they are the original's.

        Outputs that are joined of parts are taken apart, so that each part counts like the others.
        """
        return sqnr_scores(self._original, self._run(graph)).value()

    def _run(self, graph: Graph) -> list[dict[str, np.ndarray]]:
        session = Session(graph)
        return [apart(session.run(feeds), self._parts) for feeds in self._feeds]
