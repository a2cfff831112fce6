"""From a torch module to an ONNX file that is as clean as one that edgec writes itself.

``torch.export`` traces the module in evaluation mode and ``torch.onnx`` translates it, without its own optimizations:
those fuse BatchNormalization into convolutions, which would change the weights behind the user's back and take away
names that a recipe speaks of. What the translation leaves to be computed from constants is computed here, sequences
that only carry tensors are taken apart, and nodes get the names of the modules that they come from.
"""

from __future__ import annotations

import builtins
import io
import logging
import os
import sysconfig
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgec.frontends.python_functions import FOREIGN
from edgec.frontends.torch_names import name_outputs, tidy
from edgec.ir.errors import InputError
from edgec.ir.files import load, save

OPSET = 18
"""The one that torch.onnx writes without converting."""

_LONGEST_REASON = 200
_BRANCH = "write a branch on data with torch.where or torch.cond, or let it depend on shapes alone"
_EXAMPLE = "give example inputs that the module's forward takes"
_TRACE = "fix the module until torch.export.export(module, inputs) takes it"


@dataclass(frozen=True)
class Example:
    """What a module is called with, and what its ends are called.

    Attributes:
        inputs: a tensor, a tuple of positional arguments, or a dictionary of named ones; what is inside may be nested.
        input_names: a name for each tensor in ``inputs``, in their order; by default those of forward's parameters.
        output_names: a name for each tensor that is returned; by default ``output``, or what the module's dictionary
            calls it.
    """

    inputs: Any
    input_names: Sequence[str] = ()
    output_names: Sequence[str] = ()


def need_torch(where: str) -> None:
    """Raises InputError where torch, or what exports from it, is not installed."""
    for package in ("torch", "onnxscript"):
        try:
            with quiet():
                __import__(package)
        except ModuleNotFoundError as error:
            if error.name != package:
                raise
            what = f"needs {package}, which is not installed"
            raise InputError(where, what, "install it with pip install 'edgec[torch]'") from None


def export_module(module: Any, example: Example, file: Path) -> Path:
    """Writes a torch module as ONNX to ``file``, whose name is what messages call the model.

    The module is as it was afterwards, its training modes, attributes and hooks included, also when this fails.

    Raises:
        InputError: the module cannot be exported; the line says why, and where in the user's code.
    """
    import torch

    where = file.name
    if isinstance(module, torch.jit.ScriptModule):
        what = "is TorchScript, which torch.export does not take"
        raise InputError(where, what, "give the module that it was made of")
    arguments, named = _arguments(example.inputs, where)
    with _evaluating(module), quiet():
        try:
            program = torch.export.export(module, arguments, named)
        except MemoryError:
            raise
        except FOREIGN as error:
            reason = f"cannot be traced by torch.export ({_reason(error)}{_user_place(error)})"
            raise InputError(where, reason, _mend(error)) from error
    return write_program(program, example, file)


def write_program(program: Any, example: Example, file: Path) -> Path:
    """Writes an exported program as ONNX to ``file``.

    Raises:
        InputError: it holds what has no form in ONNX, was exported in training mode, or keeps state.
    """
    import torch
    from onnxscript import optimizer

    where = file.name
    _check_program(program, where)
    parameters = frozenset(program.graph_signature.parameters) | frozenset(program.graph_signature.buffers)
    with quiet():
        try:
            exported = torch.onnx.export(program, dynamo=True, opset_version=OPSET, optimize=False, verbose=False)
            # What reads a weight is left to the pass fold: here the weights keep their names.
            optimizer.fold_constants(
                exported.model,
                should_fold=lambda node: False if _reads_any(node, parameters) and node.op_type != "Shape" else None,
            )
            optimizer.remove_unused_nodes(exported.model)
            raw = file.with_name(f"{file.name}.exported")
            exported.save(str(raw))
        except (MemoryError, OSError):
            raise
        except FOREIGN as error:
            reason = f"cannot be translated to ONNX by torch.onnx ({_reason(_cause(error))})"
            raise InputError(where, reason, "write it with operators that ONNX has") from error
    graph = load(raw)
    tidy(graph, parameters)
    name_outputs(graph, example.input_names, example.output_names, program.call_spec.out_spec, where)
    save(graph, file)
    return file


