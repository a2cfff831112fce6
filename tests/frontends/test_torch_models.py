"""Torch modules as models: what comes out equals the module, speaks its names, and leaves it as it was."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks.modules import MODULES, module
from torch import nn

import edgec
from edgec.frontends.model import open_model
from edgec.frontends.sources import OnnxFile, TorchFile, TorchFunction, TorchModule, opened, source_of
from edgec.frontends.torch_export import Example
from edgec.ir.channels import Channels
from edgec.ir.errors import EdgecError, InputError, UsageError
from edgec.ir.execution import Session
from edgec.ir.files import load
from edgec.ir.graph import Graph
from edgec.passes.fold.constants import fold_constants
from edgec.passes.fold.fold import Fold
from edgec.passes.framework.context import Context
from edgec.passes.prune.sharing import unshare

TOLERANCE = 1e-4
# Operators that exporters leave behind where they compute shapes, and that none of these modules asks for.
_SHAPE_ARITHMETIC = {
    "Shape",
    "Cast",
    "CastLike",
    "Expand",
    "ConstantOfShape",
    "Constant",
    "Identity",
    "Unsqueeze",
    "Range",
}


def leaves(value: Any) -> list[torch.Tensor]:
    from torch.utils import _pytree as pytree

    return pytree.tree_leaves(value)


def error_of(graph: Graph, made: nn.Module, inputs: Any) -> float:
    """The largest difference to the module, relative to its largest output."""
    made.eval()
    with torch.no_grad():
        returned = made(**inputs) if isinstance(inputs, dict) else made(*leaves(inputs))
    wanted = [tensor.numpy() for tensor in leaves(returned)]
    feeds = {tensor.name: leaf.numpy() for tensor, leaf in zip(graph.inputs, leaves(inputs), strict=True)}
    got = list(Session(graph).run(feeds).values())
    assert len(got) == len(wanted)
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(got, wanted, strict=True))


@pytest.mark.parametrize("name", MODULES)
def test_the_network_equals_the_module_and_is_clean(name: str) -> None:
    made, inputs = module(name)
    graph = edgec.load(made, inputs)
    assert error_of(graph, made, inputs) < TOLERANCE
    state = made.state_dict()
    weights = {constant.name: constant for constant in graph.constants() if constant.name in state}
    assert {key.rpartition(".")[2] for key in weights} >= {"weight"}
    for key, constant in weights.items():
        np.testing.assert_array_equal(constant.values, state[key].numpy())
    assert not any(node.metadata or node.doc_string for node in graph.nodes)
    ctx = Context(graph)
    Fold().run(graph, ctx)
    assert error_of(graph, made, inputs) < TOLERANCE
    assert _SHAPE_ARITHMETIC.isdisjoint(node.op for node in graph.nodes)
    assert "BatchNormalization" not in {node.op for node in graph.nodes}


@pytest.mark.parametrize("name", MODULES)
def test_a_corrupted_weight_is_seen(name: str) -> None:
    made, inputs = module(name)
    graph = edgec.load(made, inputs)
    weight = next(c for c in graph.constants() if c.name.endswith(".weight") and len(c.shape) > 1)
    values = weight.values.copy()
    values.flat[0] += 1
    weight.values = values
    assert error_of(graph, made, inputs) > 10 * TOLERANCE


def test_nodes_are_named_for_modules() -> None:
    names = [node.name for node in edgec.load(*module("residual")).nodes]
    assert names == [
        "encoder.0.conv1", "encoder.0.bn1", "encoder.0.relu", "encoder.0.conv2", "encoder.0.short", "encoder.0.add",
        "encoder.0.relu.1", "encoder.1", "encoder.2.conv1", "encoder.2.bn1", "encoder.2.relu", "encoder.2.conv2",
        "encoder.2.short", "encoder.2.add", "encoder.2.relu.1", "pool", "reshape", "head",
    ]  # fmt: skip
    names = [node.name for node in edgec.load(*module("shared")).nodes]
    assert [name for name in names if "." not in name] == ["norm", "twice", "act", "first", "split", "concat", "second"]
    assert {"twice.1", "act.1", "twice.add", "second.add"} <= set(names)


def test_names_of_ends() -> None:
    graph = edgec.load(*module("named"))
    assert [tensor.name for tensor in graph.inputs] == ["image", "extra"]
    assert [tensor.name for tensor in graph.outputs] == ["scores", "parts.raw"]
    assert [tensor.name for tensor in edgec.load(*module("pools")).outputs] == ["output.0", "output.1"]
    graph = edgec.load(*module("plain"), input_names=["picture"], output_names=["classes"])
    assert [tensor.name for tensor in (*graph.inputs, *graph.outputs)] == ["picture", "classes"]


@pytest.mark.parametrize("name", ["residual", "pools", "autoencoder"])
def test_channel_groups_are_those_of_the_older_exporter(name: str, tmp_path: Path) -> None:
    made, inputs = module(name)
    torch.onnx.export(made.eval(), tuple(leaves(inputs)), str(tmp_path / "old.onnx"), opset_version=17, dynamo=False)
    found = []
    for graph in (edgec.load(made, inputs), open_model(tmp_path / "old.onnx")):
        ctx = Context(graph)
        fold_constants(graph, ctx)
        unshare(graph)
        ctx.changed()
        groups = ctx.get(Channels).groups
        found.append(
            [(group.width, group.fixed is None, len(group.producers), len(group.consumers)) for group in groups]
        )
    assert found[0] == found[1]
    assert any(free for _, free, _, _ in found[0])


# -- the module stays as it was --------------------------------------------------------------------------------------


class Moody(nn.Module):
    """Keeps things about itself, changes them when called, and fails when it is told to."""

    def __init__(self, fails: bool) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        self.fails, self.calls, self.last = fails, 0, None

    def train(self, mode: bool = True) -> nn.Module:
        if not mode:
            raise AssertionError("eval() was called")
        return super().train(mode)

    def forward(self, x: Any) -> Any:
        self.calls += 1
        self.last = self.inner(x)
        if self.fails:
            raise ValueError("in a mood")
        return self.last


@pytest.mark.parametrize("fails", [False, True])
def test_the_module_is_left_as_it_was(fails: bool) -> None:
    made = Moody(fails)
    made.inner[1].eval()
    seen: list[Any] = []
    made.inner[0].register_forward_hook(lambda *_: seen.append(1))
    hooks = dict(made.inner[0]._forward_hooks)
    tensors = {key: (tensor, tensor.clone()) for key, tensor in made.state_dict(keep_vars=True).items()}
    if fails:
        with pytest.raises(InputError, match="in a mood"):
            edgec.load(made, torch.zeros(3, 2))
    else:
        assert len(edgec.load(made, torch.zeros(3, 2)).nodes) == 2
    assert [part.training for part in made.modules()] == [True, True, True, False]
    assert (made.calls, made.last) == (0, None)
    assert dict(made.inner[0]._forward_hooks) == hooks
    for key, tensor in made.state_dict(keep_vars=True).items():
        assert tensor is tensors[key][0]
        assert torch.equal(tensor, tensors[key][1])


# -- functions -------------------------------------------------------------------------------------------------------

FUNCTIONS = """
from dataclasses import dataclass

