"""--input: how it is written, and how it fits the model's inputs."""

from __future__ import annotations

from typing import Any

import pytest

from edgec.frontends.pinned_values import PinnedValue
from edgec.frontends.pins import Pin, parse_pin, parse_pins, pin
from edgec.ir.errors import EdgecError, InputError, UsageError
from edgec.ir.graph import Graph
from edgec.ir.printer import parse
from edgec.ir.shapes import Shapes


@pytest.mark.parametrize(
    ("text", "name", "shape"),
    [("x:1x3x224x224", "x", (1, 3, 224, 224)), ("a:b:0:5", "a:b:0", (5,)), ("in put:007", "in put", (7,))],
)
def test_a_pin_is_read(text: str, name: str, shape: tuple[int, ...]) -> None:
    assert parse_pin(text) == (name, shape)


FORM = "write it as NAME:1x3x224x224"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("x", f"has no shape and no value; {FORM}, or as NAME=16000"),
        ("", f"has no shape and no value; {FORM}, or as NAME=16000"),
        (":1x3", f"names no input; {FORM}"),
        ("x:", f"has an empty shape; {FORM}"),
        ("x:1xax3", f"'a' is no number; {FORM}"),
        ("x:1xx3", f"'' is no number; {FORM}"),
        ("x:1x-3", f"'-3' is no number; {FORM}"),
        ("x:1x3.5", f"'3.5' is no number; {FORM}"),
        ("x:1x\u0663", f"'\u0663' is no number; {FORM}"),
        ("x:1,3,2", f"'1,3,2' is no number; {FORM}"),
        ("x:1x0", "0 is no size of a dimension; give sizes from 1 to 999999999"),
        ("x:1x1000000000", "1000000000 is no size of a dimension; give sizes from 1 to 999999999"),
    ],
)
def test_a_pin_of_another_form(text: str, what: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_pin(text)
    assert str(caught.value) == f"--input {text}: {what}"


def test_a_shape_and_a_value_may_be_pinned_but_once() -> None:
    assert parse_pins(["x:2x3", "x=0", "y=1", "y:4"]) == {"x": PinnedValue(0, (2, 3)), "y": PinnedValue(1, (4,))}
    for second, line in (("x:1x3", "x:1x3"), ("x=2", "x=2")):
        with pytest.raises(UsageError) as caught:
            parse_pins(["x:2x3", "x=0", second])
        assert str(caught.value) == f"--input {line}: pins 'x' for the second time; pin it once"


def model(signature: str, body: str = "y = Relu(image)") -> Graph:
    return parse(f'<ir_version: 8, opset_import: ["" : 17]> g ({signature}) => (float[N,3,H,W] y) {{ {body} }}')


def said(graph: Graph, pins: dict[str, Pin]) -> str:
    with pytest.raises(EdgecError) as caught:
        pin(graph, pins, "model.onnx")
    of_the_model = str(caught.value).startswith("model.onnx: ")
    assert isinstance(caught.value, InputError if of_the_model else UsageError)
    return str(caught.value)


@pytest.mark.parametrize(
    ("usual", "pins", "shape"),
    [
        ({"image": (2, 3, 8, 8), "other": (1,)}, {}, [2, 3, 8, 8]),
        ({"image": (2, 3, 8, 8)}, {"image": (1, 3, 4, 4)}, [1, 3, 4, 4]),
    ],
)
def test_usual_shapes_are_for_what_is_left_open(
    usual: dict[str, tuple[int, ...]], pins: dict[str, tuple[int, ...]], shape: list[int]
) -> None:
    graph = model("float[N,3,H,W] image")
    pin(graph, pins, "model.onnx", usual)
    assert graph.inputs[0].shape == shape


@pytest.mark.parametrize("usual", [(2, 4, 8, 8), (2, 3, 8)])
def test_usual_shapes_that_do_not_fit_are_left_alone(usual: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"has open dimensions \(Nx3xHxW\)"):
        pin(model("float[N,3,H,W] image"), {}, "model.onnx", {"image": usual})


def test_a_symbol_is_bound_wherever_it_stands() -> None:
    graph = model("float[N,3,H,W] image, float[N,3,H,W] other", "t = Relu(image)  y = Add(t, other)")
    graph.nodes[0].outputs[0].shape = [8, 3, 32, 32]  # of the batch that the exporter traced
    pin(graph, {"image": (1, 3, 8, 9)}, "model.onnx")
    assert [tensor.shape for tensor in graph.inputs] == [[1, 3, 8, 9], [1, 3, 8, 9]]
    Shapes(graph).annotate(graph)
    assert graph.nodes[0].outputs[0].shape == [1, 3, 8, 9]
    assert graph.outputs[0].shape == [1, 3, 8, 9]


def test_what_is_static_stays_as_it_is() -> None:
    graph = model("float[1,3,8,8] image", "t = Relu(image)  y = Neg(t)")
    graph.nodes[0].outputs[0].shape = [1, 3, 8, 8]
    pin(graph, {"image": (1, 3, 8, 8)}, "model.onnx")
    assert graph.nodes[0].outputs[0].shape == [1, 3, 8, 8]
    pin(graph, {}, "model.onnx")


def test_a_pin_gives_the_rank_where_there_is_none() -> None:
    graph = model("float[N,3,H,W] image")
    graph.inputs[0].shape = None
    pin(graph, {"image": (1, 3, 4, 4)}, "model.onnx")
    assert graph.inputs[0].shape == [1, 3, 4, 4]


def test_open_dimensions() -> None:
    assert said(model("float[N,3,H,W] image"), {}) == (
        "model.onnx: input 'image': has open dimensions (Nx3xHxW); pin them with --input image:1x3x224x224"
    )
    assert said(model("float[N,?] image"), {}) == (
        "model.onnx: input 'image': has open dimensions (Nx?); pin them with --input image:1x224"
    )
    graph = model("float[N,3,H,W] image")
    graph.inputs[0].shape = [0, 3, -1, 5]  # how some exporters write an open dimension
    assert said(graph, {}) == (
        "model.onnx: input 'image': has open dimensions (?x3x?x5); pin them with --input image:1x3x224x5"
    )
    graph.inputs[0].shape = None
    assert said(graph, {}) == (
        "model.onnx: input 'image': has a shape of unknown rank; pin it with --input image:1x3x224x224"
    )


def test_a_pin_that_names_no_input() -> None:
    graph = model("float[1,3,8,8] image, float[2] scale")
    assert said(graph, {"imgae": (1, 3, 8, 8)}) == (
        "--input imgae:1x3x8x8: model.onnx has no input 'imgae'; Did you mean 'image'?"
    )
    assert said(graph, {"zzz": (1,)}) == (
        "--input zzz:1: model.onnx has no input 'zzz'; the inputs are 'image', 'scale'"
    )
    graph.inputs = []
    assert said(graph, {"zzz": (1,)}) == "--input zzz:1: model.onnx has no input 'zzz'; it has no inputs"


def test_a_pin_that_does_not_fit() -> None:
    graph = model("float[N,3,H,W] image")
    assert said(graph, {"image": (1, 3, 8)}) == (
        "--input image:1x3x8: has 3 dimensions, but input 'image' of model.onnx has 4; its shape is Nx3xHxW"
    )
    assert said(graph, {"image": (1, 4, 8, 8)}) == (
        "--input image:1x4x8x8: dimension 1 is 4, but input 'image' of model.onnx fixes it at 3; its shape is Nx3xHxW"
    )
    assert graph.inputs[0].shape == ["N", 3, "H", "W"]


def pinned(graph: Graph, pins: dict[str, Pin]) -> tuple[list[Any], list[str]]:
    """The shapes of the inputs behind :func:`pin`, and the notes."""
    notes: list[str] = []
    pin(graph, pins, "model.onnx", notes=notes)
    return [tensor.shape for tensor in graph.inputs], notes


def test_pins_win_over_names_that_are_equal() -> None:
    graph = model("float[N,3,H,W] image, float[N] scale")
    assert pinned(graph, {"image": (1, 3, 8, 8), "scale": (2,)}) == (
        [[1, 3, 8, 8], [2]],
        [
            "the dimensions called 'N' are pinned to 1 in input 'image' and 2 in input 'scale':"
            " they are not taken for the same"
        ],
    )
    square = model("float[1,3,S,S] image")
    assert pinned(square, {"image": (1, 3, 8, 9)})[0] == [[1, 3, 8, 9]]


def test_an_open_input_does_not_follow_a_name_of_two_sizes() -> None:
    graph = model("float[N,3,H,W] image, float[N] scale, float[2,N] third")
    assert said(graph, {"image": (1, 3, 8, 8), "scale": (2,)}) == (
        "model.onnx: input 'third': has open dimensions (2xN); pin them with --input third:2x224"
    )


@pytest.mark.parametrize("name", ["?", "-1", "None", "*", ""])
def test_what_is_no_name_is_a_dimension_of_its_own(name: str) -> None:
    graph = model("float[1,3,P,Q] image, float[1,P] other")
    for tensor in graph.inputs:
        tensor.shape = [name if isinstance(size, str) else size for size in tensor.shape or ()]
    assert said(graph, {"image": (1, 3, 16, 48)}) == (
        "model.onnx: input 'other': has open dimensions (1x?); pin them with --input other:1x224"
    )
    assert pinned(graph, {"image": (1, 3, 16, 48), "other": (1, 7)}) == ([[1, 3, 16, 48], [1, 7]], [])


def test_a_batch_that_alone_is_open_is_1() -> None:
    graph = model("float[N,3,8,8] image, float[2,N,5] state, float[?,4] other")
    assert pinned(graph, {}) == (
        [[1, 3, 8, 8], [2, 1, 5], [1, 4]],
        [
            "the batch of input 'image' is open and taken as 1 (--input image:4x3x8x8 would make it 4)",
            "the batch of input 'other' is open and taken as 1 (--input other:4x4 would make it 4)",
        ],
    )
    assert said(model("float[N] image"), {}) == (
        "model.onnx: input 'image': has open dimensions (N); pin them with --input image:1"
    )


def test_an_input_that_is_no_tensor() -> None:
    graph = model("float[1,3,8,8] image, seq(float[2]) list, optional(float[2]) maybe")
    assert said(graph, {}) == "model.onnx: input 'list': is a sequence; edgec takes tensors only"
    graph.inputs.pop(1)
    assert said(graph, {}) == "model.onnx: input 'maybe': is an optional; edgec takes tensors only"
    graph.inputs.pop(1)
    graph.inputs[0].dtype = None
    assert said(graph, {}) == "model.onnx: input 'image': has no element type; export the network again"
