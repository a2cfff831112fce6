"""edgec.to_torch: what was compiled comes back as a module."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from training import images, network

import edgec
from edgec.ir.errors import UsageError
from edgec.ir.files import save
from edgec.testing import corrupt, model, outputs


def test_a_file_comes_back_as_a_module(tmp_path: Path) -> None:
    graph = network()
    save(graph, tmp_path / "model.onnx")
    module = edgec.to_torch(tmp_path / "model.onnx")
    pictures = images(3)
    made = module(torch.from_numpy(pictures))
    wanted = np.concatenate([outputs(graph, {"x": picture[None]})["y"] for picture in pictures])
    np.testing.assert_allclose(made.detach().numpy(), wanted, atol=1e-5)
    assert {name.removeprefix("graph.") for name, _ in module.named_parameters()} == {
        "w1",
        "b1",
        "w2",
        "b2",
        "w3",
        "b3",
    }
    corrupt(graph)
    other = edgec.to_torch(graph)(torch.from_numpy(pictures)).detach().numpy()
    assert np.abs(other - wanted).max() > 0.01


def test_it_trains() -> None:
    module = edgec.to_torch(network())
    x = torch.from_numpy(images(8))
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = (module(x) - x).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_several_inputs_and_outputs() -> None:
    graph = model("y = Add (a, b)\nz = Sub (a, b)", "(float[1,2] a, float[1,2] b) => (float[1,2] y, float[1,2] z)")
    module = edgec.to_torch(graph)
    y, z = module(torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 2.0]]))
    assert (y.tolist(), z.tolist()) == ([[4.0, 6.0]], [[2.0, 2.0]])
    with pytest.raises(TypeError, match=r"the network takes 2 tensors \(a, b\), not 1"):
        module(torch.zeros(1, 2))


def test_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = network()
    monkeypatch.delitem(sys.modules, "edgec.ir.torch_module.calling", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UsageError) as error:
        edgec.to_torch(graph)
    assert str(error.value) == "to_torch: needs torch, which is not installed; pip install 'edgec[torch]'"
