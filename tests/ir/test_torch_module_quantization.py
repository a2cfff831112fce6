"""QuantizeLinear and DequantizeLinear: onnxruntime's numbers, the straight-through gradient, integers that train."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch_modules import agrees, assert_agree, run, torch

from edgec.backends.registry import target
from edgec.ir.errors import InputError
from edgec.ir.execution import Session
from edgec.ir.graph import Graph
from edgec.ir.torch_module.module import TorchModule
from edgec.ir.torch_module.trained import weights
from edgec.passes.quantize.quantize import Quantize
from edgec.testing import Samples, model, run_pass

PAIR = "q = QuantizeLinear(x, s, z)\ny = DequantizeLinear(q, s, z)"


def pair(kind: str, scale: float = 0.5, zero: int = 3) -> Graph:
    return model(PAIR, "(float[1,n] x) => (float[1,n] y)", f"float s = {{{scale}}}, {kind} z = {{{zero}}}", opset=21)


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "uint16"])
def test_halves_round_to_even_and_the_gradient_is_one_inside_the_range(kind: str) -> None:
    graph = pair(kind)
    bounds = np.iinfo(np.dtype(kind))
    ends = [(bounds.min - 3 + d) * 0.5 for d in (-2, -1, 0, 1)] + [(bounds.max - 3 + d) * 0.5 for d in (-1, 0, 1, 2)]
    x = np.array([[-1.25, -0.75, -0.25, 0.25, 0.75, 1.25, 0.1, *ends]], np.float32)
    assert_agree(run(TorchModule(graph), {"x": x}), Session(graph).run({"x": x}), tolerance=0)
    given = torch.from_numpy(x).requires_grad_()
    factors = torch.arange(1.0, x.size + 1)
    (TorchModule(graph)({"x": given})["y"] * factors).sum().backward()
    whole = np.round(x[0] / 0.5) + 3
    inside = (whole >= bounds.min) & (whole <= bounds.max)
    assert 0 < inside.sum() < x.size
    np.testing.assert_allclose(given.grad.numpy()[0], factors.numpy() * inside)


def test_a_scale_for_each_channel_and_operators_in_between() -> None:
    graph = model(
        "q = QuantizeLinear<axis=1>(x, s, z)\n"
        "p = MaxPool<kernel_shape=[2,2]>(q)\n"
        "y = DequantizeLinear<axis=1>(p, s, z)",
        "(float[1,3,4,4] x) => (float[1,3,3,3] y)",
        "float[3] s = {0.5, 0.25, 0.125}, int8[3] z = {1, 0, -2}",
    )
    x = np.random.default_rng(0).standard_normal((1, 3, 4, 4)).astype(np.float32)
    assert_agree(run(TorchModule(graph), {"x": x}), Session(graph).run({"x": x}), tolerance=1e-7)
    given = torch.from_numpy(x).requires_grad_()
    TorchModule(graph)({"x": given})["y"].sum().backward()
    assert float(given.grad.sum()) == 27, "each maximum passes its gradient on"


def test_the_gradient_is_that_of_the_clipped_identity() -> None:
    """The straight-through rule by finite differences: between its steps a pair moves as clip(x, low, high) does."""
    graph = pair("int8", scale=2.0**-16, zero=0)
    x = torch.tensor([[-0.001, 0.0005, 0.0015, 0.0019]], dtype=torch.float64)  # the range is +-0.00195
    module = TorchModule(graph).double()
    given = x.clone().requires_grad_()
    weights_of = torch.tensor([1.0, -2.0, 3.0, 4.0], dtype=torch.float64)
    (module({"x": given})["y"] * weights_of).sum().backward()
    step = 2.0**-14  # a whole number of steps of the integers
    for place in range(4):
        moved = x.clone()
        moved[0, place] -= step
        with torch.no_grad():
            rise = (module({"x": x})["y"] - module({"x": moved})["y"])[0, place] * weights_of[place]
        assert float(rise / step) == pytest.approx(float(given.grad[0, place]), rel=1e-6)


def test_quantized_outputs_have_their_integers() -> None:
    graph = model("y = QuantizeLinear(x, s, z)", "(float[1,4] x) => (uint8[1,4] y)", "float s = {0.5}, uint8 z = {7}")
    feeds = {"x": np.array([[-9.0, -0.25, 0.25, 900.0]], np.float32)}
    assert_agree(run(TorchModule(graph), feeds), Session(graph).run(feeds))
    inside = model(PAIR, "(float[1,4] x) => (float[1,4] y)", "float s = {0.5}, uint8 z = {7}")
    assert run(TorchModule(inside), feeds, taps=["q"])["q"].dtype == np.uint8


QUANTIZED = """
q = QuantizeLinear(x, sx, zx)
d = DequantizeLinear(q, sx, zx)
w = DequantizeLinear<axis=0>(w8, sw, zw)
b = DequantizeLinear<axis=0>(b32, sb)
[conv] y = Conv<pads=[1,1,1,1]>(d, w, b)
"""


def quantized_layer() -> Graph:
    random = np.random.default_rng(1)
    return model(
        QUANTIZED,
        "(float[1,3,6,6] x) => (float[1,4,6,6] y)",
        "float sx = {0.03}, uint8 zx = {128}, int8[4,3,3,3] w8, float[4] sw = {0.02, 0.01, 0.03, 0.015}, "
        "int8[4] zw = {0, 0, 0, 0}, int32[4] b32, float[4] sb = {0.0006, 0.0003, 0.0009, 0.00045}",
        w8=random.integers(-127, 128, (4, 3, 3, 3)),
        b32=random.integers(-3000, 3000, 4),
    )


def step(module: Any, shape: tuple[int, ...], rate: float, name: str = "x") -> None:
    x = torch.from_numpy(np.random.default_rng(2).standard_normal(shape).astype(np.float32))
    optimizer = torch.optim.SGD(module.parameters(), lr=rate)
    sum(v.square().mean() for v in module({name: x}).values()).backward()
    optimizer.step()


def test_integer_weights_train_as_the_floats_they_stand_for() -> None:
    graph = quantized_layer()
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 3, 6, 6)).astype(np.float32)}
    before = {constant: constant.values.copy() for constant in graph.constants()}
    module = TorchModule(graph)
    assert [n for n, _ in module.named_parameters()] == ["w8", "b32"]
    assert module.get_parameter("w8").dtype == torch.float32
    assert_agree(run(module, feeds), Session(graph).run(feeds), tolerance=1e-6)
    assert module.write_back() == []
    step(module, (2, 3, 6, 6), 0.3)
    changed = module.write_back()
    assert [constant.name for constant in changed] == ["w8", "b32"]
    for constant, values in before.items():
        assert constant.values.dtype == values.dtype
        assert (constant in changed) != np.array_equal(constant.values, values)
    assert_agree(run(module, feeds), Session(graph).run(feeds), tolerance=1e-6)
    weight = changed[0].values.copy()
    weight[0, 0, 0, 0] ^= 64
    changed[0].values = weight
    assert not agrees(run(module, feeds)["y"], Session(graph).run(feeds)["y"])


def test_integers_that_are_read_in_two_ways_stay() -> None:
    body = QUANTIZED + "v = DequantizeLinear<axis=0>(w8, sv, zw)\n[two] u = Conv<pads=[1,1,1,1]>(d, v)"
    graph = model(
        body,
        "(float[1,3,6,6] x) => (float[1,4,6,6] y, float[1,4,6,6] u)",
        "float sx = {0.03}, uint8 zx = {128}, int8[4,3,3,3] w8, float[4] sw, float[4] sv, int8[4] zw = {0, 0, 0, 0}, "
        "int32[4] b32, float[4] sb",
        w8=np.ones((4, 3, 3, 3)), b32=np.ones(4), sw=np.ones(4), sv=np.full(4, 2.0), sb=np.ones(4),
    )  # fmt: skip
    assert [constant.name for constant in weights(graph)] == ["b32"]
    graph.node("two").inputs[1].inputs[0].inputs[1].values = np.ones(4, np.float32)
    assert [constant.name for constant in weights(graph)] == ["w8", "b32"], "the same scales say the same"


def test_float_weights_behind_a_pair_train_through_it() -> None:
    graph = model(
        "q = QuantizeLinear(w, s, z)\nd = DequantizeLinear(q, s, z)\n[fc] y = MatMul(x, d)",
        "(float[1,4] x) => (float[1,3] y)",
        "float[4,3] w, float s = {0.05}, int8 z = {0}",
    )
    module = TorchModule(graph)
    assert [n for n, _ in module.named_parameters()] == ["w"]
    step(module, (2, 4), 0.5)
    assert [constant.name for constant in module.write_back()] == ["w"]
    feeds = {"x": np.ones((1, 4), np.float32)}
    assert_agree(run(module, feeds), Session(graph).run(feeds), tolerance=1e-6)


@pytest.mark.parametrize("board", ["cpu", "coral-dev-board"])
def test_what_the_quantize_pass_leaves_trains_and_comes_back(board: str) -> None:
    graph = model(
        """
        [one] a = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w1, b1)
        r = Relu(a)
        [two] b = Conv<group=4>(r, w2)
        p = GlobalAveragePool(b)
        f = Flatten(p)
        [fc] y = Gemm<transB=1>(f, w3, b3)
        """,
        "(float[1,3,16,16] x) => (float[1,5] y)",
        "float[4,3,3,3] w1, float[4] b1, float[4,1,3,3] w2, float[5,4] w3, float[5] b3",
    )
    random = np.random.default_rng(0)
    feeds = [{"x": random.standard_normal((1, 3, 16, 16)).astype(np.float32)} for _ in range(4)]
    run_pass(Quantize(), graph, target=target(board), data={"calibration": Samples(feeds)})
    integers = [c for c in graph.constants() if c.dtype.kind == "i" and c.values.ndim and c in weights(graph)]
    assert {constant.name.rsplit(".", 1)[0] for constant in integers} >= {"w1", "w2", "w3"}
    module = TorchModule(graph)
    session = Session(graph)
    for feed in feeds:
        assert_agree(run(module, feed), session.run(feed))
    both = {"x": np.concatenate([feed["x"] for feed in feeds])}
    assert agrees(run(module, both)["y"], np.concatenate([session.run(feed)["y"] for feed in feeds]))
    step(module, (4, 3, 16, 16), 0.5)
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in module.parameters())
    changed = module.write_back()
    assert {c.name for c in changed} & {c.name for c in integers}
    after = Session(graph)
    for feed in feeds:
        assert_agree(run(module, feed), after.run(feed))
        assert not agrees(after.run(feed)["y"], session.run(feed)["y"])


def test_autocast_does_not_move_the_integers() -> None:
    graph = quantized_layer()
    module = TorchModule(graph)
    x = {"x": torch.from_numpy(np.random.default_rng(0).standard_normal((1, 3, 6, 6)).astype(np.float32))}
    plain = module(x, taps=["d", "w"])
    with torch.autocast("cpu", torch.bfloat16):
        cast = module(x, taps=["d", "w"])
    assert torch.equal(plain["d"], cast["d"]) and torch.equal(plain["w"], cast["w"])
    assert cast["y"].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("body", "constants", "line"),
    [
        (
            "[q] i = QuantizeLinear(x, s, z)\ny = DequantizeLinear(i, s, z)",
            "float s = {0.5}, float8e4m3fn z = {0}",
            "node 'q' (QuantizeLinear): it quantizes to float8_e4m3fn; quantize to integers of 8 or 16 bits",
        ),
        (
            "[q] i = QuantizeLinear<axis=1, block_size=2>(x, s, z)\n"
            "y = DequantizeLinear<axis=1, block_size=2>(i, s, z)",
            "float[1,2] s, int8[1,2] z",
            "node 'q' (QuantizeLinear): it has a scale for each block; "
            "quantize with one scale for a tensor or a channel",
        ),
    ],
)
def test_other_quantizations_are_refused(body: str, constants: str, line: str) -> None:
    graph = model(body, "(float[1,4] x) => (float[1,4] y)", constants, opset=21)
    with pytest.raises(InputError) as caught:
        TorchModule(graph)
    assert str(caught.value) == line