import torch
from torch import nn
import torch.nn.functional as F
from layers import Scale

@dataclass
class Size:
    width: "int" = 3

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale, self.fc = Scale(), nn.Linear(Size().width, 2)
    def forward(self, x):
        print("in forward")
        return self.fc(self.scale(x))

class Branch(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x + 1
        return x

class Dropping(nn.Module):
    def forward(self, x): return F.dropout(x * 2)

class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))
    def forward(self, x):
        self.seen += 1
        return x * self.seen

class Values(nn.Module):
    def forward(self, x): return torch.linalg.svdvals(x)

class Broken(nn.Module):
    def forward(self, x): raise KeyError("depth")

X = torch.zeros(2, 3)
def net(): return Net(), X
def called(): return Net(), {"x": X}, {"input_names": ["values"], "output_names": "scores"}
def branch(): return Branch(), X
def dropping(): return Dropping(), X
def counting(): return Counting(), X
def values(): return Values(), X
def broken(): return Broken(), X
def misfit(): return Net(), torch.zeros(2, 4)
def misnamed(): return Net(), {"y": X}
def no_example(): return Net()
def no_tensor(): return Net(), 3
def too_many(): return Net(), X, {"input_names": ["a", "b"]}
def twice(): return Net(), X, {"input_names": ["a"], "output_names": ["a"]}
def unknown(): return Net(), X, {"inputs": ["a"]}
def scripted(): return torch.jit.script(nn.ReLU()), X
def fails(): raise OSError("no such weights")
"""


@pytest.fixture
def functions(here: Path) -> Path:
    Path("nets.py").write_text(FUNCTIONS)
    Path("layers.py").write_text(
        "from torch import nn\nclass Scale(nn.Module):\n    def forward(self, x): return x * 2\n"
    )
    Path("package").mkdir()
    Path("package/inner.py").write_text(
        "from .other import X\nfrom torch import nn\ndef net(): return nn.Linear(3, 1), X\n"
    )
    Path("package/other.py").write_text("import torch\nX = torch.zeros(2, 3)\n")
    yield here
    for name in ("layers", "package", "package.inner", "package.other"):
        sys.modules.pop(name, None)


def opened_graph(model: Any) -> Graph:
    with opened(source_of(model)) as path:
        return open_model(path)


def test_functions(functions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = list(sys.path)
    assert [node.name for node in edgec.load("nets:net").nodes] == ["scale", "fc"]
    graph = edgec.load("nets:called")
    assert [tensor.name for tensor in (*graph.inputs, *graph.outputs)] == ["values", "scores"]
    assert [node.op for node in edgec.load("package.inner:net").nodes] == ["Gemm"]
    assert capsys.readouterr() == ("", "")
    assert sys.path == before
    assert sorted(path.name for path in functions.rglob("*")) == [
        "inner.py",
        "layers.py",
        "nets.py",
        "other.py",
        "package",
    ]


_EVAL = "call module.eval() before torch.export, and give functions training=self.training"


@pytest.mark.parametrize(
    ("function", "line"),
    [
        ("nets:dropping", f"runs dropout in training mode; {_EVAL}"),
        (
            "nets:counting",
            "changes its buffer 'seen' when it runs; "
            "export a module without state: give what it keeps as inputs and outputs",
        ),
        (
            "nets:broken",
            "cannot be traced by torch.export (KeyError: 'depth', at nets.py line 42); "
            "fix the module until torch.export.export(module, inputs) takes it",
        ),
        (
            "nets:misfit",
            "cannot be traced by torch.export (a and b must have same reduction dim, but got [2, 4] X [3, 2], "
            "at nets.py line 19); fix the module until torch.export.export(module, inputs) takes it",
        ),
        (
            "nets:misnamed",
            "cannot be traced by torch.export (TypeError: missing a required argument: 'x'); "
            "give example inputs that the module's forward takes",
        ),
        ("nets:no_example", "returned Net, not a torch module and example inputs; return module, example_inputs"),
        (
            "nets:no_tensor",
            "has example inputs without a tensor (int); "
            "give a tensor, a tuple of them, or a dictionary of them by name",
        ),
        ("nets:too_many", "has 1 input and 2 input names; name each input once"),
        ("nets:twice", "has two ends named 'a'; name each input and output once"),
        ("nets:unknown", "returned dict as names; return a dictionary with input_names and output_names"),
        ("nets:scripted", "is TorchScript, which torch.export does not take; give the module that it was made of"),
        ("nets:fails", "failed with OSError (no such weights); fix the function"),
    ],
)
def test_functions_that_give_no_network(functions: Path, function: str, line: str) -> None:
    with pytest.raises(InputError) as caught:
        edgec.load(function)
    assert str(caught.value) == f"{function}: {line}"


def test_a_branch_on_data(functions: Path) -> None:
    with pytest.raises(InputError) as caught:
        edgec.load("nets:branch")
    line = str(caught.value)
    assert line.startswith(
        "nets:branch: cannot be traced by torch.export (Could not guard on data-dependent expression "
    )
    assert line.endswith(
        ", at nets.py line 23); write a branch on data with torch.where or torch.cond, or let it depend on shapes alone"
    )


def test_an_operator_that_onnx_lacks(functions: Path) -> None:
    with pytest.raises(InputError) as caught:
        edgec.load("nets:values")
    line = str(caught.value)
    assert line.startswith("nets:values: cannot be translated to ONNX by torch.onnx (No ONNX function found for ")
    assert line.endswith("; write it with operators that ONNX has")


@pytest.mark.parametrize(
    ("function", "line"),
    [
        ("absent:net", "absent:net: there is no module 'absent'; put absent.py into the current folder"),
        ("nets:nett", "nets:nett: the module 'nets' has no function 'nett'; correct the name. Did you mean 'net'?"),
    ],
)
def test_functions_that_are_not_there(functions: Path, function: str, line: str) -> None:
    with pytest.raises(UsageError) as caught:
        edgec.load(function)
    assert str(caught.value) == line


@pytest.mark.parametrize("package", ["torch", "onnxscript"])
def test_without_torch(functions: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError) as caught:
        opened_graph("nets:net")
    wanted = f"needs {package}, which is not installed; install it with pip install 'edgec[torch]'"
    assert str(caught.value) == f"nets:net: {wanted}"
    with pytest.raises(InputError) as caught:
        edgec.load(nn.ReLU(), torch.zeros(1))
    assert str(caught.value) == f"the module: {wanted}"


def test_sources(here: Path) -> None:
    Path("a.onnx").write_bytes(b"")
    Path("nets:net").write_bytes(b"")
    assert source_of("a.onnx") == OnnxFile(Path("a.onnx"))
    assert source_of("nets:net") == OnnxFile(Path("nets:net"))
    assert source_of("a.b:net") == TorchFunction("a.b:net")
    assert source_of("none.pt2") == OnnxFile(Path("none.pt2"))
    Path("a.pt2").write_bytes(b"")
    assert source_of("a.pt2") == TorchFile(Path("a.pt2"))
    assert TorchModule(nn.ReLU(), Example(())).stem == "ReLU"
    no_module: Any = 3
    with pytest.raises(TypeError, match="the name of a function or a torch"):
        edgec.load(no_module, torch.zeros(1))


def test_the_file_is_the_same_every_time(tmp_path: Path) -> None:
    content = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        made, inputs = module("pools")
        path = TorchModule(made, Example(inputs)).onnx(tmp_path / folder)
        content.append(path.read_bytes())
        assert str(tmp_path).encode() not in content[-1]
    assert content[0] == content[1]
    assert load(path).metadata == {}


def test_errors_are_edgec_s(functions: Path) -> None:
    with pytest.raises(EdgecError) as caught:
        edgec.load("nets:broken")
    assert isinstance(caught.value.__cause__, KeyError)
