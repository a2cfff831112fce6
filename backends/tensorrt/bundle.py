"""The bundle: a folder with models and golden samples that one command builds, checks and times on the board.

An engine is tied to the board, its GPU and its TensorRT, so it is built there, by ``run.sh`` and ``run.py``, which
:func:`write_driver` puts beside the models. ``manifest.json`` tells them what the folder is for and what to expect.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgec import __version__
from edgec.backends.tensorrt.driver_text import SOURCES, driver_text
from edgec.ir.errors import EmitError, InputError, InternalError
from edgec.ir.hashing import sha256

MANIFEST = "manifest.json"
FORMAT = 1
#: What a user is told of a bundle that was only emitted.
UNBUILT = "No engine was built here: run.sh builds, checks and times it on the board."
DRIVER = ("run.py", "run.sh")
Precision = Literal["fp16", "int8", "fp32"]
# trtexec writes int64 outputs as numbers and reads inputs as raw bytes; what it reads and writes is this.
DTYPES = ("bool", "float16", "float32", "int32", "int64", "int8", "uint8")
# trtexec separates names by commas, newer versions unquote them, and its JSON holds them unescaped.
_UNWRITABLE_NAME = re.compile(r"[,'\"\\\x00-\x1f]")


@dataclass(frozen=True)
class Versions:
    """A range of TensorRT versions such as 8.2 up to, but not including, 8.3; ``None`` where it is open."""

    least: str | None = None
    below: str | None = None


@dataclass(frozen=True)
class Board:
    """What the bundle may run on.

    Attributes:
        name: the target's.
        title: what people call it.
        compute_capability: of its GPU, such as ``5.3``; ``None`` for any.
        memory_bytes: its memory; ``None`` where boards of many sizes are meant.
        tensorrt: the versions that the models were made for.
    """

    name: str
    title: str
    compute_capability: str | None
    memory_bytes: int | None
    tensorrt: Versions = Versions()


@dataclass(frozen=True)
class Port:
    """An input or output of every model in the bundle.

    Attributes:
        shape: at the batch size that the network was compiled at.
        dtype: numpy's name.
        golden: raw files, C order, little-endian, one for each golden sample.
        shapes: of the golden samples, where they are batches of several sizes.
        profile: of an input whose batch may vary: its shapes ``min``, ``opt`` and ``max``.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    golden: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...] = ()
    profile: Mapping[str, Sequence[int]] | None = None


