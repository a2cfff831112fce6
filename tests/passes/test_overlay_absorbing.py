"""overlay with strides: absorb: one convolution for the first layers and one for the last, the rest as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgec.ir.cost import Cost
from edgec.ir.errors import InputError, UsageErrors
from edgec.ir.execution import Session, sqnr_db
from edgec.ir.graph import Graph, Variable
from edgec.ir.shapes import Shapes
from edgec.passes.framework.context import Context
from edgec.passes.framework.planner import plan
from edgec.passes.framework.settling import settle
from edgec.passes.overlay.overlay import Overlay
from edgec.passes.overlay.response import cells
from edgec.passes.overlay.stretches import Stretch, leading, trailing
from edgec.testing import Samples, did, missed, model, outputs, run_pass


def smooth(count: int, channels: int, side: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Images from 0 to 1 whose neighbours resemble each other."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        coarse = random.random((1, channels, side // 4, side // 4)).repeat(4, axis=2).repeat(4, axis=3)
        made.append({"x": (0.8 * coarse + 0.2 * random.random((1, channels, side, side))).astype(np.float32)})
    return made


def converted(graph: Graph, step: Overlay, side: int = 32) -> Context:
    channels = int((graph.inputs[0].shape or [0] * 2)[1])
    affine = {"x": (np.full(channels, 1 / 255), np.zeros(channels))}
    return run_pass(step, graph, data={"calibration": Samples(smooth(24, channels, side))}, affine=affine)


def absorbing(**options: Any) -> Overlay:
    return Overlay(strides="absorb", magnitude="none", **options)


# The first layers of a ResNet, one more, and a linear layer that depends on the image's size.
CLASSIFIER = """
[first] a = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, wa, ba)
[r] r = Relu (a)
[pool] m = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (r)
[second] b = Conv <pads = [1, 1, 1, 1]> (m, wb, bb)
[s] s = Relu (b)
[flat] f = Flatten (s)
[fc] y = Gemm <transB = 1> (f, wg)
"""
CLASSIFIER_WEIGHTS = "float[8,3,3,3] wa, float[8] ba, float[8,8,3,3] wb, float[8] bb, float[5,512] wg"

AUTOENCODER = """
[c1] a = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w1, b1)
[r1] ra = Relu (a)
[c2] b = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (ra, w2, b2)
[r2] rb = Relu (b)
[c3] c = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (rb, w3)
[u3] d = ConvTranspose <strides = [2, 2], pads = [1, 1, 1, 1]> (c, v3)
[r3] rd = Relu (d)
[u2] e = ConvTranspose <strides = [2, 2], pads = [1, 1, 1, 1]> (rd, v2)
[r4] re = Relu (e)
[u1] f = ConvTranspose <strides = [2, 2], pads = [1, 1, 1, 1]> (re, v1, o1)
[end] y = Sigmoid (f)
"""


def autoencoder(channels: int = 1, body: str = AUTOENCODER) -> Graph:
    weights = (
        f"float[6,{channels},4,4] w1, float[6] b1, float[8,6,4,4] w2, float[8] b2, float[8,8,4,4] w3, "
        f"float[8,8,4,4] v3, float[8,6,4,4] v2, float[6,{channels},4,4] v1, "
        f"float[{channels}] o1, float[{channels},1,1] s1"
    )
    return model(body, f"(float[1,{channels},32,32] x) => (float[1,{channels},32,32] y)", weights)


def test_a_classifier_runs_on_its_own_grid() -> None:
    graph = model(CLASSIFIER, "(float[1,3,32,32] x) => (float[1,5] y)", CLASSIFIER_WEIGHTS)
    settle(graph, "given")
    before, cost = graph.copy(), Cost(graph)
    ctx = converted(graph, absorbing(block=4, chroma=True))
    figures = ctx.done[0].figures
    assert ctx.done[0].what == (
        "the luminance and colour of each block, and dct bands h2, v2, d2, h1, v1, d1; one convolution in the place of "
        f"'first' gives {figures['explained']:.1%} of the old response"
    )
    assert 0.5 < figures["explained"] < 1
    assert Cost(graph).macs / cost.macs == pytest.approx(figures["macs_left"], abs=1e-3)
    assert "MaxPool" not in [node.op for node in graph.nodes]
    assert [(tensor.name, tensor.shape) for tensor in graph.inputs] == [("x", [1, 3, 32, 32])]
    for name in ("second", "fc"):
        old, new = before.node(name), graph.node(name)
        assert old is not None and new is not None
        np.testing.assert_array_equal(new.inputs[1].values, old.inputs[1].values)
        assert new.outputs[0].shape == old.outputs[0].shape


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("block", [4, 8])
def test_an_autoencoder_keeps_its_middle(block: Any, channels: int) -> None:
    graph = autoencoder(channels)
    settle(graph, "given")
    before = graph.copy()
    ctx = converted(graph, absorbing(block=block, chroma=channels == 3))
    layers = {4: "'u2' and 'u1'", 8: "'u3', 'u2' and 'u1'"}[block]
    place, words = did(ctx)[1]
    assert place == "the network"
    assert words.startswith(f"one convolution in the place of {layers} gives {block}x{block} pixels for each of its ")
    assert [(tensor.name, tensor.shape) for tensor in graph.outputs] == [("y", [1, channels, 32, 32])]
    assert [node.op for node in graph.nodes][-1] == "DepthToSpace"
    # It stays a layer of its own: training and prune see frequencies.
    assert graph.node("x.overlay.analysis") is not None
    kept = ["c3", "u3"] if block == 4 else []
    for name in kept:
        old, new = before.node(name), graph.node(name)
        assert old is not None and new is not None
        assert new.outputs[0].name == old.outputs[0].name
        assert new.outputs[0].shape == old.outputs[0].shape
        np.testing.assert_array_equal(new.inputs[1].values, old.inputs[1].values)
    feeds = smooth(4, channels, 32, seed=1)
    assert min(sqnr_db(outputs(before, f), outputs(graph, f)) for f in feeds) > 12


def test_what_is_linear_is_given_exactly() -> None:
    """Gray and every coefficient: nothing is lost where no activation stands in between."""
    body = """
