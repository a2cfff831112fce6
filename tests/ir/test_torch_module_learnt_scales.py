"""Scales of Q and DQ that are learnt: their gradient, which change together, and what goes back into the graph."""

from __future__ import annotations

import numpy as np
import pytest
from torch_modules import run, torch

from edgec.backends.registry import target
from edgec.ir.execution import Session, seeded_feeds, sqnr_db
from edgec.ir.graph import Graph
from edgec.ir.torch_module.learnt_scales import learnt_scales
from edgec.ir.torch_module.module import TorchModule
from edgec.ir.torch_module.trained import weights
from edgec.passes.quantize.quantize import Quantize
from edgec.testing import Samples, model, run_pass

PAIR = "t = Identity(x)\nq = QuantizeLinear(t, s, z)\ny = DequantizeLinear(q, s, z)"


def network(board: str) -> Graph:
    graph = model(
        "c = Conv<pads=[1,1,1,1]>(x, w, b)\nr = Clip(c, low, high)\nd = Conv<pads=[1,1,1,1], group=16>(r, v)\n"
        "a = Add(d, r)\np = MaxPool<kernel_shape=[2,2], strides=[2,2]>(a)\ne = Conv(p, u)\nk = Concat<axis=1>(e, p)\n"
        "t = Sigmoid(k)\ng = GlobalAveragePool(t)\nf = Flatten(g)\n[head] y = Gemm<transB=1>(f, m, n)",
        "(float[1,16,16,16] x) => (float[1,20] y)",
        "float[16,16,3,3] w, float[16] b, float[16,1,3,3] v, float[16,16,1,1] u, float[20,32] m, float[20] n, "
        "float low = {0}, float high = {6}",
    )
    data = {"calibration": Samples(seeded_feeds(graph, samples=3))}
    run_pass(Quantize(effort="fast"), graph, target=target(board), data=data)
    return graph


def test_the_gradient_is_what_rounding_moved() -> None:
    """Inside the range the distance to the step, in steps; outside the integer at the end (Esser et al., 2020)."""
    graph = model(PAIR, "(float[1,n] x) => (float[1,n] y)", "float s = {0.5}, int8 z = {3}", opset=21)
    module = TorchModule(graph, scales=True)
    x = np.array([[0.3, -0.9, 20.1, 500.0, -900.0]], np.float32)
    factors = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    (module({"x": torch.from_numpy(x)})["y"] * factors).sum().backward()
    steps = x[0] / 0.5
    moved = np.where(np.abs(steps) < 120, np.round(steps) - steps, np.where(steps > 0, 127 - 3, -128 - 3))
    assert float(module.factors[0].grad) == pytest.approx(0.5 * float((moved * factors.numpy()).sum()), rel=1e-5)


@pytest.mark.parametrize("board", ["cpu", "coral-dev-board", "trt-host"])
def test_what_was_learnt_is_what_runs(board: str) -> None:
    graph = network(board)
    feeds = seeded_feeds(graph, seed=4, samples=1)[0]
    module = TorchModule(graph, scales=True)
    assert sqnr_db(Session(graph).run(feeds), run(module, feeds)) > 100
    assert module.write_back() == []
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for factor in module.factors:
            factor.mul_(0.8 + 0.4 * torch.rand(factor.shape, generator=random))
    before = Session(graph).run(feeds)
    assert module.write_back()
    after = Session(graph).run(feeds)
    assert sqnr_db(before, after) < 60
    assert sqnr_db(after, run(module, feeds)) > 45, "a step of the last layer's rounding, at most"


@pytest.mark.parametrize("board", ["cpu", "coral-dev-board"])
def test_scales_that_kernels_tie_stay_tied(board: str) -> None:
    graph = network(board)
    shapes, learnt = learnt_scales(graph, weights(graph))
    by_name = {scale.name: found for scale, found in learnt.items()}
    assert "x.scale" not in by_name, "the input's integers are the pixels'"
    assert "t.scale" not in by_name, "a Sigmoid's are prescribed"
    assert by_name["a.scale"].factors == by_name["p.scale"].factors
    scales = {scale.name: scale.values.tolist() for scale in learnt}
    tied = by_name["e.scale"].factors == by_name["k.scale"].factors
    assert tied is (board == "coral-dev-board" or scales["e.scale"] == scales["k.scale"])
    assert shapes[by_name["v.scale"].factors[0]] == (16,)
    bias = by_name["b.scale"]
    assert bias.product_of is not None
    assert [scale.name for scale in bias.product_of] == ["x.scale", "w.scale"]
    assert bias.factors == by_name["w.scale"].factors


def test_the_scale_of_a_bias_stays_the_product() -> None:
    graph = network("coral-dev-board")
    module = TorchModule(graph, scales=True)
    with torch.no_grad():
        for number, factor in enumerate(module.factors):
            factor.mul_(1 + 0.01 * number)
    module.write_back()
    scales = {constant.name: constant.values for constant in graph.constants()}
    for bias, source, kernel in (("b", "x", "w"), ("n", "f", "m")):
        np.testing.assert_array_equal(scales[f"{bias}.scale"], scales[f"{source}.scale"] * scales[f"{kernel}.scale"])


def test_weights_that_are_frozen_keep_their_scales() -> None:
    graph = network("cpu")
    module = TorchModule(graph, frozen=["head"], scales=True)
    before = {constant.name: constant.values.copy() for constant in graph.constants()}
    with torch.no_grad():
        for factor in module.factors:
            factor.mul_(1.1)
    changed = {constant.name for constant in module.write_back()}
    assert "w.scale" in changed and "m.scale" not in changed and "m.int8" not in changed
    assert "n.scale" in changed, "its input's scale is learnt"
    np.testing.assert_array_equal(before["m.int8"], next(c for c in graph.constants() if c.name == "m.int8").values)


def test_a_factor_that_runs_away_leaves_a_scale_above_zero() -> None:
    graph = network("cpu")
    module = TorchModule(graph, scales=True)
    with torch.no_grad():
        for factor in module.factors:
            factor.zero_()
    module.write_back()
    assert all((c.values > 0).all() for c in graph.constants() if c.name.endswith(".scale"))


def test_without_scales_none_is_learnt() -> None:
    assert len(TorchModule(network("cpu")).factors) == 0
