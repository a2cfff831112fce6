"""Samples from anything in Python that can be gone through: a list of arrays, rows of a table, a loader of batches.

A sequence (it has a length and takes an index) is asked for one sample at a time. Anything else is gone through anew
for a reading, and must give the same samples in the same order; it may give them in batches, as a torch loader does.
What was read once is kept where there is room (:class:`~edgec.frontends.sample_store.SampleStore`).

A sample is an array without a sample axis (models of one input), a mapping of input name to array, or a pair of either
with its label.
"""

from __future__ import annotations

import copy
import hashlib
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np

from edgec.frontends.datasets_images import array_digest, sample_digests
from edgec.frontends.datasets_signature import Inputs, agrees, check_finite, check_sample, quoted, without_batch
from edgec.frontends.image_files import evenly
from edgec.frontends.python_functions import run_foreign
from edgec.frontends.sample_store import SampleStore
from edgec.ir.errors import InputError, did_you_mean

MOST_SAMPLES = 10_000_000
"""An iterable of more samples is taken to have no end."""


class IterableData:
    """The samples of an object of the user's.

    Args:
        call: gives the object: a sequence, or an iterable that each call gives anew.
        inputs: of the model.
        source: what messages call it.
        folder: where modules of the user's are found while his code runs.
        samples: how many to use, evenly spaced; all by default.
        transform: what is done to each item before it is looked at.

    Raises:
        InputError: the user's code failed, or gave what is no data set for the model.
    """

    def __init__(
        self,
        call: Callable[[], Any],
        inputs: Inputs,
        *,
        source: str,
        folder: Path | None = None,
        samples: int | None = None,
        transform: Callable[[Any], Any] | None = None,
    ) -> None:
        self.source = source
        self._call, self._inputs, self._folder, self._transform = call, inputs, folder or Path.cwd(), transform
        self._store = SampleStore()
        self._labels: dict[int, Any] = {}  # of the samples that were read, by their number
        self._samples = self._guard(call)
        self._indexed = hasattr(self._samples, "__getitem__") and hasattr(self._samples, "__len__")
        if isinstance(self._samples, list | tuple) and self._samples:  # which may be of batches
            first = self._transformed(partial(_same, self._samples[0]))
            self._indexed = len(list(islice(self._taken_apart(first, f"{source}: sample 0"), 2))) == 1
        if self._indexed and not isinstance(self._samples, Mapping):
            count = self._guard(lambda: len(self._samples))
        elif isinstance(self._samples, Iterable) and not isinstance(self._samples, Mapping):
            count = sum(1 for _ in islice(self._iterate(), MOST_SAMPLES + 1))
            if count > MOST_SAMPLES:
                raise InputError(self.source, f"gives more than {MOST_SAMPLES:,} samples", "let it come to an end")
        else:
            raise InputError(
                self.source,
                f"returned {type(self._samples).__name__}, not samples",
                "return a sequence or an iterable of samples",
            )
        if count == 0:
            raise InputError(self.source, "returned no sample", "return at least one")
        self._chosen: Sequence[int] = evenly(count, samples)
        self.names = [f"{self.source}: sample {index}" for index in self._chosen]

    def __len__(self) -> int:
        return len(self._chosen)

    @cached_property
    def labels(self) -> np.ndarray | None:
        """The labels, gathered in one reading when first asked for; None where there are none."""
        gathered = [label for _, label in self._read(self._chosen)]
        if all(label is None for label in gathered):
            return None
        try:
            labels = np.stack([np.asarray(label) for label in gathered])
        except ValueError as error:
            raise InputError(self.source, "labels differ in shape", "give each sample one alike") from error
        if labels.dtype.kind not in "biuf":
            raise InputError(self.source, "labels are not numbers", "give each sample a number or an array")
        check_finite(labels, f"{self.source}: labels", self._chosen)
        return labels

    def batches(self, size: int, indices: Sequence[int] | None = None) -> Iterator[dict[str, np.ndarray]]:
        """Asks for ``size`` samples at a time. Raises InputError naming the first that cannot be used."""
        chosen = self._chosen if indices is None else [self._chosen[index] for index in indices]
        samples = self._read(chosen)
        for begin in range(0, len(chosen), size):
            numbers = chosen[begin : begin + size]
            batch = [next(samples)[0] for _ in numbers]
            feeds = {name: np.stack([feed[name] for feed in batch]) for name in self._inputs}
            for name, array in feeds.items():
                check_finite(array, f"{self.source}: input '{name}'", numbers)
            yield feeds

    def subset(self, indices: Sequence[int]) -> Self:
        """The samples at some indices, rising."""
        part = copy.copy(self)
        part._chosen = [self._chosen[index] for index in indices]
        part.names = [self.names[index] for index in indices]
        part.__dict__.pop("labels", None)
        return part

    def identities(self) -> list[bytes]:
        """For each sample the sha256 of its arrays."""
        return [digest for feeds in self.batches(1) for digest in sample_digests(feeds)]

    def content_hash(self) -> str:
        """The sha256 of the samples' values and labels, in one reading."""
        total = hashlib.sha256()
        for feed, label in self._read(self._chosen):
            for name in self._inputs:
                total.update(name.encode() + b"\0" + array_digest(feed[name]))
            if label is not None:
                total.update(array_digest(np.asarray(label)))
        return total.hexdigest()

    def _read(self, chosen: Sequence[int]) -> Iterator[tuple[dict[str, np.ndarray], Any]]:
        """The samples of some numbers, rising, each with its label."""
        if self._indexed:
            for number in chosen:
                kept = self._kept(number)
                yield kept or self._sample(number, self._transformed(partial(operator.getitem, self._samples, number)))
            return
        read = 0
        while read < len(chosen) and (kept := self._kept(chosen[read])) is not None:
            yield kept
            read += 1
        if read == len(chosen):
            return
        wanted = set(chosen[read:])
        for number, item in enumerate(self._iterate()):
            if number in wanted:
                yield self._sample(number, item)
                read += 1
                if read == len(chosen):
                    return
        raise InputError(
            self.source,
            f"gave {read} samples of {len(chosen)} in a later reading",
            "give the same ones each time",
        )

    def _kept(self, number: int) -> tuple[dict[str, np.ndarray], Any] | None:
        if number not in self._labels:
            return None
        feed = {name: self._store.get((number, name)) for name in self._inputs}
        whole = {name: array for name, array in feed.items() if array is not None}
        return (whole, self._labels[number]) if len(whole) == len(feed) else None

    def _sample(self, number: int, item: Any) -> tuple[dict[str, np.ndarray], Any]:
        where = f"{self.source}: sample {number}"
        item, label = _with_label(item, where)
        feed = {}
        for name, value in self._by_input(item, where).items():
            array = without_batch(_array(value, name, where), self._inputs[name][0])
            check_sample(where, name, array.shape, array.dtype, self._inputs, rows=False)
            feed[name] = array
            self._store.put((number, name), array.copy())  # what the user gave may be a buffer that he fills again
        self._labels[number] = label
        return feed, label

    def _by_input(self, item: Any, where: str) -> dict[str, Any]:
        if not isinstance(item, Mapping):
            if len(self._inputs) != 1:
                fix = f"give a mapping with {quoted(list(self._inputs))}"
                raise InputError(where, f"is one array, and the model has {len(self._inputs)} inputs", fix)
            return {next(iter(self._inputs)): item}
        for name in self._inputs:
            if name not in item:
                near = did_you_mean(name, [str(key) for key in item])
                raise InputError(where, f"lacks the model's input '{name}'", "add it to the mapping" + near)
        return {name: item[name] for name in self._inputs}

    def _iterate(self) -> Iterator[Any]:
        """The samples one by one; batches are taken apart."""
        samples = self._guard(self._call)
        iterator = self._guard(lambda: iter(samples))
        end = object()
        number = 0
        while (item := self._guard(lambda: next(iterator, end))) is not end:
            for sample in self._taken_apart(self._transformed(partial(_same, item)), f"{self.source}: sample {number}"):
                number += 1
                yield sample

    def _taken_apart(self, item: Any, where: str) -> Iterator[Any]:
        """The samples of an item, where all its arrays have a sample axis; else the item itself."""
        inside, label = _with_label(item, where)
        if isinstance(inside, Mapping) and not set(self._inputs) <= set(inside):
            yield item  # what is missing is said of the sample
            return
        if not isinstance(inside, Mapping) and len(self._inputs) != 1:
            yield item
            return
        arrays = {name: _array(value, name, where) for name, value in self._by_input(inside, where).items()}
        lengths = {len(array) for array in arrays.values() if array.ndim}
        if len(lengths) != 1 or not all(self._is_batch(name, array) for name, array in arrays.items()):
            yield item
            return
        [count] = lengths
        labels = [None] * count if label is None else _rows_of_labels(label, count, where)
        for row in range(count):
            sample = {name: array[row] for name, array in arrays.items()}
            yield sample if label is None else (sample, labels[row])

    def _is_batch(self, name: str, array: np.ndarray) -> bool:
        shape = self._inputs[name][0]
        return array.ndim == len(shape) and agrees(array.shape[1:], shape[1:])

    def _transformed(self, item: Callable[[], Any]) -> Any:
        transform = self._transform
        return self._guard(item if transform is None else lambda: transform(item()))

    def _guard(self, call: Callable[[], Any]) -> Any:
        return run_foreign(call, self.source, self._folder)


