"""What a run reads must stay as it is until the run is done: weights are read from the model's file as they are needed.

The model's files are hashed before anything of them is read, and again at the end. They are held open: a file that is
replaced by another one of its name (as careful exporters do) goes on being read as it was. Data sets may be
large; for their files size and time of the last change are compared. The recipe is read once, at the start.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

from edgec.frontends.sources import Source
from edgec.ir.errors import InputError
from edgec.ir.files import files_of
from edgec.ir.hashing import sha256

_MEND = "leave it as it is until the run is done, and run again"


class Watched:
    """Files that a run reads.

    Attributes:
        hashes: of the model's files, as they were before anything of them was read.
    """

    def __init__(self) -> None:
        self.hashes: dict[Path, str] = {}
        self._open: dict[Path, BufferedReader] = {}
        self._stamps: dict[Path, tuple[int, int]] = {}
        self._stack = ExitStack()

    def model(self, paths: Iterable[Path]) -> None:
        """Files whose content must stay, which is about to be read; what is no file is left to whoever reads it."""
        for path in paths:
            if path not in self._open and path.is_file():
                self._open[path] = self._stack.enter_context(path.open("rb"))
                self.hashes[path] = _digest(self._open[path])

    def onnx(self, path: Path) -> None:
        """An ONNX file and its external data."""
        self.model([path])
        try:
            self.model(files_of(path))
        except InputError:  # whoever reads it says what is wrong with it
            return

    def data(self, paths: Iterable[Path]) -> None:
        """Files, and folders of files, that samples are read from."""
        for path in paths:
            for file in path.rglob("*") if path.is_dir() else [path]:
                stamp = _stamp(file)
                if stamp is not None:
                    self._stamps[file] = stamp

    def check(self) -> None:
        """Holds all of them to what they were.

        Raises:
            InputError: one has changed; the line names it.
        """
        for path, file in self._open.items():
            if _digest(file) != self.hashes[path]:
                raise InputError(str(path), "changed while the run read it", _MEND)
        for path, stamp in self._stamps.items():
            if _stamp(path) != stamp:
                raise InputError(str(path), "changed while the run read it", _MEND)

    @contextmanager
    def whole_run(self) -> Iterator[None]:
        """Checks the files when the block ends; what fails for a file that changed is that file's fault."""
        with self._stack:
            try:
                yield
            except Exception as error:
                try:
                    self.check()
                except InputError as changed:
                    raise changed from error
                raise
            self.check()


def model_hashes(source: Source, watched: Watched, onnx: Path) -> dict[str, Any]:
    """The manifest's hashes of the user's model file, or of the ONNX file that was made where there is none."""
    file, *external = files_of(onnx) if source.file in (None, onnx) else [source.file]
    return {
        "model": {"name": as_text(source.name), "sha256": watched.hashes.get(file) or sha256(file)},
        "external_data": {as_text(path.name): watched.hashes.get(path) or sha256(path) for path in external},
    }


def as_text(name: str) -> str:
    """A file's name as text that every encoding of Unicode can hold: file names are bytes."""
    return os.fsencode(name).decode("utf-8", "replace")


def _digest(file: BufferedReader) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()


def _stamp(path: Path) -> tuple[int, int] | None:
    """Size and time of the last change of a file; ``None`` where there is none."""
    try:
        known = path.stat()
    except OSError:
        return None
    return None if path.is_dir() else (known.st_size, known.st_mtime_ns)
