"""edgec: a compiler that makes trained neural networks fit small devices.

>>> import edgec
>>> report = edgec.compile("model.onnx", "compress.yaml", output="build/model")
>>> graph = edgec.load("build/model/model.onnx")

A torch module is compiled with example inputs beside it:

>>> report = edgec.compile(module, torch.zeros(1, 3, 224, 224), "compress.yaml")
>>> smaller = edgec.to_torch("build/Module/model.onnx")
"""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, overload

if TYPE_CHECKING:
    import torch

    from edgec.frontends.sources import Source
    from edgec.ir.graph import Graph

# onnxruntime from 1.31 on sends telemetry and writes an identifier of the machine unless this is set before it is
# loaded; a user who set it has decided.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
__all__ = ["__version__", "compile", "load", "to_torch"]

_Path: TypeAlias = "str | os.PathLike[str]"


@overload
def load(model: _Path, inputs: Mapping[str, Any] | None = None) -> Graph: ...
@overload
def load(
    model: torch.nn.Module, example_inputs: Any, /, *, input_names: Sequence[str] = (), output_names: Sequence[str] = ()
) -> Graph: ...
def load(model: Any, *arguments: Any, **named: Any) -> Graph:
    """The graph of a model as passes see it: one opset, static shapes, constants in place.

    ``load(model, inputs=None)`` reads a file; ``load(module, example_inputs, input_names=(), output_names=())`` exports
    a torch module.

    Args:
        model: an ONNX file, whose weights are mapped, not read; a program that ``torch.export.save`` wrote; the name of
            a function that returns a torch module and example inputs, ``"package.module:function"``; or a torch module.
        inputs: by input name a shape (a tuple), for inputs with open dimensions, or a value (a number, nested lists
            or an array), for inputs that are to be constants.
        example_inputs: what the module is called with: a tensor, a tuple, or a dictionary by parameter.
        input_names: a name for each input; by default those of the module's parameters.
        output_names: a name for each output; by default ``output``, or the keys of what the module returns.

    Raises:
        edgec.ir.errors.EdgecError: the model cannot be used; the message says what is wrong and the mend.
    """
    if isinstance(model, str | os.PathLike):
        return _load(model, *arguments, **named)
    return _load_module(model, *arguments, **named)


@overload
def compile(
    model: _Path,
    recipe: _Path,
    output: _Path | None = None,
    *,
    inputs: Mapping[str, Any] | None = None,
    threads: int = 0,
    timing: bool = True,
) -> dict[str, Any]: ...
@overload
def compile(
    model: torch.nn.Module,
    example_inputs: Any,
    recipe: _Path,
    output: _Path | None = None,
    /,
    *,
    input_names: Sequence[str] = (),
    output_names: Sequence[str] = (),
    threads: int = 0,
    timing: bool = True,
) -> dict[str, Any]: ...
def compile(model: Any, *arguments: Any, **named: Any) -> dict[str, Any]:
    """Compiles a model by a recipe, as the ``edgec`` command does, and returns the report.

    ``compile(model, recipe, output=None, *, inputs=None, threads=0, timing=True)`` takes a file or the name of a
    function; ``compile(module, example_inputs, recipe, output=None, *, input_names=(), output_names=(), threads=0,
    timing=True)`` a torch module, which is exported in evaluation mode and left as it was.

    Args:
        model: what :func:`load` takes.
        example_inputs: what the module is called with, as in :func:`load`; their shapes are the network's.
        recipe: the recipe, a YAML file.
        output: the folder to leave; ``build/<model's stem>`` by default, for a module ``build/<its class>``.
        inputs: by input name a shape (a tuple), for inputs with open dimensions, or a value (a number, nested lists
            or an array), for inputs that are to be constants.
        input_names: a name for each input of a module, as in :func:`load`.
        output_names: a name for each output of a module, as in :func:`load`.
        threads: how many threads may work, 0 for as many as there are cores; the outputs do not depend on it.
        timing: measure latency and memory too.

    Raises:
        edgec.ir.errors.EdgecError: what is wrong, where, and the mend. An earlier output is whole then. Where some
            targets cannot be emitted and others can, nothing is raised: the report holds an ``error`` for each of them.
    """
    try:
        if isinstance(model, str | os.PathLike):
            return _compile(model, *arguments, **named)
        return _compile_module(model, *arguments, **named)
    finally:
        # Nodes and tensors know each other, and what a run leaves counts as old: whoever compiles one model after the
        # other would hold gigabytes until the collector looks at that.
        gc.collect()


def to_torch(model: _Path | Graph) -> torch.nn.Module:
    """A network as a torch module, such as ``build/<model>/model.onnx``: tensors in, a tensor (or a tuple) out.

    Its parameters are the network's weights, by their names. It runs at any batch size, and trains.

    Args:
        model: a graph, or what :func:`load` reads.

    Raises:
        edgec.ir.errors.EdgecError: torch is missing, the model cannot be used, or torch lacks an operator of it.
    """
    from edgec.ir.errors import UsageError
    from edgec.ir.graph import Graph

    graph = model if isinstance(model, Graph) else load(model)
    try:
        from edgec.ir.torch_module.calling import Network
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise UsageError("to_torch", "needs torch, which is not installed", "pip install 'edgec[torch]'") from None
    return Network(graph)


def _load(model: _Path, inputs: Mapping[str, Any] | None = None) -> Graph:
    from edgec.frontends.sources import source_of

    return _graph(source_of(model), inputs)


def _load_module(
    model: Any, example_inputs: Any, *, input_names: Sequence[str] = (), output_names: Sequence[str] = ()
) -> Graph:
    return _graph(_module(model, example_inputs, input_names, output_names))


def _graph(source: Source, inputs: Mapping[str, Any] | None = None) -> Graph:
    from edgec.frontends.model import as_pins, open_model
    from edgec.frontends.sources import opened

    with opened(source) as path:
        return open_model(path, as_pins(inputs or {}))


def _compile(
    model: _Path,
    recipe: _Path,
    output: _Path | None = None,
    *,
    inputs: Mapping[str, Any] | None = None,
    threads: int = 0,
    timing: bool = True,
) -> dict[str, Any]:
    from edgec.frontends.model import as_pins
    from edgec.frontends.sources import source_of

    return _report(source_of(model), recipe, output, pins=as_pins(inputs or {}), threads=threads, timing=timing)


def _compile_module(
    model: Any,
    example_inputs: Any,
    recipe: _Path,
    output: _Path | None = None,
    *,
    input_names: Sequence[str] = (),
    output_names: Sequence[str] = (),
    threads: int = 0,
    timing: bool = True,
) -> dict[str, Any]:
    source = _module(model, example_inputs, input_names, output_names)
    return _report(source, recipe, output, threads=threads, timing=timing)


def _report(source: Source, recipe: _Path, output: _Path | None, **options: Any) -> dict[str, Any]:
    from edgec.tools.compile import Job, compile_model

    return compile_model(Job(source, Path(recipe), None if output is None else Path(output), **options))


def _module(model: Any, example_inputs: Any, input_names: Sequence[str], output_names: Sequence[str]) -> Source:
    from edgec.frontends.sources import TorchModule

    return TorchModule.of(model, example_inputs, input_names, output_names)
