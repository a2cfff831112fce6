"""Networks against the original, on samples that nothing is fitted to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgec.ir.execution import Session
from edgec.ir.graph import Graph
from edgec.ir.signal import Signal, sqnr_scores
from edgec.passes.calibration.joined_outputs import apart, joined_parts
from edgec.passes.framework import input_domain

Run = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
"""Runs a network on feeds as the original takes them."""


def runner(graph: Graph) -> Run:
    """Runs ``graph`` on the original model's feeds, optimized as it will be where it is deployed.

    On one thread, so that figures do not depend on threads.
    """
    session = Session(graph, optimize=True)
    return lambda feeds: session.run(input_domain.enter(graph, feeds))


class Evaluation:
    """How far networks are from the original on some samples.

    Outputs that the original joins of parts are taken apart: a detector's scores count as much as its boxes.

    Args:
        original: the original network.
        feeds: the samples, in batches as it takes them.
        each: how many samples are in a batch.

    Raises:
        InputError: onnxruntime does not run the original.
    """

    def __init__(self, original: Graph, feeds: Sequence[Mapping[str, np.ndarray]], each: int = 1) -> None:
        self.feeds, self._each = list(feeds), each
        self._parts = joined_parts(original)
        run = runner(original)
        self._exact = [apart(run(one), self._parts) for one in self.feeds]

    def sqnr(self, run: Run) -> Signal:
        """The SQNR of a network, with what each batch adds to it."""
        signal = sqnr_scores(self._exact, [apart(run(one), self._parts) for one in self.feeds], self._each)
        outputs: dict[str, int] = {}
        for part, name in zip(self._parts, self._exact[0], strict=True):
            if name in signal.mismatched:
                outputs[part.output] = max(outputs.get(part.output, 0), signal.mismatched[name])
        return replace(signal, mismatched=outputs)
