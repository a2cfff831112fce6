"""Arrays into tensors and back."""

from __future__ import annotations

import numpy as np
import torch

#: The element types that both sides have, by numpy's name.
TYPES: dict[str, torch.dtype] = {
    "float16": torch.float16,
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
    "uint8": torch.uint8,
    "uint16": torch.uint16,
    "uint32": torch.uint32,
    "uint64": torch.uint64,
    "bool": torch.bool,
    "complex64": torch.complex64,
    "complex128": torch.complex128,
}


def is_float(dtype: np.dtype | None) -> bool:
    """Whether it is a float that gradients can flow through; bfloat16 is of no numpy kind."""
    return dtype is not None and (dtype.kind == "f" or dtype.name == "bfloat16") and dtype.name in TYPES


def to_torch(values: np.ndarray) -> torch.Tensor:
    """A tensor of its own with the same elements."""
    if values.dtype.name == "bfloat16":
        return torch.from_numpy(np.array(values).view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(np.array(values))


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """An array of its own with the same elements."""
    held = tensor.detach().cpu()
    if held.dtype == torch.bfloat16:
        import ml_dtypes

        return held.contiguous().view(torch.int16).numpy().copy().view(ml_dtypes.bfloat16)
    return held.numpy().copy()
