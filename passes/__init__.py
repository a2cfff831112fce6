"""What changes a model.

    from edgec.passes import Fold, Pipeline, Prune, Quantize

Names are imported when they are asked for: a command that only lists passes loads none.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgec.passes.compress.compress import Compress
    from edgec.passes.dequantize import Dequantize
    from edgec.passes.factorize.factorize import Factorize
    from edgec.passes.fold.fold import Fold
    from edgec.passes.framework.base import Effect, Pass
    from edgec.passes.framework.context import Context, RunConfig
    from edgec.passes.framework.target import Scheme, Target
    from edgec.passes.normalize import Normalize
    from edgec.passes.overlay.overlay import Overlay
    from edgec.passes.prune.prune import Prune
    from edgec.passes.quantize.quantize import Quantize
    from edgec.passes.train.distill import Distill
    from edgec.passes.train.finetune import Finetune
    from edgec.pipeline import Pipeline

_HOME = {
    "Compress": "edgec.passes.compress.compress",
    "Context": "edgec.passes.framework.context",
    "Dequantize": "edgec.passes.dequantize",
    "Distill": "edgec.passes.train.distill",
    "Effect": "edgec.passes.framework.base",
    "Factorize": "edgec.passes.factorize.factorize",
    "Finetune": "edgec.passes.train.finetune",
    "Fold": "edgec.passes.fold.fold",
    "Normalize": "edgec.passes.normalize",
    "Overlay": "edgec.passes.overlay.overlay",
    "Pass": "edgec.passes.framework.base",
    "Pipeline": "edgec.pipeline",
    "Prune": "edgec.passes.prune.prune",
    "Quantize": "edgec.passes.quantize.quantize",
    "RunConfig": "edgec.passes.framework.context",
    "Scheme": "edgec.passes.framework.target",
    "Target": "edgec.passes.framework.target",
}
__all__ = [
    "Compress",
    "Context",
    "Dequantize",
    "Distill",
    "Effect",
    "Factorize",
    "Finetune",
    "Fold",
    "Normalize",
    "Overlay",
    "Pass",
    "Pipeline",
    "Prune",
    "Quantize",
    "RunConfig",
    "Scheme",
    "Target",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
