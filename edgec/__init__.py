"""edgec: a compiler that makes trained neural networks fit small devices.

>>> import edgec
>>> report = edgec.compile("model.onnx", "compress.yaml", output="build/model")
>>> graph = edgec.load("build/model/model.onnx")

A torch module is compiled with example inputs beside it:

>>> report = edgec.compile(module, torch.zeros(1, 3, 224, 224), "compress.yaml")
>>> smaller = edgec.to_torch("build/Module/model.onnx")

Passes are run by themselves, on data in whatever form:

>>> from edgec.passes import Fold, Pipeline, Prune
>>> result = Pipeline([Fold(), Prune(macs=0.5)], data=edgec.Dataset(loader)).run(graph)
"""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, overload

from edgec.dataset import Dataset

if TYPE_CHECKING:
    import onnx
    import torch

    from edgec.frontends.recipe import Recipe
    from edgec.frontends.sources import Source
    from edgec.ir.graph import Graph
    from edgec.pipeline import Pipeline

# onnxruntime from 1.31 on sends telemetry and writes an identifier of the machine unless this is set before it is
# loaded; a user who set it has decided.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
logging.getLogger(__name__).addHandler(logging.NullHandler())

__version__ = "0.1.0"
__all__ = ["Dataset", "Pipeline", "Recipe", "__version__", "compile", "load", "to_torch"]

_Path: TypeAlias = "str | os.PathLike[str]"
_Model: TypeAlias = "_Path | onnx.ModelProto | Graph"
_Recipe: TypeAlias = "_Path | Mapping[str, Any] | Recipe"


@overload
def load(model: _Model, inputs: Mapping[str, Any] | None = None) -> Graph: ...
@overload
def load(
    model: torch.nn.Module, example_inputs: Any, /, *, input_names: Sequence[str] = (), output_names: Sequence[str] = ()
) -> Graph: ...
def load(model: Any, *arguments: Any, **named: Any) -> Graph:
    """The graph of a model as passes see it: one opset, static shapes, constants in place.

    ``load(model, inputs=None)`` reads a model; ``load(module, example_inputs, input_names=(), output_names=())``
    exports a torch module.

    Args:
        model: an ONNX file, whose weights are mapped, not read; a program that ``torch.export.save`` wrote; the name of
            a function that returns a torch module and example inputs, ``"package.module:function"``; an
            ``onnx.ModelProto``; an ``onnx_ir.Model``; a graph; or a torch module.
        inputs: by input name a shape (a tuple), for inputs with open dimensions, or a value (a number, nested lists
            or an array), for inputs that are to be constants.
        example_inputs: what the module is called with: a tensor, a tuple, or a dictionary by parameter.
        input_names: a name for each input; by default those of the module's parameters.
        output_names: a name for each output; by default ``output``, or the keys of what the module returns.

    Raises:
        edgec.ir.errors.EdgecError: the model cannot be used; the message says what is wrong and how to fix it.
        TypeError: it is no model.
    """
    source, (inputs,), _ = _called(model, arguments, named, ("inputs",))
    return _graph(source, inputs)


@overload
def compile(
    model: _Model,
    recipe: _Recipe,
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
    recipe: _Recipe,
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

    ``compile(model, recipe, output=None, *, inputs=None, threads=0, timing=True)`` takes a model;
    ``compile(module, example_inputs, recipe, output=None, *, input_names=(), output_names=(), threads=0,
    timing=True)`` a torch module, which is exported in evaluation mode and left as it was.

    Args:
        model: what :func:`load` takes.
        example_inputs: what the module is called with, as in :func:`load`; their shapes are the network's.
        recipe: the recipe: a YAML file, a dictionary as such a file has it (its paths are relative to the current
            folder), or a :class:`Recipe`.
        output: the folder to leave; ``build/<model's stem>`` by default, for a module ``build/<its class>``.
        inputs: by input name a shape (a tuple), for inputs with open dimensions, or a value (a number, nested lists
            or an array), for inputs that are to be constants.
        input_names: a name for each input of a module, as in :func:`load`.
        output_names: a name for each output of a module, as in :func:`load`.
        threads: how many threads may work, 0 for as many as there are cores; the outputs do not depend on it.
        timing: measure latency and memory too.

    Raises:
        edgec.ir.errors.EdgecError: what is wrong, where, and how to fix it. An earlier output is whole then. Where some
            targets cannot be emitted and others can, nothing is raised: the report holds an ``error`` for each of them.
        TypeError: it is no model, or no recipe.
    """
    try:
        source, (recipe, output, inputs), options = _called(model, arguments, named, ("recipe", "output", "inputs"))
        return _report(source, recipe, output, inputs, **options)
    finally:
        # Nodes and tensors know each other, and what a run leaves counts as old: whoever compiles one model after the
        # other would hold gigabytes until the collector looks at that.
        gc.collect()


def to_torch(model: _Model) -> torch.nn.Module:
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


def __getattr__(name: str) -> Any:
    """What is imported when it is asked for."""
    if name == "Pipeline":
        from edgec.pipeline import Pipeline

        return Pipeline
    if name == "Recipe":
        from edgec.frontends.recipe import Recipe

        return Recipe
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)


def _called(
    model: Any, arguments: tuple[Any, ...], named: dict[str, Any], names: Sequence[str]
) -> tuple[Source, list[Any], dict[str, Any]]:
    """Where a model comes from, what was given for ``names`` by place or by name, and what else was given by name."""
    from edgec.frontends.sources import TorchModule, in_memory, source_of

    options, given = dict(named), list(arguments)
    if isinstance(model, str | os.PathLike):
        source: Source = source_of(model)
    elif (held := in_memory(model)) is not None:
        source = held
    else:
        if not given and "example_inputs" not in options:
            raise TypeError(
                f"a model is a path, the name of a function, an ONNX model, a graph, or a torch.nn.Module with example"
                f" inputs behind it, not {type(model).__name__} alone"
            )
        example = given.pop(0) if given else options.pop("example_inputs")
        chosen = [options.pop(key, ()) for key in ("input_names", "output_names")]
        source = TorchModule.of(model, example, *chosen)
    if len(given) > len(names):
        raise TypeError(f"{len(given) - len(names)} arguments too many: behind the model come {', '.join(names)}")
    values = []
    for place, name in enumerate(names):
        if place < len(given) and name in options:
            raise TypeError(f"'{name}' is given twice")
        values.append(given[place] if place < len(given) else options.pop(name, None))
    return source, values, options


def _graph(source: Source, inputs: Mapping[str, Any] | None = None) -> Graph:
    from edgec.frontends.model import as_pins, open_model
    from edgec.frontends.sources import opened

    with opened(source) as path:
        return open_model(path, as_pins(inputs or {}))


def _report(
    source: Source, recipe: Any, output: _Path | None, inputs: Mapping[str, Any] | None, **options: Any
) -> dict[str, Any]:
    from edgec.frontends.model import as_pins
    from edgec.frontends.recipe import Recipe, recipe_of
    from edgec.tools.compile import Job, compile_model

    if isinstance(recipe, Mapping):
        recipe = recipe_of(recipe)
    elif isinstance(recipe, str | os.PathLike):
        recipe = Path(recipe)
    elif not isinstance(recipe, Recipe):
        raise TypeError(f"a recipe is a path, a dictionary or an edgec.Recipe, not {type(recipe).__name__}")
    place = None if output is None else Path(output)
    return compile_model(Job(source, recipe, place, pins=as_pins(inputs or {}), **options))
