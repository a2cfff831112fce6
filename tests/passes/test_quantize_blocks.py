"""quantize, effort max: the blocks of a network, the rounding that is learnt in them, and what is kept of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgec.backends.registry import target
from edgec.ir.execution import sqnr_db
from edgec.ir.files import to_bytes
from edgec.ir.graph import Graph
from edgec.ir.shapes import Shapes
from edgec.passes.calibration.batch_split import split
from edgec.passes.factorize.layers import find_layers
from edgec.passes.framework.context import Context, RunConfig
from edgec.passes.quantize.pair import Pair
from edgec.passes.quantize.quantize import Quantize
from edgec.passes.quantize.recover import block_reconstruction, blocks, recovery
from edgec.passes.quantize.recover.block_network import BlockNetwork
from edgec.passes.quantize.recover.block_reconstruction import reconstruct
from edgec.passes.quantize.recover.blocks import Block, find_blocks
from edgec.passes.quantize.stored_layers import StoredLayer, stored_layers
from edgec.passes.train.engine import learnt_rounding
from edgec.testing import Samples, missed, model, outputs, run_pass

CPU, CORAL, TENSORRT = target("cpu"), target("coral-dev-board"), target("trt-host")
IMAGE = "(float[1,16,6,6] x) => (float[1,16,6,6] y)"


def layers(count: int, channels: int = 16) -> str:
    """Declarations of 1x1 kernels and biases, w0 and b0 on."""
    return ", ".join(f"float[{channels},{channels},1,1] w{i}, float[{channels}] b{i}" for i in range(count))


def chain(count: int) -> Graph:
    """Convolutions, each with a Relu."""
    names = ["x", *(f"r{i}" for i in range(count - 1)), "y"]
    lines = [f"a{i} = Conv ({names[i]}, w{i}, b{i})\n{names[i + 1]} = Relu (a{i})" for i in range(count)]
    return model("\n".join(lines), IMAGE, layers(count))


RESIDUAL = """
a = Conv (x, w0, b0)
r = Relu (a)
c = Conv (r, w1, b1)
d = Relu (c)
e = Conv (d, w2, b2)
f = Conv (d, w3, b3)
g = Add (e, f)
s = Add (g, r)
y = Conv (s, w4, b4)
"""
SKIPPING = """
a = Conv (x, w0, b0)
r = Relu (a)
c = Conv (r, w1, b1)
d = Relu (c)
e = Conv (d, w2, b2)
s = Add (e, r)
z = Conv (s, w3, b3)
y = Relu (z)
"""


def images(count: int, seed: int = 1) -> list[dict[str, np.ndarray]]:
    """Pictures of a few patterns, so that what layers read is correlated."""
    random, mixing = np.random.default_rng(seed), np.random.default_rng(9).standard_normal((4, 16, 6, 6))
    return [{"x": np.tensordot(random.standard_normal((1, 4)), mixing, 1).astype(np.float32)} for _ in range(count)]


def rounded(graph: Graph, board: Any = CPU, *, limit: int = 127, **options: Any) -> tuple[Pair, list[StoredLayer]]:
    """A network and itself with every weight rounded to the nearest integer, as ``max`` would read them."""
    original = graph.copy()
    run_pass(Quantize(effort="fast", **options), graph, target=board, threads=1, data={"calibration": data()})
    pair = Pair(original, graph)
    found = find_layers(original, Shapes(original), lambda node: None, lambda node, reason: None)
    return pair, list(stored_layers(pair, found, limit))


def data(count: int = 40) -> Samples:
    return Samples(images(count))


def learn(pair: Pair, stored: list[StoredLayer], *, seed: int = 0, count: int = 40) -> str:
    ctx = Context(pair.quantized, RunConfig(data={"calibration": data(count)}, threads=1, seed=seed))
    return reconstruct(pair, stored, split(count, 64), ctx)


def decibel(pair: Pair) -> float:
    """On images that nothing has seen."""
    held_out = images(30, seed=77)
    return float(np.mean([sqnr_db(outputs(pair.original, f), outputs(pair.quantized, f)) for f in held_out]))


# -- the cut -----------------------------------------------------------------------------------------------------------


def cut(graph: Graph, board: Any = CPU) -> list[tuple[list[str], str, list[str]]]:
    """By block what it reads, what it gives, and the weights of its layers."""
    pair, stored = rounded(graph, board)
    found = find_blocks(pair, stored)
    for block in found:
        check_twins(pair, block)
    return [
        (
            sorted({t.name for t in block.exact_entries}),  # TensorRT's scheme reads the sum's side unrounded besides
            block.exact_exit.name,
            [one.layer.weight.name for one in block.layers],
        )
        for block in found
    ]


def check_twins(pair: Pair, block: Block) -> None:
    """A block alone computes what it computes in the network."""
    from edgec.passes.calibration.runner import Tapped

    feeds = images(1)[0]
    seen = Tapped(pair.quantized, [*block.entries, block.exit]).run(feeds)
    given = {entry: seen[entry.name] for entry in block.entries}
    alone = Tapped(pair.quantized, [block.exit], given).run({entry.name: x for entry, x in given.items()})
    assert np.array_equal(alone[block.exit.name], seen[block.exit.name])


@pytest.mark.parametrize("board", [CPU, CORAL, TENSORRT])
def test_of_a_chain_three_layers_are_a_block(board: Any) -> None:
    assert cut(chain(7), board) == [
        (["x"], "r2", ["w0", "w1", "w2"]),
        (["r2"], "r5", ["w3", "w4", "w5"]),
        (["r5"], "y", ["w6"]),
    ]


@pytest.mark.parametrize("board", [CPU, TENSORRT])
def test_a_residual_block_is_one_block(board: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_FEWEST_LAYERS", 1)
    graph = model(RESIDUAL, IMAGE, layers(5))
    assert cut(graph, board) == [(["x"], "r", ["w0"]), (["r"], "s", ["w1", "w2", "w3"]), (["s"], "y", ["w4"])]


@pytest.mark.parametrize("board", [CPU, TENSORRT])
def test_under_long_skips_each_layer_is_a_block_with_its_activation(
    board: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "_MOST_LAYERS", 2)
    graph = model(SKIPPING, IMAGE, layers(4))
    found = cut(graph, board)
    assert found[:3] == [(["x"], "r", ["w0"]), (["r"], "d", ["w1"]), (["d"], "e", ["w2"])]
    assert found[3:] == [(["s"], "y", ["w3"])]


def test_two_inputs_are_one_blocks_and_what_leads_to_two_outputs_is_taken_layer_by_layer() -> None:
    graph = model(
        "a = Conv (x, w0, b0)\nc = Conv (z, w1, b1)\ns = Add (a, c)\ny = Conv (s, w2, b2)\nq = Relu (s)",
        "(float[1,16,6,6] x, float[1,16,6,6] z) => (float[1,16,6,6] y, float[1,16,6,6] q)",
        layers(3),
    )
    original = graph.copy()
    feeds = [{"x": one["x"], "z": -one["x"]} for one in images(12)]
    run_pass(Quantize(effort="fast"), graph, target=CPU, threads=1, data={"calibration": Samples(feeds)})
    pair = Pair(original, graph)
    found = find_layers(original, Shapes(original), lambda node: None, lambda node, reason: None)
    cuts = find_blocks(pair, list(stored_layers(pair, found, 127)))
    assert [([t.name for t in b.exact_entries], b.exact_exit.name) for b in cuts] == [
        (["x", "z"], "s"),
        (["s"], "y"),
    ]


def test_a_block_in_floats_is_what_it_is_in_integers() -> None:
    import torch

    from edgec.ir.torch_module.module import TorchModule
    from edgec.passes.calibration.runner import Tapped

    pair, stored = rounded(model(RESIDUAL, IMAGE, layers(5)), per_channel=False)
    [block] = find_blocks(pair, stored)[:1]
    x = images(1)[0]["x"]
    [entry] = block.entries
    network = BlockNetwork.of(pair, block, {entry.name: x.shape})
    assert network.masks
    masks = {
        mask.name: torch.zeros([int(d or 0) for d in mask.shape or ()], dtype=torch.bool) for mask in network.masks
    }
    made = TorchModule(network.graph)({entry.name: torch.from_numpy(x), **masks})[network.graph.outputs[0].name]
    given = Tapped(pair.quantized, [block.exit], {entry: x}).run({entry.name: x})[block.exit.name]
    assert np.abs(made.detach().numpy() - given).max() <= 1e-4 * np.abs(given).max()


# -- what is learnt ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("board", "per_channel"), [(CPU, False), (CPU, True), (CORAL, False), (TENSORRT, False)])
def test_learnt_rounding_beats_the_nearest_integers(board: Any, per_channel: bool) -> None:
    pair, stored = rounded(chain(3), board, per_channel=per_channel)
    for layer in stored:  # so coarse that weights are what limits
        values = layer.values()
        coarse = np.rint(values.integers / 12)
        layer.write(type(values)(coarse, values.scale * 12, values.bias))
    before = [(layer.weight.values, layer.weight_scale.values) for layer in stored]
    nearest = decibel(pair)
    assert learn(pair, stored).startswith("reconstructed block by block: 1 of 1 blocks came closer, and ")
    assert decibel(pair) > nearest + 1
    for layer, (integers, scale) in zip(stored, before, strict=True):
        moved = layer.weight.values.astype(int) - integers
        assert np.abs(moved).max() <= 1
        assert np.array_equal(layer.weight_scale.values, scale)
        assert (layer.bias.dtype == np.float32) == (board is TENSORRT)
    assert any((layer.weight.values != integers).any() for layer, (integers, _) in zip(stored, before, strict=True))


def test_integers_stay_within_their_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    pair, stored = rounded(chain(3), target("cpu-avx2"), limit=63)
    assert max(int(np.abs(layer.weight.values).max()) for layer in stored) == 63
    network = BlockNetwork.of(pair, find_blocks(pair, stored)[0], {"x.dequantized": (1, 16, 6, 6)})
    learnt = learnt_rounding._Learnt(network.layers[0])
    learnt.v.data.fill_(10.0)
    integers, _ = learnt.result()
    assert integers.max() == 63
    assert np.array_equal(integers, np.minimum(network.layers[0].integers + 1, 63))


def test_training_starts_from_the_integers_that_there_are() -> None:
    pair, stored = rounded(chain(3))
    network = BlockNetwork.of(pair, find_blocks(pair, stored)[0], {"x.dequantized": (1, 16, 6, 6)})
    for layer in network.layers:
        learnt = learnt_rounding._Learnt(layer)
        assert np.abs(learnt.weight(learnt.offsets()).detach().numpy() - layer.weight.values).max() < 1e-6
        assert np.array_equal(learnt.bias().detach().numpy(), layer.bias.values)


def test_few_images_are_held_where_more_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    original = learnt_rounding.learn_rounding

    def counted(network: Any, examples: Any, *rest: Any) -> Any:
        seen.append(len(examples.wanted))
        return original(network, examples, *rest)

    monkeypatch.setattr(learnt_rounding, "learn_rounding", counted)
    monkeypatch.setattr(block_reconstruction, "_STEPS", 2)
    pair, stored = rounded(chain(3))
    learn(pair, stored)
    monkeypatch.setattr(block_reconstruction, "_MOST_BYTES", 20 * 3 * 16 * 36 * 4)
    learn(pair, stored)
    assert seen == [32, 16]


def test_a_block_whose_samples_do_not_stay_apart_takes_one_batch_a_step() -> None:
    body = "a = Conv (x, w0, b0)\nm = ReduceMean <axes = [0], keepdims = 1> (a)\ny = Conv (m, w1, b1)"
    pair, stored = rounded(model(body, IMAGE, layers(2)))
    assert "blocks came closer" in learn(pair, stored)


# -- what is kept ------------------------------------------------------------------------------------------------------


def test_a_block_that_errs_more_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def worse(network: BlockNetwork, *_: Any) -> list[tuple[np.ndarray, np.ndarray]]:
        return [(-layer.integers, layer.bias.values + 1) for layer in network.layers]

    monkeypatch.setattr(learnt_rounding, "learn_rounding", worse)
    pair, stored = rounded(chain(4))
    before = to_bytes(pair.quantized)
    assert (
        learn(pair, stored)
        == "reconstructed block by block: 0 of 2 blocks came closer, and 0.0% of the weights moved a step"
    )
    assert to_bytes(pair.quantized) == before


def test_the_same_seed_gives_the_same_network() -> None:
    made = []
    for seed in (3, 3, 4):
        pair, stored = rounded(chain(3), per_channel=False)
        learn(pair, stored, seed=seed)
        made.append(to_bytes(pair.quantized))
    assert made[0] == made[1] != made[2]


def test_what_does_not_help_the_network_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    def worse(pair: Pair, layers: list[StoredLayer], *_: Any) -> str:
        for layer in layers:
            layer.bias.values = layer.bias.values + 4000
        return "reconstructed for nothing"

    def quantized() -> tuple[bytes, Context]:
        graph = chain(3)
        ctx = run_pass(Quantize(effort="max"), graph, target=CPU, threads=1, data={"calibration": data()})
        return to_bytes(graph), ctx

    monkeypatch.setattr(recovery, "train_rounded", lambda *_: "trained for nothing")
    monkeypatch.setattr(recovery, "reconstruct", lambda *_: "reconstructed for nothing")
    before, _ = quantized()
    monkeypatch.setattr(recovery, "reconstruct", worse)
    after, ctx = quantized()
    assert after == before
    words = "weights and biases stay as they were: reconstructed block by block, they gave "
    assert [what.startswith(words) for _, what in missed(ctx)[-2:]] == [True, False]
