"""The tables on stdout: a summary, a network; in a pipe and on a narrow terminal."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from edgec.frontends.sources import OnnxFile
from edgec.tools.inspect import inspect
from edgec.tools.report import charts
from edgec.tools.summary import amount, got, measured_on, print_summary, rows, short, size


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def terminal_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal in the place of stdout."""
    made = Terminal()
    monkeypatch.setattr(sys, "stdout", made)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    return made


def lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def test_the_rows(report: dict[str, Any]) -> None:
    assert rows(report) == [
        ["weights", "1,000", "250", "250", "250"],
        ["MACs", "2,000,000", "500,000", "500,000", "500,000"],
        ["weight bytes", "3.91 KiB", "1000 B", "1000 B", "1000 B"],
        ["peak activations", "64.0 KiB", "64.0 KiB", "64.0 KiB", "64.0 KiB"],
        ["memory to run", "3.00 MiB", "3.00 MiB", "3.00 MiB", "3.00 MiB"],
        ["latency, 1 thread", "1.25 ms", "1.25 ms", "1.25 ms", "1.25 ms"],
        ["SQNR to original", "", "equal", "28.0 dB", "28.0 dB"],
        ["95 % interval", "", "equal", "27.0..29.5", "27.0..29.5"],
        ["auroc", "0.9500", "0.9400", "0.9300", "0.9300"],
        ["95 % interval", "0.90..0.98", "0.88..0.97", "0.87..0.97", "0.87..0.97"],
    ]


def test_samples_that_were_fitted_to_are_named_so(report: dict[str, Any]) -> None:
    on = {"samples": 4, "source": "fitted", "unseen": False}
    report["measured_on"] |= {"sqnr": on, "passes": on}
    for entry in (report["quality"], *report["targets"].values()):
        entry.update(sqnr_db=None, sqnr_interval=None, sqnr_db_fitted=44.0)
    assert ["SQNR on fitted samples", "", "44.0 dB", "44.0 dB", "44.0 dB"] in rows(report)
    assert measured_on(report).startswith("SQNR was measured on 4 samples that passes were fitted to, auroc on 132")
    unmet = {"asked": 20.0, "got": None, "met": False, "because": "no samples were left that nothing was fitted to"}
    assert got(unmet) == "nothing"
    bounded = {"asked": 0.1, "got": 0.01, "met": True, "confidence": 0.95, "bound": 0.034}
    assert got(bounded) == "0.01 (0.034 with a confidence of 0.95)"


def test_the_summary_in_a_pipe(report: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    report["targets"]["a-board"]["notes"] = ["a long note " * 20]
    print_summary(report, Path("build/net"))
    found = lines(capsys.readouterr().out)
    assert found[0] == "<script>alert('conv')</script>[bold]\\x1b[31m: before and after"
    assert found[1].split() == ["original", "compressed", "a-board", "cpu"]
    assert found[3].split() == ["weights", "1,000", "250", "250", "250"]
    assert found[13:16] == [
        "SQNR was measured on 64 samples of data.eval, auroc on 132 of data.eval; intervals hold with 95 % confidence",
        "net.onnx: the batch of input 'x' is open & taken as 1",
        "net.onnx: the calibration samples are few",
    ]
    assert found[-4:] == [
        f"a-board: {'a long note ' * 20}".rstrip(),
        "require params_removed: asked 0.99, got 0.75: NOT MET",
        "require sqnr_min: asked 20, got infinite: met",
        "build/net: model.onnx, report.html, report.json, manifest.json, a-board, cpu",
    ]


def test_the_summary_on_80_columns(report: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_of_80_columns(monkeypatch)
    report["name"] = "net"
    report["targets"]["coral-dev-board"] = report["targets"].pop("a-board")
    report["baseline"]["macs"] = 151_519_232
    print_summary(report, Path("build/net"))
    found = lines(terminal.getvalue())
    assert all(len(line) <= 80 for line in found[:13])
    assert found[0] == "net: before and after"
    assert [line.split("  ")[0] for line in found[3:13]] == [row[0] for row in rows(report)]


def network(path: Path, name: str) -> Path:
    weight = helper.make_tensor("w", TensorProto.FLOAT, [512, 256, 3, 3], bytes(4 * 512 * 256 * 9), raw=True)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], name, pads=[1] * 4)],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 256, 64, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 512, 64, 64])],
        [weight],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_inspect_in_a_pipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "a/very/long/name/" * 12 + "[bold]conv\x1b[31m"
    inspect(OnnxFile(network(tmp_path / "net.onnx", name)), {})
    found = lines(capsys.readouterr().out)
    assert found[0] == "net.onnx: net, opset 17"
    assert found[1].split() == ["layer", "operator", "output", "params", "MACs", "MACs", "%", "moved"]
    shown = name.replace("\x1b", "\\x1b")
    assert found[3].split() == [shown, "Conv", "1x512x64x64", "1.18", "M", "4.83", "G", "100.0", "16.5", "MiB"]
    assert found[4:] == [
        "input x: float32 1x256x64x64",
        "output y: float32 1x512x64x64",
        "1 nodes, 1,179,648 params in 4.50 MiB, 4,831,838,208 MACs, peak activations 12.0 MiB",
    ]


