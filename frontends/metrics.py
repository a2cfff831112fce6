"""What a network is judged by: metrics that run it over a data set.

A metric runs whatever it is given as ``run``: the original in onnxruntime, the compressed graph, an emitted
file in its own interpreter. It streams: no more than a batch of feeds and outputs is held at a time.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from edgec.frontends.datasets import DataSet, Inputs, open_dataset
from edgec.frontends.metrics_numbers import absolute_error, powers, reconstruction_error
from edgec.frontends.preprocess import Preprocess
from edgec.frontends.python_functions import find_function, run_foreign
from edgec.frontends.recipe_data import EvalSpec, PreprocessSpec
from edgec.ir.errors import InputError, did_you_mean
from edgec.ir.estimates import Hits, Means, Ranks, Scores, Whole
from edgec.ir.execution import filled
from edgec.ir.signal import Signal

Run = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
"""Runs a network: feeds by input name (normalized, as the original takes them) to outputs by output name."""


@dataclass(frozen=True)
class Sample:
    """One sample as a network saw it, without the sample axis."""

    name: str
    feeds: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    label: Any


def samples_of(
    run: Run, data: DataSet, labels: np.ndarray | None, batch_size: int, whole: Collection[str] = ()
) -> Iterator[Sample]:
    """Runs a network over a data set; the last batch is filled up with its last sample, so all have one size.

    Args:
        run: the network.
        data: the samples.
        labels: of each sample, or ``None``.
        batch_size: of each batch.
        whole: outputs that have no sample axis; in batches of one, what they hold is that sample's.

    Raises:
        InputError: an output has no sample axis of a ``batch_size`` above 1, or holds NaN or infinity.
    """
    position = 0
    for feeds in data.batches(batch_size):
        count = len(next(iter(feeds.values())))
        full = {name: filled(array, batch_size) for name, array in feeds.items()}
        outputs = run(full)
        for name, output in outputs.items():
            if batch_size > 1 and (output.ndim == 0 or len(output) != batch_size):
                raise InputError(
                    f"output '{name}'",
                    f"is of shape {list(output.shape)} for a batch of {batch_size}",
                    "a metric needs an output with the samples on its first axis",
                )
        for index in range(count):
            row = {
                name: output if name in whole and batch_size == 1 else _row(output, index, batch_size)
                for name, output in outputs.items()
            }
            sample = data.names[position]
            for name, values in row.items():
                if values.dtype.kind == "f" and not np.isfinite(values).all():
                    raise InputError(
                        sample,
                        f"the network's output '{name}' holds NaN or infinity",
                        "look for overflow in its weights",
                    )
            label = None if labels is None else labels[position]
            inputs = {name: array[index] for name, array in feeds.items()}
            yield Sample(sample, inputs, row, label)
            position += 1


def _row(output: np.ndarray, index: int, batch_size: int) -> np.ndarray:
    """One sample's part of an output; all of it where one is run at a time and the first axis is not the samples'."""
    return output if batch_size == 1 and (output.ndim == 0 or len(output) != 1) else output[index, ...]


class Metric(ABC):
    """A judgement of networks on data.

    Attributes:
        name: as the recipe writes it.
        higher_is_better: which way is better.
        data: the data sets that it reads.
        whole: outputs that have no sample axis, as :func:`samples_of` wants them.
    """

    name: str
    higher_is_better: bool = True
    whole: Collection[str] = frozenset()

    def __init__(self, name: str, data: tuple[DataSet, ...], output: str | None = None) -> None:
        self.name, self.data, self._output = name, data, output

    def measure(self, run: Run, reference: Run, batch_size: int = 1) -> float:
        """The metric of a network: the value of its :meth:`scores`."""
        return self.scores(run, reference, batch_size).value()

    def restricted(self, parts: Sequence[DataSet]) -> Self:
        """The same metric on other data, a part of its own for each of its data sets."""
        other = copy.copy(self)
        other.data = tuple(parts)
        return other

    @abstractmethod
    def scores(self, run: Run, reference: Run, batch_size: int = 1) -> Scores:
        """What a network scores sample by sample, by running it over the data.

        Args:
            run: the network.
            reference: the original network.
            batch_size: the size of each batch, what a model with a static sample axis takes.

        Raises:
            InputError: the data cannot be read, or the outputs cannot be judged.
        """

    def _judged(self, outputs: Mapping[str, np.ndarray], name: str | None = None) -> np.ndarray:
        name = name or self._output or next(iter(outputs))
        if name not in outputs:
            near = did_you_mean(name, list(outputs))
            listed = ", ".join(f"'{known}'" for known in outputs)
            raise InputError(
                f"output '{name}'",
                "the model has no such output",
                f"its outputs are {listed}" + near,
            )
        return outputs[name]


class Auroc(Metric):
    """How well ok and ng are told apart by one score for each sample.

    The score is the mean squared difference of the model's one input and its output where they are of one
    shape (an autoencoder); an output of one value is the score itself, greater for ng.
    """

    def scores(self, run: Run, reference: Run, batch_size: int = 1) -> Scores:
        ok, ng = (
            np.asarray([self._score(sample) for sample in samples_of(run, data, None, batch_size, self.whole)])
            for data in self.data
        )
        return Ranks(ok, ng)

    def _score(self, sample: Sample) -> float:
        output = self._judged(sample.outputs)
        if output.size == 1:
            return float(output.reshape(()))
        x = next(iter(sample.feeds.values()))
        if len(sample.feeds) != 1 or x.shape != output.shape:
            raise InputError(
                "metric auroc",
                f"an output of {list(output.shape)} is neither one score nor a reconstruction of the input"
                f" {list(x.shape)}",
                "name another output, or judge by python: module:function",
            )
        return reconstruction_error(x, output)


class Top1(Metric):
    """The share of samples whose largest output is at the label's position."""

    def __init__(self, name: str, data: tuple[DataSet, ...], output: str | None = None) -> None:
        super().__init__(name, data, output)
        labels = data[0].labels
        if labels is None:
            raise InputError(data[0].source, "has no labels, and the metric is top1", "add an array named 'labels'")
        if labels.ndim != 1 or labels.dtype.kind not in "iu" or labels.min() < 0:
            raise InputError(
                data[0].source, "its labels are not classes", "label each sample with a whole number from 0"
            )

    def scores(self, run: Run, reference: Run, batch_size: int = 1) -> Scores:
        hit = []
        for sample in samples_of(run, self.data[0], self.data[0].labels, batch_size, self.whole):
            logits = self._judged(sample.outputs)
            if sample.label >= logits.size:
                raise InputError(
                    sample.name,
                    f"its label is {sample.label}, and the model's output has {logits.size} classes",
                    "correct the labels",
                )
            hit.append(logits.argmax() == sample.label)
        return Hits(np.array(hit))


