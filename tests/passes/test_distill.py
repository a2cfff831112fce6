"""distill: a smaller network meets its teacher's outputs, and tensors inside it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from training import BODY, Data, Metric, classifier, images, labelled, network, shaken

from edgec.ir.errors import UsageError
from edgec.ir.execution import sqnr_db
from edgec.ir.files import to_bytes
from edgec.ir.graph import Graph
from edgec.passes.framework import input_domain
from edgec.passes.framework.context import Context
from edgec.passes.train.distill import Distill
from edgec.passes.train.engine.teacher import find_matches
from edgec.testing import did, model, outputs, run_pass

DATA = Data({"x": images()})
HELD_OUT = [{"x": x[None]} for x in images(8, seed=77)]
NARROW = "float[4,3,3,3] w1, float[4] b1, float[6,4,3,3] w2, float[6] b2, float[3,6,3,3] w3, float[3] b3"


def distilled(graph: Graph, step: Distill, data: Data = DATA, **context: Any) -> Context:
    return run_pass(step, graph, data={"train": data}, threads=1, **context)


def narrow() -> Graph:
    """The network with half of its channels."""
    return model(BODY, "(float[1,3,8,8] x) => (float[1,3,8,8] y)", NARROW, seed=4)


def sqnr(reference: Graph, other: Graph) -> float:
    return float(np.mean([sqnr_db(outputs(reference, feeds), outputs(other, feeds)) for feeds in HELD_OUT]))


def test_tensors_inside_are_met_through_adapters() -> None:
    teacher, student = network(), narrow()
    names = {constant.name for constant in student.constants()}
    before = sqnr(teacher, student)
    ctx = distilled(student, Distill(epochs=30, rate=1e-2), original=teacher)
    assert sqnr(teacher, student) > before + 2
    assert "for mse to the teacher and to 2 tensors inside it;" in did(ctx)[0][1]
    assert {constant.name for constant in student.constants()} == names  # adapters stay behind


def test_what_is_matched_by_name() -> None:
    found = find_matches(narrow(), network(), {}, "distill: match")
    assert [(m.student, m.teacher, m.adapter) for m in found] == [("r", "r", (8, 4)), ("s", "s", (8, 6))]
    [named] = find_matches(narrow(), network(), {"a": "c"}, "distill: match")
    assert (named.student, named.teacher, named.adapter) == ("a", "c", (8, 4))
    [same] = find_matches(network(), network(), {"a": "c"}, "distill: match")
    assert same.adapter is None


def test_matches_change_what_is_learnt() -> None:
    teacher, made = network(), []
    for inside in (0.0, 5.0):
        student = shaken(teacher, 0.5)
        distilled(student, Distill(epochs=2, rate=3e-3, inside=inside), original=teacher)
        made.append(to_bytes(student))
    assert made[0] != made[1]


def test_names_that_are_not_there() -> None:
    for match, said in (
        ({"q": "r"}, "the network has no tensor 'q'"),
        ({"r": "q"}, "the teacher has no tensor 'q'"),
    ):
        with pytest.raises(UsageError) as error:
            distilled(narrow(), Distill(match=match), original=network())
        assert str(error.value) == f"distill: match: {said}; 'edgec inspect --text' shows the names"


def test_tensors_of_other_sizes() -> None:
    pooled = model(
        BODY.replace("c = Conv <pads = [1,1,1,1]>", "c = Conv <pads = [1,1,1,1], strides = [2,2]>"),
        "(float[1,3,8,8] x) => (float[1,3,4,4] y)", NARROW,
    )  # fmt: skip
    teacher = model(BODY, "(float[1,3,8,8] x) => (float[1,3,8,8] y)", NARROW)
    with pytest.raises(UsageError) as error:
        find_matches(pooled, teacher, {"s": "s"}, "distill: match")
    assert str(error.value) == (
        "distill: match: 's' is of shape [1, 6, 4, 4] and 's' of [1, 6, 8, 8]; match tensors of the same size"
    )
    assert [m.student for m in find_matches(pooled, teacher, {}, "distill: match")] == ["r"]


def agreement(teacher: Graph, student: Graph, data: Data) -> float:
    rows = [{"x": x[None]} for x in data.feeds["x"]]
    return float(np.mean([outputs(teacher, f)["y"].argmax() == outputs(student, f)["y"].argmax() for f in rows]))


@pytest.mark.parametrize("softmax", [False, True])
def test_a_classifier_is_met_softly_without_labels(softmax: bool) -> None:
    teacher, student, data = classifier(softmax=softmax), classifier(softmax=softmax), labelled()
    student = shaken(student, 2.0)
    before = agreement(teacher, student, data)
    judge = Metric(lambda run: 0.0, name="top1")
    ctx = distilled(
        student,
        Distill(epochs=25, rate=3e-2, monitor="loss", inside=0.0),
        Data(data.feeds),
        original=teacher,
        metric=judge,
    )
    assert "for divergence from the teacher at temperature 2;" in did(ctx)[0][1]
    assert agreement(teacher, student, data) > max(0.9, before)


def test_labels_have_their_part() -> None:
    teacher, student, data = classifier(), shaken(classifier(), 1.0), labelled()
    ctx = distilled(student, Distill(epochs=2, rate=1e-2, labels=0.5, inside=0.0), data, original=teacher)
    words = "for cross entropy with the labels and divergence from the teacher at temperature 2;"
    assert words in did(ctx)[0][1]


def test_the_teacher_runs_once_over_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgec.passes.train.engine import teacher as module

    runs = []
    forward = module.TorchModule.forward

    def counted(self: Any, feeds: Any, taps: Any = (), segments: int = 1) -> Any:
        if not any(p.requires_grad for p in self.parameters()):
            runs.append(len(feeds["x"]))
        return forward(self, feeds, taps, segments)

    monkeypatch.setattr(module.TorchModule, "forward", counted)
    made = []
    for most in (1 << 29, 0):
        monkeypatch.setattr(module, "_MOST_BYTES", most)
        runs.clear()
        student = shaken(network())
        distilled(student, Distill(epochs=5, rate=1e-3), original=network())
        made.append((sum(runs), to_bytes(student)))
    assert made[0][0] < 100 < 200 < made[1][0]  # 40 samples, some of them twice while not all of a batch are known
    assert made[0][1] == made[1][1]
    assert torch.is_grad_enabled()


def test_a_teacher_that_takes_raw_values_is_fed_them() -> None:
    """A student that is its own teacher is right from the start, also where both take pixels."""
    student = network()
    input_domain.record(student, "x", np.array([1 / 255]), np.array([-0.5]))
    teacher = student.copy()
    ctx = distilled(student, Distill(epochs=2, rate=1e-3), original=teacher)
    assert "to the teacher" in did(ctx)[0][1]
    assert sqnr(teacher, student) > 60