def test_inspect_says_what_is_not_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        net (float[1,4] a, int64[8] pads, float[1,4,6,6] x) => (float[1,4] b, float[N,M,H,W] y)
        <float[4,4] w = {1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1}, float[1,4,1,1] v = {1,1,1,1}>
        {
            [known] b = MatMul(a, w)
            [pad] p = Pad(x, pads)
            [unknown] y = Conv(p, v)
        }"""
    )
    onnx.save(model, tmp_path / "net.onnx")
    inspect(OnnxFile(tmp_path / "net.onnx"), {})
    found = lines(capsys.readouterr().out)
    assert [line.split()[:2] for line in found[3:6]] == [["known", "MatMul"], ["pad", "Pad"], ["unknown", "Conv"]]
    assert "?" in found[5].split()
    assert found[-2:] == [
        "3 nodes, 20 params in 80 B, at least 16 MACs, peak activations at least 672 B",
        "not known, because shapes are not static: MACs of layers (1), sizes of tensors (2)",
    ]
    inspect(OnnxFile(tmp_path / "net.onnx"), {}, as_json=True)
    printed = json.loads(capsys.readouterr().out)
    assert [layer["macs"] for layer in printed["layers"]] == [16, 0, None]
    assert (printed["total"]["macs_unknown"], printed["total"]["sizes_unknown"]) == (1, 2)


def test_a_figure_that_leaves_something_out_says_so(report: dict[str, Any]) -> None:
    report["baseline"] |= {"macs_unknown": 2, "sizes_unknown": 1}
    found = rows(report)
    assert found[1][1:3] == ["at least 2,000,000", "500,000"]
    assert found[3][1:3] == ["at least 64.0 KiB", "64.0 KiB"]
    assert [bars["rows"][0]["text"] for bars in charts(report)[:3]] == [
        "3.91 KiB",
        "at least 2.00 M",
        "at least 64.0 KiB",
    ]


def test_inspect_on_80_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_of_80_columns(monkeypatch)
    inspect(OnnxFile(network(tmp_path / "net.onnx", "encoder/block_3/residual/conv_expansion")), {})
    found = lines(terminal.getvalue())
    assert all(len(line) <= 80 for line in found[:-3])
    assert len(found[:-3]) > 4  # the name is folded
    assert sum("1x512x64x64  1.18 M  4.83 G   100.0" in line for line in found) == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0, "0 B"), (999, "999 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (10 * 1024, "10.0 KiB"),
     (1024**2 - 1, "1.00 MiB"), (3 * 1024**3, "3.00 GiB"), (1000 * 1024, "1000 KiB"), (5 * 1024**5, "5120 TiB")],
)  # fmt: skip
def test_sizes(value: int | None, text: str) -> None:
    assert size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, ""), (7, "7"), (999, "999"), (1000, "1.00 k"), (12_345, "12.3 k"), (999_499, "999 k"), (999_500, "1.00 M"),
     (151_519_232, "152 M"), (4_831_838_208, "4.83 G")],
)  # fmt: skip
def test_counts(value: int, text: str) -> None:
    assert short(value) == text


def test_amounts() -> None:
    assert (amount(None), amount(1234567)) == ("-", "1,234,567")
