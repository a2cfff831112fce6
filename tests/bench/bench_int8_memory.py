"""Peak memory of quantizing EfficientNet-Lite0 with 64 images, beside onnxruntime's entropy calibration.

    python tests/bench/bench_int8_memory.py

Each runs in a process of its own, from the folded network and the same images on disk to the written model, on two
threads, and reads its own peak. Ours is ``quantize`` with ``effort: balanced``, with ``calibrator: entropy`` and, in
minutes and with torch, ``calibrator: output``, ``split_channels: 0.05`` and ``effort: max``; the peer is
``quantize_static`` with ``CalibrationMethod.Entropy``. The goal is half of the peer's memory beyond what the process
holds when it has loaded the network. Exit status 1 where it is missed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from networks import efficientnet_lite0, photos
from static_quantizer import quantized_by_onnxruntime

from edgec.backends.registry import target
from edgec.ir.files import load, save
from edgec.passes.fold.fold import Fold
from edgec.passes.quantize.quantize import Quantize
from edgec.testing import Samples, run_pass

IMAGES, THREADS = 64, 2
OURS: dict[str, dict[str, Any]] = {
    "balanced": {},
    "entropy": {"calibrator": "entropy"},
    "output": {"calibrator": "output"},
    "split": {"split_channels": 0.05},
    "max": {"effort": "max"},
}


def held() -> tuple[int, int]:
    """What this process holds now and the most it has held, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    values = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Vm")}
    return 1024 * int(values["VmRSS"]), 1024 * int(values["VmHWM"])


def quantize(way: str, folder: Path) -> None:
    """One way, in this process; prints the bytes beyond those at its start."""
    files = sorted(folder.glob("*.npy"))

    def feeds() -> Iterator[dict[str, np.ndarray]]:
        return ({efficientnet_lite0.INPUT: np.load(file)} for file in files)

    graph = load(folder / "folded.onnx")
    before, _ = held()
    if way == "onnxruntime":
        quantized_by_onnxruntime(graph, feeds(), folder, entropy=True)
    else:
        data = {"calibration": Samples(list(feeds()))}
        run_pass(Quantize(**OURS[way]), graph, target=target("cpu"), data=data, threads=THREADS)
        save(graph, folder / "ours.onnx")
    print(held()[1] - before)


def main() -> int:
    parser = argparse.ArgumentParser(description="peak memory of quantizing EfficientNet-Lite0.")
    parser.add_argument("--way", help="run one way in this process")
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    if arguments.way:
        quantize(arguments.way, arguments.folder)
        return 0
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        efficientnet_lite0.export(folder / "model.onnx", batch_norm=True)
        graph = load(folder / "model.onnx")
        run_pass(Fold(), graph)
        save(graph, folder / "folded.onnx")
        for number, crop in enumerate(photos.calibration_crops(IMAGES)):
            np.save(folder / f"{number:03}.npy", efficientnet_lite0.feed(crop)[efficientnet_lite0.INPUT])
        for way in ("onnxruntime", *OURS):
            command = [sys.executable, __file__, "--way", way, "--folder", str(folder)]
            done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", check=True)
            found[way] = int(done.stdout.splitlines()[-1])
            ratio = found[way] / found["onnxruntime"]
            print(f"{way:12} {found[way] / 1e6:8.0f} MB  {ratio:.3f} of the peer's", flush=True)
    met = max(found[way] for way in OURS) <= found["onnxruntime"] / 2
    print(f"goal: at most half of the peer's memory: {'met' if met else 'NOT MET'}")
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
