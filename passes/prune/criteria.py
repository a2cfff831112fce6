"""What each group offers under a criterion: the order in which its units go, and what that loses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from edgec.ir.channels import Group
from edgec.ir.fingerprints import fingerprints
from edgec.ir.graph import Graph
from edgec.passes.calibration.dataset import ROLE
from edgec.passes.framework.cache import same_data
from edgec.passes.framework.context import Context
from edgec.passes.prune.covariance import Moments, moments
from edgec.passes.prune.cutting import spare
from edgec.passes.prune.elimination import eliminate, ranked
from edgec.passes.prune.magnitude import magnitude
from edgec.passes.prune.readers import Reader, readers

Criterion = Literal["l1", "l2", "geometric_median", "activation", "reconstruction"]
NEEDS_DATA = ("activation", "reconstruction")
_CONSTANT = 1e-10


@dataclass(frozen=True)
class Judged:
    """A group under a criterion.

    Attributes:
        group: which.
        order: the units that may go, first removed first.
        loss: at [k], when k of them are gone.
        constant: units that do not vary on the calibration data, in any layer that reads them.
        rows: the fewest observations that a reader's covariance comes from; ``None`` without one.
    """

    group: Group
    order: np.ndarray
    loss: np.ndarray
    constant: int = 0
    rows: int | None = None


def judge(graph: Graph, groups: Sequence[Group], criterion: Criterion, least: int, ctx: Context) -> list[Judged]:
    """Each group under a criterion; where nothing that reads a group can be judged on data, by l2.

    Args:
        graph: whose groups they are.
        groups: none of them fixed.
        criterion: which.
        least: how many output channels of its first layer each group keeps.
        ctx: the calibration data, for the criteria that need them.

    Raises:
        InputError: there are no samples, or an activation is not finite.
    """
    if criterion not in NEEDS_DATA or ROLE not in ctx.data:
        return _judged(graph, groups, criterion, least, ctx)
    # Tries on copies of one network ask again and again.
    prints = fingerprints(graph)
    network = (*(prints[tensor] for tensor in graph.outputs), *(node.name for g in groups for node in g.producers))
    known: list[Judged] = ctx.cache.of(list, judge, network, criterion, least, same_data(ctx.data[ROLE]))
    if not known:
        known += _judged(graph, groups, criterion, least, ctx)
    return [replace(one, group=group) for one, group in zip(known, groups, strict=True)]


def _judged(graph: Graph, groups: Sequence[Group], criterion: Criterion, least: int, ctx: Context) -> list[Judged]:
    from threadpoolctl import threadpool_limits

    reading = {group: readers(group) for group in groups} if criterion in NEEDS_DATA else {}
    everything = [reader for found in reading.values() for reader in found]
    seen = moments(graph, everything, ctx) if everything else {}
    judged = []
    # Each group on one thread: sums of BLAS on several would depend on their number.
    with threadpool_limits(limits=1), ThreadPoolExecutor(max(1, ctx.threads)) as pool:
        work = pool.map(lambda group: _judge(group, criterion, reading.get(group, []), seen, least), groups)
        for done, found in enumerate(work, 1):
            judged.append(found)
            ctx.progress(done, len(groups), "ranking channels")
    return judged


def _judge(
    group: Group, criterion: Criterion, reading: Sequence[Reader], seen: Mapping[Reader, Moments], least: int
) -> Judged:
    found = None
    constant = 0
    if criterion in NEEDS_DATA and reading:
        powers = np.stack([seen[reader].power for reader in reading])
        spread = np.stack([np.diag(seen[reader].covariance) for reader in reading])
        constant = int((spread <= _CONSTANT * powers.max()).all(axis=0).sum())
        # What does not vary goes into biases: for the reconstruction it is worth nothing, however large.
        worth = powers if criterion == "activation" else spread
        totals = worth.sum(axis=1, keepdims=True)
        scores = (worth / np.where(totals > 0, totals, 1)).sum(axis=0)
        stay = _stay(group, scores, least)
        if criterion == "activation":
            found = ranked(scores, stay)
        else:
            grams = [_gram(reader) for reader in reading]
            found = eliminate(
                [(gram, seen[r].shrunk(), seen[r].rows) for gram, r in zip(grams, reading, strict=True)], stay
            )
    if found is None:
        scores = magnitude(group, "l2" if criterion == "activation" or criterion == "reconstruction" else criterion)
        found = ranked(scores, _stay(group, scores, least))
    rows = min((seen[reader].rows for reader in reading), default=None)
    return Judged(group, found.order, found.loss, constant, rows)


def _stay(group: Group, scores: np.ndarray, least: int) -> np.ndarray:
    """The units that never go: the best, as many as must be kept, and what no tensor can do without."""
    keep = np.zeros(group.width, bool)
    fewest = min(math.ceil(least / group.channels_per_unit), group.width)
    keep[np.argsort(-scores, kind="stable")[:fewest]] = True
    return spare(group, keep, scores)


def _gram(reader: Reader) -> np.ndarray:
    weights = reader.weights()
    return weights @ weights.T
