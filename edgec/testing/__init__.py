"""For tests of passes: graphs from text, random networks, a pass run alone, FileCheck.

    from edgec.testing import assert_same, filecheck, model, run_pass

It comes with edgec; ``pip install edgec[testing]`` brings pytest, hypothesis (for :func:`networks`) and filecheck (for
:func:`filecheck`), which it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgec.testing.filecheck import filecheck
from edgec.testing.graphs import corrupt, model, named, operators
from edgec.testing.runs import Samples, assert_same, did, missed, outputs, run_pass

if TYPE_CHECKING:
    from edgec.testing.random_networks import networks

__all__ = [
    "Samples",
    "assert_same",
    "corrupt",
    "did",
    "filecheck",
    "missed",
    "model",
    "named",
    "networks",
    "operators",
    "outputs",
    "run_pass",
]


def __getattr__(name: str) -> Any:
    if name != "networks":
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from edgec.testing.random_networks import networks  # hypothesis is there only for tests

    return networks
