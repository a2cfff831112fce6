"""The file's inputs and outputs against the graph's: layout and integers, converted both ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgec.backends.coral.lowering import Port
from edgec.backends.coral.quantization import per_tensor
from edgec.ir.errors import InputError


def entered(port: Port, x: np.ndarray) -> np.ndarray:
    """A feed in ONNX's layout and float, as the file takes it.

    Raises:
        InputError: the shape is not the input's.
    """
    if tuple(x.shape) != port.shape:
        raise InputError(
            f"input '{port.name}'", f"has shape {list(port.shape)}, and the feed {list(x.shape)}", "reshape the feed"
        )
    moved = np.asarray(x).transpose(port.permutation)
    if port.quantization is None:
        return np.asarray(moved, port.dtype, order="C")
    if port.onnx_dtype.kind in "iu":
        less = 128 if port.onnx_dtype == np.uint8 else 0
        return np.asarray(moved.astype(np.int16) - less, np.int8, order="C")
    return port.quantization.integers(np.asarray(moved, np.float32, order="C"))


def left(port: Port, stored: np.ndarray) -> np.ndarray:
    """What the file gave, in ONNX's layout, floats as float32."""
    real = stored if port.quantization is None else port.quantization.real(stored)
    return np.asarray(real.transpose(np.argsort(port.permutation)), order="C")


def described(ports: Sequence[Port]) -> list[dict[str, Any]]:
    """Ports as JSON, for whoever deploys the file."""
    return [
        {
            "name": port.name,
            "onnx_shape": list(port.shape),
            "permutation": list(port.permutation),
            "shape": [port.shape[axis] for axis in port.permutation],
            "dtype": port.dtype.name,
            "onnx_dtype": port.onnx_dtype.name,
            "scale": None if port.quantization is None else float(port.quantization.scale[0]),
            "zero_point": None if port.quantization is None else int(port.quantization.zero_point[0]),
        }
        for port in ports
    ]


def read(entries: Sequence[Mapping[str, Any]]) -> list[Port]:
    """The inverse of :func:`described`."""
    return [
        Port(
            entry["name"],
            tuple(entry["onnx_shape"]),
            tuple(entry["permutation"]),
            None if entry["scale"] is None else per_tensor(entry["scale"], entry["zero_point"]),
            np.dtype(entry["dtype"]),
            # Files of earlier versions do not say it: they take floats only.
            np.dtype(entry.get("onnx_dtype", "float32")),
        )
        for entry in entries
    ]
