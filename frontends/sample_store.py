"""Decoded samples that are kept: in memory up to a limit, beyond it in a file that goes with the process."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Hashable
from dataclasses import dataclass
from math import prod
from typing import IO

import numpy as np

# Bytes held in memory, by default.
_MEMORY_BYTES = 64 << 20
# Of what is free where temporary files lie, a store takes at most this part, and no more than the limit.
_FREE_SHARE, _FILE_BYTES = 0.5, 16 << 30


@dataclass(frozen=True)
class _Place:
    """Where an array lies in the file."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype


class SampleStore:
    """Arrays by a key, each kept once. What finds no room is not kept, and whoever asks decodes it again.

    Args:
        memory: bytes of arrays held in memory; what comes later goes to a file.
    """

    def __init__(self, memory: int | None = None) -> None:
        self._memory = _MEMORY_BYTES if memory is None else memory
        self._held: dict[Hashable, np.ndarray] = {}
        self._places: dict[Hashable, _Place] = {}
        self._held_bytes = 0
        self._file: IO[bytes] | None = None
        self._end, self._room = 0, -1

    def get(self, key: Hashable) -> np.ndarray | None:
        """What was kept under a key, read-only; ``None`` where nothing was."""
        if key in self._held:
            return self._held[key]
        place = self._places.get(key)
        if place is None or self._file is None:
            return None
        content = os.pread(self._file.fileno(), prod(place.shape) * place.dtype.itemsize, place.offset)
        return np.frombuffer(content, place.dtype).reshape(place.shape)

    def put(self, key: Hashable, array: np.ndarray) -> None:
        """Keeps an array, which must not be written to afterwards, where there is room."""
        if key in self._held or key in self._places:
            return
        if self._held_bytes + array.nbytes <= self._memory:
            self._held[key] = array
            self._held_bytes += array.nbytes
        elif array.nbytes <= self._room_left():
            self._write(key, array)

    def _room_left(self) -> int:
        if self._room < 0:
            try:
                self._file = tempfile.TemporaryFile(prefix="edgec-samples-")  # noqa: SIM115
                free = shutil.disk_usage(tempfile.gettempdir()).free
                self._room = min(int(free * _FREE_SHARE), _FILE_BYTES)
            except OSError:  # nowhere to write to: samples are decoded again
                self._room = 0
        return self._room - self._end

    def _write(self, key: Hashable, array: np.ndarray) -> None:
        assert self._file is not None
        try:
            written = os.pwrite(self._file.fileno(), np.ascontiguousarray(array).data.cast("B"), self._end)
        except OSError:
            written = -1
        if written != array.nbytes:  # the disk is full, though it was not when the file was opened
            self._room = self._end
            return
        self._places[key] = _Place(self._end, array.shape, array.dtype)
        self._end += array.nbytes
