"""Networks in bfloat16 are taken in float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
from onnx.numpy_helper import from_array
from opened_models import weight

from edgec.frontends.model import open_model
from edgec.ir.execution import Session

Write = Callable[..., Path]
NOTE = "its bfloat16 tensors are taken in float32, inputs and outputs among them: the CPU has no bfloat16"


def test_a_network_in_bfloat16_runs_in_float32(write: Write) -> None:
    w = weight(4, 3, 3, 3).astype(ml_dtypes.bfloat16)
    path = write(
        "(bfloat16[1,3,8,8] x, float[1,4,6,6] z) => (bfloat16[1,4,6,6] y) {"
        " c = Conv(x, w) s = Shape(c) o = ConstantOfShape(s) a = Add(c, o)"
        " h = Cast<to=16>(z) y = Mul(a, h) }",
        w=w,
    )
    model = onnx.load(path)
    model.graph.node[2].attribute.append(onnx.helper.make_attribute("value", from_array(np.ones(1, w.dtype), "one")))
    onnx.save(model, path)
    notes: list[str] = []
    graph = open_model(path, notes=notes)
    assert notes == [NOTE]
    assert {tensor.dtype for tensor in (*graph.inputs, *graph.outputs)} == {np.dtype(np.float32)}
    x, z = weight(1, 3, 8, 8), weight(1, 4, 6, 6)
    wide = write("(float[1,3,8,8] x, float[1,4,6,6] z) => (y) { c = Conv(x, w) a = Add(c, one) y = Mul(a, z) }",
                 w=w.astype(np.float32), one=np.float32(1))  # fmt: skip
    np.testing.assert_array_equal(
        Session(graph).run({"x": x, "z": z})["y"], Session(open_model(wide)).run({"x": x, "z": z})["y"]
    )


def test_other_networks_stay_as_they_are(write: Write) -> None:
    notes: list[str] = []
    graph = open_model(write("(float16[2] x) => (float16[2] y) { y = Relu(x) }"), notes=notes)
    assert (notes, graph.inputs[0].dtype) == ([], np.dtype(np.float16))
