"""Samples for training: every one once an epoch, in an order that the seed says, in memory or in windows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from training import Data, images

from edgec.passes.training import feeding
from edgec.passes.training.feeding import Batch, Entrance, Feeding


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


def test_of_few_samples_none_is_held_out() -> None:
    feed = Feeding(data(9), seed=0, hold_out=0.5)
    assert feed.trained_on == 9
    assert sorted(numbers(list(feed.epoch(0, 4)))) == sorted(numbers([feed.held_out()])) == list(range(9))


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
