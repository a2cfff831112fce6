"""edgec: a compiler that makes trained neural networks fit small devices.

>>> import edgec
>>> report = edgec.compile("model.onnx", "compress.yaml", output="build/model")
>>> graph = edgec.load("build/model/model.onnx")
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgec.ir.graph import Graph

# onnxruntime from 1.31 on sends telemetry and writes an identifier of the machine unless this is set before it is
# loaded; a user who set it has decided.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
__all__ = ["__version__", "compile", "load"]


def load(path: str | os.PathLike[str], inputs: Mapping[str, tuple[int, ...]] | None = None) -> Graph:
    """The graph of an ONNX file as passes see it: one opset, static shapes, constants in place.

    Args:
        path: the ONNX file; its weights are mapped, not read.
        inputs: shapes by input name, for inputs with open dimensions.

    Raises:
        edgec.ir.errors.EdgecError: the file is no usable model; the message says what is wrong and the mend.
    """
    from edgec.frontends.model import open_model

    return open_model(Path(path), inputs or {})


def compile(
    model: str | os.PathLike[str],
    recipe: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    inputs: Mapping[str, tuple[int, ...]] | None = None,
    threads: int = 0,
    timing: bool = True,
) -> dict[str, Any]:
    """Compiles a model by a recipe, as the ``edgec`` command does, and returns the report.

    Args:
        model: the ONNX file.
        recipe: the recipe, a YAML file.
        output: the folder to leave; ``build/<model's stem>`` by default.
        inputs: shapes by input name, for inputs with open dimensions.
        threads: how many threads may work, 0 for as many as there are cores; the outputs do not depend on it.
        timing: measure latency and memory too.

    Raises:
        edgec.ir.errors.EdgecError: what is wrong, where, and the mend. An earlier output is whole then.
    """
    from edgec.tools.compile import Job, compile_model

    place = None if output is None else Path(output)
    pins = dict(inputs or {})
    return compile_model(Job(Path(model), Path(recipe), place, pins=pins, threads=threads, timing=timing))
