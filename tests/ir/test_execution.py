"""Running a graph, tapping it, and measuring how far two runs are apart."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from edgec.ir import execution
from edgec.ir.errors import InputError
from edgec.ir.execution import Session, seeded_feeds, sqnr_db
from edgec.ir.files import load
from edgec.ir.graph import Graph
from edgec.ir.printer import parse
from edgec.testing import model

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[1,4] x) => (float[1,4] y)
<float[4] one = {1.0, 1.0, 1.0, 1.0}, float[4] two = {2.0, 2.0, 2.0, 2.0}>
{
    [add] a = Add(x, one)
    [mul] m = Mul(a, two)
    [neg] y = Neg(m)
}
"""
X = np.array([[0, 1, 2, 3]], np.float32)


def test_outputs_and_taps() -> None:
    graph = parse(TEXT)
    session = Session(graph, taps=[graph.nodes[1].outputs[0], graph.nodes[0].outputs[0], graph.outputs[0]])
    assert session.inputs == ["x"]
    assert session.outputs == ["y", "m", "a"]
    found = session.run({"x": X, "ignored": X})
    np.testing.assert_array_equal(found["a"], X + 1)
    np.testing.assert_array_equal(found["m"], (X + 1) * 2)
    np.testing.assert_array_equal(found["y"], -(X + 1) * 2)
    assert [tensor.name for tensor in graph.outputs] == ["y"]


@pytest.mark.parametrize("optimize", [False, True])
def test_inputs_and_constants_can_be_tapped(optimize: bool) -> None:
    graph = parse(TEXT)
    found = Session(graph, [graph.inputs[0], graph.nodes[0].inputs[1]], optimize=optimize, threads=2).run({"x": X})
    np.testing.assert_array_equal(found["x"], X)
    np.testing.assert_array_equal(found["one"], np.ones(4))


@pytest.mark.parametrize("channels", [16, 61])
def test_what_an_addition_reads_can_be_tapped(channels: int) -> None:
    """onnxruntime lays 16 channels out in blocks, and fuses convolutions of 61 with the Add behind them."""
    graph = model(
        "[one] a = Conv(x, w1, bias) [two] b = Conv(x, w2) [add] s = Add(a, b) [relu] y = Relu(s)",
        f"(float[1,{channels},4,4] x) => (float[1,{channels},4,4] y)",
        f"float[{channels},{channels},1,1] w1, float[{channels},{channels},1,1] w2, float[{channels}] bias",
    )
    feeds = seeded_feeds(graph, samples=1)[0]
    taps = [graph.nodes[0].outputs[0]]
    wanted = Session(graph, taps).run(feeds)
    assert sqnr_db(wanted, Session(graph, taps, optimize=True).run(feeds)) > 100


def test_later_changes_are_not_seen() -> None:
    graph = parse(TEXT)
    session = Session(graph)
    graph.nodes[0].inputs[1].values = np.zeros(4, np.float32)
    np.testing.assert_array_equal(session.run({"x": X})["y"], -(X + 1) * 2)
    np.testing.assert_array_equal(Session(graph).run({"x": X})["y"], -X * 2)


