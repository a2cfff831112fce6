"""A small bundle, the files of a board to run it on, and run.sh on both with the fake trtexec."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from edgec.backends.tensorrt.bundle import Board, BundledModel, Manifest, Port, Versions, write_driver

SHAPE = (1, 2, 6, 6)
MIB = 1 << 20
LOGGED = "logs/ holds what trtexec said"
FAKE = Path(__file__).parent / "backends" / "fake_trtexec.py"
NANO = Board("jetson-nano", "Jetson Nano", "5.3", 4096 * MIB, Versions("8.2", "8.3"))
ORIN = Board("jetson-orin-nano", "Jetson Orin Nano", "8.7", 8192 * MIB, Versions("8.5", "11"))
CHIPS = {"5.3": "tegra210", "7.2": "tegra194", "8.7": "tegra234"}
NAMES = {
    "5.3": "NVIDIA Jetson Nano Developer Kit",
    "7.2": "NVIDIA Jetson Xavier NX Developer Kit",
    "8.7": "NVIDIA Jetson Orin Nano Developer Kit",
}
RELEASES = {
    "5.3": "# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t210ref, EABI: aarch64, DATE: Sat Feb 19 2022\n",
    "7.2": "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64, DATE: Tue Aug  1 2023\n",
    "8.7": "# R36 (release), REVISION: 4.0, GCID: 37537400, BOARD: generic, EABI: aarch64, DATE: Fri Sep 13 2024\n",
}
MEMORY = "MemTotal: {total} kB\nMemFree: 1 kB\nMemAvailable: {free} kB\nSwapTotal: 1024 kB\nSwapFree: {swap} kB\n"


def network(quantized: bool = False, opset: int = 13, operator: str = "Relu") -> onnx.ModelProto:
    """Conv and an activation; the input through Q and DQ where it is quantized."""
    random = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(random.standard_normal((3, 2, 3, 3)).astype(np.float32), "w"),
        numpy_helper.from_array(np.float32(1 / 127), "scale"),
        numpy_helper.from_array(np.int8(0), "zero"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x:0", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
    ]
    nodes = nodes if quantized else []
    nodes.append(helper.make_node("Conv", ["d" if quantized else "x:0", "w"], ["c"], pads=[1] * 4))
    nodes.append(helper.make_node(operator, ["c"], ["y"]))
    x = helper.make_tensor_value_info("x:0", onnx.TensorProto.FLOAT, SHAPE)
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (1, 3, 6, 6))
    graph = helper.make_graph(nodes, "net", [x], [y], weights if quantized else weights[:1])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7)


def write_bundle(
    folder: Path, board: Board, fp16: onnx.ModelProto | None = None, samples: int = 1, **changes: Any
) -> Path:
    """A bundle for a board, with an INT8 model where the board has INT8.

    Args:
        fp16: stands for the FP16 model.
        samples: how many golden ones there are.
        changes: to the entry of every model.
    """
    (folder / "golden").mkdir(parents=True)
    session = ort.InferenceSession(network().SerializeToString(), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(1)
    for index in range(samples):
        x = random.uniform(-1, 1, SHAPE).astype(np.float32)
        x.tofile(folder / f"golden/input0.{index}.bin")
        session.run(None, {"x:0": x})[0].tofile(folder / f"golden/output0.{index}.bin")
    files = [[f"golden/{port}0.{index}.bin" for index in range(samples)] for port in ("input", "output")]
    onnx.save(fp16 or network(), folder / "model_fp16.onnx")
    onnx.save(network(), folder / "model_fp32.onnx")
    settings = {"memory_bytes": 600 * MIB, "cosine": 0.999, "sqnr_db": 30.0, **changes}
    models = [BundledModel("model_fp16.onnx", "fp16", **settings)]
    if board is not NANO:
        onnx.save(network(quantized=True), folder / "model_int8.onnx")
        models.append(BundledModel("model_int8.onnx", "int8", **settings))
    models.append(BundledModel("model_fp32.onnx", "fp32", fallback=True, **settings))
    ports = [Port("x:0", SHAPE, "float32", tuple(files[0]))], [Port("y", (1, 3, 6, 6), "float32", tuple(files[1]))]
    write_driver(folder, Manifest("net", board, *ports, models))
    return folder


@dataclass
class Bench:
    """A bundle beside a board.

    Attributes:
        folder: the bundle.
        root: the board's files.
        settings: what the fake trtexec is told.
        python: the folder whose python3 runs it.
    """

    folder: Path
    root: Path
    settings: dict[str, Any] = field(default_factory=dict)
    python: Path = Path(sys.executable).parent

    def put(self, path: str, text: str) -> None:
        """Writes a file of the board."""
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def memory(self, free_mib: int, swap_mib: int = 0) -> None:
        """Sets what /proc/meminfo says."""
        self.put("proc/meminfo", MEMORY.format(total=4096 * 1024, free=free_mib * 1024, swap=swap_mib * 1024))

    def program(self, path: str, text: str) -> None:
        """Puts a shell script onto the board."""
        self.put(path, f"#!/bin/sh\n{text}\n")
        (self.root / path).chmod(0o755)

    def environment(self) -> dict[str, str]:
        """What run.sh sees."""
        self.put("fake.json", json.dumps(self.settings))
        kept = {"PATH": f"{self.python}:/usr/bin:/bin", "LANG": "C"}
        return {**kept, "EDGEC_BOARD_ROOT": str(self.root), "FAKE_TRTEXEC": str(self.root / "fake.json")}

    def command(self, *arguments: str) -> list[str]:
        """run.sh with few runs to time."""
        return [str(self.folder / "run.sh"), "--runs", "20", *arguments]

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Exit status, stdout, stderr."""
        done = subprocess.run(
            self.command(*arguments), capture_output=True, text=True, check=False, env=self.environment(), cwd="/"
        )
        return done.returncode, done.stdout, done.stderr

    @property
    def report(self) -> dict[str, Any]:
        """report.json."""
        found: dict[str, Any] = json.loads((self.folder / "report.json").read_text())
        return found

    def calls(self) -> list[list[str]]:
        """The arguments of every call of trtexec since the last time."""
        place = Path(self.settings["calls"])
        lines = place.read_text().splitlines() if place.exists() else []
        place.unlink(missing_ok=True)
        return [json.loads(line) for line in lines]


