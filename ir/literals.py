"""What a Constant node holds."""

from __future__ import annotations

import numpy as np

from edgec.ir.graph import Constant, Node
from edgec.ir.stored import Stored


def literal(node: Node) -> np.ndarray | Stored | None:
    """The values of a Constant node; ``None`` for a form that has to stay a node (sparse, a function's attribute)."""
    for key, value in node.attrs.items():
        if key == "value" and isinstance(value, Constant):
            return value.held
        if key == "value" and isinstance(value, np.ndarray):
            return value
        if key in ("value_float", "value_floats"):
            return np.asarray(value, np.float32)
        if key in ("value_int", "value_ints"):
            return np.asarray(value, np.int64)
        if key in ("value_string", "value_strings"):
            return np.asarray(value, object)
    return None
