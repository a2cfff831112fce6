"""Adapters are solved by least squares, and nothing but outputs judges a student."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks.coupled import coupled
from training import Data, Metric, classifier, images, labelled, network, shaken

from edgec.ir.files import to_bytes
from edgec.passes.prune.prune import Prune
from edgec.passes.train.distill import Distill
from edgec.passes.train.engine.adapters import Adapters
from edgec.passes.train.engine.feeding import Feeding
from edgec.testing import outputs, run_pass


def test_a_map_that_there_is_is_found() -> None:
    chance = torch.Generator().manual_seed(0)
    own = [torch.randn(8, 6, 5, 5, generator=chance) for _ in range(3)]
    matrix, offset = torch.randn(4, 6, generator=chance), torch.randn(4, generator=chance)
    other = [torch.einsum("oi,nihw->nohw", matrix, x) + offset[None, :, None, None] for x in own]
    adapters = Adapters([None, (4, 6)])
    assert adapters.needed
    adapters.solve([(x, x), (x, y)] for x, y in zip(own, other, strict=True))
    torch.testing.assert_close(adapters.adapted(1, own[0]), other[0], rtol=0, atol=5e-3)
    assert adapters.adapted(0, own[0]) is own[0]


def test_no_other_map_is_nearer() -> None:
    """Against numpy's least squares, of what no map meets; channels that say the same and one that says nothing."""
    random = np.random.default_rng(0)
    own = random.standard_normal((200, 5)).astype(np.float32)
    own[:, 3], own[:, 4] = own[:, 0], 2.0
    other = np.tanh(own[:, :3] @ random.standard_normal((3, 2))).astype(np.float32) + 1
    adapters = Adapters([(2, 5)])
    adapters.solve([[(torch.from_numpy(own), torch.from_numpy(other))]])
    made = adapters.adapted(0, torch.from_numpy(own)).detach().numpy()
    best = own @ np.linalg.lstsq(own, other, rcond=None)[0]
    assert np.square(made - other).mean() <= 1.001 * np.square(best - other).mean()


def test_a_student_whose_channels_differ_is_judged_by_its_outputs_from_the_start() -> None:
    """Pruned of what it did not need it computes what its teacher does; adapters have no part in that figure."""
    teacher = coupled("residual")
    for constant in teacher.constants():
        if constant.name == "w3":
            constant.values = constant.values * (np.arange(8) < 5)[None, :, None, None]
    student, data = teacher.copy(), Data({"x": images()})
    run_pass(Prune(params=0.7), student, data={"calibration": data})
    held = Feeding(data, 0, 0.1).held_out().feeds["x"].numpy()
    wanted = np.concatenate([outputs(teacher, {"x": x[None]})["y"] for x in held])
    made = np.concatenate([outputs(student, {"x": x[None]})["y"] for x in held])
    apart = float(np.square(made - wanted).mean() / np.square(wanted).mean())
    ctx = run_pass(Distill(epochs=1, rate=1e-4), student, data={"train": data}, threads=1, original=teacher)
    assert ctx.done[0].figures["held_out_before"] == pytest.approx(apart, rel=1e-3)
    assert ctx.curves["monitored"][0] == ctx.done[0].figures["held_out_before"]


def test_tensors_inside_never_outweigh_outputs() -> None:
    """However much they are to weigh: outputs that are right stay so."""
    teacher = network()
    student = shaken(teacher, 1e-3)
    before = np.concatenate([outputs(student, {"x": x[None]})["y"] for x in images(8, seed=77)])
    wanted = np.concatenate([outputs(teacher, {"x": x[None]})["y"] for x in images(8, seed=77)])
    step = Distill(epochs=3, inside=10.0, match={"r": "s"})  # what cannot be met
    run_pass(step, student, data={"train": Data({"x": images()})}, threads=1, original=teacher)
    after = np.concatenate([outputs(student, {"x": x[None]})["y"] for x in images(8, seed=77)])
    assert np.square(after - wanted).sum() <= 1.05 * np.square(before - wanted).sum()


def test_scores_do_not_drift_where_probabilities_are_met() -> None:
    """A metric that is the same for all epochs: what is kept is nearer by its probabilities and by its scores."""
    teacher, data = classifier(), labelled()
    student = shaken(teacher, 0.05)
    judge = Metric(lambda run: 1.0, name="top1")
    pictures = labelled(120).feeds["x"][80:]

    def errors() -> float:
        pairs = [(outputs(student, {"x": x[None]})["y"], outputs(teacher, {"x": x[None]})["y"]) for x in pictures]
        return float(sum(np.square(made - wanted).sum() for made, wanted in pairs))

    before, weights = errors(), to_bytes(student)
    ctx = run_pass(
        Distill(epochs=4, rate=3e-3),
        student,
        data={"train": Data(data.feeds)},
        threads=1,
        original=teacher,
        metric=judge,
    )
    assert errors() <= before
    assert (to_bytes(student) == weights) == (ctx.done[0].figures["best_epoch"] == 0)
