"""Resize in ways that TFLite has not: exactly what onnxruntime computes, in float and in integers."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.backends.coral.backend import CoralBackend
from edgec.backends.protocol import legalize
from edgec.backends.registry import target
from edgec.ir.execution import Session

IMAGE = (1, 3, 7, 9)
CASES = {
    "cubic": ((1, 1, 2, 2), {"mode": "cubic"}),
    "cubic, torch": (
        (1, 1, 3, 3),
        {"mode": "cubic", "cubic_coeff_a": -0.75, "coordinate_transformation_mode": "pytorch_half_pixel"},
    ),
    "cubic, smaller": ((1, 1, 0.5, 0.7), {"mode": "cubic"}),
    "cubic, one axis": ((1, 1, 1, 2), {"mode": "cubic", "coordinate_transformation_mode": "asymmetric"}),
    "cubic, corners": ((1, 1, 2, 2), {"mode": "cubic", "coordinate_transformation_mode": "align_corners"}),
    "cubic, inside": ((1, 1, 2, 2), {"mode": "cubic", "exclude_outside": 1}),
    "antialias": ((1, 1, 0.4, 0.6), {"mode": "linear", "antialias": 1}),
    "antialias, cubic": ((1, 1, 0.4, 0.6), {"mode": "cubic", "antialias": 1}),
}


@pytest.mark.parametrize("case", list(CASES))
@pytest.mark.parametrize("by", ["scales", "sizes"])
def test_it_is_a_product_along_each_axis(lab, case, by):
    scales, attrs = CASES[case]
    sizes = [int(np.floor(size * scale)) for size, scale in zip(IMAGE, scales, strict=True)]

    def make(b, x):
        given = [b.const(scales)] if by == "scales" else [None, b.ints(*sizes)]
        return b("Resize", b("Relu", x), None, *given, **attrs)

    graph = lab.build(make, [IMAGE], opset=18)
    feeds = lab.noise(graph)
    wanted = Session(graph).run(feeds)["y0"]
    legalize(graph, CoralBackend(), target("coral-dev-board"))
    assert "Resize" not in {node.op for node in graph.nodes}
    np.testing.assert_allclose(Session(graph).run(feeds)["y0"], wanted, rtol=1e-5, atol=1e-5)
    lab.compared(graph, feeds).close()
    rounded = lab.compared(lab.quantized(graph, feeds), feeds)
    assert "DEQUANTIZE" not in rounded.kinds
    assert rounded.steps() <= 1


def test_a_region_is_cropped_and_resized(lab):
    def make(b, x):
        roi = b.const([0, 0, 0.2, -0.3, 1, 1, 0.9, 0.8])
        attrs = {"mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize"}
        return b("Resize", x, roi, None, b.ints(1, 3, 5, 6), **attrs)

    graph = lab.build(make, [IMAGE], opset=18)
    feeds = lab.noise(graph)
    wanted = Session(graph).run(feeds)["y0"]
    legalize(graph, CoralBackend(), target("coral-dev-board"))
    np.testing.assert_allclose(Session(graph).run(feeds)["y0"], wanted, rtol=1e-5, atol=1e-5)
    lab.compared(graph, feeds).close()


def test_what_tflite_has_is_left_to_it(lab):
    graph = lab.build(lambda b, x: b("Resize", x, None, b.const([1, 1, 2, 2]), mode="linear"), [IMAGE])
    legalize(graph, CoralBackend(), target("coral-dev-board"))
    assert [node.op for node in graph.nodes] == ["Resize"]