@contextmanager
def quiet() -> Iterator[None]:
    """Within the block nothing is said: warnings, log lines, and what torch or the module prints while it is traced."""
    before = logging.root.manager.disable
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(before)


@contextmanager
def _evaluating(module: Any) -> Iterator[None]:
    """Evaluation mode within the block; afterwards every module inside has the attributes that it had before.

    The flags are set without the user's own ``eval()``, which may do more than set them (merge weights, say).
    """
    inside = list(module.modules())
    before = [(part, dict(vars(part)), _registers(part)) for part in inside]
    try:
        for part in inside:
            vars(part)["training"] = False
        yield
    finally:
        for part, attributes, registers in before:
            vars(part).clear()
            vars(part).update(attributes)
            for name, content in registers.items():
                attributes[name].clear()
                attributes[name].update(content)


def _registers(part: Any) -> dict[str, dict[Any, Any]]:
    """What a module keeps in dictionaries: parameters, buffers, modules inside, hooks."""
    return {name: dict(held) for name, held in vars(part).items() if isinstance(held, dict)}


def _arguments(inputs: Any, where: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    import torch
    from torch.utils import _pytree as pytree

    if not any(isinstance(leaf, torch.Tensor) for leaf in pytree.tree_leaves(inputs)):
        what = f"has example inputs without a tensor ({type(inputs).__name__})"
        raise InputError(where, what, "give a tensor, a tuple of them, or a dictionary of them by name")
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)), {}


def _check_program(program: Any, where: str) -> None:
    """Raises InputError for what only makes sense while a network is trained, and for state."""
    import torch

    for node in program.graph.nodes:
        if not isinstance(node.target, torch._ops.OpOverload):
            continue
        names = [argument.name for argument in node.target._schema.arguments]
        given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
        if given.get("training") is True or given.get("train") is True:
            what = f"runs {node.target._schema.name.removeprefix('aten::')} in training mode{_module_of(node)}"
            fix = "call module.eval() before torch.export, and give functions training=self.training"
            raise InputError(where, what, fix)
    # Before it is put into functional form, a program does not tell what it changes in place.
    with quiet():
        changed = program.run_decompositions({}).graph_signature.buffers_to_mutate
    if changed:
        what = f"changes its buffer '{next(iter(changed.values()))}' when it runs"
        raise InputError(where, what, "export a module without state: give what it keeps as inputs and outputs")


def _module_of(node: Any) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    path = list(stack.values())[-1][0] if stack else ""
    return f" in '{path}'" if path else ""


def _reads_any(node: Any, names: frozenset[str]) -> bool:
    return any(value is not None and value.name in names for value in node.inputs)


def _cause(error: BaseException) -> BaseException:
    """The innermost error: torch.onnx wraps it in others that only say that something failed."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kind = type(error).__name__
    text = " ".join(lines[0].split()).rstrip(".:") if lines else kind
    if lines and hasattr(builtins, kind) and not isinstance(error, RuntimeError):
        text = f"{kind}: {text}"
    return text if len(text) <= _LONGEST_REASON else text[: _LONGEST_REASON - 3] + "..."


def _mend(error: BaseException) -> str:
    if "data-dependent" in str(error) or "DataDependent" in type(error).__name__:
        return _BRANCH
    return _EXAMPLE if isinstance(error, TypeError) else _TRACE


def _user_place(error: BaseException) -> str:
    """Where in the user's own code an error came up; empty where it came up nowhere there."""
    library = tuple(sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib", "purelib", "platlib"))
    others = (*(folder + os.sep for folder in library), __file__, "<")
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(others):
            return f", at {Path(frame.filename).name} line {frame.lineno}"
    return ""
