"""What a file of torch's holds, told without running anything that is in it.

torch writes zip archives of several kinds and, before 1.6, bare pickles. Of all these only the program that
``torch.export.save`` writes is a network whose loading needs no code of the file's.
"""

from __future__ import annotations

import pickletools
import struct
import zipfile
import zlib
from pathlib import Path
from typing import NoReturn

from edgec.ir.errors import InputError

DAMAGED = (
    zipfile.BadZipFile, zlib.error, struct.error, OSError, ValueError, KeyError, IndexError, EOFError, RuntimeError,
    NotImplementedError, OverflowError,
)  # fmt: skip
"""What Python's readers of zip archives and pickles raise over bytes that make no sense."""

_SUFFIXES = (".pt2", ".pt", ".pth")
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
# A program of torch.save that holds more than this is not looked through for the class that it begins with.
_MOST_PICKLE = 16 << 20
# Modules that a state dict is made of.
_OF_TENSORS = frozenset(
    {
        "collections",
        "torch",
        "torch._utils",
        "torch._tensor",
        "torch.storage",
        "torch.nn.parameter",
        "torch.serialization",
    }
    | {"builtins", "__builtin__", "numpy", "numpy.core.multiarray", "numpy._core.multiarray", "_codecs"}
)
_SAVE = "torch.export.save(torch.export.export(module.eval(), inputs), 'model.pt2')"
_MEND = f"save the module with {_SAVE}, or name a function that returns it, module:function"


def is_torch_file(path: Path) -> bool:
    """Whether a file is torch's by its content, or, where that says nothing, by its name."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            start = file.read(4)
        if start.startswith(_ZIP):
            return path.suffix == ".pt2" or any(_kind_of_member(name) for name in members(path))
    except DAMAGED:
        return path.suffix in _SUFFIXES
    return start.startswith(_PICKLE) or path.suffix in _SUFFIXES


def members(path: Path) -> list[str]:
    """The names in an archive of torch's, without the folder that all of them lie in."""
    with zipfile.ZipFile(path) as archive:
        return [info.filename.partition("/")[2] or info.filename for info in archive.infolist()]


def check_is_program(path: Path) -> None:
    """Raises InputError where a file is no program of ``torch.export.save``; the line says what it is."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
        if start.startswith(_ZIP):
            names = members(path)
            kinds = {kind for name in names if (kind := _kind_of_member(name))}
        else:
            kinds = {"pickle"} if start.startswith(_PICKLE) else set()
        if "program" in kinds:
            return
        if "old program" in kinds:
            mend = "load it with the torch that wrote it, and save it with torch 2.8 or later"
            raise InputError(path.name, "is a program in the form of torch before 2.8", mend)
        if "script" in kinds:
            raise InputError(path.name, "is a TorchScript archive, not an exported program", _MEND)
        if "pickle" in kinds:
            _refuse_pickle(path.name, _pickle_in(path) if start.startswith(_ZIP) else path.read_bytes()[:_MOST_PICKLE])
    except DAMAGED as error:
        damaged(path.name, error)
    raise InputError(
        path.name, "is no file that torch wrote", "give an .onnx file, or one that torch.export.save wrote"
    )


def damaged(name: str, error: BaseException | str) -> NoReturn:
    """Raises the InputError for a file that is not whole."""
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    raise InputError(name, f"is damaged ({reason})", "export or copy it again")


def _kind_of_member(name: str) -> str:
    """What an archive is that has a member of this name; empty where that tells nothing."""
    if name.startswith("models/") and name.endswith(".json"):
        return "program"
    if name == "serialized_exported_program.json":
        return "old program"
    if name == "constants.pkl" or name.startswith("code/"):
        return "script"
    return "pickle" if name == "data.pkl" else ""


def _pickle_in(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        info = next(i for i in archive.infolist() if i.filename.endswith("/data.pkl"))
        with archive.open(info) as file:
            return file.read(_MOST_PICKLE)


def _refuse_pickle(name: str, content: bytes) -> NoReturn:
    """A pickle is a program for Python: it is read as one, and not run."""
    foreign = ""
    try:
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name == "GLOBAL" and isinstance(argument, str):
                module, _, kind = argument.partition(" ")
                if module not in _OF_TENSORS:
                    foreign = f"{module}.{kind}"
                    break
            elif opcode.name == "STACK_GLOBAL":
                foreign = "classes"
                break
            elif opcode.name == "STOP" and len(content) > 64:
                continue
    except DAMAGED:
        foreign = foreign or ""
    if foreign:
        what = f"is a pickle (of {foreign}), and loading one runs whatever code it names"
        raise InputError(name, what, _MEND)
    what = "holds weights without a network (a state dict)"
    raise InputError(name, what, f"load them into the module; then {_MEND}")
