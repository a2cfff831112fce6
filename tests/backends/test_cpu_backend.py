"""The cpu backend: one ONNX file, checked in onnxruntime with optimizations on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from edgec.backends.cpu import backend as module
from edgec.backends.cpu.backend import CpuBackend
from edgec.backends.registry import backend, target
from edgec.ir.errors import InputError
from edgec.ir.execution import seeded_feeds, sqnr_db
from edgec.ir.files import load
from edgec.ir.graph import Graph
from edgec.ir.signal import Signal, sqnr_scores
from edgec.passes.quantize.quantize import Quantize
from edgec.testing import Samples, corrupt, model, run_pass

CPU, AVX2 = target("cpu"), target("cpu-avx2")


def network(quantized: bool = True) -> Graph:
    graph = model(
        "c = Conv<pads=[1,1,1,1]>(x, w, b)\nr = Clip(c, low, high)\nd = Conv<pads=[1,1,1,1], group=8>(r, v)\n"
        "a = Add(d, r)\np = MaxPool<kernel_shape=[2,2], strides=[2,2]>(a)\ng = GlobalAveragePool(p)\nf = Flatten(g)\n"
        "y = Gemm<transB=1>(f, m, n)",
        "(float[1,3,16,16] x) => (float[1,5] y)",
        "float[8,3,3,3] w, float[8] b, float[8,1,3,3] v, float[5,8] m, float[5] n, float low = {0}, float high = {6}",
    )
    if quantized:
        run_pass(Quantize(), graph, target=CPU, data={"calibration": Samples(seeded_feeds(graph, samples=3))})
    return graph


def test_it_is_registered() -> None:
    assert isinstance(backend("cpu"), CpuBackend)
    assert backend("cpu").missing() == []


def test_what_is_written(tmp_path: Path) -> None:
    graph = network()
    probes = seeded_feeds(graph, seed=1, samples=2)
    made = CpuBackend().emit(graph, CPU, tmp_path / "cpu", probes)
    assert made.files == ["model.onnx", "check.json"]
    assert made.model == "model.onnx"
    assert sorted(p.name for p in (tmp_path / "cpu").iterdir()) == sorted(made.files)
    assert made.sqnr_db > 30
    assert made.notes == []
    assert made.fits is None
    assert json.loads((tmp_path / "cpu" / "check.json").read_text()) == made.check
    assert made.check["quantized"] is True
    assert made.check["probes"] == 2
    assert [t.name for t in load(tmp_path / "cpu" / "model.onnx").outputs] == ["y"]


def test_it_fits_where_memory_is_bounded(tmp_path: Path) -> None:
    for memory, fits in ((1 << 20, True), (1000, False)):
        assert CpuBackend().emit(network(), replace(CPU, memory_bytes=memory), tmp_path, []).fits is fits


def test_every_convolution_runs_on_integers(tmp_path: Path) -> None:
    CpuBackend().emit(network(), CPU, tmp_path, [])
    settings = ort.SessionOptions()
    settings.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    settings.log_severity_level = 4
    ort.InferenceSession(str(tmp_path / "model.onnx"), settings, providers=["CPUExecutionProvider"])
    found = [node.op for node in load(tmp_path / "optimized.onnx").nodes]
    assert "Conv" not in found and "Clip" not in found and "Gemm" not in found
    assert (found.count("QLinearConv"), found.count("QGemm"), found.count("QLinearAdd")) == (2, 1, 1)
    # The last product gives floats by itself.
    assert (found.count("QuantizeLinear"), found.count("DequantizeLinear")) == (1, 0)


def test_the_runner_runs_what_was_written(tmp_path: Path) -> None:
    graph = network(quantized=False)
    made = CpuBackend().emit(graph, CPU, tmp_path, [])
    assert made.sqnr_db > 90
    feeds = seeded_feeds(graph, seed=3, samples=1)[0]
    before = CpuBackend().runner(graph, tmp_path)(feeds)
    corrupt(graph)
    made = CpuBackend().emit(graph, CPU, tmp_path, [])
    assert sqnr_db(before, CpuBackend().runner(graph, tmp_path)(feeds)) < 40
    assert made.check["quantized"] is False


def test_no_sum_of_products_saturates(tmp_path: Path) -> None:
    """Where all products are as large as they get, with weights of 7 bits and with pairs that fit, on any CPU."""
    for board in (AVX2, CPU):
        graph = model("y = Conv(x, w)", "(float[1,16,8,8] x) => (float[1,8,8,8] y)", "float[8,16,1,1] w")
        graph.constants()[0].values = np.ones((8, 16, 1, 1), np.float32)
        feeds = [{"x": np.ones((1, 16, 8, 8), np.float32)}]
        run_pass(Quantize(), graph, target=board, data={"calibration": Samples(feeds)})
        made = CpuBackend().emit(graph, board, tmp_path, feeds)
        assert made.sqnr_db > 40 and made.notes == []
    assert AVX2.scheme is not None and CPU.scheme is not None
    assert replace(AVX2.scheme, reduce_range=False) == CPU.scheme


def test_the_same_bytes_twice(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        CpuBackend().emit(network(), CPU, tmp_path / folder, [])
    for name in ("model.onnx", "check.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def signal(level: float) -> Signal:
    """An SQNR of so many dB."""
    one = np.ones(1)
    return sqnr_scores([{"y": one}], [{"y": one + 10 ** (-level / 20)}])


def test_saturating_kernels_are_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "has_vnni", lambda: False)
    monkeypatch.setattr(module, "sqnr_scores", lambda *runs: signal(24.5))
    assert len(CpuBackend().emit(network(), CPU, tmp_path, []).notes) == 1, "with VNNI that is only rounding"
    assert CpuBackend().emit(network(), AVX2, tmp_path, []).notes == []
    monkeypatch.setattr(module, "sqnr_scores", lambda *runs: signal(11.23))
    made = CpuBackend().emit(network(), CPU, tmp_path, [])
    assert made.notes == [
        "onnxruntime's integer kernels differ from the quantized graph by 11.2 dB on this machine, because its CPU has "
        "no VNNI and sums of products saturate; the target 'cpu-avx2' avoids it at the price of one bit of the weights."
    ]
    monkeypatch.setattr(module, "has_vnni", lambda: True)
    monkeypatch.setattr(module, "sqnr_scores", lambda *runs: signal(24.5))
    assert CpuBackend().emit(network(), CPU, tmp_path, []).notes == []
    monkeypatch.setattr(module, "sqnr_scores", lambda *runs: signal(11.23))
    made = CpuBackend().emit(network(), CPU, tmp_path, [])
    assert made.notes == [
        "onnxruntime's integer kernels differ from the quantized graph by 11.2 dB on this machine; "
        "measure the metric on this kind of machine before shipping the model."
    ]
    assert CpuBackend().emit(network(quantized=False), CPU, tmp_path, []).notes == []


def test_a_graph_that_onnxruntime_does_not_take(tmp_path: Path) -> None:
    graph = network(quantized=False)
    graph.nodes[0].op = "NoSuchOperator"
    with pytest.raises(InputError, match=r"^onnxruntime: does not take the model"):
        CpuBackend().emit(graph, CPU, tmp_path, [])


def test_a_softmax_between_quantized_tensors_does_not_wrap_around(tmp_path: Path) -> None:
    # onnxruntime makes an integer kernel of it, whose outputs above the largest number start again at 0.
    graph = model(
        "c = Conv(x, w)\ns = Softmax<axis=1>(c)\ny = Conv(s, v)",
        "(float[1,8,6,6] x) => (float[1,2,6,6] y)",
        "float[8,8,1,1] w, float[2,8,1,1] v",
    )
    probes = [{"x": 4 * feeds["x"]} for feeds in seeded_feeds(graph, seed=9, samples=2)]
    run_pass(Quantize(), graph, target=AVX2, data={"calibration": Samples(seeded_feeds(graph, samples=3))})
    softmax = next(node for node in graph.nodes if node.op == "Softmax")
    (quantize,) = softmax.outputs[0].outputs
    scale, zero_point = (float(t.values) for t in quantize.inputs[1:])
    assert (scale, zero_point) == (1 / 256, 0)
    assert CpuBackend().emit(graph, AVX2, tmp_path, probes).sqnr_db > 35
