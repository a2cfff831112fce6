"""Programs that ``torch.export.save`` wrote (``.pt2``), loaded so that nothing in the file is run.

``torch.export.load`` trusts its file. It unpickles whatever the file says is a pickle, evaluates symbolic sizes as
Python, imports modules that a tree's context names, looks any function of torch up by the path that a node gives
(``torch.os.system`` is one), loads compiled code that lies in the archive, and later executes the guards. So the
archive is read here first: a copy is written that holds the graph, cleared of guards and metadata, and the weights as
plain bytes, after every name and size in it has been checked. torch gets the copy.

The archive: https://docs.pytorch.org/docs/stable/export/pt2_archive.html; the graph's schema is in torch's source,
torch/_export/serde/schema.py.
"""

from __future__ import annotations

import ast
import json
import math
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgec.frontends.python_functions import FOREIGN
from edgec.frontends.torch_archives import DAMAGED, check_is_program, damaged
from edgec.frontends.torch_export import need_torch, quiet
from edgec.ir.errors import InputError

_OPERATOR = re.compile(
    r"torch\.ops\.(aten|prims|quantized_decomposed|torchvision)\.(_{0,2}[A-Za-z][A-Za-z0-9_]*)(\.[A-Za-z]\w*)?"
)
_HIGHER_ORDER = frozenset(
    {"cond", "while_loop", "scan", "map_impl", "wrap_with_set_grad_enabled", "wrap_with_autocast"}
)
_DUNDER = re.compile(r"__i?(and|or|xor|lshift|rshift)__")
_ARITHMETIC = frozenset(
    {
        f"_operator.{name}"
        for name in ("getitem", "add", "sub", "mul", "neg", "pos", "floordiv", "truediv", "mod", "pow")
    }
    | {f"_operator.{name}" for name in ("eq", "ne", "lt", "le", "gt", "ge", "and_", "or_")}
    | {f"torch.sym_{name}" for name in ("int", "float", "max", "min", "not", "ite", "sqrt")}
    | {"math.trunc", "math.ceil", "math.floor"}
)
# What a size may be computed by: sympy's classes, and torch's own.
_SYMBOLIC = frozenset(
    {
        "Symbol",
        "Integer",
        "Rational",
        "Float",
        "Add",
        "Mul",
        "Max",
        "Min",
        "FloorDiv",
        "ModularIndexing",
        "Where",
        "Mod",
    }
    | {"PythonMod", "CleanDiv", "CeilToInt", "FloorToInt", "CeilDiv", "IntTrueDiv", "FloatTrueDiv", "TruncToInt"}
    | {"TruncToFloat", "RoundToInt", "ToFloat", "Identity", "true", "false"}
)
_EXPRESSION = (
    ast.Expression, ast.Call, ast.keyword, ast.Name, ast.Load, ast.Constant, ast.BinOp, ast.UnaryOp, ast.Compare,
    ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.USub, ast.UAdd, ast.Eq, ast.NotEq, ast.Lt, ast.LtE,
    ast.Gt, ast.GtE,
)  # fmt: skip
_LONGEST_EXPRESSION = 2000
_CHUNK = 1 << 20
_AGAIN = "export it again with torch.export.save"
_PAYLOAD = {"weights": re.compile(r"weight_\d+"), "constants": re.compile(r"tensor_\d+")}


def load_program(path: Path, scratch: Path) -> Any:
    """The ``ExportedProgram`` in a file.

    Args:
        path: the file.
        scratch: a folder for the copy that torch loads.

    Raises:
        InputError: it is another kind of file, is damaged, or asks for code to be run; the line says what.
    """
    check_is_program(path)
    need_torch(path.name)
    copy = scratch / "program.pt2"
    try:
        with zipfile.ZipFile(path) as archive:
            _Checked(archive, path).write(copy)
    except InputError:
        raise
    except (*DAMAGED, TypeError, AttributeError, RecursionError) as error:
        raise damaged(path.name, error) from error
    import torch

    with quiet():
        try:
            return torch.export.load(copy)
        except (MemoryError, OSError):
            raise
        except FOREIGN as error:
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise InputError(path.name, f"cannot be loaded by torch {torch.__version__} ({reason})", _AGAIN) from error


