"""The samples that calibrate, train and judge a network, read a batch at a time.

A data set gives its samples in one fixed order, any of them by their indices, and decodes each once where there is
room to keep it (:mod:`~edgec.frontends.sample_store`). Its feeds are inputs of the network as
it came in, normalized; who changes the domain of an input (the ``normalize`` pass) maps the feeds back
himself, by the inverse of :meth:`~edgec.frontends.preprocess.Preprocess.affine`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, Self

import numpy as np

from edgec.frontends.datasets_arrays import Arrays
from edgec.frontends.datasets_images import ImageFolder
from edgec.frontends.datasets_labels import read_labels
from edgec.frontends.datasets_python import PythonData
from edgec.frontends.datasets_signature import Inputs, feed_images, inputs_of
from edgec.frontends.preprocess import Preprocess
from edgec.frontends.recipe_data import DataSpec, PreprocessSpec
from edgec.frontends.recipe_values import HeldSamples

__all__ = ["Arrays", "DataSet", "ImageFolder", "Inputs", "PythonData", "inputs_of", "open_dataset"]


class DataSet(Protocol):
    """Samples for a network.

    Attributes:
        labels: one for each sample on the first axis, or None.
        source: the folder, file or function that it comes from, for messages.
        names: what each sample is called in messages and reports: an image's path, or the sample's number.
    """

    @property
    def labels(self) -> np.ndarray | None: ...

    @property
    def source(self) -> str: ...

    @property
    def names(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def batches(self, size: int, indices: Sequence[int] | None = None) -> Iterator[dict[str, np.ndarray]]:
        """Feeds by input name, the samples on the first axis, ``size`` of them, fewer in the last.

        Args:
            size: samples in a batch.
            indices: of the samples that are read, rising; all by default.
        """
        ...

    def subset(self, indices: Sequence[int]) -> Self:
        """The samples at some indices, rising; the same data set otherwise."""
        ...

    def identities(self) -> list[bytes]:
        """For each sample a hash of its content: equal where two samples, of whichever data sets, are the same one.

        Images are told by their files' bytes, all else by its values, so an image and an array are never the same.
        """
        ...

    def content_hash(self) -> str:
        """The sha256, in hex, of the names and the content of the samples and labels."""
        ...


def open_dataset(spec: DataSpec, preprocess: PreprocessSpec | Preprocess | None, inputs: Inputs) -> DataSet:
    """Opens what a recipe names and checks it against a model's inputs; no sample is decoded.

    Args:
        spec: a data set of the recipe.
        preprocess: the recipe's ``data.preprocess``; only images need one.
        inputs: for each input of the model its shape, sample axis first (an int, or a name or None where it
            is open), and its dtype.

    Raises:
        UsageError: the preprocessing does not make what the model takes, or a function cannot be found.
        InputError: files are missing, broken, empty, or of another shape or dtype than the model takes.
    """
    if spec.arrays is not None:
        return Arrays(spec.arrays, _named(inputs), samples=spec.samples)
    if isinstance(spec.python, HeldSamples):
        held: DataSet = spec.python.bound(_named(inputs))
        return held
    if spec.python is not None:
        return PythonData(spec.python, spec.folder, _named(inputs), samples=spec.samples, where=spec.where)
    if not isinstance(preprocess, Preprocess):
        preprocess = Preprocess(preprocess or PreprocessSpec())
    feed = feed_images(preprocess.spec, _named(inputs), spec.where)
    folder = ImageFolder(spec.images or (), preprocess, feed, samples=spec.samples, where=spec.where)
    if spec.labels is not None:
        folder.labels = read_labels(spec.labels, folder)
    return folder


def _named(inputs: Mapping[str, tuple[Sequence[int | str | None], np.dtype]]) -> Inputs:
    return {name: (tuple(shape), np.dtype(dtype)) for name, (shape, dtype) in inputs.items()}
