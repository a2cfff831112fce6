"""What tests of torch modules share: a run on arrays, and the comparison with onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="graphs become torch modules")
# Tests run beside each other: more threads than cores, waiting for one another, take many times as long.
torch.set_num_threads(1)

#: The largest difference, as a share of the largest value, by element type; whole numbers must be equal.
TOLERANCE = {"float64": 1e-4, "float32": 1e-4, "float16": 5e-3, "bfloat16": 5e-2}


def run(
    module: Any, feeds: Mapping[str, np.ndarray], taps: Sequence[str] = (), **options: Any
) -> dict[str, np.ndarray]:
    """Outputs and taps of a module, without gradients."""
    from edgec.ir.torch_module.conversion import to_numpy, to_torch

    with torch.no_grad():
        given = module({name: to_torch(values) for name, values in feeds.items()}, taps, **options)
    return {name: to_numpy(value) for name, value in given.items()}


def difference(got: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference as a share of the largest value; infinite where shapes, types or infinities differ."""
    if got.shape != wanted.shape or got.dtype != wanted.dtype:
        return float("inf")
    if not wanted.size:
        return 0.0
    kind = np.complex128 if wanted.dtype.kind == "c" else np.float64
    x, y = wanted.astype(kind), got.astype(kind)
    finite = np.isfinite(x)
    if not np.array_equal(x[~finite], y[~finite], equal_nan=True) or not np.isfinite(y[finite]).all():
        return float("inf")
    if not finite.any():
        return 0.0
    return float(np.abs(x[finite] - y[finite]).max() / max(float(np.abs(x[finite]).max()), 1e-6))


def agrees(got: np.ndarray, wanted: np.ndarray, tolerance: float | None = None) -> bool:
    """Whether they differ by no more than the type's tolerance."""
    limit = TOLERANCE.get(wanted.dtype.name, 0.0) if tolerance is None else tolerance
    return difference(got, wanted) <= limit


def assert_agree(
    got: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray], tolerance: float | None = None
) -> None:
    """All outputs agree, in shape, type and values."""
    assert list(got) == list(wanted)
    for name, values in wanted.items():
        assert (got[name].shape, got[name].dtype) == (values.shape, values.dtype), name
        assert agrees(got[name], values, tolerance), f"{name}: {difference(got[name], values)}"
