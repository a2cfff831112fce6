"""Samples from a Python function that the recipe names: ``python: module:function``.

Only such keys let a recipe run code. The module is looked for in the recipe's folder first. The function
takes no argument and returns the samples: a sequence, which is asked for one sample at a time, or an
iterable, which is gone through anew (the function called again) for each reading and must give the same
samples in the same order. A sample is an array without a sample axis (models of one input), a mapping of
input name to array, or a pair of either with its label.
"""

from __future__ import annotations

import copy
import hashlib
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from edgec.frontends.datasets_images import array_digest, sample_digests
from edgec.frontends.datasets_signature import Inputs, check_finite, check_sample, quoted, without_batch
from edgec.frontends.image_files import evenly
from edgec.frontends.python_functions import find_function, run_foreign
from edgec.ir.errors import InputError, did_you_mean

MOST_SAMPLES = 10_000_000
"""An iterable of more samples is taken to have no end."""


class PythonData:
    """The samples that a function returns.

    Attributes:
        source: ``python: module:function``.

    Raises:
        UsageError: there is no such module or function.
        InputError: the function failed, or returned what is no data set for the model.
    """

    def __init__(
        self, function: str, folder: Path, inputs: Inputs, *, samples: int | None = None, where: str = ""
    ) -> None:
        self.source = f"python: {function}"
        self._folder, self._inputs = folder, inputs
        self._function = find_function(function, folder, where)
        self._samples = self._call()
        self._indexed = hasattr(self._samples, "__getitem__") and hasattr(self._samples, "__len__")
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
        found = [label for _, label in self._read()]
        if all(label is None for label in found):
            return None
        try:
            labels = np.stack([np.asarray(label) for label in found])
        except ValueError as error:
            raise InputError(self.source, "labels differ in shape", "give each sample one alike") from error
        if labels.dtype.kind not in "biuf":
            raise InputError(self.source, "labels are not numbers", "give each sample a number or an array")
        check_finite(labels, f"{self.source}: labels", self._chosen)
        return labels

    def batches(self, size: int) -> Iterator[dict[str, np.ndarray]]:
        """Asks for ``size`` samples at a time. Raises InputError naming the first that cannot be used."""
        samples = self._read()
        for begin in range(0, len(self), size):
            numbers = self._chosen[begin : begin + size]
            batch = [next(samples)[0] for _ in numbers]
            feeds = {name: np.stack([feed[name] for feed in batch]) for name in self._inputs}
            for name, array in feeds.items():
                check_finite(array, f"{self.source}: input '{name}'", numbers)
            yield feeds

    def subset(self, indices: Sequence[int]) -> PythonData:
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
        for feed, label in self._read():
            for name in self._inputs:
                total.update(name.encode() + b"\0" + array_digest(feed[name]))
            if label is not None:
                total.update(array_digest(np.asarray(label)))
        return total.hexdigest()

    def _read(self) -> Iterator[tuple[dict[str, np.ndarray], Any]]:
        if self._indexed:
            items = (self._guard(partial(operator.getitem, self._samples, index)) for index in self._chosen)
        else:
            wanted = set(self._chosen)
            items = (item for index, item in enumerate(self._iterate()) if index in wanted)
        read = 0
        for name, item in zip(self.names, items, strict=False):
            yield self._sample(name, item)
            read += 1
        if read < len(self):
            raise InputError(
                self.source,
                f"gave {read} samples of {len(self)} in a later reading",
                "give the same ones each time",
            )

    def _sample(self, where: str, item: Any) -> tuple[dict[str, np.ndarray], Any]:
        label = None
        if isinstance(item, tuple):
            if len(item) != 2:
                raise InputError(where, f"is a tuple of {len(item)}", "give (sample, label)")
            item, label = item
        if not isinstance(item, Mapping):
            if len(self._inputs) != 1:
                mend = f"give a mapping with {quoted(list(self._inputs))}"
                raise InputError(where, f"is one array, and the model has {len(self._inputs)} inputs", mend)
            item = {next(iter(self._inputs)): item}
        feed = {}
        for input_name in self._inputs:
            if input_name not in item:
                near = did_you_mean(input_name, [str(key) for key in item])
                raise InputError(
                    where,
                    f"lacks the model's input '{input_name}'",
                    "add it to the mapping" + near,
                )
            try:
                array = np.asarray(item[input_name])
            except ValueError as error:
                raise InputError(where, f"gives no array for '{input_name}'", "give rows of one length") from error
            array = without_batch(array, self._inputs[input_name][0])
            check_sample(where, input_name, array.shape, array.dtype, self._inputs, rows=False)
            feed[input_name] = array
        return feed, label

    def _call(self) -> Any:
        return self._guard(self._function)

    def _iterate(self) -> Iterator[Any]:
        samples = self._call()
        iterator = self._guard(lambda: iter(samples))
        end = object()
        while (item := self._guard(lambda: next(iterator, end))) is not end:
            yield item

    def _guard(self, call: Callable[[], Any]) -> Any:
        return run_foreign(call, self.source, self._folder)
