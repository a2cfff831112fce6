"""finetune: weights of a graph are trained in place, and what stops it is said."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training import Data, Metric, classifier, images, labelled, network, shaken

from edgec.backends.registry import target
from edgec.ir.errors import InputError, UsageError
from edgec.ir.execution import sqnr_db
from edgec.ir.files import to_bytes
from edgec.ir.graph import Graph
from edgec.passes.framework.context import Context
from edgec.passes.quantize.quantize import Quantize
from edgec.passes.train.engine import trainer
from edgec.passes.train.engine.learner import Learner
from edgec.passes.train.finetune import Finetune
from edgec.testing import Samples, did, missed, model, outputs, run_pass

DATA = Data({"x": images()})
HELD_OUT = [{"x": x[None]} for x in images(8, seed=77)]


def tune(graph: Graph, step: Finetune | None = None, data: Data = DATA, **context: Any) -> Context:
    given = step or Finetune(epochs=12, rate=3e-3, teacher="original")
    return run_pass(given, graph, data={"train": data}, threads=1, **context)


def sqnr(reference: Graph, other: Graph) -> float:
    return float(np.mean([sqnr_db(outputs(reference, feeds), outputs(other, feeds)) for feeds in HELD_OUT]))


def weights(graph: Graph) -> dict[str, np.ndarray]:
    return {constant.name: np.array(constant.values) for constant in graph.constants()}


# -- what it reaches ---------------------------------------------------------------------------------------------------


def test_a_damaged_network_learns_from_its_teacher() -> None:
    teacher = network()
    student = shaken(teacher)
    before = sqnr(teacher, student)
    ctx = tune(student, original=teacher)
    assert sqnr(teacher, student) > before + 8
    [(node, what)] = did(ctx)
    assert node == "the network"
    assert what.startswith("12 epochs on 36 samples for mse to the teacher; epoch ")
    figures = ctx.done[0].figures
    said = f" is the best by the loss on 4 held-out samples, {figures['held_out_before']:.4g} before and "
    assert what.endswith(f"{said}{figures['held_out_after']:.4g} now")
    assert figures["held_out_after"] < 0.2 * figures["held_out_before"]
    assert ctx.done[0].figures["rate"] == 3e-3
    assert len(ctx.curves["loss"]) == 12
    assert len(ctx.curves["monitored"]) == 13
    assert ctx.curves["loss"][-1] < ctx.curves["loss"][0]


def test_a_rate_is_found_where_none_is_given() -> None:
    teacher = network()
    student = shaken(teacher)
    before = sqnr(teacher, student)
    ctx = tune(student, Finetune(epochs=12, teacher="original"), original=teacher)
    assert 1e-5 < ctx.done[0].figures["rate"] < 0.1
    assert sqnr(teacher, student) > before + 5


def test_an_autoencoder_learns_its_input() -> None:
    graph = network()
    ctx = tune(graph, Finetune(epochs=40, rate=3e-2))
    assert "for mse to the input;" in did(ctx)[0][1]
    errors = [np.mean((outputs(graph, feeds)["y"] - feeds["x"]) ** 2) / np.mean(feeds["x"] ** 2) for feeds in HELD_OUT]
    assert np.mean(errors) < 0.25


def accuracy(graph: Graph, data: Data) -> float:
    made = [outputs(graph, {"x": x[None]})["y"].argmax() for x in data.feeds["x"]]
    assert data.labels is not None
    return float(np.mean(np.array(made) == data.labels))


def test_a_classifier_learns_its_labels() -> None:
    graph, data = classifier(), labelled()
    before = accuracy(graph, data)
    ctx = tune(graph, Finetune(epochs=20, rate=3e-2), data)
    assert accuracy(graph, data) > max(0.9, before + 0.2)
    assert "for cross entropy with the labels;" in did(ctx)[0][1]


def test_labels_that_are_numbers_are_met() -> None:
    graph = network()
    wanted = np.stack([outputs(shaken(graph, 0.5), {"x": x[None]})["y"][0] for x in DATA.feeds["x"]])
    before = float(np.mean((wanted[0] - outputs(graph, {"x": DATA.feeds["x"][:1]})["y"][0]) ** 2))
    ctx = tune(graph, Finetune(epochs=10, rate=3e-3, loss="l1"), Data(DATA.feeds, wanted))
    assert "for l1 to the labels;" in did(ctx)[0][1]
    assert float(np.mean((wanted[0] - outputs(graph, {"x": DATA.feeds["x"][:1]})["y"][0]) ** 2)) < before / 3


def test_a_quantized_network_is_trained_through_its_rounding() -> None:
    teacher = network()
    student = shaken(teacher, 0.1)
    board = target("cpu", "test")
    data = {"calibration": Samples(HELD_OUT), "train": DATA}
    run_pass(Quantize(), student, data=data, target=board)
    kinds = {c.name: c.dtype for c in student.constants()}
    before = sqnr(teacher, student)
    run_pass(Finetune(epochs=12, rate=2e-3, teacher="original"), student, data=data, target=board, original=teacher)
    assert {c.name: c.dtype for c in student.constants()} == kinds
    assert any(kind == np.int8 for kind in kinds.values())
    assert sqnr(teacher, student) > before + 3


def test_the_metric_chooses_the_epoch() -> None:
    teacher, verdicts = network(), iter([0.1, 0.2, 0.9, 0.3, 0.4])
    student = shaken(teacher)
    judge = Metric(lambda run: next(verdicts) + 0 * float(run(HELD_OUT[0])["y"].sum()))
    told: list[str] = []
    step = Finetune(epochs=4, rate=1e-3, teacher="original")
    ctx = tune(student, step, original=teacher, metric=judge, progress=lambda done, total, what: told.append(what))
    assert ctx.done[0].figures["best_epoch"] == 2
    assert [what.split(", ")[1:] for what in told] == [[f"custom {figure}", "epoch"] for figure in (0.2, 0.9, 0.3, 0.4)]
    assert ctx.curves["monitored"] == [0.1, 0.2, 0.9, 0.3, 0.4]
    shorter = shaken(teacher)
    alike = iter([0.1, 0.2, 0.9, 0.3, 0.4])
    short = Finetune(epochs=4, rate=1e-3, teacher="original", patience=1)
    stopped = tune(shorter, short, original=teacher, metric=Metric(lambda run: next(alike)))
    assert missed(stopped) == [("the network", "stopped early: no better epoch in 1")]
    assert to_bytes(shorter) == to_bytes(student)


def test_weights_that_nothing_betters_stay() -> None:
    graph = network()
    before = to_bytes(graph)
    falling = iter([1.0, 0.5, 0.4])
    ctx = tune(graph, Finetune(epochs=2, rate=1e-3), metric=Metric(lambda run: next(falling)))
    assert to_bytes(graph) == before
    assert (
        "none of them is better than the weights as they were, which are kept, by data.eval's metric, "
        "1 before and 0.5 at best"
    ) in did(ctx)[0][1]


def test_convolutions_of_one_and_three_spatial_axes_are_trained() -> None:
    body = """
    a = Conv <pads = [1,1]> (x, w1)
    t = Unsqueeze (a, axes)
    b = Conv <pads = [0,0,1,0,0,1]> (t, w2)
    y = Squeeze (b, axes)
    """
    graph = model(
        body,
        "(float[1,3,8] x) => (float[1,3,8] y)",
        "float[4,3,3] w1, float[3,4,1,1,3] w2, int64[2] axes = {2, 3}",
    )
    before = weights(graph)
    tune(graph, Finetune(epochs=2, rate=1e-3), data=Data({"x": images().reshape(-1, 3, 8)}))
    assert all((weights(graph)[name] != before[name]).any() for name in ("w1", "w2"))


def test_frozen_nodes_keep_their_weights() -> None:
    teacher = network()
    student = shaken(teacher)
    for node, name in zip(student.nodes, "abcde", strict=True):
        node.name = name
    before = weights(student)
    tune(student, Finetune(epochs=2, rate=1e-3, teacher="original", freeze=("[ac]",)), original=teacher)
    after = weights(student)
    assert {name for name, values in after.items() if not np.array_equal(values, before[name])} == {"w3", "b3"}


def test_segments_compute_the_same() -> None:
    teacher = network()
    made = []
    for segments in (1, 3):
        student = shaken(teacher)
        tune(student, Finetune(epochs=3, rate=1e-3, teacher="original", segments=segments), original=teacher)
        made.append(weights(student))
    for name, values in made[0].items():
        np.testing.assert_allclose(values, made[1][name], atol=1e-6)


def test_the_same_run_gives_the_same_weights() -> None:
    teacher = network()
    one, other = shaken(teacher), shaken(teacher)
    for student in (one, other):
        tune(student, Finetune(epochs=3, teacher="original"), original=teacher)
    assert to_bytes(one) == to_bytes(other)


def test_a_loss_of_the_users() -> None:
    class Outside:
        def function(self, spec: str, where: str) -> Callable[..., torch.Tensor]:
            assert (spec, where) == ("losses:huber", "finetune: loss")
            return lambda made, feeds, labels: torch.nn.functional.huber_loss(made["y"], feeds["x"])

        def model(self, path: str, where: str) -> Graph:
            raise AssertionError

    graph = network()
    ctx = tune(graph, Finetune(epochs=3, rate=1e-3, loss="python:losses:huber"), resolver=Outside())
    assert "for python:losses:huber;" in did(ctx)[0][1]
    assert ctx.curves["loss"][-1] < ctx.curves["loss"][0]


# -- kills -------------------------------------------------------------------------------------------------------------


def test_a_run_that_is_killed_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    teacher = network()
    whole, parts = shaken(teacher), shaken(teacher)
    step = Finetune(epochs=6, rate=2e-3, teacher="original")
    tune(whole, step, original=teacher)

    def kill(done: int, total: int, what: str) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(parts, step, original=teacher, checkpoints=tmp_path, progress=kill)
    assert to_bytes(parts) == to_bytes(shaken(teacher))
    epochs: list[int] = []
    tune(parts, step, original=teacher, checkpoints=tmp_path, progress=lambda done, total, what: epochs.append(done))
    assert epochs == [4, 5, 6]
    assert to_bytes(parts) == to_bytes(whole)


def test_a_checkpoint_that_is_cut_off_is_none(tmp_path: Path) -> None:
    teacher = network()
    student, other = shaken(teacher), shaken(teacher)
    step = Finetune(epochs=2, rate=2e-3, teacher="original")
    tune(student, step, original=teacher, checkpoints=tmp_path)
    [state] = tmp_path.iterdir()
    state.write_bytes(state.read_bytes()[:100])
    tune(other, step, original=teacher, checkpoints=tmp_path)
    assert to_bytes(other) == to_bytes(student)


def test_a_checkpoint_of_other_samples_is_not_taken_up(tmp_path: Path) -> None:
    teacher = network()
    step = Finetune(epochs=3, rate=2e-3, teacher="original")
    tune(shaken(teacher), step, original=teacher, checkpoints=tmp_path)
    changed = Data({"x": images(seed=8)})
    student, other = shaken(teacher), shaken(teacher)
    tune(student, step, changed, original=teacher, checkpoints=tmp_path)
    tune(other, step, changed, original=teacher)
    assert to_bytes(student) == to_bytes(other)
    tune(shaken(teacher), step, changed, original=shaken(teacher, 0.1), checkpoints=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


# -- what is refused or said -------------------------------------------------------------------------------------------


def refused(graph: Graph, step: Finetune, data: Data = DATA, **context: Any) -> str:
    before = to_bytes(graph)
    with pytest.raises((UsageError, InputError)) as error:
        tune(graph, step, data, **context)
    assert to_bytes(graph) == before
    return str(error.value)


def test_a_loss_that_is_not_finite_stops_it() -> None:
    calls = []

    class Outside:
        def function(self, spec: str, where: str) -> Callable[..., torch.Tensor]:
            def loss(made: dict[str, torch.Tensor], feeds: dict[str, torch.Tensor], labels: None) -> torch.Tensor:
                calls.append(torch.is_grad_enabled())
                spoiled = float("nan") if sum(calls) == 1 + 3 + 2 else 1.0  # the trial, an epoch of three, two steps
                return spoiled * (made["y"] - feeds["x"]).square().mean()

            return loss

        def model(self, path: str, where: str) -> Graph:
            raise AssertionError

    graph = network()
    ctx = tune(graph, Finetune(epochs=5, rate=1e-3, schedule="constant", loss="python:a:b"), resolver=Outside())
    assert missed(ctx) == [("the network", "stopped early: the loss became NaN in step 2 of epoch 2, at rate 0.001")]
    assert ctx.done[0].figures["best_epoch"] == 1
    assert all(np.isfinite(values).all() for values in weights(graph).values())


def test_a_rate_that_was_found_falls_where_an_epoch_does_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found ten times too high and more, as by a trial that says nothing: training goes on from the best weights."""
    monkeypatch.setattr(trainer, "find_rate", lambda *arguments: 0.3)
    teacher = network()
    student = shaken(teacher, 0.05)
    before = sqnr(teacher, student)
    ctx = tune(student, Finetune(epochs=10, batch=4, teacher="original"), original=teacher)
    what, figures = did(ctx)[0][1], ctx.done[0].figures
    assert "; the rate was lowered to 0.03 behind epoch 2, to 0.003 behind epoch 4" in what
    assert figures["rate"] == 0.3
    assert figures["best_epoch"] > 4
    assert sqnr(teacher, student) > before + 2


