"""Inputs that are pinned to a value become constants, and what hangs on them is settled with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnx.numpy_helper import from_array
from opened_models import weight

import edgec
from edgec.frontends.model import open_model, parse_pins
from edgec.frontends.pins import parse_pin
from edgec.ir.errors import UsageError
from edgec.ir.execution import Session
from edgec.ir.graph import Constant, Graph

Write = Callable[..., Path]


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("sr=16000", "sr", 16000),
        ("a:0=1.5", "a:0", 1.5),
        ("a=b=-3", "a=b", -3),
        ("on=true", "on", True),
        ("on=False", "on", False),
        ("m=[[0, 1], [2, 3]]", "m", [[0, 1], [2, 3]]),
    ],
)
def test_a_value_is_read(text: str, name: str, value: object) -> None:
    got, pinned = parse_pin(text)
    assert got == name
    assert getattr(pinned, "value") == value  # noqa: B009


def test_an_equals_sign_in_a_name_is_no_value() -> None:
    assert parse_pin("a=b:1x3") == ("a=b", (1, 3))


FORM = "write it as NAME=16000 or NAME=[[0, 1], [2, 3]]"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("sr=", f"has an empty value; {FORM}"),
        ("=3", "names no input; write it as NAME=16000"),
        ("sr=fast", f"'fast' is no value; {FORM}"),
        ('sr="fast"', f"is made of something other than numbers; {FORM}"),
        ("sr=[]", f"is made of something other than numbers; {FORM}"),
        ("sr=[[1, 2], [3]]", "has rows of different lengths; give rows of one length"),
        ("sr=NaN", "holds NaN or infinity; pin it to finite numbers"),
    ],
)
def test_a_value_of_another_form(text: str, what: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_pin(text)
    assert str(caught.value) == f"--input {text}: {what}"


def opened(path: Path, *pins: str) -> Graph:
    return open_model(path, parse_pins(pins))


@pytest.mark.parametrize(
    ("declared", "pins", "held"),
    [
        ("int64", ["k=3"], np.array(3, np.int64)),
        ("int64", ["k=[3]"], np.array(3, np.int64)),
        ("int64[1]", ["k=3"], np.array([3], np.int64)),
        ("int64[N]", ["k=3"], np.array([3], np.int64)),
        ("float[2]", ["k=0.5"], np.array([0.5, 0.5], np.float32)),
        ("float[2]", ["k=[1, 2]"], np.array([1, 2], np.float32)),
        ("float[M,2]", ["k=[[1, 2]]"], np.array([[1, 2]], np.float32)),
        ("float[M,2]", ["k=7", "k:4x2"], np.full((4, 2), 7, np.float32)),
        ("bool", ["k=1"], np.array(True)),
    ],
)
def test_what_an_input_becomes(declared: str, pins: list[str], held: np.ndarray, write: Write) -> None:
    graph = opened(write(f"(float[4,2] x, {declared} k) => (y) {{ f = Cast<to=1>(k) y = Add(x, f) }}"), *pins)
    assert [tensor.name for tensor in graph.inputs] == ["x"]
    constant = next(tensor for tensor in graph.constants() if tensor.name == "k")
    assert constant.values.dtype == held.dtype
    np.testing.assert_array_equal(constant.values, held)
    x = weight(4, 2)
    np.testing.assert_array_equal(Session(graph).run({"x": x})["y"], x + held.astype(np.float32))


@pytest.mark.parametrize(
    ("declared", "pin", "line"),
    [
        ("int64", "k=1.5", "k=1.5: input 'k' is of int64, which cannot hold it; pin it to whole numbers from"
         " -9223372036854775808 to 9223372036854775807"),
        ("uint8", "k=300", "k=300: input 'k' is of uint8, which cannot hold it; pin it to whole numbers from 0 to 255"),
        ("bool", "k=2", "k=2: input 'k' is of bool; pin it to true or false"),
        ("float16", "k=1e9", "k=1000000000.0: input 'k' is of float16, which cannot hold it; pin it to smaller"
         " numbers"),
        ("float[2]", "k=[1, 2, 3]", "k:3: dimension 0 is 3, but input 'k' of model.onnx fixes it at 2;"
         " its shape is 2"),
        ("float", "k=[1, 2, 3]", "k:3: has 1 dimension, but input 'k' of model.onnx has 0; its shape is "),
        ("float", "j=1", "j=1: model.onnx has no input 'j'; the inputs are 'x', 'k'"),
    ],
)  # fmt: skip
def test_a_value_that_does_not_fit(declared: str, pin: str, line: str, write: Write) -> None:
    path = write(f"(float[4,2] x, {declared} k) => (y) {{ f = Cast<to=1>(k) y = Add(x, f) }}")
    with pytest.raises(UsageError) as caught:
        opened(path, pin)
    assert str(caught.value) == f"--input {line}"


def test_an_input_that_is_an_output_too(write: Write) -> None:
    graph = opened(write("(float[2] x, float[2] k) => (float[2] k, float[2] y) { y = Add(x, k) }"), "k=[1, 2]")
    assert [tensor.name for tensor in graph.outputs] == ["k", "y"]
    values = Session(graph).run({"x": np.zeros(2, np.float32)})
    np.testing.assert_array_equal(values["k"], [1, 2])
    np.testing.assert_array_equal(values["y"], [1, 2])


def two_rates(tmp_path: Path) -> Path:
    """An If on the rate, whose branches fit different lengths and use the same names; another If inside one."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, "length"])
    rate = helper.make_tensor_value_info("sr", TensorProto.INT64, [])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)

    def branch(name: str, length: int, seed: int) -> onnx.GraphProto:
        values = np.random.default_rng(seed).standard_normal((length, 3)).astype(np.float32)
        one = helper.make_graph([helper.make_node("Identity", ["x"], ["in"])], "same", [], [info("in")])
        two = helper.make_graph([helper.make_node("Neg", ["x"], ["in"])], "other", [], [info("in")])
        nodes = [
            helper.make_node("Shape", ["x"], ["s"]),
            helper.make_node("Size", ["s"], ["n"]),
            helper.make_node("Equal", ["n", "two"], ["is_two"]),
            helper.make_node("If", ["is_two"], ["t"], then_branch=one, else_branch=two),
            helper.make_node("MatMul", ["t", "w"], ["m"]),
        ]
        weights = [from_array(values, "w"), from_array(np.array(2), "two")]
        return helper.make_graph(nodes, name, [], [info("m")], weights)

    def info(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)

    nodes = [
        helper.make_node("Equal", ["sr", "fast"], ["k"]),
        helper.make_node("If", ["k"], ["z"], then_branch=branch("a", 8, 1), else_branch=branch("b", 4, 2)),
        helper.make_node("Relu", ["z"], ["r"]),
        helper.make_node("If", ["k"], ["q"], then_branch=branch("c", 8, 3), else_branch=branch("d", 4, 4)),
        helper.make_node("Add", ["r", "q"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "g", [x, rate], [y], [from_array(np.array(16000), "fast")])
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize(("rate", "length"), [(16000, 8), (8000, 4)])
def test_the_branch_that_a_value_chooses_is_inlined(rate: int, length: int, tmp_path: Path) -> None:
    path = two_rates(tmp_path)
    notes: list[str] = []
    graph = open_model(path, parse_pins([f"x:1x{length}", f"sr={rate}"]), notes=notes)
    assert [node.op for node in graph.nodes] == ["Identity", "MatMul", "Relu", "Identity", "MatMul", "Add"]
    assert notes == [f"input 'sr' is {rate}, as pinned: a constant, which the network takes no more"]
    x = np.random.default_rng(9).standard_normal((1, length)).astype(np.float32)
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    wanted = session.run(None, {"x": x, "sr": np.array(rate)})[0]
    np.testing.assert_allclose(Session(graph).run({"x": x})["y"], wanted, rtol=1e-6)


def test_values_from_python(tmp_path: Path) -> None:
    pins: dict[str, Any] = {"x": (1, 8), "sr": np.array(16000)}
    graph = edgec.load(two_rates(tmp_path), pins)
    assert [tensor.name for tensor in graph.inputs] == ["x"]
    assert not any(isinstance(tensor, Constant) and tensor.name == "sr" for tensor in graph.constants())
    with pytest.raises(UsageError) as caught:
        edgec.load(two_rates(tmp_path), {"sr": "fast"})
    assert str(caught.value) == f"inputs['sr']: is made of something other than numbers; {FORM}"