@dataclass(frozen=True)
class BundledModel:
    """One ONNX file of the bundle.

    Attributes:
        file: its path in the folder.
        precision: the lowest that it runs in.
        memory_bytes: an estimate of what it takes to build and run it.
        cosine: the least cosine similarity of its outputs to the golden ones.
        sqnr_db: the least SQNR of its outputs to the golden ones, as :func:`edgec.ir.execution.sqnr_db` defines it.
        fallback: it is only tried where no other model passes.
        strongly_typed: the file itself says what runs in which precision (TensorRT 10 and later).
        tensorrt: the versions that this file is for, where that is narrower than the board's.
        float32_layers: nodes that FP16 does not hold and that are to be built in FP32.
    """

    file: str
    precision: Precision
    memory_bytes: int
    cosine: float
    sqnr_db: float
    fallback: bool = False
    strongly_typed: bool = False
    tensorrt: Versions = Versions()
    float32_layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """What ``manifest.json`` of a bundle says, but for the files' hashes.

    Attributes:
        model: the network's name.
    """

    model: str
    board: Board
    inputs: Sequence[Port]
    outputs: Sequence[Port]
    models: Sequence[BundledModel]

    def to_json(self, hashes: Mapping[str, str]) -> dict[str, Any]:
        """The file's content; ``hashes`` are the sha256 of the folder's files by path."""
        return {
            "edgec": __version__,
            "format": FORMAT,
            "model": self.model,
            "board": {
                "name": self.board.name,
                "title": self.board.title,
                "compute_capability": self.board.compute_capability,
                "memory_bytes": self.board.memory_bytes,
                "tensorrt": _range(self.board.tensorrt),
            },
            "inputs": [_port(port) for port in self.inputs],
            "outputs": [_port(port) for port in self.outputs],
            "models": [
                {
                    "file": model.file,
                    "precision": model.precision,
                    "memory_bytes": model.memory_bytes,
                    "tolerance": {"cosine": model.cosine, "sqnr_db": model.sqnr_db},
                    "fallback": model.fallback,
                    "strongly_typed": model.strongly_typed,
                    "tensorrt": _range(model.tensorrt),
                    "float32_layers": list(model.float32_layers),
                }
                for model in self.models
            ],
            "files": dict(hashes),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Manifest:
        """The inverse of :meth:`to_json`. Raises KeyError, TypeError or ValueError for what is no manifest."""
        if value["format"] != FORMAT:
            raise ValueError(f"format {value['format']}")
        board = value["board"]
        return cls(
            model=value["model"],
            board=Board(**{**board, "tensorrt": Versions(**board["tensorrt"])}),
            inputs=[_read_port(entry) for entry in value["inputs"]],
            outputs=[_read_port(entry) for entry in value["outputs"]],
            models=[
                BundledModel(
                    entry["file"],
                    entry["precision"],
                    entry["memory_bytes"],
                    **entry["tolerance"],
                    fallback=entry.get("fallback", False),
                    strongly_typed=entry.get("strongly_typed", False),
                    tensorrt=Versions(**entry.get("tensorrt", {})),
                    float32_layers=tuple(entry.get("float32_layers", ())),
                )
                for entry in value["models"]
            ],
        )


def write_driver(folder: Path, manifest: Manifest) -> list[str]:
    """Makes a folder that holds the models and golden files a bundle: writes run.sh, run.py and manifest.json.

    Returns:
        the three files' names.

    Raises:
        EmitError: a name cannot be handed to trtexec, or a dtype cannot be compared.
        InternalError: a model or golden file is missing, or a golden file is not of its port's size.
    """
    _check(folder, manifest)
    (folder / "run.py").write_text(driver_text(), encoding="utf-8")
    start = folder / "run.sh"
    start.write_bytes((files(SOURCES) / start.name).read_bytes())
    start.chmod(0o755)
    hashes = {
        path.relative_to(folder).as_posix(): sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MANIFEST
    }
    text = json.dumps(manifest.to_json(hashes), indent=2, allow_nan=False) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    return [*DRIVER, MANIFEST]


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a bundle.

    Raises:
        InputError: it cannot be read, or is none.
    """
    path = folder / MANIFEST
    try:
        return Manifest.from_json(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        what = f"cannot be read ({(error.strerror or 'unknown reason').lower()})"
    except (KeyError, TypeError, ValueError, RecursionError):
        what = "is no manifest of a bundle"
    raise InputError(str(path), what, "emit the bundle again")


def _check(folder: Path, manifest: Manifest) -> None:
    where = manifest.board.name
    for kind, ports in (("input", manifest.inputs), ("output", manifest.outputs)):
        for port in ports:
            if _UNWRITABLE_NAME.search(port.name):
                what = "has a name that cannot be given to trtexec (a comma, quote, backslash or control character)"
                raise EmitError(f"{where}: {kind} '{port.name}'", what, "rename it in the model")
            if port.dtype not in DTYPES:
                raise EmitError(f"{where}: {kind} '{port.name}'", f"is {port.dtype}, which trtexec has not", "cast it")
            for file, shape in zip(port.golden, port.shapes or (port.shape,) * len(port.golden), strict=True):
                size = math.prod(shape) * np.dtype(port.dtype).itemsize
                found = _size(folder / file)
                if found != size:
                    raise InternalError(str(folder / file), f"holds {found} bytes, and {kind} '{port.name}' has {size}")
    samples = {len(port.golden) for port in (*manifest.inputs, *manifest.outputs)}
    if len(samples) != 1 or samples == {0}:
        raise InternalError(where, "its inputs and outputs have not equally many golden samples, at least one")
    for model in manifest.models:
        _size(folder / model.file)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        raise InternalError(str(path), "is missing from the bundle") from None


def _range(versions: Versions) -> dict[str, str]:
    ends = {"least": versions.least, "below": versions.below}
    return {name: version for name, version in ends.items() if version is not None}


def _port(port: Port) -> dict[str, Any]:
    made: dict[str, Any] = {
        "name": port.name,
        "shape": list(port.shape),
        "dtype": port.dtype,
        "golden": list(port.golden),
    }
    if port.shapes:
        made["shapes"] = [list(shape) for shape in port.shapes]
    if port.profile is not None:
        made["profile"] = {end: list(shape) for end, shape in port.profile.items()}
    return made


def _read_port(entry: Mapping[str, Any]) -> Port:
    golden = entry["golden"]
    files_of_samples = (golden,) if isinstance(golden, str) else tuple(golden)
    shapes = tuple(tuple(shape) for shape in entry.get("shapes", ()))
    return Port(entry["name"], tuple(entry["shape"]), entry["dtype"], files_of_samples, shapes, entry.get("profile"))
