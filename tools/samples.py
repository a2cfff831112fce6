"""The samples of a run: what passes get, what they choose by, and what is reported on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgec.frontends.datasets import DataSet, Inputs, open_dataset
from edgec.frontends.metrics import Metric, open_metric
from edgec.frontends.preprocess import Preprocess
from edgec.frontends.recipe_data import DataSection
from edgec.ir.execution import batch_size, filled, seeded_feeds
from edgec.ir.graph import Graph
from edgec.passes.calibration.split import Partition, partition

# Below so many samples to calibrate on, figures on other samples vary.
FEW = 32
# Batches of noise that stand for data where there are none; passes that need noise draw other ones.
_NOISE_BATCHES, _NOISE_SEED = 16, 0x0FF5E7


@dataclass(frozen=True)
class Probes:
    """What the reported SQNR is measured on.

    Attributes:
        feeds: batches as the original takes them, of its static batch size.
        each: samples in a batch.
        source: ``eval``, ``train``, ``calibration`` (set aside from it) or ``noise``; ``fitted`` where there were too
            few samples to set any aside, so that passes are fitted to these.
    """

    feeds: Sequence[Mapping[str, np.ndarray]]
    each: int
    source: str

    @property
    def unseen(self) -> bool:
        """Whether nothing is fitted to them."""
        return self.source != "fitted"


@dataclass(frozen=True)
class Samples:
    """The data of a run.

    Attributes:
        sets: by role, whole: ``calibration``, ``train``.
        fit: by role, what passes may fit to, and as ``validation`` what training chooses by.
        metric: of ``data.eval``, on the samples that no pass chooses by; ``None`` without ``data.eval``.
        choosing: the same on the samples that passes choose by; on all of them where none does.
        whole: the metric on all samples, for the manifest.
        notes: what a user should know of them, in sentences.
    """

    sets: Mapping[str, DataSet]
    fit: Mapping[str, DataSet]
    metric: Metric | None
    choosing: Metric | None
    whole: Metric | None
    parts: Partition
    notes: Sequence[str] = field(default=())

    @classmethod
    def opened(
        cls, section: DataSection, preprocess: Preprocess | None, inputs: Inputs, *, hold_out: float, by_metric: bool
    ) -> Samples:
        """Opens what a recipe names and parts it.

        Args:
            section: the recipe's ``data``.
            preprocess: how an image becomes an input.
            inputs: the model's, as :func:`.open_dataset` wants them.
            hold_out: the share of the training samples that epochs are chosen by.
            by_metric: whether a pass chooses by ``data.eval``'s metric. It gets every other sample of it, and what is
                reported is measured on the rest.

        Raises:
            UsageError, InputError: as :func:`.open_dataset` and :func:`.open_metric`.
        """
        specs = {"calibration": section.calibration, "train": section.train}
        sets = {role: open_dataset(spec, preprocess, inputs) for role, spec in specs.items() if spec is not None}
        whole = None if section.eval is None else open_metric(section.eval, preprocess, inputs)
        return cls.parted(sets, whole, hold_out=hold_out, by_metric=by_metric)

    @classmethod
    def parted(
        cls,
        sets: Mapping[str, DataSet],
        whole: Metric | None = None,
        *,
        hold_out: float,
        by_metric: bool = False,
    ) -> Samples:
        """Parts data sets that are open; see :meth:`opened`."""
        metric = choosing = whole
        judged: list[int] = []
        if whole is not None and by_metric and all(len(data) > 1 for data in whole.data):
            metric = whole.restricted([data.subset(range(0, len(data), 2)) for data in whole.data])
            choosing = whole.restricted([data.subset(range(1, len(data), 2)) for data in whole.data])
            starts = np.cumsum([0, *(len(data) for data in whole.data)])
            judged = [
                int(start) + index
                for start, data in zip(starts, whole.data, strict=False)
                for index in range(0, len(data), 2)
            ]
        identities = {role: data.identities() for role, data in sets.items()}
        if whole is not None:
            identities["eval"] = [sample for data in whole.data for sample in data.identities()]
        parts = partition(identities, hold_out, judged)
        fit = {role: _part(data, parts.fit[role]) for role, data in sets.items()}
        if parts.validation:
            fit["validation"] = sets["train"].subset(parts.validation)
        return cls(sets, fit, metric, choosing, whole, parts, _notes(fit, parts, whole, choosing is not whole))

    def probes(self, graph: Graph, seed: int) -> Probes:
        """What the reported SQNR of ``graph``'s descendants is measured on."""
        size = batch_size(graph)
        role = self.parts.unseen_role
        if role == "eval" and self.whole is not None:
            return Probes(_batches(_chosen(self.whole.data, self.parts.unseen), size), size, role)
        if role is not None:
            return Probes(_batches([self.sets[role].subset(self.parts.unseen)], size), size, role)
        fitted = self.fit.get("calibration") or self.fit.get("train")
        if fitted is not None:
            return Probes(_batches([fitted], size), size, "fitted")
        return Probes(seeded_feeds(graph, seed + _NOISE_SEED, _NOISE_BATCHES), size, "noise")


def _part(data: DataSet, indices: Sequence[int]) -> DataSet:
    return data if len(indices) == len(data) else data.subset(indices)


def _chosen(sets: Sequence[DataSet], indices: Sequence[int]) -> list[DataSet]:
    """Parts of several data sets, by indices that count through all of them."""
    parts, start = [], 0
    for data in sets:
        own = [index - start for index in indices if start <= index < start + len(data)]
        parts += [data.subset(own)] if own else []
        start += len(data)
    return parts


def _batches(sets: Sequence[DataSet], size: int) -> list[dict[str, np.ndarray]]:
    """Batches of ``size``, the last of each set filled up with its own last sample."""
    return [
        {name: np.array(filled(values, size)) for name, values in feeds.items()}
        for data in sets
        for feeds in data.batches(size)
    ]


def _notes(fit: Mapping[str, DataSet], parts: Partition, whole: Metric | None, halved: bool) -> list[str]:
    notes = []
    calibration = fit.get("calibration")
    if calibration is not None and len(calibration) < FEW:
        notes.append(
            f"passes were fitted to {len(calibration)} calibration samples: below {FEW}, what holds of them may not"
            " hold of others; give data.calibration more"
        )
    if parts.unseen_role is None and fit:
        notes.append(
            "there were too few samples to set some aside: SQNR was measured on samples that passes were fitted to,"
            " so it says nothing of others, and no requirement of SQNR is met by it; add data.eval, or more samples"
        )
    if whole is not None and parts.fitted_eval:
        count = sum(map(len, whole.data))
        notes.append(
            f"{parts.fitted_eval} of the {count} samples of data.eval are training or calibration samples too: its"
            f" {whole.name} says less than it seems; judge by samples that nothing is fitted to"
        )
    if halved and whole is not None:
        notes.append(
            f"a pass chose by data.eval's {whole.name} on every other sample; what is reported was measured on the rest"
        )
    return notes
