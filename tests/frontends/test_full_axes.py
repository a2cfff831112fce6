"""``axes`` of Resize and Pad are written out, and compute the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from opened_models import weight

from edgec.frontends.model import open_model
from edgec.ir.execution import Session

Write = Callable[..., Path]
X = weight(1, 3, 6, 8)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


CASES = {
    "reflect": ('Pad<mode="reflect">(x, n, , ax)', {"n": ints(2, 1, 1, 2), "ax": ints(2, 3)}),
    "constant, axes from the end, in another order": ("Pad(x, n, v, ax)", {"n": ints(2, 1, 1, 3), "ax": ints(-1, 1),
                                                                        "v": np.float32(0.5)}),
    "wrap": ('Pad<mode="wrap">(x, n, , ax)', {"n": ints(2, 1), "ax": ints(3)}),
    "cropping": ("Pad(x, n, , ax)", {"n": ints(-1, 2), "ax": ints(2)}),
    "scales": ('Resize<axes=[3,2], mode="linear">(x, , f)', {"f": floats(2, 3)}),
    "sizes": ('Resize<axes=[2,-1], mode="nearest">(x, , , n)', {"n": ints(9, 5)}),
    "a region": ('Resize<axes=[2,3], mode="linear", coordinate_transformation_mode="tf_crop_and_resize">(x, r, f)',
                 {"r": floats(0.1, 0.2, 0.8, 0.9), "f": floats(2, 2)}),
    "all axes": ("Resize<axes=[0,1,2,3]>(x, , f)", {"f": floats(1, 1, 2, 2)}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_axes_are_written_out(name: str, write: Write) -> None:
    node, weights = CASES[name]
    opset = 19 if "wrap" in node else 18
    weights = {key: np.asarray(values) for key, values in weights.items()}
    path = write(f"(float[1,3,6,8] x) => (float[A,B,C,D] y) {{ [n] y = {node} }}", f'"" : {opset}', **weights)
    graph = open_model(path)
    (only,) = graph.nodes
    assert "axes" not in only.attrs and (only.op == "Resize" or len(only.inputs) < 4)
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(Session(graph).run({"x": X})["y"], session.run(None, {"x": X})[0], rtol=1e-6)


def test_a_ratio_that_is_kept_is_that_of_the_chosen_axes(write: Write) -> None:
    path = write(
        '(float[1,3,6,8] x) => (float[A,B,C,D] y) { y = Resize<axes=[2,3], keep_aspect_ratio_policy="not_larger">'
        "(x, , , n) }",
        '"" : 18', n=ints(12, 12),
    )  # fmt: skip
    graph = open_model(path)
    assert graph.nodes[0].attrs["axes"] == [2, 3]
    assert graph.outputs[0].shape == [1, 3, 9, 12]


def test_onnxruntime_s_transpose_optimizer_takes_the_result(write: Write) -> None:
    """The file as it is is refused: "indices element out of data bounds"."""
    path = write(
        '(float[1,6,8,3] x) => (float[A,B,C,D] y) { t = Transpose<perm=[0,3,1,2]>(x)'
        ' p = Pad<mode="reflect">(t, n, , ax) u = Resize<axes=[2,3], mode="linear">(p, , f)'
        " y = Transpose<perm=[0,2,3,1]>(u) }",
        '"" : 18', n=ints(2, 1, 1, 2), ax=ints(2, 3), f=floats(2, 2),
    )  # fmt: skip
    x = weight(1, 6, 8, 3)
    graph = open_model(path)
    plain, optimized = (Session(graph, optimize=best).run({"x": x})["y"] for best in (False, True))
    np.testing.assert_allclose(optimized, plain, rtol=1e-5, atol=1e-6)
