"""Bundles for every TensorRT target of the bench's networks, and their INT8 against onnxruntime's quantizer.

    python tests/bench/bench_jetson.py [--networks efficientnet capsule ...]

For each network and target: emitted by ``fold`` and ``quantize`` (effort balanced; 64 photographs, capsule images or
seeded noise), the lint's findings, the share of the MACs promised INT8 that TensorRT-RTX runs in INT8, the SQNR of the
INT8 network to the float one on samples that it was not calibrated with (every tensor that is FP16 on the board rounded
to FP16), and the seconds that emitting took beyond the passes. The peer is ``quantize_static`` of the installed
onnxruntime with symmetric int8 activations and weights per channel, which TensorRT takes; it is run in FP32.

Exit status 1 where a goal is missed: no finding, 95 % of the promised MACs in INT8, an SQNR not below the peer's, and
5 seconds for emitting. No GPU is needed, and none is used.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from networks import capsule, efficientnet_lite0, photos, wide_torch, yolov8n
from static_quantizer import quantized_by_onnxruntime

import edgec
from edgec.backends.protocol import Beside, Emitted, Feeds
from edgec.backends.tensorrt.backend import TensorRTBackend
from edgec.backends.tensorrt.bundle import read_manifest
from edgec.backends.tensorrt.models import as_computed
from edgec.ir.execution import Session, sqnr_db, stacked
from edgec.ir.files import load
from edgec.ir.graph import Graph
from edgec.passes.framework import input_domain
from edgec.passes.framework.target import Target

TARGETS = ("jetson-nano", "jetson-xavier-nx", "jetson-orin-nano", "trt-host")
SECONDS = 5.0


@dataclass(frozen=True)
class Network:
    """What is compiled.

    Attributes:
        file: the model.
        pins: shapes of its inputs, where they are not static.
        calibration, held_out: feeds.
        passes: in front of ``quantize``.
    """

    file: Path
    pins: dict[str, list[int]]
    calibration: list[dict[str, np.ndarray]]
    held_out: list[dict[str, np.ndarray]]
    passes: str = "fold"


def efficientnet(folder: Path) -> Network:
    efficientnet_lite0.export(folder / "efficientnet.onnx", batch_norm=True)
    seen, others = (
        [efficientnet_lite0.feed(crop) for crop in photos.squares(photos.photos(which), *rest)]
        for which, *rest in ((photos.CALIBRATION, 64, 224, 1), (photos.HELD_OUT, 48, 224, 2))
    )
    return Network(folder / "efficientnet.onnx", {}, seen, others)


def yolo(folder: Path) -> Network:
    seen, others = ([{yolov8n.INPUT: x} for x in feeds(32)] for feeds in (yolov8n.calibration, yolov8n.held_out))
    return Network(yolov8n.path(), {yolov8n.INPUT: [1, 3, yolov8n.SIZE, yolov8n.SIZE]}, seen, others)


def autoencoder(passes: str) -> Callable[[Path], Network]:
    def made(folder: Path) -> Network:
        capsule.render()
        file = Path(__file__).resolve().parents[2] / "examples" / "capsule" / "autoencoder.onnx"
        name = load(file).inputs[0].name
        seen, (others, _) = capsule.calibration(), capsule.held_out()
        return Network(file, {}, *([{name: x[None]} for x in images] for images in (seen, others[:32])), passes)

    return made


def untrained(name: str) -> Callable[[Path], Network]:
    """A network of the shape of a well-known one, with seeded weights, on noise."""

    def made(folder: Path) -> Network:
        file = folder / f"{name}.onnx"
        wide_torch.export(name, file)
        tensor = load(file).inputs[0]
        random = np.random.default_rng(0)
        shape = [int(size) for size in tensor.shape or ()]
        feeds = [{tensor.name: random.standard_normal(shape).astype(np.float32)} for _ in range(64)]
        return Network(file, {}, feeds[:32], feeds[32:])

    return made


NETWORKS: dict[str, Callable[[Path], Network]] = {
    "efficientnet": efficientnet,
    "yolov8n": yolo,
    "capsule": autoencoder("fold"),
    "capsule, factorized": autoencoder("fold, factorize: {params: 0.05}"),
    **{name: untrained(name) for name in ("resnet", "mobilenet", "densenet", "unet")},
}


def bundle(network: Network, folder: Path, targets: tuple[str, ...]) -> dict[str, float]:
    """Compiles for all targets; the seconds that emitting took for each."""
    names = network.calibration[0]
    np.savez(folder / "calibration.npz", **{n: np.concatenate([f[n] for f in network.calibration]) for n in names})
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        f"data: {{calibration: {{arrays: calibration.npz}}}}\npasses: [{network.passes}, quantize]\n"
        f"targets: [{', '.join(targets)}]\n",
        encoding="utf-8",
    )
    took: dict[str, float] = {}
    emit = TensorRTBackend.emit

    def timed(
        self: TensorRTBackend, graph: Graph, target: Target, place: Path, probes: Sequence[Feeds], beside: Beside
    ) -> Emitted:
        start = time.perf_counter()
        try:
            return emit(self, graph, target, place, probes, beside)
        finally:
            took[target.name] = time.perf_counter() - start

    with mock.patch.object(TensorRTBackend, "emit", timed):
        edgec.compile(network.file, recipe, folder / "out", inputs=network.pins, timing=False)
    return took


def outputs(session: Session, network: Network, graph: Graph | None = None) -> dict[str, np.ndarray]:
    entered = (f if graph is None else input_domain.enter(graph, f) for f in network.held_out)
    return stacked([session.run(feeds) for feeds in entered])


def peer(network: Network, folder: Path, shared: Path) -> float:
    """The SQNR of onnxruntime's symmetric quantization of the same float network, which the passes left."""
    graph = load(shared)
    feeds = [input_domain.enter(graph, f) for f in network.calibration]
    path = quantized_by_onnxruntime(graph, feeds, folder, symmetric=True)
    reference = outputs(Session(graph, optimize=True), network, graph)
    return sqnr_db(reference, outputs(Session(load(path)), network, graph))