class MeanAbsoluteError(Metric):
    """The mean absolute difference to the labels, or to the input where there are none."""

    higher_is_better = False

    def scores(self, run: Run, reference: Run, batch_size: int = 1) -> Scores:
        errors = []
        for sample in samples_of(run, self.data[0], self.data[0].labels, batch_size, self.whole):
            output = self._judged(sample.outputs)
            wanted = next(iter(sample.feeds.values())) if sample.label is None else np.asarray(sample.label)
            if output.size != wanted.size or (sample.label is None and output.shape != wanted.shape):
                against = "input" if sample.label is None else "label"
                raise InputError(
                    "metric mae",
                    f"an output of {list(output.shape)} cannot be compared with the {against} of {list(wanted.shape)}",
                    "label each sample with as many numbers as the model's output has",
                )
            errors.append(absolute_error(output, wanted))
        return Means(np.array(errors)[:, None], lambda means: means[..., 0])


class Sqnr(Metric):
    """Signal to quantization noise against the original, in dB; over several outputs the lowest counts.

    Signal and noise are summed over all samples before the ratio is taken, so a sample of near silence does
    not decide the value. An output without a sample axis may be of another shape than the original's, as a list of
    found boxes may: that sample's is left out then, and counted (:class:`~edgec.ir.signal.Signal`).
    """

    def scores(self, run: Run, reference: Run, batch_size: int = 1) -> Signal:
        rows = []
        other_shape: dict[str, int] = {}
        ours = samples_of(run, self.data[0], None, batch_size, self.whole)
        originals = samples_of(reference, self.data[0], None, batch_size, self.whole)
        for sample, original in zip(ours, originals, strict=True):
            names = list(original.outputs) if self._output is None else [self._output]
            row = []
            for name in names:
                exact = self._judged(original.outputs, name)
                output = sample.outputs.get(name)
                if output is not None and output.shape != exact.shape and name in self.whole:
                    other_shape[name] = other_shape.get(name, 0) + 1
                    row += [0.0, 0.0, 0.0]
                    continue
                if output is None or output.shape != exact.shape:
                    raise InputError(
                        f"output '{name}'",
                        "is not the original's in name and shape",
                        "keep the model's outputs",
                    )
                row += [*powers(exact, output), 1.0]
            rows.append(row)
        return Signal(np.array(rows), _least_decibel, 1, other_shape, len(rows))