def _same(item: Any) -> Any:
    return item


def _with_label(item: Any, where: str) -> tuple[Any, Any]:
    """A sample, or a batch, and its label; ``None`` where it has none.

    A torch loader makes lists of what a data set gives as tuples; any other list is an array's rows.
    """
    loaded = isinstance(item, list) and len(item) in (1, 2) and all(map(_is_tensor, item))
    if not isinstance(item, tuple) and not loaded:
        return item, None
    if len(item) == 1:
        return item[0], None
    if len(item) != 2:
        raise InputError(where, f"is a tuple of {len(item)}", "give (sample, label)")
    return item[0], item[1]


def _is_tensor(value: Any) -> bool:
    """Whether it is one of torch's, which need not be installed."""
    return hasattr(value, "detach")


def _array(value: Any, name: str, where: str) -> np.ndarray:
    if _is_tensor(value):  # a torch tensor, which may be on a device or in a gradient's graph
        value = value.detach().cpu()
    try:
        return np.asarray(value)
    except (ValueError, TypeError) as error:
        raise InputError(where, f"gives no array for '{name}'", "give rows of one length") from error


def _rows_of_labels(label: Any, count: int, where: str) -> np.ndarray:
    labels = _array(label, "labels", where)
    if not labels.ndim or len(labels) != count:
        got = len(labels) if labels.ndim else "no"
        raise InputError(where, f"has {got} labels for {count} samples", "give each sample one")
    return labels
