"""Samples for :func:`edgec.compile` and :class:`edgec.Pipeline` from Python: whatever can be gone through."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgec.frontends.datasets_iterable import IterableData
    from edgec.frontends.datasets_signature import Inputs


class Dataset:
    """Samples that calibrate, train or judge a network.

    >>> edgec.Dataset(loader)                                      # a torch DataLoader of (images, labels)
    >>> edgec.Dataset(arrays)                                      # a list of arrays, or an array of rows
    >>> edgec.Dataset(rows, lambda row: (row["image"], row["label"]))   # a data set of rows with names
    >>> edgec.Dataset(generator)                                   # a function that is called for each reading

    A sample is an array without a sample axis (models of one input), a mapping of input name to array, or a pair of
    either with its label. What gives batches of them is taken apart.

    Args:
        samples: a sequence; an iterable that can be gone through again and again; or a function that returns either.
        transform: what is done to each item before it is looked at.
        count: how many samples to use, evenly spaced; all by default.
        name: what messages call it.
    """

    def __init__(
        self,
        samples: Iterable[Any] | Sequence[Any] | Callable[[], Iterable[Any]],
        transform: Callable[[Any], Any] | None = None,
        *,
        count: int | None = None,
        name: str = "the data set",
    ) -> None:
        if hasattr(samples, "__next__"):
            raise TypeError("a generator can be gone through only once: give the function that makes it")
        if type(getattr(samples, "sampler", None)).__name__ == "RandomSampler":
            raise TypeError("a loader that shuffles gives other samples in each reading: make it with shuffle=False")
        self.samples, self.transform, self.count, self.name = samples, transform, count, name

    def bound(self, inputs: Inputs) -> IterableData:
        """The samples as a model with these inputs takes them.

        Raises:
            edgec.ir.errors.InputError: they are not what the model takes; the line names the first that is not.
        """
        from edgec.frontends.datasets_iterable import IterableData

        samples = self.samples
        again = samples if callable(samples) and not hasattr(samples, "__getitem__") else lambda: samples
        return IterableData(again, inputs, source=self.name, samples=self.count, transform=self.transform)
