"""The golden samples of a bundle: inputs, and what the float network computes of them, as raw files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edgec.backends.tensorrt.bundle import Port

FOLDER = "golden"
Values = Mapping[str, np.ndarray]


def write_golden(folder: Path, feeds: Sequence[Values], outputs: Sequence[Values]) -> tuple[list[Port], list[Port]]:
    """Writes little-endian arrays in C order, one file for each sample of each input and output.

    Returns:
        The inputs and the outputs.
    """
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    return _written(folder, "input", feeds), _written(folder, "output", outputs)


def _written(folder: Path, kind: str, samples: Sequence[Values]) -> list[Port]:
    ports = []
    for number, (name, like) in enumerate(samples[0].items()):
        files = tuple(f"{FOLDER}/{kind}{number}.{index}.bin" for index in range(len(samples)))
        for file, values in zip(files, samples, strict=True):
            array = np.ascontiguousarray(values[name])
            (folder / file).write_bytes(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
        shapes = tuple(values[name].shape for values in samples)
        ports.append(Port(name, like.shape, str(like.dtype), files, shapes if len(set(shapes)) > 1 else ()))
    return ports
