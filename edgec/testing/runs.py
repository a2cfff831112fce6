"""A pass run as the pipeline runs it, what it reported, and networks compared by what they compute."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from edgec.ir.execution import Session, seeded_feeds
from edgec.ir.graph import Graph
from edgec.ir.verifier import verify, verify_types
from edgec.passes.calibration.dataset import InMemory
from edgec.passes.framework.base import Pass
from edgec.passes.framework.cache import RunCache
from edgec.passes.framework.context import Context, RunConfig
from edgec.passes.framework.input_domain import enter


class Samples:
    """A data set of feeds that are there already, a sample each or more; feeds of single numbers come as they are."""

    source = "calibration data"
    labels: np.ndarray | None = None

    def __init__(self, feeds: list[dict[str, np.ndarray]]) -> None:
        self.feeds = feeds

    def __len__(self) -> int:
        return len(self._whole()) if self._in_rows() else len(self.feeds)

    def batches(self, size: int, indices: Sequence[int] | None = None) -> Iterator[dict[str, np.ndarray]]:
        if self._in_rows():
            yield from self._whole().batches(size, indices)
        else:
            yield from self.feeds if indices is None else [self.feeds[index] for index in indices]

    def _in_rows(self) -> bool:
        return all(values.ndim for feeds in self.feeds for values in feeds.values())

    def _whole(self) -> InMemory:
        return InMemory.of(self.feeds, self.source)


def run_pass(step: Pass, graph: Graph, cache: RunCache | None = None, **config: Any) -> Context:
    """Runs a pass on ``graph`` in place as the pipeline does, and verifies what it left."""
    ctx = Context(graph, RunConfig(**config), cache)
    step.run(graph, ctx)
    graph.sort()
    graph.remove_dead()
    assert verify(graph) == []
    verify_types(graph)
    return ctx


def outputs(graph: Graph, feeds: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
    """What a graph computes in onnxruntime without optimizations; of seeded noise where no feeds are given."""
    return Session(graph).run(enter(graph, feeds if feeds is not None else seeded_feeds(graph, samples=1)[0]))


def assert_same(before: Graph, after: Graph, *, tolerance: float = 1e-5) -> None:
    """Both have one signature and give the same outputs, to ``tolerance`` of each output's largest value."""
    assert [(t.name, t.shape, t.dtype) for t in before.inputs] == [(t.name, t.shape, t.dtype) for t in after.inputs]
    assert [t.name for t in before.outputs] == [t.name for t in after.outputs]
    for feeds in seeded_feeds(before, samples=2):
        wanted, got = outputs(before, feeds), outputs(after, feeds)
        for name, x in wanted.items():
            assert got[name].shape == x.shape
            assert got[name].dtype == x.dtype
            if x.size:
                limit = tolerance * max(1e-3, float(np.abs(x.astype(np.float64)).max()))
                np.testing.assert_allclose(got[name], x, rtol=0, atol=limit, err_msg=name)


def did(ctx: Context) -> list[tuple[str, str]]:
    """What a pass reports it did, as (node, what)."""
    return [(remark.node, remark.what) for remark in ctx.done]


def missed(ctx: Context) -> list[tuple[str, str]]:
    """What a pass reports it left, as (node, reason)."""
    return [(remark.node, remark.what) for remark in ctx.left]
