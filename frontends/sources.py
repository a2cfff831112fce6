"""Where a model comes from: an ONNX file, a program that torch exported, or a torch module.

Whatever it is, the rest of edgec gets an ONNX file: the user's own, or one that is written for the run.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edgec.frontends.python_functions import FUNCTION, find_function, importable, run_foreign
from edgec.frontends.torch_archives import is_torch_file
from edgec.frontends.torch_export import Example, export_module, need_torch, write_program
from edgec.ir.errors import InputError
from edgec.ir.files import save
from edgec.ir.graph import Graph

# What protobuf writes in one piece, less room for the rest.
_LARGEST_MESSAGE = (1 << 31) - (1 << 20)


class Source(Protocol):
    """Where a model comes from."""

    @property
    def name(self) -> str:
        """What messages and the report call it."""
        ...

    @property
    def stem(self) -> str:
        """What its output folder is called."""
        ...

    @property
    def file(self) -> Path | None:
        """The user's file, where there is one."""
        ...

    def onnx(self, scratch: Path) -> Path:
        """The model as an ONNX file, written into the folder ``scratch`` where it is not the user's own.

        Raises:
            InputError: it cannot be had as ONNX; the line says why.
            UsageError: nothing has the name that was given.
        """
        ...


@dataclass(frozen=True)
class _File:
    """A file of the user's."""

    file: Path

    @property
    def name(self) -> str:
        """The file's name."""
        return self.file.name

    @property
    def stem(self) -> str:
        """The file's name without its ending."""
        return self.file.stem


@dataclass(frozen=True)
class OnnxFile(_File):
    """A user's ONNX file."""

    def onnx(self, scratch: Path) -> Path:
        """The file itself."""
        return self.file


@dataclass(frozen=True)
class TorchFile(_File):
    """A file of torch's; only a program that ``torch.export.save`` wrote is a model."""

    def onnx(self, scratch: Path) -> Path:
        """The program, translated."""
        from edgec.frontends.torch_programs import load_program

        return write_program(load_program(self.file, scratch), Example(()), scratch / self.name)


@dataclass(frozen=True)
class TorchFunction:
    """A function ``package.module:function`` that returns a torch module and example inputs.

    It may return a third thing, a dictionary with ``input_names`` and ``output_names``.
    """

    name: str
    file: None = None

    @property
    def stem(self) -> str:
        """The function's name."""
        return self.name.partition(":")[2]

    def onnx(self, scratch: Path) -> Path:
        """Runs the function and exports what it returns."""
        need_torch(self.name)
        folder = Path.cwd()
        function = find_function(self.name, folder, self.name, self.name, "into the current folder")
        module, example = _returned(run_foreign(function, self.name, folder), self.name)
        with importable(folder):
            return export_module(module, example, scratch / self.name)


@dataclass(frozen=True)
class TorchModule:
    """A torch module in memory, with example inputs."""

    module: Any
    example: Example
    file: None = None

    @classmethod
    def of(
        cls, module: Any, inputs: Any, input_names: Sequence[str] = (), output_names: Sequence[str] = ()
    ) -> TorchModule:
        """A module with what it is called with. Raises TypeError where it is no torch module."""
        need_torch("the module")
        import torch

        if not isinstance(module, torch.nn.Module):
            raise TypeError(f"a model is a path, the name of a function or a torch.nn.Module, not {_shown(module)}")
        return cls(module, Example(inputs, tuple(input_names), tuple(output_names)))

    @property
    def name(self) -> str:
        """The module's class."""
        return type(self.module).__name__

    @property
    def stem(self) -> str:
        """The module's class."""
        return self.name

    def onnx(self, scratch: Path) -> Path:
        """Exports the module, which is left as it was."""
        return export_module(self.module, self.example, scratch / self.name)


@dataclass(frozen=True)
class InMemory:
    """A model in memory: a graph, or a message of ONNX's."""

    model: Any
    stem: str
    file: None = None

    @property
    def name(self) -> str:
        """The graph's name."""
        return self.stem

    def onnx(self, scratch: Path) -> Path:
        """Writes the model; its weights are mapped from there, and the map outlives the file."""
        path = scratch / f"{self.stem}.onnx"
        if isinstance(self.model, Graph):
            save(self.model, path)
            return path
        import onnx

        onnx.save_model(self.model, path, save_as_external_data=_is_large(self.model))
        return path


def in_memory(model: object) -> InMemory | None:
    """The source of an ``onnx.ModelProto``, an ``onnx_ir.Model`` or a graph; ``None`` for anything else."""
    import onnx

    if type(model).__module__.partition(".")[0] == "onnx_ir" and type(model).__name__ == "Model":
        import onnx_ir

        held: Any = model
        model = onnx_ir.to_proto(held)
    if isinstance(model, onnx.ModelProto):
        return InMemory(model, _as_stem(model.graph.name))
    if isinstance(model, Graph):
        return InMemory(model, _as_stem(model.name))
    return None


def _as_stem(name: str) -> str:
    """A graph's name as that of a file."""
    stem = re.sub(r"[^\w.-]+", "_", name).strip("._")
    return stem or "model"


def _is_large(model: Any) -> bool:
    """Whether a message is too large to be written as one."""
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer) > _LARGEST_MESSAGE


def source_of(model: str | os.PathLike[str]) -> Source:
    """The source that a user named: the path of a file, or a function as ``package.module:function``.

    A file of that name comes first. Nothing is run here.
    """
    path = Path(model)
    if not path.exists() and FUNCTION.fullmatch(os.fspath(model)):
        return TorchFunction(os.fspath(model))
    return TorchFile(path) if is_torch_file(path) else OnnxFile(path)


@contextmanager
def opened(source: Source) -> Iterator[Path]:
    """The model as an ONNX file; one that was written for it goes away behind the block.

    A graph that was read from it goes on: its weights are mapped, and the map holds them.
    """
    with tempfile.TemporaryDirectory(prefix="edgec-") as scratch:
        yield source.onnx(Path(scratch))


def _returned(result: Any, where: str) -> tuple[Any, Example]:
    """What a user's function returned: a module, example inputs and, where it chose them, names."""
    import torch

    fix = "return module, example_inputs"
    if not isinstance(result, tuple) or len(result) not in (2, 3) or not isinstance(result[0], torch.nn.Module):
        raise InputError(where, f"returned {_shown(result)}, not a torch module and example inputs", fix)
    module, inputs, *more = result
    names = more[0] if more else {}
    known = ("input_names", "output_names")
    if not isinstance(names, dict) or not set(names) <= set(known):
        raise InputError(where, f"returned {_shown(names)} as names", f"return a dictionary with {' and '.join(known)}")
    return module, Example(inputs, *(_strings(names.get(key, ())) for key in known))


def _strings(names: Sequence[Any]) -> tuple[Any, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(type(item).__name__ for item in value)})"
    return type(value).__name__