class PythonMetric(Metric):
    """A user's function: ``function(samples) -> float``.

    ``samples`` is an iterator of ``(feeds, outputs, label)``, a sample each and without its sample axis: two
    dicts of arrays by name, and the label: 0 for ok and 1 for ng, the data set's own, or None. A function
    whose attribute ``higher_is_better`` is False is an error rather than a score.
    """

    def __init__(self, name: str, data: tuple[DataSet, ...], function: Callable[..., Any], spec: EvalSpec) -> None:
        super().__init__(name, data, spec.output)
        self.higher_is_better = bool(getattr(function, "higher_is_better", True))
        self._function, self._folder = function, spec.folder

    def scores(self, run: Run, reference: Run, batch_size: int = 1) -> Scores:
        ours: list[Exception] = []

        def samples() -> Iterator[tuple[dict[str, np.ndarray], dict[str, np.ndarray], Any]]:
            try:
                for index, data in enumerate(self.data):
                    labels = data.labels if len(self.data) == 1 else np.full(len(data), index)
                    for sample in samples_of(run, data, labels, batch_size, self.whole):
                        yield sample.feeds, sample.outputs, sample.label
            except Exception as error:  # told apart from what the user's function raises, and raised again
                ours.append(error)
                raise

        try:
            got = run_foreign(lambda: self._function(samples()), self.name, self._folder)
        except InputError:
            if ours:  # the network or the data failed, not the user's function
                raise ours[0] from None
            raise
        try:
            value = float(got)
        except (TypeError, ValueError):
            value = math.nan
        if math.isnan(value):
            raise InputError(self.name, f"returned {got!r:.60}, not a number", "return the metric's value")
        return Whole(value, sum(map(len, self.data)))


def _least_decibel(means: np.ndarray) -> np.ndarray:
    """The least ratio in dB over the outputs that were compared.

    Means of signal, noise, and the share of samples that were compared lie side by side on the last axis.
    """
    signal, noise, compared = means[..., 0::3], means[..., 1::3], means[..., 2::3]
    with np.errstate(divide="ignore", invalid="ignore"):
        levels = 10 * np.log10(signal / noise)
    # Infinite without noise, minus infinite with noise and no signal.
    levels = np.where(noise == 0, np.inf, np.where(signal > 0, levels, -np.inf))
    return np.where((compared > 0).any(axis=-1), levels.min(axis=-1), -np.inf)


_METRICS: dict[str, type[Metric]] = {"auroc": Auroc, "top1": Top1, "mae": MeanAbsoluteError, "sqnr": Sqnr}


def open_metric(spec: EvalSpec, preprocess: PreprocessSpec | Preprocess | None, inputs: Inputs) -> Metric:
    """The metric of a recipe's ``data.eval`` with its data sets open; no sample is decoded yet.

    Raises:
        UsageError, InputError: as :func:`~edgec.frontends.datasets.open_dataset`; top1 without class labels.
    """
    classes = spec.classes()
    data = tuple(open_dataset(part, preprocess, inputs) for part in classes or (spec,))
    if spec.metric.startswith("python:"):
        function = find_function(spec.metric.removeprefix("python:"), spec.folder, spec.where)
        return PythonMetric(spec.metric, data, function, spec)
    return _METRICS[spec.metric](spec.metric, data, spec.output)
