"""Samples for training: every one once an epoch, in an order that the seed says, in memory or in windows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from training import Data, images

from edgec.passes.train.engine import feeding
from edgec.passes.train.engine.feeding import Batch, Entrance, Feeding


def numbers(batches: list[Batch]) -> list[int]:
    return [int(n) for batch in batches for n in batch.numbers]


def data(count: int = 150) -> Data:
    return Data({"x": images(count)}, np.arange(count))


@pytest.mark.parametrize("windows", [False, True])
def test_every_sample_once_an_epoch(windows: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if windows:  # three windows of 64 samples at most
        monkeypatch.setattr(feeding, "_MOST_BYTES", 3 * 64 * images(1).nbytes)
    feed = Feeding(data(), seed=3, hold_out=0.1)
    first, second = (list(feed.epoch(number, 16)) for number in (0, 1))
    held = set(numbers([feed.held_out()]))
    assert len(held) == 15
    assert feed.trained_on == 135
    assert sorted(numbers(first)) == sorted(numbers(second)) == sorted(set(range(150)) - held)
    assert numbers(first) != numbers(second)
    assert numbers(first) == numbers(list(Feeding(data(), seed=3, hold_out=0.1).epoch(0, 16)))
    assert numbers(first) != numbers(list(Feeding(data(), seed=4, hold_out=0.1).epoch(0, 16)))
    pictures = images(150)
    for batch in [*first, feed.held_out()]:
        np.testing.assert_array_equal(batch.feeds["x"].numpy(), pictures[batch.numbers.numpy()])
        assert batch.labels is not None
        np.testing.assert_array_equal(batch.labels.numpy(), batch.numbers.numpy())


@pytest.mark.parametrize(("count", "held"), [(2, 1), (3, 1), (9, 3), (10, 3), (20, 4), (40, 4), (100, 10), (9000, 512)])
def test_of_few_samples_some_are_held_out(count: int, held: int) -> None:
    values = np.zeros((count, 1), np.float32)
    feed = Feeding(Data({"x": values}), seed=0, hold_out=0.1)
    trained_on = numbers(list(feed.epoch(0, 4)))
    assert feed.unseen
    assert len(feed.held_out()) == held
    assert len(trained_on) == feed.trained_on == count - held
    assert sorted([*trained_on, *numbers([feed.held_out()])]) == list(range(count))


def test_one_sample_is_trained_on_and_judged_by() -> None:
    feed = Feeding(data(1), seed=0, hold_out=0.5)
    assert not feed.unseen
    assert numbers(list(feed.epoch(0, 4))) == numbers([feed.held_out()]) == [0]


@pytest.mark.parametrize("windows", [False, True])
def test_validation_data_are_what_is_judged_by(windows: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if windows:
        monkeypatch.setattr(feeding, "_MOST_BYTES", 3 * 64 * images(1).nbytes)
    others = Data({"x": images(30, seed=5)}, np.arange(30) + 1000)
    feed = Feeding(data(), seed=0, hold_out=0.1, validation=others)
    assert sorted(numbers(list(feed.epoch(0, 16)))) == list(range(150))
    assert (feed.trained_on, feed.total, feed.unseen) == (150, 180, True)
    held = feed.held_out()
    assert numbers([held]) == list(range(150, 180))  # of their own, for what a teacher says of each is kept
    np.testing.assert_array_equal(held.feeds["x"].numpy(), others.feeds["x"])
    assert held.labels is not None
    assert held.labels.tolist() == list(range(1000, 1030))


def test_many_validation_samples_are_thinned_out_evenly() -> None:
    values = np.arange(2000, dtype=np.float32)[:, None]
    feed = Feeding(data(), seed=0, hold_out=0.1, validation=Data({"x": values}, np.arange(2000)))
    chosen = feed.held_out().feeds["x"][:, 0].numpy()
    assert len(chosen) == 512
    assert (chosen[0], chosen[-1]) == (0, 1999)
    assert set(np.diff(chosen)) <= {3, 4, 5}


def test_validation_data_without_the_labels_that_are_trained_for_are_of_no_use() -> None:
    feed = Feeding(data(), seed=0, hold_out=0.1, validation=Data({"x": images(30, seed=5)}))
    assert (feed.trained_on, feed.total, len(feed.held_out())) == (135, 150, 15)
    bare = Feeding(Data({"x": images(150)}), seed=0, hold_out=0.1, validation=Data({"x": images(30, seed=5)}))
    assert (bare.trained_on, len(bare.held_out())) == (150, 30)


def test_the_first_batches_can_be_left_out() -> None:
    feed = Feeding(data(), seed=0, hold_out=0.1)
    assert numbers(list(feed.epoch(2, 16)))[32:] == numbers(list(feed.epoch(2, 16, skip=2)))


def test_feeds_enter_a_graph_that_takes_pixels() -> None:
    x = torch.rand(2, 3, 4, 4)
    scale, offset = np.array([0.5, 2.0, 1.0]), np.array([0.1, 0.0, -1.0])
    entered = Entrance({"x": (scale, offset), "z": None})({"x": x, "z": x})
    back = entered["x"] * torch.tensor(scale)[None, :, None, None] + torch.tensor(offset)[None, :, None, None]
    torch.testing.assert_close(back.float(), x)
    assert entered["z"] is x
