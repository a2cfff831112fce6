"""What a file of torch's holds, told without running anything that is in it.

torch writes zip archives of several kinds and, before 1.6, bare pickles. Of all these only the program that
``torch.export.save`` writes is a network whose loading needs no code of the file's.
"""

from __future__ import annotations

import io
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

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
        infos = archive.infolist()
    # A program holds its sample inputs as an archive of their own: what is left of one that was cut ends like that.
    if min((info.header_offset for info in infos), default=0) > 0:
        raise zipfile.BadZipFile("its end is missing")
    return [info.filename.partition("/")[2] or info.filename for info in infos]


def check_is_program(path: Path) -> None:
    """Raises InputError where a file is no program of ``torch.export.save``; the line says what it is."""
    name = path.name
    try:
        with path.open("rb") as file:
            start = file.read(len(_ZIP))
            pickled = start + file.read(_MOST_PICKLE) if start.startswith(_PICKLE) else b""
        kinds: set[str] = set()
        if start == _ZIP:
            kinds = {kind for member in members(path) if (kind := _kind_of_member(member))}
            pickled = _pickle_in(path) if "pickle" in kinds else b""
    except PermissionError as error:
        raise InputError(str(path), f"cannot be read ({error.strerror})", "check the file's permissions") from None
    except DAMAGED as error:
        raise damaged(name, error) from error
    if "program" in kinds:
        return
    if "old program" in kinds:
        fix = "load it with the torch that wrote it, and save it with torch 2.8 or later"
        raise InputError(name, "is a program in the form of torch before 2.8", fix)
    if "script" in kinds:
        raise InputError(name, "is a TorchScript archive, not an exported program", _MEND)
    if "compiled" in kinds:
        raise InputError(name, "holds compiled code (AOTInductor), not an exported program", _MEND)
    if pickled:
        raise _refusal(name, pickled)
    fix = "give an .onnx file, or a .pt2 file that torch.export.save wrote"
    raise InputError(name, "is no file that torch wrote whole", fix)


def damaged(name: str, error: BaseException) -> InputError:
    """The error for a file that is not whole."""
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    return InputError(name, f"is damaged ({reason})", "export or copy it again")


def _kind_of_member(name: str) -> str:
    """What an archive is that has a member of this name; empty where that tells nothing."""
    if name.startswith("models/") and name.endswith(".json"):
        return "program"
    if name == "serialized_exported_program.json":
        return "old program"
    if name == "constants.pkl" or name.startswith("code/"):
        return "script"
    if name.startswith("data/aotinductor/"):
        return "compiled"
    return "pickle" if name == "data.pkl" else ""


def _pickle_in(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        info = next(info for info in archive.infolist() if info.filename.partition("/")[2] == "data.pkl")
        with archive.open(info) as file:
            return file.read(_MOST_PICKLE)


def _refusal(name: str, content: bytes) -> InputError:
    """The error for a pickle, after the classes that it names."""
    named = list(_classes(content))
    foreign = next((f"{module}.{kind}" for module, kind in named if module not in _OF_TENSORS), "")
    if foreign:
        return InputError(name, f"is a pickle (of {foreign}), and loading one runs whatever code it names", _MEND)
    if any(module.startswith("torch") for module, _ in named):
        fix = f"load them into the module; then {_MEND}"
        return InputError(name, "holds weights without a network (a state dict)", fix)
    return InputError(name, "is a pickle, not an exported program", _MEND)


def _classes(content: bytes) -> Iterator[tuple[str, str]]:
    """Module and name of the classes in a file of pickles. A pickle is a program: it is read as one, and not run."""
    stream = io.BytesIO(content)
    words: list[str] = []
    with suppress(*DAMAGED):  # what was found before the damage is enough to refuse it
        while stream.tell() < len(content):
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name == "GLOBAL":
                    module, _, kind = str(argument).partition(" ")
                    yield module, kind
                elif opcode.name == "STACK_GLOBAL" and len(words) > 1:
                    yield words[-2], words[-1]
                elif isinstance(argument, str):
                    words.append(argument)