def bench(bundle: Path, place: Path, version: str, fail: Mapping[str, str] | None = None) -> Bench:
    """A copy of ``bundle`` on a board with TensorRT of ``version``."""
    shutil.copytree(bundle, place / "bundle")
    board = json.loads((bundle / "manifest.json").read_text())["board"]
    capability = board["compute_capability"] or "8.7"
    milliseconds = {"fp16": 2.0, "int8": 1.0, "fp32": 4.0, "typed": 1.5}
    settings = {"version": version, "capability": capability, "ms": milliseconds, "calls": str(place / "calls")}
    made = Bench(place / "bundle", place / "root", {**settings, "fail": dict(fail or {})})
    made.memory(3000)
    made.put("proc/device-tree/model", NAMES[capability] + "\0")
    made.put("proc/device-tree/compatible", f"nvidia,board\0nvidia,{CHIPS[capability]}\0")
    made.put("etc/nv_tegra_release", RELEASES[capability])
    made.put("sys/class/devfreq/57000000.gpu/cur_freq", "307200000\n")
    made.put("sys/class/devfreq/57000000.gpu/max_freq", "921600000\n")
    made.put("sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "1479000\n")
    made.put("sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq", "1479000\n")
    made.program("usr/sbin/nvpmodel", "echo 'NV Power Mode: MAXN'; echo 0")
    made.program("usr/src/tensorrt/bin/trtexec", f'exec "{sys.executable}" -P "{FAKE}" "$@"')
    return made


def refused(board: Bench, status: int, *lines: str, arguments: tuple[str, ...] = ()) -> None:
    """It ends with ``status`` and says ``lines``, and report.json says the same."""
    got, _, err = board.run(*arguments)
    assert (got, err.splitlines()) == (status, [f"run.py: {line}" for line in lines])
    report = board.report
    errors = [model["error"] for model in report["models"] if model["error"]] + [report["error"]] * bool(
        report["error"]
    )
    assert [f"{error['where']}: {error['what']}; {error['fix']}" for error in errors] == list(lines)
    assert report["status"] == status
