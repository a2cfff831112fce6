"""Folders of images as a data set: listed at once, decoded when a batch first asks for it."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from edgec.frontends.datasets_signature import Feed, agrees, times
from edgec.frontends.image_files import evenly, images_in
from edgec.frontends.preprocess import Preprocess
from edgec.frontends.recipe_data import missing_folder
from edgec.frontends.sample_store import SampleStore
from edgec.ir.errors import InputError, UsageError


class ImageFolder:
    """The images under some folders, sorted by their POSIX path inside each, the folders in the order given.

    Attributes:
        labels: one for each image, or None; set by who reads them.
        files: the images that were chosen.
        relative: for each, its POSIX path inside its folder.
        folders: the folders.

    Raises:
        InputError: a folder is missing, cannot be read or holds no image.
        UsageError: an image lies under two of the folders.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        preprocess: Preprocess,
        feed: Feed,
        *,
        samples: int | None = None,
        where: str = "",
    ) -> None:
        self.folders = tuple(folders)
        self.labels: np.ndarray | None = None
        self._preprocess, self._feed = preprocess, feed
        files: list[tuple[Path, str]] = []
        for folder in self.folders:
            if fault := missing_folder(folder):
                raise InputError(where, *fault)
            try:
                found = images_in(folder)
            except OSError as error:
                raise InputError(
                    str(error.filename or folder),
                    f"cannot be read ({error.strerror})",
                    "check its permissions",
                ) from error
            files += [(path, path.relative_to(folder).as_posix()) for path in found]
        seen: set[Path] = set()
        for path, _ in files:
            if path in seen:
                raise UsageError(where, f"'{path}' lies under two of the folders", "name the outer one only")
            seen.add(path)
        chosen = [files[index] for index in evenly(len(files), samples)]
        self.files = [path for path, _ in chosen]
        self.relative = [name for _, name in chosen]
        self._pixels = SampleStore()
        self._digests: dict[Path, bytes] = {}

    @property
    def source(self) -> str:
        return ", ".join(map(str, self.folders))

    @property
    def names(self) -> list[str]:
        return [str(path) for path in self.files]

    def __len__(self) -> int:
        return len(self.files)

    def batches(self, size: int, indices: Sequence[int] | None = None) -> Iterator[dict[str, np.ndarray]]:
        """Decodes ``size`` images at a time. Raises InputError at the first that cannot be used."""
        files = self.files if indices is None else [self.files[index] for index in indices]
        for begin in range(0, len(files), size):
            yield {self._feed.name: np.stack([self._decode(path) for path in files[begin : begin + size]])}

    def _decode(self, path: Path) -> np.ndarray:
        pixels = self._pixels.get(path)
        if pixels is None:
            pixels = self._preprocess.raw(path)
            self._pixels.put(path, pixels)
        x = self._preprocess.normalize(pixels)
        if not agrees(x.shape, self._feed.shape):
            height_width = self._feed.shape[1:] if self._preprocess.spec.layout == "nchw" else self._feed.shape[:2]
            raise InputError(
                str(path),
                f"comes out as {times(x.shape)}, but the model's input '{self._feed.name}' takes"
                f" {times(self._feed.shape)}",
                f"set size: [{', '.join(map(str, height_width))}] in data.preprocess",
            )
        return x.astype(self._feed.dtype, copy=False)

    def subset(self, indices: Sequence[int]) -> ImageFolder:
        """The images at some indices, rising; what is decoded is shared."""
        part = copy.copy(self)
        part.files = [self.files[index] for index in indices]
        part.relative = [self.relative[index] for index in indices]
        part.labels = None if self.labels is None else self.labels[list(indices)]
        return part

    def identities(self) -> list[bytes]:
        """For each image the sha256 of its file."""
        return [self._digest(path) for path in self.files]

    def _digest(self, path: Path) -> bytes:
        if path not in self._digests:
            self._digests[path] = file_digest(path)
        return self._digests[path]

    def content_hash(self) -> str:
        """The sha256 of the images' paths inside their folders and of their bytes, and of the labels."""
        total = hashlib.sha256()
        for path, name in zip(self.files, self.relative, strict=True):
            total.update(os.fsencode(name) + b"\0" + self._digest(path))
        if self.labels is not None:
            total.update(array_digest(self.labels))
        return total.hexdigest()


def file_digest(path: Path) -> bytes:
    """A file's sha256, read in pieces. Raises InputError where it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError as error:
        raise InputError(str(path), f"cannot be read ({error.strerror})", "leave the data as it is") from error


def array_digest(array: np.ndarray) -> bytes:
    """The sha256 of an array's dtype, shape and values."""
    head = f"{array.dtype.str} {array.shape}\n".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).digest()


def sample_digests(feeds: Mapping[str, np.ndarray]) -> list[bytes]:
    """For each sample of a batch the sha256 of its values, whatever its inputs are called."""
    rows = zip(*(feeds[name] for name in sorted(feeds)), strict=True)
    return [hashlib.sha256(b"".join(array_digest(np.asarray(values)) for values in row)).digest() for row in rows]
