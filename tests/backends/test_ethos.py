"""Ethos-U: the int8 files that edgec emits, through Arm's own compiler."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks.board_networks import NETWORKS

from edgec.backends.ethos import vela
from edgec.backends.ethos.backend import EthosBackend
from edgec.backends.registry import backend, target

Edgec = Callable[..., tuple[int, str, str]]
BOARDS = ("ethos-u55", "ethos-u65", "ethos-u85")
needs_vela = pytest.mark.skipif(bool(vela.missing()), reason="; ".join(vela.missing()))


def around(op: str, **attrs: Any) -> Callable[..., Any]:
    """A convolution with something behind it."""

    def make(b: Any, x: Any) -> Any:
        y = b("Conv", x, b.weight(8, 4, 3, 3, scale=0.3), b.weight(8), pads=[1] * 4)
        return b(op, y, **attrs)

    return make


WHOLE = {
    **NETWORKS,
    "sigmoid": (around("Sigmoid"), (1, 4, 16, 16)),
    "softmax": (around("Softmax", axis=1), (1, 4, 16, 16)),
    "max_pool": (around("MaxPool", kernel_shape=[2, 2], strides=[2, 2]), (1, 4, 16, 16)),
    "leaky_relu": (around("LeakyRelu", alpha=0.1), (1, 4, 16, 16)),
}


@needs_vela
@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("name", WHOLE)
def test_all_operators_run_on_the_npu(lab: Any, name: str, board: str, tmp_path: Path) -> None:
    make, shape = WHOLE[name]
    graph = lab.build(make, [shape])
    feeds = lab.noise(graph)
    emitted = EthosBackend().emit(lab.quantized(graph, feeds), target(board), tmp_path, [feeds])
    assert emitted.files == ["model.tflite", "check.json", "run.py", "golden.npz", "model_vela.tflite"]
    report = json.loads((tmp_path / "check.json").read_text())
    assert report == emitted.check
    assert report["vela"]["cpu_operators"] == 0 and report["vela"]["on_cpu"] == []
    assert emitted.notes[-1] == f"All {sum(report['operators'].values())} operators run on the NPU."
    assert report["vela"]["inference_ms"] > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(emitted.files)
    assert b"ethos-u" in (tmp_path / "model_vela.tflite").read_bytes()


@needs_vela
def test_what_stays_on_the_cpu_is_named(lab: Any, tmp_path: Path) -> None:
    graph = lab.build(around("Elu"), [(1, 4, 16, 16)])
    feeds = lab.noise(graph)
    emitted = EthosBackend().emit(lab.quantized(graph, feeds), target("ethos-u65"), tmp_path, [feeds])
    left = emitted.check["vela"]["cpu_operators"]
    assert left > 0 and len(emitted.check["vela"]["on_cpu"]) == left
    assert f"{left} of " in emitted.notes[-1] and "stay on the CPU: " in emitted.notes[-1]
    assert "quantize all of the network" in emitted.notes[-1]


@needs_vela
def test_the_same_bytes_every_time(lab: Any, tmp_path: Path) -> None:
    make, shape = NETWORKS["mobile_blocks"]
    graph = lab.build(make, [shape])
    feeds = lab.noise(graph)
    integers = lab.quantized(graph, feeds)
    files = []
    for run in ("a", "b"):
        EthosBackend().emit(integers.copy(), target("ethos-u65"), tmp_path / run, [feeds])
        files.append([(tmp_path / run / name).read_bytes() for name in ("model_vela.tflite", "check.json")])
    assert files[0] == files[1]


def test_without_vela(lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vela, "find_spec", lambda name: None)
    make, shape = NETWORKS["autoencoder"]
    graph = lab.build(make, [shape])
    feeds = lab.noise(graph)
    emitted = EthosBackend().emit(lab.quantized(graph, feeds), target("ethos-u65"), tmp_path, [feeds])
    assert emitted.files == ["model.tflite", "check.json", "run.py", "golden.npz"] and "vela" not in emitted.check
    assert backend("ethos").missing() == [
        "Vela is not installed, so nothing says what the NPU would run: pip install 'edgec[vela]'"
    ]


@needs_vela
def test_a_failure_of_vela_is_one_line(lab: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgec.ir.errors import EmitError

    monkeypatch.setattr(vela, "_PROGRAM", "import sys; print('out of luck'); sys.exit(3)")
    (tmp_path / "model.tflite").write_bytes(b"TFL3")
    with pytest.raises(EmitError, match=r"^model\.tflite: Vela fails \(out of luck\); cut the network"):
        vela.compile_file(tmp_path, "ethos-u65-256", "Ethos_U65_Client_Server", "Dedicated_Sram_384KB")
    assert [path.name for path in tmp_path.iterdir()] == ["model.tflite"]


def test_what_was_emitted_runs(lab: Any, tmp_path: Path) -> None:
    make, shape = NETWORKS["mobile_blocks"]
    graph = lab.build(make, [shape])
    feeds = lab.noise(graph)
    integers = lab.quantized(graph, feeds)
    EthosBackend().emit(integers, target("ethos-u55"), tmp_path, [feeds])
    [values] = EthosBackend().runner(integers, tmp_path)(feeds).values()
    assert values.shape == (1, 10) and np.isfinite(values).all()
