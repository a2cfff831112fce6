"""The labels of images: from the folders that they lie in, or from a file that lists them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgec.frontends.datasets_images import ImageFolder
from edgec.ir.errors import InputError

MAX_BYTES = 256 << 20


def read_labels(labels: Path | Literal["folders"], images: ImageFolder) -> np.ndarray:
    """One label for each image: int64 where all are whole, else float64; shape [images] or [images, values].

    Args:
        labels: ``"folders"``: an image's class is the position of its outermost folder among the sorted
            folders; a ``.csv`` of lines ``file,label`` (a first line without a number is a heading); or a
            ``.json`` mapping of file to label or list of labels. Files are POSIX paths inside the data set's
            folders.

    Raises:
        InputError: an image has no label, or the file cannot be read.
    """
    if labels == "folders":
        return _from_folders(images)
    try:
        with labels.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(str(labels), f"cannot be read ({error.strerror})", "check the path") from error
    if len(content) > MAX_BYTES:
        raise InputError(str(labels), f"is larger than {MAX_BYTES >> 20} MiB", "keep only the labels that are used")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(str(labels), "is not UTF-8 text", "save it as UTF-8") from error
    table = _from_json(text, labels) if labels.suffix == ".json" else _from_csv(text, labels)
    return _for_images(table, images, labels)


def class_folders(folders: Iterable[Path]) -> list[str]:
    """The names of the classes whose images lie in a folder of their own, in the order of their numbers."""
    names = {entry.name for folder in folders for entry in folder.iterdir() if entry.is_dir()}
    return sorted(name for name in names if not name.startswith("."))


def _from_folders(images: ImageFolder) -> np.ndarray:
    position = {name: index for index, name in enumerate(class_folders(images.folders))}
    found = []
    for path, relative in zip(images.files, images.relative, strict=True):
        outermost, slash, _ = relative.partition("/")
        if not slash:
            raise InputError(
                str(path),
                "lies in no class's folder, and labels: folders",
                "move it into the folder of its class",
            )
        found.append(position[outermost])
    return np.asarray(found, np.int64)


def _from_csv(text: str, file: Path) -> dict[str, list[float]]:
    table: dict[str, list[float]] = {}
    reader = csv.reader(text.splitlines(), skipinitialspace=True)
    try:
        for row in reader:
            if not row:
                continue
            where = f"{file}: line {reader.line_num}"
            name, values = row[0], row[1:]
            if not values:
                raise InputError(where, "holds no label", "write lines of file,label")
            try:
                numbers = [_number(value) for value in values]
            except ValueError:
                if reader.line_num == 1:
                    continue
                wrong = next(value for value in values if not _is_number(value))
                raise InputError(
                    where, f"the label '{wrong}' is not a number", "write the position of the class, from 0"
                ) from None
            if table.setdefault(name, numbers) != numbers:
                raise InputError(where, f"'{name}' has two labels", "keep one of them")
    except csv.Error as error:
        raise InputError(f"{file}: line {reader.line_num}", f"is not CSV ({error})", "write file,label") from error
    return table


def _from_json(text: str, file: Path) -> dict[str, list[float]]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{file}: line {error.lineno}", f"is not JSON ({error.msg})", "fix it there") from error
    except RecursionError as error:
        raise InputError(str(file), "is nested too deep", "write a mapping of file to label") from error
    if not isinstance(values, Mapping):
        raise InputError(str(file), "is not a mapping", 'write {"file": label, ...}')
    table = {}
    for name, value in values.items():
        items = value if isinstance(value, list) else [value]
        if not items or not all(_is_number(item) for item in items):
            raise InputError(
                f"{file}: '{name}'", f"the label {json.dumps(value)[:60]} is not a number", "write a number"
            )
        table[name] = [_number(item) for item in items]
    return table


def _number(value: Any) -> float:
    number = float(value) if not isinstance(value, bool) else float("nan")
    if not np.isfinite(number):
        raise ValueError(value)
    return number


def _is_number(value: Any) -> bool:
    try:
        _number(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def _for_images(table: Mapping[str, Sequence[float]], images: ImageFolder, file: Path) -> np.ndarray:
    def rows() -> Iterator[Sequence[float]]:
        width = None
        for name in images.relative:
            if name not in table:
                raise InputError(str(file), f"has no label for '{name}'", f"add '{name}' and its label")
            width = width or len(table[name])
            if len(table[name]) != width:
                raise InputError(
                    str(file),
                    f"'{name}' has {len(table[name])} values where others have {width}",
                    "give each as many",
                )
            yield table[name]

    labels = np.asarray(list(rows()), np.float64)
    if np.array_equal(labels, np.round(labels)) and np.abs(labels).max() < 1 << 53:
        labels = labels.astype(np.int64)
    return labels[:, 0] if labels.shape[1] == 1 else labels