class _Checked:
    """An archive, checked while it is copied."""

    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        self.archive = archive
        self.source = path.name
        self.infos: dict[str, zipfile.ZipInfo] = {}
        for info in archive.infolist():
            name = info.filename.partition("/")[2]
            if name in self.infos:
                raise InputError(self.source, f"holds '{name}' twice", _AGAIN)
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
                raise InputError(self.source, f"holds '{name}' compressed, which torch never writes", _AGAIN)
            self.infos[name] = info
        size = path.stat().st_size
        if sum(info.file_size for info in self.infos.values()) > size:
            raise InputError(self.source, "says that it holds more bytes than the file has", _AGAIN)
        models = [name for name in self.infos if name.startswith("models/")]
        if models != ["models/model.json"]:
            what = f"holds {len(models)} programs, or one that is not called 'model'"
            raise InputError(self.source, what, "save one program to a file with torch.export.save")

    def write(self, copy: Path) -> None:
        """Writes what is left of the archive: a graph and plain weights."""
        model = self._json("models/model.json")
        self._check_graph(model)
        payloads: dict[str, None] = {}
        configs = {}
        for kind in _PAYLOAD:
            name = f"data/{kind}/model_{kind}_config.json"
            configs[name] = self._json(name)
            for path_name in self._payloads(kind, configs[name]):
                payloads[f"data/{kind}/{path_name}"] = None
        with zipfile.ZipFile(copy, "w", zipfile.ZIP_STORED) as out:
            for name in payloads:
                with (
                    self.archive.open(self.infos[name]) as content,
                    out.open(f"model/{name}", "w", force_zip64=True) as to,
                ):
                    while chunk := content.read(_CHUNK):
                        to.write(chunk)
            for name, value in {**configs, "models/model.json": model}.items():
                out.writestr(f"model/{name}", json.dumps(value))
            out.writestr("model/data/sample_inputs/model.pt", b"")
            for name in ("archive_format", "archive_version", "byteorder", ".data/version"):
                if name in self.infos:
                    out.writestr(f"model/{name}", self._read(name))

    def _read(self, name: str) -> bytes:
        if name not in self.infos:
            raise InputError(self.source, f"lacks '{name}'", _AGAIN)
        return self.archive.read(self.infos[name])

    def _json(self, name: str) -> dict[str, Any]:
        value = json.loads(self._read(name))
        if not isinstance(value, dict):
            raise InputError(self.source, f"holds no object in '{name}'", _AGAIN)
        return value

    # -- weights ------------------------------------------------------------------------------------------------------

    def _payloads(self, kind: str, config: dict[str, Any]) -> Iterator[str]:
        """The members that hold tensors, each checked to be as large as the tensors that it is said to hold."""
        for name, entry in config["config"].items():
            where = f"{self.source}: {'weight' if kind == 'weights' else 'constant'} '{name}'"
            path_name = entry["path_name"]
            if entry["use_pickle"] or not _PAYLOAD[kind].fullmatch(path_name):
                what = "is stored as a pickle, and loading one runs whatever code it names"
                raise InputError(where, what, "export a module whose weights are plain tensors")
            meta = entry["tensor_meta"]
            if meta["device"]["type"] != "cpu":
                what = f"lies on a device '{meta['device']['type']}'"
                raise InputError(where, what, "move the module to the CPU with module.cpu() and export it again")
            sizes = [size["as_int"] for size in meta["sizes"]]
            full = f"data/{kind}/{path_name}"
            if full not in self.infos:
                raise InputError(where, f"is missing ('{full}')", "export or copy the file again")
            held = self.infos[full].file_size
            if any(size < 0 for size in sizes) or math.prod(sizes) > held:
                shape = "x".join(map(str, sizes))
                what = f"is said to be of shape {shape}, and the file has {held} bytes for it"
                raise InputError(where, what, "export or copy the file again")
            yield path_name

    # -- the graph ----------------------------------------------------------------------------------------------------

    def _check_graph(self, model: dict[str, Any]) -> None:
        """Checks every name in the graph that torch would look up, and drops what it does not need to be a graph."""
        model["guards_code"] = []
        model["graph_module"]["metadata"] = {}
        waiting: list[Any] = [model]
        while waiting:
            value = waiting.pop()
            if isinstance(value, list):
                waiting += value
            elif isinstance(value, dict):
                if "target" in value and "metadata" in value:
                    stack = value["metadata"].get("nn_module_stack")
                    value["metadata"] = {} if stack is None else {"nn_module_stack": stack}
                for key, item in value.items():
                    self._check_entry(key, item)
                    waiting.append(item)

    def _check_entry(self, key: str, item: Any) -> None:
        if key in ("target", "as_operator") and isinstance(item, str) and not _is_operator(item):
            raise InputError(self.source, f"calls '{item}', which is no operator that edgec lets a file call", _AGAIN)
        if key == "expr_str" and not _is_expression(item):
            raise InputError(self.source, f"has a size that is no arithmetic ('{str(item)[:80]}')", _AGAIN)
        if key in ("in_spec", "out_spec") and isinstance(item, str) and not _is_plain_tree(item):
            raise InputError(self.source, f"has an '{key}' that names code", "export it with tuples, lists and dicts")
        if key in ("as_custom_obj", "custom_obj"):
            raise InputError(self.source, "holds an object of the user's own class", "export a module of tensors only")


def _is_operator(target: str) -> bool:
    if target in _ARITHMETIC:
        return True
    if target.startswith("torch.ops.higher_order."):
        return target.removeprefix("torch.ops.higher_order.") in _HIGHER_ORDER
    match = _OPERATOR.fullmatch(target)
    return match is not None and (not match[2].startswith("__") or _DUNDER.fullmatch(match[2]) is not None)


def _is_expression(text: Any) -> bool:
    """Whether a symbolic size, which sympy evaluates as Python, is nothing but arithmetic on symbols."""
    if not isinstance(text, str) or len(text) > _LONGEST_EXPRESSION:
        return False
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    for node in ast.walk(tree):
        if not isinstance(node, _EXPRESSION):
            return False
        if isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and node.func.id in _SYMBOLIC):
            return False
        if isinstance(node, ast.Name) and node.id not in _SYMBOLIC and not re.fullmatch(r"[suzf]+\d+", node.id):
            return False
        if isinstance(node, ast.Constant) and not _is_harmless(node.value):
            return False
    return True


def _is_harmless(value: Any) -> bool:
    """Whether a constant is a number, or the name of a symbol."""
    return isinstance(value, int | float) or (
        isinstance(value, str) and re.fullmatch(r"[A-Za-z_]\w*", value) is not None
    )


def _is_plain_tree(text: str) -> bool:
    """Whether a tree of arguments, JSON in JSON, has no mapping in its contexts: torch imports what those name."""
    waiting: list[Any] = [json.loads(text)]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            if not set(value) <= {"type", "context", "children_spec"}:
                return False
            context = value.get("context")
            if not _is_flat(json.loads(context) if isinstance(context, str) else context):
                return False
            waiting.append(value.get("children_spec"))
    return True


def _is_flat(value: Any) -> bool:
    return all(map(_is_flat, value)) if isinstance(value, list) else not isinstance(value, dict)
