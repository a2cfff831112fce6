"""Images that resemble each other are told from those that were drawn independently."""

import numpy as np

from edgec.passes.calibration.near_duplicates import MOST_IMAGES, groups_of, halves


def test_crops_of_one_photograph_are_one_group() -> None:
    random = np.random.Generator(np.random.PCG64(0))
    photographs = random.normal(size=(6, 40))
    shown = np.tile(np.arange(6), 5)
    crops = photographs[shown] + 0.2 * random.normal(size=(30, 40))
    assert groups_of([crops, 100 * crops]).tolist() == shown.tolist()


def test_independent_images_stay_alone() -> None:
    random = np.random.Generator(np.random.PCG64(1))
    assert groups_of([random.normal(size=(30, 40))]).tolist() == list(range(30))


def test_equal_images_are_one_group() -> None:
    assert groups_of([np.ones((8, 3))]).tolist() == [0] * 8


def test_more_images_than_are_compared_stay_alone() -> None:
    assert groups_of([np.ones((MOST_IMAGES + 1, 2))]).tolist() == list(range(MOST_IMAGES + 1))


def test_halves_leave_groups_whole_and_are_of_like_size() -> None:
    groups = np.array([0, 0, 0, 1, 2, 2, 3, 1])
    half = halves(groups)
    assert half.tolist() == [0, 0, 0, 1, 1, 1, 0, 1]


def test_one_group_cannot_be_halved() -> None:
    assert halves(np.zeros(5, np.int64)).tolist() == [0] * 5
