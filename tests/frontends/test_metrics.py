"""The metrics' numbers against brute force, and metrics run over data sets."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.frontends.metrics import Metric, Run, open_metric
from edgec.frontends.metrics_numbers import absolute_error, auroc, powers, reconstruction_error
from edgec.frontends.recipe_data import EvalSpec, PreprocessSpec
from edgec.ir.errors import EdgecError

F32 = np.dtype(np.float32)
INPUTS = {"x": ((1, 3), F32)}
few_scores = st.lists(st.integers(0, 6), min_size=1, max_size=12)


@settings(deadline=None, max_examples=100)
@given(few_scores, few_scores)
def test_auroc_counts_pairs_and_half_the_ties(ok: list[int], ng: list[int]) -> None:
    won = sum((b > a) + 0.5 * (b == a) for a in ok for b in ng)
    assert auroc(np.array(ok, float), np.array(ng, float)) == pytest.approx(won / (len(ok) * len(ng)), abs=1e-15)


@settings(deadline=None, max_examples=30)
@given(few_scores, few_scores)
def test_auroc_follows_the_order_only(ok: list[int], ng: list[int]) -> None:
    value = auroc(np.array(ok, float), np.array(ng, float))
    assert auroc(np.exp(ok), np.exp(ng)) == value
    assert auroc(np.array(ng, float), np.array(ok, float)) == pytest.approx(1 - value, abs=1e-15)


def test_auroc_at_its_ends() -> None:
    assert auroc(np.array([1, 2]), np.array([3])) == 1.0
    assert auroc(np.array([3]), np.array([1, 2])) == 0.0
    assert auroc(np.ones(3), np.ones(4)) == 0.5
    for ok, ng in [([], [1]), ([1], []), ([math.nan], [1])]:
        with pytest.raises(ValueError, match="scores of both classes"):
            auroc(np.array(ok), np.array(ng))


def test_numbers_by_hand() -> None:
    assert reconstruction_error(np.zeros((1, 2)), np.array([[0, 2]])) == 2.0
    assert absolute_error(np.array([[1.0, 2.0]]), np.array([0.0, 4.0])) == 1.5
    assert powers(np.array([10.0, 0.0]), np.array([9.0, 0.0])) == (100.0, 1.0)


def opened(data: dict, inputs: dict = INPUTS):
    spec = EvalSpec.model_validate(data)
    spec.located("c.yaml: line 2: data.eval", Path.cwd())
    return open_metric(spec, PreprocessSpec(), inputs)


def identity(feeds):
    return {"y": feeds["x"]}


def measured(metric: Metric, run: Run, reference: Run = identity, batch_size: int = 1) -> float:
    return metric.measure(run, reference, batch_size)


@pytest.fixture
def arrays(here: Path) -> Path:
    generator = np.random.default_rng(0)
    np.savez("ok.npz", x=generator.normal(size=(5, 3)).astype(np.float32))
    np.savez("ng.npz", x=generator.normal(size=(7, 3)).astype(np.float32) * 3)
    np.savez("classes.npz", x=np.eye(3, dtype=np.float32)[[0, 1, 2, 2, 0]], labels=np.array([0, 1, 2, 0, 0]))
    return here


OK_NG = {"ok": {"arrays": Path("ok.npz")}, "ng": {"arrays": Path("ng.npz")}, "metric": "auroc"}


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_auroc_of_an_autoencoder(arrays: Path, batch_size: int) -> None:
    metric = opened(OK_NG)
    sizes = set()

    def shrink(feeds):
        sizes.add(len(feeds["x"]))
        return {"y": feeds["x"] * 0.5}

    value = measured(metric, shrink, batch_size=batch_size)
    errors = {name: np.square(np.load(f"{name}.npz")["x"] * 0.5).mean(axis=1) for name in ("ok", "ng")}
    assert value == auroc(errors["ok"], errors["ng"])
    assert sizes == {batch_size}, "a static model gets full batches only"
    assert (metric.name, metric.higher_is_better) == ("auroc", True)


def test_a_worse_network_measures_worse(arrays: Path) -> None:
    metric = opened(OK_NG)
    good = measured(metric, lambda feeds: {"y": feeds["x"] * 0.5})
    spoilt = measured(metric, lambda feeds: {"y": feeds["x"] + 1 / (np.abs(feeds["x"]) + 1e-3)})
    assert good > spoilt


def test_auroc_of_a_score(arrays: Path) -> None:
    value = measured(opened(OK_NG), lambda feeds: {"score": np.abs(feeds["x"]).sum(axis=1, keepdims=True)})
    sums = {name: np.abs(np.load(f"{name}.npz")["x"]).sum(axis=1) for name in ("ok", "ng")}
    assert value == auroc(sums["ok"], sums["ng"])


def test_top1_and_a_chosen_output(arrays: Path) -> None:
    metric = opened({"arrays": Path("classes.npz"), "metric": "top1", "output": "logits"})
    for batch_size in (1, 2):
        assert measured(metric, lambda f: {"other": f["x"][:, :1], "logits": f["x"]}, batch_size=batch_size) == 0.8


def test_mae_to_labels_and_to_the_input(arrays: Path) -> None:
    metric = opened({"arrays": Path("classes.npz"), "metric": "mae"})
    predicted = np.array([0, 1, 2, 2, 0])
    assert measured(metric, lambda feeds: {"y": feeds["x"] @ np.array([0, 1, 2], np.float32)}) == pytest.approx(
        np.abs(predicted - [0, 1, 2, 0, 0]).mean()
    )
    own = opened({"arrays": Path("ok.npz"), "metric": "mae"})
    assert measured(own, lambda feeds: {"y": feeds["x"] + 0.25}) == pytest.approx(0.25)
    assert own.higher_is_better is False


def test_sqnr_sums_over_samples_and_takes_the_worst_output(arrays: Path) -> None:
    metric = opened({"arrays": Path("ok.npz"), "metric": "sqnr"})
    x = np.load("ok.npz")["x"].astype(np.float64)

    def original(feeds):
        return {"a": feeds["x"], "b": feeds["x"]}

    def noisy(feeds):
        return {"a": feeds["x"] + np.float32(0.125), "b": feeds["x"] + np.float32(0.25)}

    wanted = 10 * math.log10((x**2).sum() / (0.25**2 * x.size))
    assert measured(metric, noisy, reference=original) == pytest.approx(wanted, rel=1e-5)
    assert measured(metric, original, reference=original, batch_size=2) == math.inf


def test_a_user_s_metric(arrays: Path) -> None:
    Path("judge.py").write_text(
        "def worst(samples):\n"
        "    return max(abs(outputs['y'] - feeds['x']).max() for feeds, outputs, label in samples)\n"
        "worst.higher_is_better = False\n"
        "def ng_seen(samples): return sum(label for _, _, label in samples)\n"
        "def labels(samples): return sum(label for _, _, label in samples)\n"
        "def words(samples): return 'good'\n"
        "def fails(samples): return next(samples)[0]['z']\n"
    )
    metric = opened({"arrays": Path("ok.npz"), "metric": "python:judge:worst"})
    assert measured(metric, lambda feeds: {"y": feeds["x"] + np.float32(0.5)}) == pytest.approx(0.5, rel=1e-5)
    assert metric.higher_is_better is False
    assert measured(opened({**OK_NG, "metric": "python:judge:ng_seen"}), identity) == 7
    assert measured(opened({"arrays": Path("classes.npz"), "metric": "python:judge:labels"}), identity) == 3
    for name, message in [
        ("words", "python:judge:words: returned 'good', not a number; return the metric's value"),
        ("fails", "python:judge:fails: failed with KeyError ('z'); fix the function"),
    ]:
        with pytest.raises(EdgecError) as caught:
            measured(opened({"arrays": Path("ok.npz"), "metric": f"python:judge:{name}"}), identity)
        assert str(caught.value) == message


def test_a_network_s_fault_is_not_blamed_on_the_user_s_metric(arrays: Path) -> None:
    Path("judge.py").write_text("def count(samples): return len(list(samples))\n")

    def broken(feeds):
        raise RuntimeError("the runtime stopped")

    with pytest.raises(RuntimeError, match="the runtime stopped"):
        measured(opened({"arrays": Path("ok.npz"), "metric": "python:judge:count"}), broken)


def _nan_at_two(feeds):
    return {"y": np.where(np.isclose(feeds["x"], np.load("ok.npz")["x"][2]), np.nan, feeds["x"])}


WRONG = [
    (
        OK_NG,
        _nan_at_two,
        "ok.npz: sample 2: the network's output 'y' holds NaN or infinity; look for overflow in its weights",
    ),
    (
        OK_NG,
        lambda feeds: {"y": feeds["x"][:, :2]},
        "metric auroc: an output of [2] is neither one score nor a reconstruction of the input [3];"
        " name another output, or judge by python: module:function",
    ),
    ({**OK_NG, "output": "z"}, identity, "output 'z': the model has no such output; its outputs are 'y'"),
    (
        {**OK_NG, "output": "yy"},
        lambda feeds: {"yyy": feeds["x"]},
        "output 'yy': the model has no such output; its outputs are 'yyy'. Did you mean 'yyy'?",
    ),
    (
        {"arrays": Path("ok.npz"), "metric": "top1"},
        identity,
        "ok.npz: has no labels, and the metric is top1; add an array named 'labels'",
    ),
    (
        {"arrays": Path("halves.npz"), "metric": "top1"},
        identity,
        "halves.npz: its labels are not classes; label each sample with a whole number from 0",
    ),
    (
        {"arrays": Path("classes.npz"), "metric": "top1"},
        lambda feeds: {"y": feeds["x"][:, :2]},
        "classes.npz: sample 2: its label is 2, and the model's output has 2 classes; correct the labels",
    ),
    (
        {"arrays": Path("classes.npz"), "metric": "mae"},
        identity,
        "metric mae: an output of [3] cannot be compared with the label of []; label each sample with"
        " as many numbers as the model's output has",
    ),
    (
        {"arrays": Path("ok.npz"), "metric": "mae"},
        lambda feeds: {"y": feeds["x"][:, :2]},
        "metric mae: an output of [2] cannot be compared with the input of [3]; label each sample with"
        " as many numbers as the model's output has",
    ),
    (
        {"arrays": Path("ok.npz"), "metric": "sqnr"},
        lambda feeds: {"y2": feeds["x"]},
        "output 'y': is not the original's in name and shape; keep the model's outputs",
    ),
    (
        {"arrays": Path("ok.npz"), "metric": "python:nowhere:f"},
        identity,
        "c.yaml: line 2: data.eval: there is no module 'nowhere'; put nowhere.py beside the recipe",
    ),
]


@pytest.mark.parametrize(("spec", "run", "message"), WRONG, ids=range(len(WRONG)))
def test_what_cannot_be_judged(arrays: Path, spec: dict, run, message: str) -> None:
    np.savez("halves.npz", x=np.zeros((2, 3), np.float32), labels=np.array([0.5, 1.0]))
    with pytest.raises(EdgecError) as caught:
        measured(opened(spec), run, reference=identity)
    assert str(caught.value) == message


def test_an_output_without_the_batch_is_refused(arrays: Path) -> None:
    with pytest.raises(EdgecError) as caught:
        measured(opened(OK_NG, {"x": ((2, 3), np.dtype(np.float32))}), lambda feeds: {"y": np.float32(1)}, batch_size=2)
    assert str(caught.value) == (
        "output 'y': is of shape [] for a batch of 2; a metric needs an output with the samples on its first axis"
    )


def test_of_one_sample_an_output_is_the_sample_s(arrays: Path) -> None:
    """Scalars, and outputs whose first axis is another's, as the state of an LSTM."""
    scalar = measured(opened(OK_NG), lambda feeds: {"y": np.square(feeds["x"]).sum()})
    row = measured(opened(OK_NG), lambda feeds: {"y": np.square(feeds["x"]).sum(axis=1)})
    assert scalar == row
    twice = lambda feeds: {"y": np.stack([feeds["x"], feeds["x"]])}  # noqa: E731
    noisy = lambda feeds: {"y": np.stack([feeds["x"], feeds["x"] * 1.1])}  # noqa: E731
    data = {"arrays": Path("ok.npz"), "metric": "sqnr"}
    assert measured(opened(data), noisy, twice) == pytest.approx(10 * np.log10(2 / 0.1**2), abs=1e-4)


def test_images_of_two_classes(here: Path, save_image) -> None:
    for index in range(3):
        save_image(f"ok/{index}.png", np.full((2, 2, 3), index, np.uint8))
        save_image(f"ng/{index}.png", np.full((2, 2, 3), 100 + index, np.uint8))
    spec = {"ok": {"images": [Path("ok")]}, "ng": {"images": [Path("ng")]}, "metric": "auroc"}
    metric = opened(spec, {"x": ((1, 3, 2, 2), F32)})
    seen = []

    def black(feeds):
        seen.append(float(np.square(feeds["x"]).mean()))
        return {"y": np.zeros_like(feeds["x"])}

    assert measured(metric, black) == 1.0
    assert seen[:4] == [0.0, 1.0, 4.0, 10000.0], "ok first, in the order of the files"
