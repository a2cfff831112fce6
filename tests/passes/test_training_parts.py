"""Networks that go on with what cannot be trained, a detector's NonMaxSuppression say, are trained up to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from training import Data, Metric, images, shaken

from edgec.ir.errors import UsageError
from edgec.ir.execution import Session
from edgec.ir.graph import Graph
from edgec.passes.framework.context import Context
from edgec.passes.train.distill import Distill
from edgec.passes.train.finetune import Finetune
from edgec.testing import did, model, outputs, run_pass

DETECTOR = """
a = Conv <pads = [1,1,1,1]> (x, w1)
r = Relu (a)
b = Conv (r, w2)
flat = Reshape (b, places)
boxes = Transpose <perm = [0, 2, 1]> (flat)
c = Conv (r, w3)
scores0 = Reshape (c, classes)
scores = Sigmoid (scores0)
kept = NonMaxSuppression (boxes, scores, most, overlap)
column = Gather <axis = 1> (kept, two)
y = Gather <axis = 1> (boxes, column)
"""
WEIGHTS = (
    "float[8,3,3,3] w1, float[4,8,1,1] w2, float[2,8,1,1] w3, int64[3] places = {1, 4, 64}, "
    "int64[3] classes = {1, 2, 64}, int64[1] most = {5}, float[1] overlap = {0.5}, int64[1] two = {2}"
)
DATA = Data({"x": images(64)})


def detector() -> Graph:
    return model(DETECTOR, "(float[1,3,8,8] x) => (float[1,K,1,4] y)", WEIGHTS)


def branching() -> Graph:
    body = (
        "a = Conv <pads = [1,1,1,1]> (x, w)\nr = Relu (a)\nm = ReduceMax <keepdims = 0> (r)\nl = Less (m, limit)\n"
        "y = If (l) <then_branch = one () => (float[1,4,8,8] t) { t = Neg (r) },"
        " else_branch = two () => (float[1,4,8,8] e) { e = Abs (r) }>"
    )
    return model(body, "(float[1,3,8,8] x) => (float[1,4,8,8] y)", "float[4,3,3,3] w, float limit = {0.5}")


def deciding() -> Graph:
    """It gives the number of a class, as a float."""
    body = (
        "a = Conv <pads = [1,1,1,1]> (x, w)\nr = Relu (a)\nm = GlobalAveragePool (r)\nv = Flatten (m)\n"
        "s = Gemm (v, c)\nk = ArgMax <axis = 1> (s)\ny = Cast <to = 1> (k)"
    )
    return model(body, "(float[1,3,8,8] x) => (float[1,1] y)", "float[8,3,3,3] w, float[8,5] c")


def tensors(graph: Graph, names: list[str], feeds: Mapping[str, np.ndarray]) -> np.ndarray:
    taps = [tensor for tensor in graph.variables() if tensor.name in names]
    return np.concatenate([values.ravel() for values in Session(graph, taps=taps).run(feeds).values()])


def tune(graph: Graph, step: Any = None, data: Data = DATA, **config: Any) -> Context:
    return run_pass(
        step or Finetune(epochs=8, rate=3e-3, teacher="original"), graph, data={"train": data}, threads=1, **config
    )


@pytest.mark.parametrize(
    ("network", "ends", "words"),
    [
        (detector, ["boxes", "scores"], "the network goes on with NonMaxSuppression, through which nothing is trained"),
        (branching, ["r"], "the network goes on with If, through which nothing is trained"),
        (deciding, ["s"], "the network goes on with ArgMax, through which nothing is trained"),
    ],
)
def test_it_is_trained_up_to_there(network: Any, ends: list[str], words: str) -> None:
    original = network()
    student = shaken(original)
    nodes = [node.op for node in student.nodes]
    unseen = [{"x": x[None]} for x in images(8, seed=77)]

    def error(graph: Graph) -> float:
        pairs = [(tensors(original, ends, feeds), tensors(graph, ends, feeds)) for feeds in unseen]
        return float(sum(((a - b) ** 2).sum() for a, b in pairs))

    before = error(student)
    ctx = tune(student, original=original)
    assert error(student) < 0.7 * before
    assert [node.op for node in student.nodes] == nodes
    assert [tensor.name for tensor in student.outputs] == ["y"]
    outputs(student, unseen[0])
    assert any(what.endswith(words) for _, what in did(ctx))


def test_distillation_meets_tensors_inside_too() -> None:
    original = detector()
    student = shaken(original)
    ctx = run_pass(
        Distill(epochs=4, rate=3e-3, labels=0.0), student, data={"train": DATA}, threads=1, original=original
    )
    assert ctx.done[-1].figures["held_out_after"] < ctx.done[-1].figures["held_out_before"]


def refused(graph: Graph, step: Any, **config: Any) -> str:
    with pytest.raises(UsageError) as caught:
        tune(graph, step, **config)
    return str(caught.value)


def test_what_cannot_be_is_said() -> None:
    goes_on = "the network goes on with NonMaxSuppression, through which nothing is trained"
    assert refused(detector(), Finetune()) == (
        f"finetune: teacher: {goes_on}: labels say nothing of it; write teacher: original"
    )
    judged = Finetune(teacher="original", monitor="metric")
    assert refused(detector(), judged, original=detector(), metric=Metric(lambda run: 0.0)) == (
        f"finetune: monitor: {goes_on}: there is no metric; write loss"
    )
    other = detector()
    next(tensor for tensor in other.variables() if tensor.name == "scores").name = "scorez"
    assert refused(detector(), Finetune(teacher="original"), original=other) == (
        "finetune: teacher: has no tensor 'scores', at which it would be met. Did you mean 'scores0'? "
        "End the network there with --cut, or name another teacher"
    )
