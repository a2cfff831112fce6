"""The tensorrt backend from a network to a bundle, and the bundle on made-up boards."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from bundles import bench

from edgec.backends.protocol import Beside, legalize
from edgec.backends.registry import target, target_names
from edgec.backends.tensorrt import backend as module
from edgec.backends.tensorrt.backend import TensorRTBackend
from edgec.backends.tensorrt.bundle import read_manifest
from edgec.backends.tensorrt.rtx import Checked, installed
from edgec.ir.errors import EmitError, UsageError
from edgec.ir.execution import Session, sqnr_db
from edgec.ir.files import load
from edgec.ir.graph import Graph
from edgec.passes.framework.target import Target
from edgec.passes.quantize.quantize import Quantize
from edgec.testing import Samples, model, outputs, run_pass

NANO, XAVIER, ORIN, HOST = map(target, ("jetson-nano", "jetson-xavier-nx", "jetson-orin-nano", "trt-host"))
BODY = """
[a] a = Conv <pads = [1, 1, 1, 1]> (x, wa, ba)
[r] r = HardSwish (a)
[b] b = Conv <pads = [1, 1, 1, 1]> (r, wb, bb)
[add] s = Add (b, r)
[pool] p = GlobalAveragePool (s)
[flat] f = Flatten (p)
[fc] y = Gemm <transB = 1> (f, wg, bg)
"""
SIGNATURE = "(float[1,16,8,8] x) => (float[1,20] y)"
WEIGHTS = "float[16,16,3,3] wa, float[16] ba, float[16,16,3,3] wb, float[16] bb, float[20,16] wg, float[20] bg"


def network() -> Graph:
    return model(BODY, SIGNATURE, WEIGHTS)


def samples(count: int = 8, size: float = 1.0) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(0)
    return [{"x": (size * random.normal(size=(1, 16, 8, 8))).astype(np.float32)} for _ in range(count)]


def emitted(board: Target, folder: Path, graph: Graph | None = None, *, size: float = 1.0) -> Any:
    """The network, quantized where the board has INT8, as a bundle in ``folder``."""
    backend, graph = TensorRTBackend(), graph or network()
    legalize(graph, backend, board)
    floats = graph.copy()
    if board.scheme is not None:
        run_pass(Quantize(effort="fast"), graph, target=board, data={"calibration": Samples(samples(size=size))})
    probes = samples(2, size)
    return backend.emit(graph, board, folder, probes, Beside(floats, samples(size=size)))


def test_there_is_a_target_for_each_board() -> None:
    assert {"jetson-nano", "jetson-xavier-nx", "jetson-orin-nano", "trt-host"} <= set(target_names())
    assert [board.scheme is None for board in (NANO, XAVIER, ORIN, HOST)] == [True, False, False, False]


FILES = {
    "jetson-nano": ["model_fp16.onnx", "model_fp32.onnx"],
    "jetson-xavier-nx": ["model_int8.onnx", "model_fp16.onnx", "model_fp32.onnx"],
    "jetson-orin-nano": [
        "model_int8_typed.onnx", "model_fp16_typed.onnx", "model_int8.onnx", "model_fp16.onnx", "model_fp32.onnx",
    ],
    "trt-host": ["model_int8_typed.onnx", "model_fp16_typed.onnx", "model_fp32.onnx"],
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_bundle(name: str, tmp_path: Path) -> None:
    made = emitted(target(name), tmp_path / "out")
    manifest = read_manifest(tmp_path / "out")
    assert [entry.file for entry in manifest.models] == FILES[name]
    assert made.model == FILES[name][0]
    assert sorted(made.files) == sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*"))
    for entry in manifest.models:
        proto = onnx.load(tmp_path / "out" / entry.file)
        onnx.checker.check_model(proto, full_check=True)
        # HardSwish, which the Orin's parser knows, came with opset 14.
        assert proto.opset_import[0].version == {"trt-host": 17, "jetson-orin-nano": 14}.get(name, 13)
        assert proto.ir_version == (8 if name == "trt-host" else 7)
        typed = entry.file.endswith("_typed.onnx")
        assert entry.strongly_typed is typed
        assert any(t.data_type == onnx.TensorProto.FLOAT16 for t in proto.graph.initializer) is typed
        assert ("QuantizeLinear" in {node.op_type for node in proto.graph.node}) is ("int8" in entry.file)
        assert entry.sqnr_db > (15 if "int8" in entry.file else 35)
    assert manifest.board.name == name
    check = json.loads((tmp_path / "out" / "check.json").read_text())
    assert check["lint"] == []
    shares = [check["models"][file]["int8_share_of_macs"] for file in FILES[name]]
    # The Gemm makes most of the noise, and stays float.
    assert shares == [0.9989 if "int8" in file else 0.0 for file in FILES[name]]
    if installed() and "int8" in made.model:
        found = check["models"][made.model]["rtx_compile_check"]
        assert (found["error"], found["int8_layers"], found["int8_share_of_promised_macs"]) == (None, 2, 1.0)
    run = TensorRTBackend().runner(network(), tmp_path / "out")
    feeds = samples(1)[0]
    assert sqnr_db(outputs(network(), feeds), run(feeds)) > (25 if "int8" in made.model else 45)


@pytest.mark.parametrize(
    ("board", "version", "best"),
    [
        (NANO, "8.2.1", "model_fp16.onnx"),
        (XAVIER, "8.2.1", "model_int8.onnx"),
        (XAVIER, "8.5.3", "model_int8.onnx"),
        (ORIN, "8.5.3", "model_int8.onnx"),
        (ORIN, "10.3.0", "model_int8_typed.onnx"),
    ],
)
def test_a_bundle_on_a_board(board: Target, version: str, best: str, tmp_path: Path) -> None:
    emitted(board, tmp_path / "out")
    machine = bench(tmp_path / "out", tmp_path, version)
    status, _, err = machine.run()
    assert (status, err) == (0, "")
    assert machine.report["best"]["file"] == best
    typed = version.startswith("10")
    assert all(("typed" in entry["file"]) is typed for entry in machine.report["models"])


def test_what_the_board_lacks_is_rewritten(tmp_path: Path) -> None:
    emitted(NANO, tmp_path)
    operators = {node.op_type for node in onnx.load(tmp_path / "model_fp16.onnx").graph.node}
    assert "HardSwish" not in operators
    assert "HardSigmoid" in operators
    emitted(ORIN, tmp_path / "orin")
    assert "HardSwish" in {node.op_type for node in onnx.load(tmp_path / "orin" / "model_fp16.onnx").graph.node}


def test_layers_that_overflow(tmp_path: Path) -> None:
    """FP32 where FP16 does not hold them: by casts in the typed file, by an option of the build before."""
    root = "[q] q = Mul (s, s)\n[root] t = Sqrt (q)\n[pool] p = GlobalAveragePool (t)"
    body = BODY.replace("[pool] p = GlobalAveragePool (s)", root)
    made = emitted(ORIN, tmp_path / "out", model(body, SIGNATURE, WEIGHTS), size=300.0)
    manifest = read_manifest(tmp_path / "out")
    assert [entry.float32_layers for entry in manifest.models] == [(), (), ("q", "root"), ("q", "root"), ()]
    assert "2 layers stay FP32, for FP16 would overflow: q, root." in made.notes
    for version in ("8.5.3", "10.3.0"):
        machine = bench(tmp_path / "out", tmp_path / version, version)
        status, _, err = machine.run()
        assert (status, err) == (0, "")
        builds = [call for call in machine.calls() if call[0].startswith("--onnx")]
        asked = ["--precisionConstraints=obey", "--layerPrecisions=q:fp32,root:fp32"]
        assert all((asked == [flag for flag in call if flag in asked]) is (version == "8.5.3") for call in builds)
    emitted(NANO, tmp_path / "nano", model(body, SIGNATURE, WEIGHTS), size=300.0)
    machine = bench(tmp_path / "nano", tmp_path / "8.2.1", "8.2.1")
    what = "trtexec of TensorRT 8.2.1 has no --layerPrecisions, and 2 layers overflow in FP16"
    assert machine.run()[::2] == (0, f"run.py: model_fp16.onnx: {what}; the FP32 fallback is tried instead\n")
    assert machine.report["best"]["file"] == "model_fp32.onnx"


# -- what cannot be emitted --------------------------------------------------------------------------------------------


def refused(board: Target, folder: Path, graph: Graph, **more: Any) -> str:
    with pytest.raises(EmitError) as caught:
        TensorRTBackend().emit(graph, board, folder, samples(1), **more)
    assert not folder.exists()
    return str(caught.value)


def test_integers_on_a_board_without_them(tmp_path: Path) -> None:
    graph = network()
    run_pass(Quantize(effort="fast"), graph, target=ORIN, data={"calibration": Samples(samples())})
    legalize(graph, TensorRTBackend(), NANO)
    assert refused(NANO, tmp_path / "out", graph) == (
        "jetson-nano: model_int8.onnx: node 'x.quantize': Jetson Nano has no 8-bit arithmetic, and TensorRT 8.2 "
        "refuses QuantizeLinear there; compile without 'quantize'"
    )


def test_strict_quantization_on_a_board_without_integers() -> None:
    with pytest.raises(UsageError) as caught:
        run_pass(Quantize(strict=True), network(), target=NANO, data={"calibration": Samples(samples())})
    assert str(caught.value) == (
        "quantize: strict: Jetson Nano has no 8-bit arithmetic; take the target out, or leave out 'strict' to get it "
        "in float"
    )


def test_a_network_that_does_not_fit(tmp_path: Path) -> None:
    board = replace(NANO, memory_bytes=2**29)
    graph = network()
    legalize(graph, TensorRTBackend(), board)
    assert refused(board, tmp_path / "out", graph) == (
        "jetson-nano: the network: needs 0.5 GiB by estimate, and Jetson Nano has 0.5 GiB; compress it further, or "
        "name another board"
    )


def test_an_operator_of_a_newer_opset(tmp_path: Path) -> None:
    signature = "(float[1,16,8,8] x, float[1,4,4,2] g) => (float[1,16,4,4] y)"
    graph = model("[grid] y = GridSample (x, g)", signature, opset=17)
    with pytest.raises(EmitError) as caught:
        TensorRTBackend().emit(graph, NANO, tmp_path / "out", [])
    assert str(caught.value) == (
        "jetson-nano: node 'grid': GridSample came with opset 16, and TensorRT 8.2 reads 13 and earlier; replace it in "
        "the network, or compile for a board with a newer TensorRT"
    )
    TensorRTBackend().emit(model("[grid] y = GridSample (x, g)", signature, opset=17), ORIN, tmp_path / "orin", [])
    assert onnx.load(tmp_path / "orin" / "model_fp16.onnx").opset_import[0].version == 16


def test_the_compile_check_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "installed", lambda: True)
    monkeypatch.setattr(module, "rtx_check", lambda *given: Checked("1.7", "no such op"))
    with pytest.raises(EmitError) as caught:
        emitted(ORIN, tmp_path / "out")
    assert str(caught.value) == (
        "jetson-orin-nano: model_int8_typed.onnx: RTX compile check: TensorRT-RTX refuses it (no such op); replace "
        "what it names in the network, or end the network before it with --cut"
    )


@pytest.mark.parametrize(
    ("floats", "words"),
    [(("a",), "1 quantized layer in float (a)"), (("a", "b"), "2 quantized layers in float (a, b)")],
)
def test_layers_that_run_in_float_all_the_same_are_named(
    floats: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "installed", lambda: True)
    monkeypatch.setattr(module, "rtx_check", lambda *given: Checked("1.7", None, 1, (), floats))
    notes = emitted(ORIN, tmp_path / "out").notes
    assert [note for note in notes if "TensorRT-RTX" in note] == [
        f"TensorRT-RTX runs {words}; the board's TensorRT may, too: keep them in float with quantize: {{skip: [...]}}."
    ]


def test_what_the_machine_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "installed", lambda: False)
    assert TensorRTBackend().missing() == [
        "TensorRT-RTX is not installed, so no RTX compile check was made: pip install 'edgec[trt]'."
    ]
    monkeypatch.setattr(module, "installed", lambda: True)
    assert TensorRTBackend().missing() == []


# -- files as they lie there, and a camera's bytes ---------------------------------------------------------------------


@pytest.mark.parametrize("board", [NANO, ORIN, HOST])
def test_a_typed_file_is_valid_where_an_operator_has_no_half(board: Target, tmp_path: Path) -> None:
    """IsInf takes FP16 from opset 20 on only; the file that holds it is in an older one."""
    body = "[c] c = Conv (x, w)\n[i] i = IsInf (c)\n[w] w0 = Where (i, z, c)\n[s] y = Sigmoid (w0)"
    graph = model(body, "(float[1,4,6,6] x) => (float[1,4,6,6] y)", "float[4,4,1,1] w, float z", z=0.5)
    legalize(graph, TensorRTBackend(), board)
    made = TensorRTBackend().emit(graph, board, tmp_path / "out", [])
    for file in (tmp_path / "out").glob("*.onnx"):
        onnx.checker.check_model(str(file), full_check=True)
        entry = made.check["models"][file.name]
        assert entry["sqnr_db_of_file"] is None or entry["sqnr_db_of_file"] > 50
    assert all("sqnr_db_of_file" in entry for entry in made.check["models"].values())


BYTES = (
    "[t] t = Transpose <perm = [0, 3, 1, 2]> (x)\n[f] f = Cast <to = 1> (t)\n[n] n = Mul (f, k)\n[c] y = Conv (n, w)"
)


@pytest.mark.parametrize(("board", "dtype"), [(NANO, "float32"), (ORIN, "uint8"), (HOST, "uint8")])
def test_bytes_of_a_camera(board: Target, dtype: str, tmp_path: Path) -> None:
    """TensorRT casts bytes at an input and nothing else; 8.2 has none, so its input is of floats from 0 to 255."""
    graph = model(BYTES, "(uint8[1,6,6,3] x) => (float[1,4,6,6] y)", "float k, float[4,3,1,1] w", k=1 / 255)
    random = np.random.default_rng(0)
    feeds = [{"x": random.integers(0, 256, (1, 6, 6, 3)).astype(np.uint8)} for _ in range(3)]
    before = [Session(graph.copy()).run(one) for one in feeds]
    backend = TensorRTBackend()
    legalize(graph, backend, board)
    assert [node.op for node in graph.nodes][:2] == ["Cast", "Transpose"]
    made = backend.emit(graph, board, tmp_path / "out", feeds)
    (entry,) = made.check["inputs"]
    assert (entry["dtype"], entry["instead_of"]) == (dtype, None if dtype == "uint8" else "uint8")
    said = "'x' is float32 instead of uint8: TensorRT 8.2 has no uint8."
    assert (said in made.notes) is (dtype != "uint8")
    for file in (tmp_path / "out").glob("*.onnx"):
        assert load(file).inputs[0].dtype == dtype
    golden = np.fromfile(tmp_path / "out" / "golden" / "input0.0.bin", dtype)
    assert np.array_equal(golden, feeds[0]["x"].reshape(-1).astype(dtype))
    run = backend.runner(graph, tmp_path / "out")
    assert sqnr_db(before[0], run(feeds[0])) > 45


def test_bytes_that_leave(tmp_path: Path) -> None:
    graph = model("[r] r = Relu (x)\n[c] y = Cast <to = 2> (r)", "(float[1,4] x) => (uint8[1,4] y)")
    backend = TensorRTBackend()
    legalize(graph, backend, NANO)
    made = backend.emit(graph, NANO, tmp_path / "out", [{"x": np.array([[1, 2, 3, 200]], np.float32)}])
    (entry,) = made.check["outputs"]
    assert (entry["dtype"], entry["instead_of"]) == ("int32", "uint8")


# -- what TensorRT has and the compile check's TensorRT-RTX has not ----------------------------------------------------


def test_a_detector_with_its_suppression_goes_to_boards_that_have_it(tmp_path: Path) -> None:
    graph = model(
        "k = NonMaxSuppression (b, s, most, overlap, least)",
        "(float[1,16,4] b, float[1,2,16] s) => (int64[K,3] k)",
        "int64[1] most = {5}, float[1] overlap = {0.5}, float[1] least = {0.1}",
    )
    emitted = TensorRTBackend().emit(graph.copy(), ORIN, tmp_path / "orin", [])
    said = [note for note in emitted.notes if "compile check" in note]
    assert said == (
        ["TensorRT-RTX has no NonMaxSuppression, which TensorRT has: no RTX compile check was made."]
        if module.installed()
        else []
    )
    with pytest.raises(EmitError, match=r"TensorRT 8\.2 a fixed number, filled up; end the network at the boxes"):
        TensorRTBackend().emit(graph, NANO, tmp_path / "nano", [])
