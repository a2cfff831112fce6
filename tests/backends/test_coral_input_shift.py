"""Raw pixels, padded with the pixel that stood for zero, still go to the Edge TPU as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgec.backends.coral.backend import CoralBackend, lower
from edgec.backends.protocol import legalize
from edgec.backends.registry import target
from edgec.ir.execution import Session
from edgec.ir.graph import Graph
from edgec.ir.printer import parse
from edgec.ir.shapes import Shapes
from edgec.passes.framework import input_domain
from edgec.passes.framework.context import Context, RunConfig
from edgec.passes.framework.settling import settle
from edgec.passes.normalize import Normalize
from edgec.passes.quantize.quantize import Quantize
from edgec.testing import Samples

AFFINE = {"x": (np.full(3, 1 / 128), np.full(3, -127 / 128))}
RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (4, 1, 3, 9, 9)).astype(np.float32)


def normalized() -> Graph:
    graph = parse(
        '<ir_version: 8, opset_import: ["" : 17]> net (float[1,3,9,9] x) => (float[1,4,5,5] y)'
        "<float[4,3,3,3] w, float[4] b> { [conv] y = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w, b) }"
    )
    node = graph.nodes[0]
    node.inputs[1] = graph.const("w", RANDOM.standard_normal((4, 3, 3, 3)).astype(np.float32))
    node.inputs[2] = graph.const("b", RANDOM.standard_normal(4).astype(np.float32))
    graph.inputs = graph.inputs[:1]
    Shapes(graph).annotate(graph)
    Normalize().run(graph, Context(graph, RunConfig(affine=AFFINE)))
    settle(graph, "normalize")
    return graph


def test_the_padding_becomes_zero_and_the_outputs_stay() -> None:
    graph = normalized()
    assert [n.op for n in graph.nodes] == ["Pad", "Conv"]
    x = (PIXELS[0] - 127) / 128
    before = Session(graph).run(input_domain.enter(graph, {"x": x}))["y"]
    legalize(graph, CoralBackend(), target("coral-dev-board"))
    settle(graph, "coral")
    feeds = input_domain.enter(graph, {"x": x})
    np.testing.assert_allclose(feeds["x"], PIXELS[0] - 127, atol=1e-4)
    np.testing.assert_allclose(Session(graph).run(feeds)["y"], before, rtol=1e-4, atol=1e-4)


def test_the_bytes_are_the_pixels_and_the_edge_tpu_takes_it_all(tmp_path: Path) -> None:
    graph, board = normalized(), target("coral-dev-board")
    backend = CoralBackend()
    legalize(graph, backend, board)
    settle(graph, "coral")
    ctx = Context(
        graph,
        RunConfig(
            target=board, data={"calibration": Samples([{"x": (image - 127) / 128} for image in PIXELS])}, affine=AFFINE
        ),
    )
    Quantize().run(graph, ctx)
    settle(graph, "quantize")
    lowered = lower(graph)
    assert [operator.kind for operator in lowered.file.operators] == ["PAD", "CONV_2D"]
    (port,) = lowered.inputs
    assert port.quantization is not None
    assert float(port.quantization.scale[0]) == 1.0
    assert int(port.quantization.zero_point[0]) == 127 - 128
    emitted = backend.emit(graph, board, tmp_path, [{"x": p - 127} for p in PIXELS])
    assert emitted.check["edge_tpu"]["on_cpu"] == []


def test_without_normalize_the_bytes_are_the_pixels_too() -> None:
    graph = normalized()
    plain = parse(
        '<ir_version: 8, opset_import: ["" : 17]> net (float[1,3,9,9] x) => (float[1,4,5,5] y)'
        "<float[4,3,3,3] w> { [conv] y = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w) }"
    )
    plain.nodes[0].inputs[1] = graph.nodes[1].inputs[1]
    plain.inputs = plain.inputs[:1]
    Shapes(plain).annotate(plain)
    ctx = Context(
        plain,
        RunConfig(
            target=target("coral-dev-board"),
            data={"calibration": Samples([{"x": (image - 127) / 128} for image in PIXELS])},
            affine=AFFINE,
        ),
    )
    Quantize().run(plain, ctx)
    settle(plain, "quantize")
    (port,) = lower(plain).inputs
    assert port.quantization is not None
    assert (float(port.quantization.scale[0]), int(port.quantization.zero_point[0])) == (1 / 128, -1)