[c1] a = Conv <strides = [2, 2]> (x, w1, b1)
[c2] b = Conv <strides = [2, 2]> (a, w2)
[r] r = Relu (b)
[u2] c = ConvTranspose <strides = [2, 2]> (r, v2)
[u1] d = ConvTranspose <strides = [2, 2]> (c, v1, o1)
[end] y = Sigmoid (d)
"""
    weights = "float[6,1,2,2] w1, float[6] b1, float[8,6,2,2] w2, float[8,6,2,2] v2, float[6,2,2,2] v1, float[2] o1"
    graph = model(body, "(float[1,1,32,32] x) => (float[1,2,32,32] y)", weights)
    before = graph.copy()
    ctx = converted(graph, absorbing(block=4))
    assert ctx.done[0].figures["explained"] > 0.9999
    assert did(ctx)[1][1] == (
        "one convolution in the place of 'u2' and 'u1' gives 4x4 pixels for each of its cells, and 100.0% of the old "
        "response"
    )
    for feeds in smooth(3, 1, 32, seed=1):
        np.testing.assert_allclose(outputs(graph, feeds)["y"], outputs(before, feeds)["y"], atol=1e-3)


@pytest.mark.parametrize("end", ["", "PRelu"])
def test_an_image_that_the_last_layer_gives(end: str) -> None:
    """No activation behind it; or one with a slope for each channel as it was, which is fitted over."""
    body = AUTOENCODER.replace("[end] y = Sigmoid (f)", "[end] y = PRelu (f, s1)" if end else "").replace(
        "f = ConvTranspose", "f = ConvTranspose" if end else "y = ConvTranspose"
    )
    graph = autoencoder(3, body=body)
    before = graph.copy()
    converted(graph, absorbing(block=4, chroma=True))
    assert [node.op for node in graph.nodes][-2:] == ["Conv", "DepthToSpace"]
    feeds = smooth(3, 3, 32, seed=1)
    assert min(sqnr_db(outputs(before, f), outputs(graph, f)) for f in feeds) > 5


def test_the_rest_computes_what_it_did() -> None:
    """From the first kept tensor on, fed with the same values."""
    graph = autoencoder()
    before = graph.copy()
    converted(graph, absorbing(block=4))

    def part(whole: Graph) -> np.ndarray:
        tensors = {tensor.name: tensor for tensor in whole.variables()}
        start, end = Variable("fed", np.float32, [1, 8, 8, 8]), tensors["rd"]
        whole.replace_uses(tensors["rb"], start)
        whole.inputs, whole.outputs = [start], [end]
        whole.remove_dead()
        values = np.random.default_rng(0).random((1, 8, 8, 8), np.float32)
        return Session(whole).run({"fed": values})["rd"]

    np.testing.assert_array_equal(part(graph), part(before))


def test_how_far_it_sees() -> None:
    graph = autoencoder()
    full, near = graph.copy(), graph.copy()
    converted(full, absorbing(block=4))
    ctx = converted(near, absorbing(block=4, reach=0))
    for found, size in ((full, 3), (near, 1)):
        last = found.node("u1.cells")
        assert last is not None
        assert last.inputs[1].shape == (16, 8, size, size)
    assert ctx.done[0].figures["explained"] < 0.999


@pytest.mark.parametrize(
    ("kernel", "pads", "strides"),
    [(3, (1, 1), (2, 2)), (4, (1, 1), (2, 2)), (5, (2, 2), (2, 2)), (7, (3, 3), (2, 4)), (9, (4, 4), (4, 2))],
)
def test_reach_is_what_changes(kernel: int, pads: tuple[int, int], strides: tuple[int, int]) -> None:
    """The blocks whose pixels change a value, found by changing them one by one."""
    block, side = strides[0] * strides[1], 16 * strides[0] * strides[1]
    body = "\n".join(
        f"[c{n}] {out} = Conv <strides = [{s}, {s}], pads = [{p}, {p}, {p}, {p}]> ({read}, w{n})"
        for n, (out, read, s, p) in enumerate(zip("by", "xb", strides, pads, strict=True))
    )
    weights = ", ".join(f"float[1,1,{kernel},{kernel}] w{n}" for n in range(2))
    signature = f"(float[1,1,{side},{side}] x) => (float[1,1,16,16] y)"
    if kernel == 7 or kernel == 9:
        # Padding so that the sides fit: of each layer (kernel - stride) / 2, and what is odd behind.
        body = "\n".join(
            f'[c{n}] {out} = Conv <strides = [{s}, {s}], auto_pad = "SAME_UPPER"> ({read}, w{n})'
            for n, (out, read, s) in enumerate(zip("by", "xb", strides, strict=True))
        )
    graph = model(body + "\n[i] z = Identity (y)", signature.replace("y)", "z)"), weights)
    stretch = leading(graph, graph.inputs[0], block, Shapes(graph))
    session, middle = Session(graph), 8 * block
    seen = np.zeros(2 * block * 16, bool)
    base = np.zeros((1, 1, side, side), np.float32)
    for row in range(side):
        image = base.copy()
        image[0, 0, row] = np.random.default_rng(0).random(side)
        seen[row] = bool(np.any(session.run({"x": image})["z"][0, 0, 8] != 0))
    rows = np.flatnonzero(seen)
    top, below = (middle - rows[0] + block - 1) // block, (rows[-1] - middle) // block
    assert (stretch.reach[0], stretch.reach[2]) == (top, below)


def test_cells_are_in_the_order_of_depth_to_space() -> None:
    graph = model("[d] y = DepthToSpace <blocksize = 2> (x)", "(float[2,12,3,4] x) => (float[2,3,6,8] y)")
    x = np.random.default_rng(0).random((2, 12, 3, 4), np.float32)
    spread = Session(graph).run({"x": x})["y"]
    np.testing.assert_array_equal(cells(2)(spread), x.transpose(0, 2, 3, 1).reshape(-1, 12))


def test_sides_that_the_block_does_not_divide() -> None:
    body = """
