"""What is fitted to, what is chosen by and what is reported do not meet."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgec.passes.calibration.split import partition


def named(*numbers: int) -> list[bytes]:
    return [str(number).encode() for number in numbers]


ids = st.lists(st.integers(0, 60), max_size=60).map(lambda numbers: named(*numbers))


@given(ids, ids, ids, st.sampled_from([0.0, 0.1, 0.3]))
def test_no_sample_serves_two_uses(
    calibration: Sequence[bytes], train: Sequence[bytes], evaluated: Sequence[bytes], share: float
) -> None:
    sets = {"calibration": calibration, "train": train, "eval": evaluated}
    parts = partition({role: samples for role, samples in sets.items() if samples}, share)
    fitted = {sets[role][i] for role, indices in parts.fit.items() for i in indices}
    chosen = {train[i] for i in parts.validation}
    unseen = {sets[parts.unseen_role][i] for i in parts.unseen} if parts.unseen_role else set()
    assert not fitted & chosen and not fitted & unseen and not chosen & unseen
    for role, indices in parts.fit.items():
        assert list(indices) == sorted(indices)
        assert len(indices) >= len(set(sets[role])) * 0.4  # passes keep the better part of what they were given


def test_eval_is_what_is_reported_on_where_it_is_new() -> None:
    parts = partition({"calibration": named(*range(32)), "eval": named(*range(100, 140))}, 0)
    assert parts.unseen_role == "eval" and len(parts.unseen) == 40
    assert parts.fit["calibration"] == tuple(range(32)) and parts.fitted_eval == 0


def test_an_eval_that_is_the_training_set_is_no_proof() -> None:
    parts = partition({"calibration": named(*range(40)), "eval": named(*range(40))}, 0)
    assert parts.unseen_role == "calibration" and len(parts.unseen) == 10
    assert parts.fitted_eval == 30


def test_training_samples_that_are_not_calibrated_on_are_set_aside_first() -> None:
    parts = partition({"calibration": named(*range(64)), "train": named(*range(200))}, 0.1)
    assert parts.unseen_role == "train" and len(parts.unseen) == 32 and min(parts.unseen) >= 64
    assert parts.fit["calibration"] == tuple(range(64))
    assert len(parts.validation) == 17 and min(parts.validation) >= 64


def test_one_set_for_both_gives_up_some_of_each() -> None:
    parts = partition({"calibration": named(*range(32)), "train": named(*range(32))}, 0.1)
    assert len(parts.unseen) == 8 and len(parts.validation) == 4
    assert parts.fit["calibration"] == parts.fit["train"] and len(parts.fit["train"]) == 20


def test_few_samples_are_all_fitted_to() -> None:
    parts = partition({"calibration": named(*range(7))}, 0)
    assert parts.unseen_role is None and parts.unseen == () and len(parts.fit["calibration"]) == 7


def test_copies_of_one_sample_are_one() -> None:
    parts = partition({"calibration": named(*[1] * 50)}, 0)
    assert parts.unseen_role is None and len(parts.fit["calibration"]) == 50


def test_only_samples_of_eval_that_passes_do_not_choose_by_are_reported_on() -> None:
    parts = partition({"calibration": named(1, 2), "eval": named(*range(10, 30))}, 0, judged=range(0, 20, 2))
    assert parts.unseen_role == "eval" and parts.unseen == tuple(range(0, 20, 2))


@pytest.mark.parametrize(("count", "held"), [(8, 0), (12, 0), (16, 2), (24, 3), (28, 4), (64, 5), (400, 37)])
def test_enough_are_held_out_to_choose_by(count: int, held: int) -> None:
    """A tenth; of few samples four, or every fifth of those that are not reported on."""
    parts = partition({"train": [f"sample {number}".encode() for number in range(count)]}, 0.1)
    assert len(parts.validation) == held
    assert not set(parts.validation) & set(parts.fit["train"]) | set(parts.validation) & set(parts.unseen)


def test_a_training_sample_that_is_calibrated_on_stays_one() -> None:
    calibration = [str(number).encode() for number in (6, 7, 1, 0, 2, 3, 4, 5)]
    parts = partition({"calibration": calibration, "train": [b"1"]}, 0.0)
    assert parts.fit["train"] == (0,)
    assert parts.unseen_role == "calibration" and len(parts.unseen) == 2
