"""`edgec simplify`: fewer nodes, the same outputs, open dimensions that stay open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from edgec.ir.files import save
from edgec.testing import model

Edgec = Callable[..., tuple[int, str, str]]
BODY = """
s = Shape (x)
n = Gather (s, zero)
u = Unsqueeze (n, axes)
t = Concat <axis = 0> (u, rest)
a = Conv <pads = [1,1,1,1]> (x, w)
b = Conv <pads = [1,1,1,1]> (x, w)
c = Add (a, b)
i = Identity (c)
y = Reshape (i, t)
"""
WEIGHTS = "float[4,3,3,3] w, int64 zero = {0}, int64[1] axes = {0}, int64[1] rest = {-1}"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(signature: str = "(float[N,3,8,8] x) => (float[N,M] y)") -> None:
    save(model(BODY, signature, WEIGHTS), Path("model.onnx"))


def nodes(file: str) -> list[str]:
    return sorted(node.op_type for node in onnx.load(file).graph.node)


def test_open_dimensions_stay_open(here: Path, edgec: Edgec) -> None:
    write()
    status, out, err = edgec("simplify", "model.onnx", "-o", "small.onnx")
    assert (status, err) == (0, "")
    assert out.startswith("small.onnx: 9 -> ") and "Conv 2 -> 1" in out and "Identity 1 -> 0" in out
    assert out.endswith("outputs: equal on 2 random samples, with x as 1x3x8x8\n")
    x = np.random.default_rng(0).random((5, 3, 8, 8), np.float32)
    one, other = (ort.InferenceSession(file).run(None, {"x": x})[0] for file in ("model.onnx", "small.onnx"))
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_pinned_shapes_fold_away(here: Path, edgec: Edgec) -> None:
    write()
    assert edgec("simplify", "model.onnx", "-o", "small.onnx", "--input", "x:2x3x8x8")[0] == 0
    # The two convolutions are one, and so is what they give, added to itself.
    assert nodes("small.onnx") == ["Conv", "Reshape"]


def test_equal_weights_are_kept_once(here: Path, edgec: Edgec) -> None:
    values = np.random.default_rng(0).standard_normal((8, 8, 1, 1)).astype(np.float32)
    graph = model(
        "a = Conv (x, v)\nr = Relu (a)\ny = Conv (r, w)", "(float[1,8,4,4] x) => (float[1,8,4,4] y)",
        "float[8,8,1,1] v, float[8,8,1,1] w", v=values, w=values.copy(),
    )  # fmt: skip
    save(graph, Path("model.onnx"))
    assert "weights: 512 -> 256 bytes" in edgec("simplify", "model.onnx", "-o", "small.onnx")[1]


def test_without_the_check(here: Path, edgec: Edgec) -> None:
    write()
    status, out, _ = edgec("simplify", "model.onnx", "-o", "small.onnx", "--no-check")
    assert status == 0 and out.endswith("outputs: not compared (--no-check)\n")


def test_sizes_that_do_not_fit(here: Path, edgec: Edgec) -> None:
    graph = model("f = Flatten (x)\ny = MatMul (f, w)", "(float[1,3,H] x) => (float[1,2] y)", "float[30,2] w")
    save(graph, Path("model.onnx"))
    status, _, err = edgec("simplify", "model.onnx", "-o", "small.onnx")
    assert status == 3 and err.count("\n") == 1
    assert "its open dimensions were taken for 16, and onnxruntime does not run it so" in err
    assert not Path("small.onnx").exists()
    assert edgec("simplify", "model.onnx", "-o", "small.onnx", "--input", "x:1x3x10")[0] == 0


def test_the_model_is_not_overwritten(here: Path, edgec: Edgec) -> None:
    write()
    before = Path("model.onnx").read_bytes()
    status, _, err = edgec("simplify", "model.onnx", "-o", "./model.onnx")
    assert (status, err) == (
        2,
        "edgec: -o model.onnx: is the model itself; give another file with -o: weights are read from this one"
        " meanwhile\n",
    )
    assert Path("model.onnx").read_bytes() == before


def test_a_folder_that_is_not_there(here: Path, edgec: Edgec) -> None:
    write()
    status, _, err = edgec("simplify", "model.onnx", "-o", "no/small.onnx")
    assert status in (2, 4) and err.count("\n") == 1 and "no/small.onnx" in err