[c1] a = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w1)
[c2] b = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (a, w2)
[p] p = GlobalAveragePool (b)
[f] y = Flatten (p)
"""
    graph = model(body, "(float[1,1,30,30] x) => (float[1,4] y)", "float[4,1,3,3] w1, float[4,4,3,3] w2")
    before = graph.copy()
    feeds = [{"x": f["x"][:, :, :30, :30]} for f in smooth(24, 1, 32)]
    run_pass(absorbing(block=4, pad=True), graph, data={"calibration": Samples(feeds)})
    assert min(sqnr_db(outputs(before, f), outputs(graph, f)) for f in feeds) > 30


# -- what stays, and what is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (AUTOENCODER.replace("[end] y = Sigmoid (f)", "[s] s = Sigmoid (f)\n[end] y = Mul (f, s)"),
         "'end' is a Mul, which cannot be absorbed"),
        (AUTOENCODER.replace("[u1]", "[side] g = Abs (re)\n[sum] h = GlobalAveragePool (g)\n[u1]")
         .replace("[end] y = Sigmoid (f)", "[end] y = Sigmoid (f)\n[out] z = Flatten (h)"),
         "what 'r4' gives is read more than once"),
        (AUTOENCODER.replace("[end] y = Sigmoid (f)", "[end] y = Softmax <axis = 1> (f)"),
         "'end' is a Softmax, which cannot be absorbed"),
    ],
    ids=["branch", "aside", "softmax"],
)  # fmt: skip
def test_a_decoder_that_stays(body: str, why: str) -> None:
    graph = autoencoder(body=body)
    if "z = " in body:
        side = next(tensor for tensor in graph.variables() if tensor.name == "z")
        graph.outputs.append(side)
    before = graph.copy()
    ctx = converted(graph, absorbing(block=4))
    assert missed(ctx) == [("the network", f"what makes output 'y' stays: {why}")]
    assert [node.op for node in graph.nodes][-1] == before.nodes[-1].op
    assert "DepthToSpace" not in [node.op for node in graph.nodes]


FIRST = "[c1] a = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w)\n"
MEND = "use another block, or strides: keep"


@pytest.mark.parametrize(
    ("body", "sides", "block", "line"),
    [
        (FIRST + "[r] y = Relu (a)", "[1,4,16,16]", 4,
         "overlay: node 'r': gives an output before the strides multiply to 4 (they are 2x2 so far)"),
        (FIRST + "[r] r = Relu (a)\n[s] s = Sigmoid (a)\n[m] y = Mul (r, s)", "[1,4,16,16]", 4,
         "overlay: node 'c1': is read by 'r' (Relu) and 's' (Sigmoid) before the strides multiply to 4 (they are 2x2 "
         "so far)"),
        (FIRST + "[f] y = Flatten (a)", "[1,1024]", 4,
         "overlay: node 'f': is a Flatten, which cannot be absorbed, and stands before the strides multiply to 4 (they "
         "are 2x2 so far)"),
        ("[c1] y = Conv <strides = [4, 4], pads = [1, 1, 1, 1]> (x, w)", "[1,4,8,8]", 2,
         "overlay: node 'c1': brings the strides to 4x4, and the block is 2"),
        ("[c1] a = Conv <strides = [2, 2]> (x, w)\n[r] y = Relu (a)", "[1,4,15,15]", 2,
         "overlay: node 'c1': gives 15x15 values, and the image has 16x16 blocks of 2: its padding does not fit"),
    ],
)  # fmt: skip
def test_networks_that_it_is_not_for(body: str, sides: str, block: Any, line: str) -> None:
    graph = model(body, f"(float[1,1,32,32] x) => (float{sides} y)", "float[4,1,4,4] w")
    with pytest.raises(InputError) as caught:
        converted(graph, absorbing(block=block))
    assert str(caught.value) == f"{line}; {MEND}"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"mode": "prepend", "strides": "absorb"}, "strides: absorb is for mode: convert"),
        ({"reach": 1}, "reach is for strides: absorb"),
    ],
)
def test_options(options: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageErrors) as caught:
        plan([("overlay", options)], roles=["calibration"])
    assert str(caught.value) == f"the pipeline: passes[0] 'overlay': {line}; 'edgec passes overlay' explains"


def test_an_image_of_another_size_is_no_multiple_of_the_grid() -> None:
    graph = autoencoder()
    shapes = Shapes(graph)
    found = trailing(graph, graph.outputs[0], (8, 8), shapes)
    assert isinstance(found, Stretch)
    assert [node.name for node in found.nodes] == ["u2", "r4", "u1"]
    assert found.reach == (1, 1, 1, 1)
    assert trailing(graph, graph.outputs[0], (32, 32), shapes) is None
    assert trailing(graph, graph.outputs[0], (7, 7), shapes) is None