def test_a_rate_of_the_users_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = network()
    student = shaken(teacher, 0.05)
    before = to_bytes(student)
    ctx = tune(student, Finetune(epochs=3, rate=3.0, schedule="constant", teacher="original"), original=teacher)
    assert to_bytes(student) == before
    [(_, what)] = did(ctx)
    assert re.fullmatch(
        r"3 epochs on 36 samples for mse to the teacher; none of them is better than the weights as they were, which "
        r"are kept, by the loss on 4 held-out samples, 0\.00\d+ before and \S+ at best", what
    )  # fmt: skip


def test_a_run_that_no_rate_makes_better_ends_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that is its own teacher: there is nothing to gain."""
    student = network()
    before = to_bytes(student)
    monkeypatch.setattr(trainer, "find_rate", lambda *arguments: 1.0)
    options = Finetune(epochs=30, batch=2, weight_decay=0.5, teacher="original")
    ctx = tune(student, options, original=student.copy())
    assert to_bytes(student) == before
    assert missed(ctx) == [("the network", "stopped early: no rate down to 0.001 lowers the held-out loss")]
    assert ctx.done[0].figures["epochs"] == 4


def test_numbers_that_a_float_cannot_hold_stay_where_nothing_is_better() -> None:
    """A bias in integers of more than 24 bits."""
    graph = model(
        """
        k = DequantizeLinear (w, s)
        b = DequantizeLinear (v, t)
        y = Conv (x, k, b)
        """,
        "(float[1,3,8,8] x) => (float[1,2,8,8] y)",
        "int8[2,3,1,1] w, float s = {0.1}, int32[2] v = {123456789, -87654321}, float t = {1e-8}",
        w=np.arange(6).reshape(2, 3, 1, 1),
    )
    before = to_bytes(graph)
    tune(graph, Finetune(epochs=1, rate=10.0, schedule="constant", teacher="original"), original=graph.copy())
    assert to_bytes(graph) == before


def test_nothing_to_learn_from() -> None:
    assert refused(classifier(), Finetune()) == (
        "finetune: loss: nothing says what the network should compute; "
        "add labels to data.train, name a loss, or write teacher: original"
    )
    assert refused(classifier(), Finetune(loss="mse")) == (
        "finetune: loss: mse wants labels, or an output of the shape of the input, and there is neither; "
        "add labels to data.train, or a teacher"
    )
    assert refused(classifier(), Finetune(loss="cross_entropy")) == (
        "finetune: loss: cross_entropy wants labels, and data.train has none; add labels, or a teacher"
    )


def test_labels_that_are_no_classes() -> None:
    data = labelled()
    assert data.labels is not None
    wrong = data.labels.copy()
    wrong[7] = 4
    assert refused(classifier(), Finetune(), Data(data.feeds, wrong)) == (
        "training data: label 4 of sample 7 is no class of the network's 4; labels are 0 to 3"
    )
    halves = data.labels + 0.5
    assert refused(classifier(), Finetune(loss="cross_entropy"), Data(data.feeds, halves)) == (
        "finetune: loss: cross_entropy wants labels that are classes, not float64; use mse"
    )
    several = np.stack([data.labels, data.labels], axis=1)
    assert refused(classifier(), Finetune(), Data(data.feeds, several)) == (
        "training data: has labels of 2 numbers each, not a class; give one class a sample"
    )
    assert refused(network(), Finetune(), Data(DATA.feeds, np.zeros(40, int))) == (
        "output 'y': is of shape [1, 3, 8, 8], and classes want one of (samples, classes); use mse, or a python: loss"
    )


def test_no_training_samples() -> None:
    assert refused(network(), Finetune(), Data({"x": images()[:0]})) == (
        "training data: has no samples to train on; name a data set that has some"
    )


def test_patterns_that_match_nothing() -> None:
    graph = network()
    graph.nodes[0].name = "encoder"
    assert refused(graph, Finetune(freeze=("encodr",))) == (
        "finetune: freeze: 'encodr' matches no node. Did you mean 'encoder'? 'edgec inspect' lists the nodes"
    )
    for number, node in enumerate(graph.nodes):
        node.name = f"node{number}"
    assert refused(graph, Finetune(freeze=("*",))) == (
        "finetune: finds no weights to train; freeze less, or leave the pass out"
    )


def test_a_teacher_of_another_shape() -> None:
    assert refused(classifier(4), Finetune(teacher="original"), original=classifier(5)) == (
        "finetune: teacher: computes 'y' of shape [1, 5], the network [1, 4]; "
        "name a teacher whose outputs have the network's shapes"
    )
    assert refused(classifier(4), Finetune(teacher="original")) == (
        "finetune: teacher: there is no original model here; name a model's path"
    )


def test_a_metric_that_is_not_there() -> None:
    assert refused(network(), Finetune(monitor="metric")) == (
        "finetune: monitor: there is no data.eval to judge by; write loss, or add data.eval"
    )


def test_outside_of_a_recipe() -> None:
    assert refused(network(), Finetune(loss="python:a:b")) == (
        "finetune: loss: names something outside the graph, and there is no recipe; run it by a recipe"
    )


def test_a_loss_without_a_name() -> None:
    with pytest.raises(ValueError, match="no loss named 'mae'") as error:
        Finetune(loss="mae")
    assert str(error.value) == (
        "no loss named 'mae'. Did you mean 'mse'?: write auto, mse, l1, cross_entropy or python:module:function"
    )


def test_batches_that_do_not_fit_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Learner.forward

    def small(self: Learner, batch: Any) -> torch.Tensor:
        if len(batch) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self, batch)

    monkeypatch.setattr(Learner, "forward", small)
    most = 5
    assert refused(network(), Finetune(batch=16)) == (
        "finetune: batch: memory does not suffice for 16 samples; write 4, or raise segments"
    )
    most = 0
    assert refused(network(), Finetune(batch=16)) == (
        "finetune: memory does not suffice for one sample; raise segments"
    )


def test_torch_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("edgec.passes.train.engine.run")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert refused(network(), Finetune()) == (
        "finetune: needs torch, which is not installed; pip install 'edgec[torch]'"
    )
