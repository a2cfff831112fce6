"""Torch's files: exported programs are read without running anything in them, everything else is refused in a line."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import edgec
from edgec.ir.errors import InputError

_MEND = (
    "save the module with torch.export.save(torch.export.export(module.eval(), inputs), 'model.pt2'), "
    "or name a function that returns it, module:function"
)
_AGAIN = "export it again with torch.export.save"


class Executed:
    """Writes a file when it is unpickled."""

    def __reduce__(self) -> Any:
        return exec, ("open('ran', 'w').close()",)


def made() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()).eval()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("program") / "model.pt2"
    torch.export.save(torch.export.export(made(), (torch.zeros(1, 1, 4, 4),)), path)
    return path.read_bytes()


def refusal(content: bytes, name: str = "model.pt2") -> str:
    Path(name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        edgec.load(name)
    assert not Path("ran").exists()
    return str(caught.value).removeprefix(f"{name}: ")


def rewritten(content: bytes, member: str, change: Callable[[Any], None]) -> bytes:
    """The archive with one of its JSON members changed."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            data = old.read(info)
            if info.filename.endswith(member):
                value = json.loads(data)
                change(value)
                data = json.dumps(value).encode()
            new.writestr(info.filename, data)
    return out.getvalue()


def saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def test_a_program(here: Path, program: bytes) -> None:
    Path("model.pt2").write_bytes(program)
    graph = edgec.load("model.pt2")
    assert [(node.name, node.op) for node in graph.nodes] == [("0", "Conv"), ("1", "Relu")]
    assert {constant.name for constant in graph.constants()} == {"0.weight", "0.bias"}


def test_other_files_of_torch(here: Path) -> None:
    what = "is a pickle (of torch.nn.modules.container.Sequential), and loading one runs whatever code it names"
    assert refusal(saved(made()), "m.pt") == f"{what}; {_MEND}"
    states = f"holds weights without a network (a state dict); load them into the module; then {_MEND}"
    assert refusal(saved(made().state_dict()), "m.pth") == states
    assert refusal(pickle.dumps([1, 2]), "m.pt") == f"is a pickle, not an exported program; {_MEND}"
    hostile = "is a pickle (of builtins.exec), and loading one runs whatever code it names"
    assert refusal(pickle.dumps({"a": Executed()}), "m.pt").startswith(hostile.split(" (of")[0])
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(made(), torch.zeros(1, 1, 4, 4)), buffer)
    assert refusal(buffer.getvalue(), "m.pt") == f"is a TorchScript archive, not an exported program; {_MEND}"
    whole = "is no file that torch wrote whole; give an .onnx file, or a .pt2 file that torch.export.save wrote"
    assert refusal(b"") == refusal(b"text") == whole


@pytest.mark.parametrize(
    ("keep", "reason"),
    [(0.02, "File is not a zip file"), (0.5, "File is not a zip file"), (0.99, "its end is missing")],
)
def test_damaged(here: Path, program: bytes, keep: float, reason: str) -> None:
    assert refusal(program[: int(len(program) * keep)]) == f"is damaged ({reason}); export or copy it again"


def calls_the_system(model: Any) -> None:
    model["graph_module"]["graph"]["nodes"][0]["target"] = "torch.os.system"


def loads_a_library(model: Any) -> None:
    model["graph_module"]["graph"]["nodes"][0]["target"] = "torch.ops.load_library.__call__"


def evaluates(model: Any) -> None:
    size = {"as_expr": {"expr_str": "exec(\"open('ran','w')\")", "hint": None}}
    next(iter(model["graph_module"]["graph"]["tensor_values"].values()))["sizes"][0] = size


def imports(model: Any) -> None:
    context = json.dumps({"__enum__": True, "fqn": "antigravity:x", "name": "y"})
    tree = json.dumps([1, {"type": "builtins.tuple", "context": context, "children_spec": []}])
    model["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = tree


def pickles(config: Any) -> None:
    config["config"]["0.weight"]["use_pickle"] = True


def grows(config: Any) -> None:
    config["config"]["0.weight"]["tensor_meta"]["sizes"][0] = {"as_int": 1 << 40}


_NO_OPERATOR = "which is no operator that edgec lets a file call"


@pytest.mark.parametrize(
    ("member", "change", "line"),
    [
        ("models/model.json", calls_the_system, f"calls 'torch.os.system', {_NO_OPERATOR}; {_AGAIN}"),
        ("models/model.json", loads_a_library, f"calls 'torch.ops.load_library.__call__', {_NO_OPERATOR}; {_AGAIN}"),
        (
            "models/model.json",
            evaluates,
            f"has a size that is no arithmetic ('exec(\"open('ran','w')\")'); {_AGAIN}",
        ),
        ("models/model.json", imports, "has an 'in_spec' that names code; export it with tuples, lists and dicts"),
        (
            "model_weights_config.json",
            pickles,
            "weight '0.weight': is stored as a pickle, and loading one runs whatever code it names; "
            "export a module whose weights are plain tensors",
        ),
        (
            "model_weights_config.json",
            grows,
            "weight '0.weight': is said to be of shape 1099511627776x1x3x3, and the file has 72 bytes for it; "
            "export or copy the file again",
        ),
    ],
)
def test_hostile_programs(here: Path, program: bytes, member: str, change: Callable[[Any], None], line: str) -> None:
    assert refusal(rewritten(program, member, change)) == line


def test_guards_are_not_run(here: Path, program: bytes) -> None:
    def guard(model: Any) -> None:
        model["guards_code"] = ["exec(\"open('ran','w')\")"]

    Path("model.pt2").write_bytes(rewritten(program, "models/model.json", guard))
    assert len(edgec.load("model.pt2").nodes) == 2
    assert not Path("ran").exists()


def test_a_compressed_archive(here: Path, program: bytes) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(program)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info))
    assert refusal(out.getvalue()).endswith(f"compressed, which torch never writes; {_AGAIN}")


def test_a_program_in_training_mode(here: Path) -> None:
    norm = nn.BatchNorm2d(2)
    torch.export.save(torch.export.export(norm, (torch.zeros(1, 2, 4, 4),)), "model.pt2")
    assert refusal(Path("model.pt2").read_bytes()) == (
        "runs batch_norm in training mode; "
        "call module.eval() before torch.export, and give functions training=self.training"
    )
