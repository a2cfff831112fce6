"""Models that are opened as a user's file is, and what is said of those that cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgec.frontends.model import open_model
from edgec.ir.errors import InputError


def said(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        open_model(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def weight(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).standard_normal(shape).astype(np.float32)
