"""Arrays in an .npz or .npy file as a data set, read a batch at a time whatever the file's size.

An .npy file's rows lie one after the other, and an .npz is a zip of such files: rows are read, and
decompressed, as they are asked for. The format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import copy
import hashlib
import math
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np

from edgec.frontends.datasets_images import file_digest, sample_digests
from edgec.frontends.datasets_signature import Inputs, check_finite, check_sample, quoted, rows_of
from edgec.frontends.image_files import evenly
from edgec.frontends.sample_store import SampleStore
from edgec.ir.errors import InputError, did_you_mean

_BROKEN = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class _Column:
    """One array: its header, and where its rows begin."""

    shape: tuple[int, ...]
    dtype: np.dtype
    start: int

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * self.dtype.itemsize


class Arrays:
    """The rows of arrays named for a model's inputs.

    Attributes:
        labels: the array ``labels`` of the .npz, one row for each sample, or None.
        source: the file.

    Raises:
        InputError: the file is missing or broken, holds Python objects, lacks an input, holds no sample, or
            its arrays are of another shape, dtype or length than they must be.
    """

    def __init__(self, path: Path, inputs: Inputs, *, samples: int | None = None) -> None:
        self._path = path
        self.source = str(path)
        columns = self._open_npy(inputs) if path.suffix == ".npy" else self._open_npz()
        self._columns = {name: self._column(name, columns, inputs) for name in inputs}
        lengths = {name: column.shape[0] for name, column in self._columns.items()}
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"'{name}' {length}" for name, length in lengths.items())
            raise InputError(self.source, f"its arrays differ in samples ({listed})", "give each as many rows")
        count = next(iter(lengths.values()))
        if count == 0:
            raise InputError(self.source, "holds no sample", "write at least one row")
        self._rows: Sequence[int] = evenly(count, samples)
        self.names = [f"{self.source}: sample {row}" for row in self._rows]
        self._store = SampleStore()
        self.labels: np.ndarray | None = None
        if "labels" in columns and "labels" not in inputs:
            column = columns["labels"]
            if not column.shape or column.shape[0] != count:
                got = column.shape[0] if column.shape else "no"
                raise InputError(
                    f"{self.source}: array 'labels'",
                    f"has {got} rows for {count} samples",
                    "give each sample one",
                )
            self.labels = np.stack(list(self._read("labels", column, self._rows)))
            check_finite(self.labels, f"{self.source}: array 'labels'", self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def batches(self, size: int, indices: Sequence[int] | None = None) -> Iterator[dict[str, np.ndarray]]:
        """Reads ``size`` rows of each array at a time; InputError where the file is broken or holds NaN."""
        chosen = self._rows if indices is None else [self._rows[index] for index in indices]
        readers = {name: self._read(name, column, chosen) for name, column in self._columns.items()}
        for begin in range(0, len(chosen), size):
            rows = chosen[begin : begin + size]
            feeds = {name: np.stack([next(reader) for _ in rows]) for name, reader in readers.items()}
            for name, array in feeds.items():
                check_finite(array, f"{self.source}: array '{name}'", rows)
            yield feeds

    def subset(self, indices: Sequence[int]) -> Arrays:
        """The samples at some indices, rising."""
        part = copy.copy(self)
        part._rows = [self._rows[index] for index in indices]
        part.names = [self.names[index] for index in indices]
        part.labels = None if self.labels is None else self.labels[list(indices)]
        return part

    def identities(self) -> list[bytes]:
        """For each sample the sha256 of its rows."""
        return [digest for feeds in self.batches(1) for digest in sample_digests(feeds)]

    def content_hash(self) -> str:
        """The sha256 of the file's name and bytes."""
        return hashlib.sha256(self._path.name.encode() + b"\0" + file_digest(self._path)).hexdigest()

    def _column(self, name: str, columns: dict[str, _Column], inputs: Inputs) -> _Column:
        if name not in columns:
            near = did_you_mean(name, list(columns))
            raise InputError(
                self.source,
                f"holds no array '{name}' for the model's input; it holds {quoted(list(columns)) or 'none'}",
                f"save it with numpy.savez(FILE, **{{'{name}': array}})" + near,
            )
        column = columns[name]
        where = self.source if self._path.suffix == ".npy" else f"{self.source}: array '{name}'"
        if not column.shape:
            fix = "put the samples on the first axis"
            if inputs[name][0] == (1,):
                fix += f", or pin the input with --input {name}=VALUE"
            raise InputError(where, "is one number", fix)
        column = replace(column, shape=rows_of(column.shape, name, inputs))
        check_sample(where, name, column.shape[1:], column.dtype, inputs, rows=True)
        return column

    def _open_npy(self, inputs: Inputs) -> dict[str, _Column]:
        if len(inputs) != 1:
            raise InputError(
                self.source,
                f"feeds one input, and the model has {len(inputs)} ({quoted(list(inputs))})",
                "save an .npz with an array for each",
            )
        try:
            with self._path.open("rb") as stream:
                column = _header(stream, self.source)
                size = self._path.stat().st_size
        except _BROKEN as error:
            raise self._broken(error) from error
        self._check_length(column, size, self.source)
        return {next(iter(inputs)): column}

    def _open_npz(self) -> dict[str, _Column]:
        columns = {}
        try:
            with zipfile.ZipFile(self._path) as archive:
                for info in archive.infolist():
                    if not info.filename.endswith(".npy"):
                        continue
                    name = info.filename.removesuffix(".npy")
                    with archive.open(info) as stream:
                        column = _header(stream, f"{self.source}: array '{name}'")
                    self._check_length(column, info.file_size, f"{self.source}: array '{name}'")
                    columns[name] = column
        except _BROKEN as error:
            raise self._broken(error) from error
        return columns

    def _check_length(self, column: _Column, size: int, where: str) -> None:
        wanted = column.start + math.prod(column.shape) * column.dtype.itemsize
        if size < wanted:
            raise InputError(where, f"is cut off: {size} bytes of {wanted}", "write the file again")

    def _read(self, name: str, column: _Column, rows: Sequence[int]) -> Iterator[np.ndarray]:
        """Some rows, rising, in native byte order; what had to be decompressed is kept."""
        native = column.dtype.newbyteorder("=")
        try:
            with ExitStack() as stack:
                if self._path.suffix == ".npy":
                    stream: IO[bytes] = stack.enter_context(self._path.open("rb"))
                    compressed = False
                else:
                    archive = stack.enter_context(zipfile.ZipFile(self._path))
                    stream = stack.enter_context(archive.open(f"{name}.npy"))
                    compressed = archive.getinfo(f"{name}.npy").compress_type != zipfile.ZIP_STORED
                for row in rows:
                    values = self._store.get((name, row)) if compressed else None
                    if values is None:
                        stream.seek(column.start + row * column.row_bytes)
                        content = stream.read(column.row_bytes)
                        if len(content) < column.row_bytes:
                            raise EOFError(f"sample {row} of '{name}' is cut off")
                        values = np.frombuffer(content, column.dtype).reshape(column.shape[1:])
                        values = values.astype(native, copy=False)
                        if compressed:
                            self._store.put((name, row), values)
                    yield values
        except _BROKEN as error:
            raise self._broken(error) from error

    def _broken(self, error: BaseException) -> InputError:
        if isinstance(error, InputError):
            return error
        if isinstance(error, FileNotFoundError):
            return InputError(self.source, "there is no such file", "correct the path; it is relative to the recipe")
        if isinstance(error, PermissionError | IsADirectoryError):
            return InputError(self.source, f"cannot be read ({error.strerror})", "check the path and its permissions")
        kind = "an .npy" if self._path.suffix == ".npy" else "an .npz"
        reason = " ".join(str(error).split()) or type(error).__name__
        return InputError(self.source, f"cannot be read as {kind} file ({reason})", "write it again with numpy")


def _header(stream: IO[bytes], where: str) -> _Column:
    """Reads a .npy header and leaves the stream at the first value."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise InputError(where, f"is of .npy version {version[0]}.{version[1]}", "save plain numbers")
    if dtype.hasobject or dtype.names is not None:
        raise InputError(where, "holds Python objects or records", "save plain numbers")
    if fortran and len(shape) > 1:
        raise InputError(where, "is in Fortran order", "save numpy.ascontiguousarray(array)")
    return _Column(tuple(shape), dtype, stream.tell())