def test_a_graph_beyond_one_message_runs(small_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = load(small_file)
    feeds = {"x": np.ones((1, 3, 4, 4), np.float32)}
    expected = Session(graph).run(feeds)["y"]
    monkeypatch.setattr(execution, "INTERNAL_LIMIT", 1000)
    np.testing.assert_array_equal(Session(graph).run(feeds)["y"], expected)


def test_what_onnxruntime_refuses_is_one_line() -> None:
    graph = parse(TEXT)
    graph.nodes[0].op = "Nothing"
    with pytest.raises(InputError) as caught:
        Session(graph)
    assert str(caught.value) == (
        'onnxruntime: does not take the model (This is an invalid model. In Node, ("add", Nothing, "", -1) : '
        '("x": tensor(float),"one": tensor(float),) -> ("a",) , '
        "Error No Op registered for Nothing with domain_version of 17); "
        "export the network again, or end it before that node with --cut"
    )


def test_missing_and_misshapen_feeds() -> None:
    session = Session(parse(TEXT))
    with pytest.raises(InputError) as caught:
        session.run({"y": X})
    assert str(caught.value) == "the data: has no values for the model's input 'x'; name the array for it"
    with pytest.raises(InputError) as caught:
        session.run({"x": X[:, :3]})
    assert str(caught.value).startswith("onnxruntime: cannot run the model (Got invalid dimensions for input: x ")
    assert "\n" not in str(caught.value)


def test_noise_is_the_same_each_time() -> None:
    graph = parse(
        '<ir_version: 8, opset_import: ["" : 17]> '
        "g (float[2,3] x, int64[4] i, bool[5] b, float16[2] h) => (float[2,3] y) { y = Relu(x) }"
    )
    one, other = seeded_feeds(graph, samples=2), seeded_feeds(graph, samples=2)
    for a, b in zip(one, other, strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
    assert [str(value.dtype) for value in one[0].values()] == ["float32", "int64", "bool", "float16"]
    assert 0 <= one[0]["x"].min() <= one[0]["x"].max() < 1
    assert one[0]["i"].max() < 8
    assert (one[0]["x"] != one[1]["x"]).any()
    assert (seeded_feeds(graph, seed=1)[0]["x"] != one[0]["x"]).any()


def test_noise_needs_a_static_shape(small: Graph) -> None:
    with pytest.raises(InputError) as caught:
        seeded_feeds(small)
    assert str(caught.value) == "input 'x': has no static shape; pin it with --input x:1x3x224x224"


def test_sqnr() -> None:
    x = {"y": np.array([3.0, 4.0]), "z": np.array([1e-3, -1e-3])}
    assert sqnr_db(x, {name: value.copy() for name, value in x.items()}) == np.inf
    # One output has noise of a hundredth of its power, the other none; both weigh alike: 2 / 0.01.
    noisy = {"y": x["y"] + np.array([0.5, 0.0]) * np.sqrt(2 * 12.5 * 0.01) / 0.5, "z": x["z"]}
    assert sqnr_db(x, noisy) == pytest.approx(10 * np.log10(200))
    # A small output is not hidden by a large one.
    assert sqnr_db(x, {"y": x["y"], "z": -x["z"]}) == pytest.approx(10 * np.log10(2 / 4))
    assert sqnr_db(x, {"y": x["y"] * np.nan, "z": x["z"]}) == -np.inf
    assert sqnr_db({"y": np.zeros(2)}, {"y": np.zeros(2)}) == np.inf
    assert sqnr_db({"y": np.zeros(2)}, {"y": np.ones(2)}) < -1000
    assert sqnr_db({"y": np.zeros((0, 2))}, {"y": np.zeros((0, 2))}) == np.inf
    assert sqnr_db({"y": np.zeros((2, 1))}, {"y": np.zeros((1, 2))}) == -np.inf
    quantized = {"y": np.array([200], np.uint8)}
    assert sqnr_db(quantized, {"y": np.array([199], np.uint8)}) == pytest.approx(20 * np.log10(200))


def test_what_is_not_finite_is_no_warning() -> None:
    infinite = {"y": np.array([1.0, np.inf], np.float32)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sqnr_db(infinite, infinite) == float("-inf")
        assert sqnr_db({"y": np.array([1e300])}, {"y": np.array([-1e300])}) == float("-inf")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "[ONNXRuntimeError] : 1 : FAIL : /onnxruntime_src/onnxruntime/core/graph/model.cc:256 "
            "onnxruntime::Model::Model(onnx::ModelProto&&, const onnxruntime::PathString&) Unsupported IR version: 99",
            "Unsupported IR version: 99",
        ),
        (
            "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Name:'r' Status Message: /onnxruntime_src/a/reshape.h:91 "
            "bool ok(const T&) const a == b was false. Shapes (1) and (2) differ\nmore",
            "Name:'r' Status Message: a == b was false. Shapes (1) and (2) differ",
        ),
        ("another error", "another error"),
        ("", "ValueError"),
    ],
)
def test_reasons_without_places_in_other_sources(text: str, reason: str) -> None:
    assert execution.first_line(ValueError(text)) == reason


def test_nothing_is_sent_and_nothing_written_at_home(tmp_path: Path) -> None:
    """onnxruntime would write an identifier of the machine, and send telemetry."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ORT_", "XDG_"))}
    places = {name: str(tmp_path) for name in ("HOME", "TMPDIR")}
    code = "import edgec.ir.execution, onnxruntime; onnxruntime.SessionOptions()"
    subprocess.run([sys.executable, "-c", code], check=True, env={**environment, **places})
    assert list(tmp_path.iterdir()) == []
