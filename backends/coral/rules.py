"""The rules of the lowering: which modules hold them, and those that installed packages bring."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from edgec.backends.coral.lowering import RULES
from edgec.passes.framework.plugins import imported, registered

#: The entry points by which installed packages bring rules: an ONNX operator's name, and the function that lowers it.
GROUP, KIND = "edgec.coral_rules", "rule of the coral backend for"
#: The modules whose functions say by ``@lowers`` which operators they lower, or by ``@rewrites`` which they rewrite.
MODULES = (
    "activation",
    "comparison",
    "contraction",
    "convolution",
    "elementwise",
    "exponential",
    "gathering",
    "legalize_indexing",
    "legalize_resize",
    "matrix",
    "normalization",
    "pool_axes",
    "pooling",
    "qdq",
    "quantized_operators",
    "ranking",
    "recurrent",
    "repeating",
    "resampling",
    "sampling",
    "scattering",
    "shaping",
    "slicing",
    "spelled_integers",
    "spelled_out",
    "transposed",
    "trigonometry",
)


@cache
def load_rules() -> None:
    """Fills the tables of rules; edgec's own stay where a package brings one of the same name.

    Raises:
        UsageError: a rule of an installed package cannot be imported.
    """
    for module in MODULES:
        import_module(f"edgec.backends.coral.{module}")
    for operator, entry in registered(GROUP, KIND).items():
        RULES.setdefault(operator, imported(entry, KIND))
