"""Layers in the bodies of If, Loop and Scan: left as they are, and reported, by every pass that compresses."""

from __future__ import annotations

import re

import numpy as np
import pytest

from edgec.ir.graph import Graph
from edgec.passes.compress.compress import Compress
from edgec.passes.factorize.factorize import Factorize
from edgec.passes.framework.base import Pass
from edgec.passes.prune.prune import Prune
from edgec.testing import did, missed, model, run_pass

# A layer in each branch of an If, one of them in a Loop that lies in it.
BODY = """
[first] a = Gemm <transB = 1> (x, w)
[relu] r = Relu (a)
[second] t = Gemm <transB = 1> (r, v)
[branch] s = If (cond) <
    then_branch = yes () => (float[1,16] p) { [inside] p = MatMul (t, u) },
    else_branch = no () => (float[1,16] q) {
        two = Constant <value_int = 2> ()
        [again] q = Loop (two, cond, t) <
            body = step (int64 i, bool c, float[1,16] z) => (bool d, float[1,16] o) {
                d = Identity (c)
                [deep] o = MatMul (z, u)
            }
        >
    }
>
[last] y = Gemm <transB = 1> (s, k)
"""
WEIGHTS = "float[24,16] w, float[16,24] v, float[16,16] k"


def branched() -> Graph:
    graph = model(BODY, "(bool cond, float[1,16] x) => (float[1,16] y)", WEIGHTS)
    weights = graph.const("u", np.random.default_rng(1).standard_normal((16, 16)).astype(np.float32))
    for inside in graph.graphs()[1:]:
        for node in inside.nodes:
            if node.op == "MatMul":
                node.inputs[1] = weights
    return graph


REMARKS = [
    ("inside", "it lies in a body of 'branch' (If)"),
    ("deep", "it lies in a body of 'branch' (If)"),
]


@pytest.mark.parametrize("step", [Prune(ratio=0.25), Factorize(rank=0.25), Compress(params=0.9), Compress(params=1.0)])
def test_they_are_reported_and_left(step: Pass) -> None:
    graph = branched()
    before = graph.copy()
    ctx = run_pass(step, graph)
    said = [(node, re.sub("^not (pruned|factorized): ", "", what)) for node, what in missed(ctx)]
    assert [remark for remark in dict.fromkeys(said) if remark[0] in ("inside", "deep")] == REMARKS
    assert not {"inside", "deep"} & {node for node, _ in did(ctx)}
    inner = [node.name for one in graph.graphs()[1:] for node in one.nodes]
    assert inner == [node.name for one in before.graphs()[1:] for node in one.nodes]


def test_each_layer_is_in_one_of_the_lists() -> None:
    for step in (Prune(ratio=0.25), Factorize(rank=0.25)):
        ctx = run_pass(step, branched())
        assert sorted(r.node for r in (*ctx.done, *ctx.left)) == ["deep", "first", "inside", "last", "second"]