def judged(name: str, network: Network, folder: Path) -> bool:
    took = bundle(network, folder, TARGETS)
    theirs = peer(network, folder, folder / "out" / "model.onnx")
    shared = load(folder / "out" / "model.onnx")
    reference = outputs(Session(shared, optimize=True), network, shared)
    good = True
    for board in TARGETS:
        place = folder / "out" / board
        manifest, check = read_manifest(place), json.loads((place / "check.json").read_text())
        model = manifest.models[0]
        graph = as_computed(place, manifest, model)
        ours = sqnr_db(reference, outputs(Session(graph), network, graph))
        described = check["models"][model.file]
        compiled = described["rtx_compile_check"] or {"int8_share_of_promised_macs": None}
        share = compiled["int8_share_of_promised_macs"]
        integer = model.precision == "int8"
        goals = {
            "lint": not check["lint"],
            "INT8": not integer or (share is not None and share >= 0.95),
            "SQNR": not integer or ours >= theirs,
            "seconds": took[board] <= SECONDS,
        }
        missed = ", ".join(goal for goal, met in goals.items() if not met)
        shown = "-" if share is None else f"{share:.1%}"
        print(
            f"{name:20} {board:17} {model.precision:5} MACs promised INT8 {described['int8_share_of_macs']:6.1%}, in "
            f"INT8 of these {shown:>6}; SQNR {ours:6.2f} dB (onnxruntime, symmetric: {theirs:6.2f}); lint "
            f"{len(check['lint'])}; emitted in {took[board]:.1f} s; {f'MISSED: {missed}' if missed else 'met'}",
            flush=True,
        )
        good &= not missed
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description="Bundles for TensorRT of the bench's networks.")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    good = True
    for name in parser.parse_args().networks:
        with tempfile.TemporaryDirectory() as scratch:
            good &= judged(name, NETWORKS[name](Path(scratch)), Path(scratch))
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
