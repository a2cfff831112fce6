"""Which samples nothing is fitted to.

Three uses of data must not meet. Passes are *fitted* to samples: ranges, factors, rounding, training. They *choose* by
others: the epoch, the learning rate. What is *reported* and required is measured on samples that took no part in
either: those of ``data.eval`` or, where there are none, some that are set aside before the first pass.

Samples are told apart by their content, so that an image that lies in two folders, or in two data sets, counts as one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# Reported figures are measured on at most so many samples; below so few of them data.eval is not used for SQNR.
MOST_UNSEEN, _FEWEST_UNSEEN = 64, 4
# Of the calibration or training data every so many samples are set aside, where there are this many at least.
_SET_ASIDE, _FEWEST_TO_SHARE, _MOST_SET_ASIDE = 4, 8, 32
# Training holds out at most so many samples, none where there are fewer than ten, and at least four where that is no
# more than every fifth: by fewer, which epoch is best is chance.
_MOST_HELD_OUT, _FEWEST_TO_HOLD_OUT, _FEWEST_HELD_OUT, _ONE_IN = 512, 10, 4, 5


@dataclass(frozen=True)
class Partition:
    """Which samples of each role are for what; indices rise.

    Attributes:
        fit: by role, ``calibration`` and ``train``, what passes may fit to.
        validation: samples of ``train`` that no pass is fitted to and that training chooses epochs by.
        unseen_role: whose samples the reported SQNR is measured on; ``None`` where none could be spared.
        unseen: which of them.
        fitted_eval: how many samples of ``eval`` are among those that passes may fit to, all the same.
    """

    fit: Mapping[str, tuple[int, ...]]
    validation: tuple[int, ...]
    unseen_role: str | None
    unseen: tuple[int, ...]
    fitted_eval: int


def partition(identities: Mapping[str, Sequence[bytes]], hold_out: float, judged: Sequence[int] = ()) -> Partition:
    """Parts the samples of a recipe's data sets.

    Args:
        identities: by role (``calibration``, ``train``, ``eval``), a hash of each sample's content.
        hold_out: the share of the training samples that epochs are chosen by; 0 where nothing trains.
        judged: the samples of ``eval`` that passes do not choose by; all of them where it is empty.
    """
    calibration, train, evaluated = (list(identities.get(role, ())) for role in ("calibration", "train", "eval"))
    fitted = {*calibration, *train}
    fresh = [index for index in (judged or range(len(evaluated))) if evaluated[index] not in fitted]
    unseen_role: str | None = None
    unseen: list[int] = []
    if len(fresh) >= _FEWEST_UNSEEN:
        unseen_role, unseen = "eval", _spread(fresh, MOST_UNSEEN)
    else:
        calibrated = set(calibration)
        spare = [index for index, sample in enumerate(train) if sample not in calibrated]
        for role, able in (("train", spare), ("calibration", range(len(calibration)))):
            distinct = _distinct(able, identities.get(role, ()))
            if len(distinct) >= _FEWEST_TO_SHARE:
                count = min(len(distinct) // _SET_ASIDE, _MOST_SET_ASIDE)
                # A few training samples that are calibrated on, too, stay what they are wherever that can be.
                trained = set(train) if role == "calibration" else set()
                others = [index for index in distinct if identities[role][index] not in trained]
                unseen_role, unseen = role, _spread(others if len(others) >= count else distinct, count)
                break
    reported = {identities[unseen_role][index] for index in unseen} if unseen_role not in (None, "eval") else set()
    held = _held_out(train, calibration, reported, hold_out)
    chosen_by = {train[index] for index in held}
    fit = {
        role: tuple(i for i, sample in enumerate(identities[role]) if sample not in reported | chosen_by)
        for role in ("calibration", "train")
        if role in identities
    }
    still = {identities[role][index] for role, indices in fit.items() for index in indices} | chosen_by
    return Partition(fit, tuple(held), unseen_role, tuple(unseen), sum(sample in still for sample in evaluated))


def _held_out(train: Sequence[bytes], calibration: Sequence[bytes], reported: set[bytes], share: float) -> list[int]:
    """Samples of ``train`` to choose by: those that are not calibrated on where there are enough."""
    able = _distinct([index for index, sample in enumerate(train) if sample not in reported], train)
    if len(able) < _FEWEST_TO_HOLD_OUT or not share:
        return []
    few = min(_FEWEST_HELD_OUT, len(able) // _ONE_IN)
    count = min(max(round(share * len(able)), few), _MOST_HELD_OUT)
    calibrated = set(calibration)
    spare = [index for index in able if train[index] not in calibrated]
    if len(spare) >= 2 * count:
        return _spread(spare, count)
    return _spread(able, count)


def _distinct(indices: Iterable[int], samples: Sequence[bytes]) -> list[int]:
    """Of samples that are the same the first."""
    first: dict[bytes, int] = {}
    for index in indices:
        first.setdefault(samples[index], index)
    return list(first.values())


def _spread(indices: Sequence[int], most: int) -> list[int]:
    """At most so many, evenly, from the middle of the first stretch to that of the last."""
    count = min(len(indices), most)
    places = ((np.arange(count) + 0.5) * len(indices) / max(count, 1)).astype(int)
    return [indices[place] for place in places]
