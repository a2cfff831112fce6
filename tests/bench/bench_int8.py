"""Int8 networks against the float ones they came from, and against onnxruntime's static quantizer on the same images.

    python tests/bench/bench_int8.py [--rows efficientnet yolov8n angles capsule] [--max]

Every row calibrates both with the same 64 images (EfficientNet-Lite0, YOLOv8n) or 256 pictures (a regression of
angles) and judges them on others. The peer is ``quantize_static`` of the installed onnxruntime: min-max, uint8
activations, int8 weights per channel, on the network with BatchNormalization folded. Ours is the target ``cpu``, run as
the peer's is, in onnxruntime with its integer kernels; on a CPU without VNNI, whose kernels saturate, both have
weights of 7 bits (ours the target ``cpu-avx2``). For TensorRT's scheme the peer is the same with symmetric int8
activations, and ours the target ``trt-host``, run with what is FP16 on a GPU rounded to FP16. The capsule autoencoder
of the example is judged by its AUROC, before and after 95 % of its weights are factorized away. YOLOv8n comes with
nudenet and photographs with foolbox, both among the extra ``bench``.

Prints one line for each way; exit status 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from networks import angles, capsule, efficientnet_lite0, photos, yolov8n
from static_quantizer import quantized_by_onnxruntime

import edgec
from edgec.backends.cpu.backend import has_vnni
from edgec.backends.tensorrt.bundle import read_manifest
from edgec.backends.tensorrt.models import as_computed
from edgec.frontends.model import open_model
from edgec.ir.execution import Session, sqnr_db
from edgec.ir.files import load
from edgec.ir.graph import Graph
from edgec.passes.fold.fold import Fold
from edgec.passes.framework import input_domain
from edgec.passes.framework.context import Context

Figures = dict[str, float]
# The target that is this machine, by whether its integer kernels saturate.
HERE = "cpu-avx2" if has_vnni() is False else "cpu"
CALIBRATED, JUDGED = photos.CALIBRATION + photos.TRAINING[10:20], photos.HELD_OUT + photos.TRAINING[20:]
PEER, FAST, BALANCED = "onnxruntime min-max", "edgec, fast", "edgec, balanced"
MIXED = "edgec, balanced, mixed precision"
OUTPUT, SPLIT, MOST = "edgec, calibrator output", "edgec, channels split", "edgec, max"
SYMMETRIC, TENSORRT = "onnxruntime, symmetric", "edgec, balanced, TensorRT"


class Row:
    """One network: what it is, how ways are measured on it.

    Args:
        name: of the network.
        model: its float file.
        pins: shapes of its inputs, where they are not static.
        input: the input's name.
        calibration, held_out: feeds, each with the batch axis.
        measure: from the float network's outputs and another's to figures.
    """

    def __init__(
        self,
        name: str,
        model: Path,
        pins: dict[str, list[int]],
        input: str,
        calibration: list[np.ndarray],
        held_out: list[np.ndarray],
        measure: Callable[[np.ndarray, np.ndarray], Figures],
    ) -> None:
        self.name, self.model, self.pins, self.input = name, model, pins, input
        self.calibration, self.held_out, self._measure = calibration, held_out, measure
        self.graph = open_model(model, dict(pins))
        Fold().run(self.graph, Context(self.graph))
        self.graph.sort()
        self.wanted = self._outputs(Session(self.graph, optimize=True).run)
        self.found: dict[str, Figures] = {}

    def peer(self, folder: Path, name: str = PEER, *, symmetric: bool = False) -> None:
        """onnxruntime's own quantizer."""
        start = time.perf_counter()
        feeds = ({self.input: values} for values in self.calibration)
        reduced = HERE != "cpu" and not symmetric
        path = quantized_by_onnxruntime(self.graph, feeds, folder, symmetric=symmetric, reduce_range=reduced)
        graph, took = load(path), time.perf_counter() - start
        self._judge(name, graph, Session(graph, integer=True), took)

    def ours(self, folder: Path, name: str, options: str, board: str = HERE) -> None:
        """``fold`` and ``quantize`` with options; the time is that of the passes."""
        np.savez(folder / "calibration.npz", **{self.input: np.concatenate(self.calibration)})
        recipe = folder / "recipe.yaml"
        text = f"data: {{calibration: {{arrays: calibration.npz}}}}\npasses: [fold, quantize: {options}]\n"
        text += f"targets: [{board}]\n"
        recipe.write_text(text, encoding="utf-8")
        report = edgec.compile(self.model, recipe, folder / "ours", inputs=self.pins, timing=False)
        passes = [*report["passes"], *report["targets"][board]["passes"]]
        shares = [remark.get("figures", {}).get("float_share") for one in passes for remark in one["did"]]
        more = dict([("work in float", share) for share in shares if share is not None][:1])
        place, seconds = folder / "ours" / board, sum(one["seconds"] for one in passes)
        if board == HERE:
            graph = load(place / "model.onnx")
        else:
            manifest = read_manifest(place)
            graph = as_computed(place, manifest, manifest.models[0])
        session = Session(graph, integer=True) if board == HERE else Session(graph)
        self._judge(name, graph, session, seconds, **more)

    def _judge(self, name: str, graph: Graph, session: Session, seconds: float, **more: float) -> None:
        outputs = self._outputs(lambda feeds: session.run(input_domain.enter(graph, feeds)))
        self.found[name] = {**self._measure(self.wanted, outputs), **more, "seconds": seconds}
        shown = "  ".join(f"{key} {value:.4g}" for key, value in self.found[name].items())
        print(f"{self.name:12} {name:32} {shown}", flush=True)

    def _outputs(self, run: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> np.ndarray:
        return np.concatenate([next(iter(run({self.input: image}).values())) for image in self.held_out])


def scores(wanted: np.ndarray, found: np.ndarray) -> Figures:
    """Agreement on all crops, on those of photographs that show something of the network's classes, and, "expected", on
    all where the scores had white noise of the same power: scores that lie close together change places by chance."""
    best = wanted.argmax(1)
    same = best == found.argmax(1)
    sources = [name for _, name in JUDGED]
    known = np.array([sources[place % len(sources)] not in photos.OF_NO_CLASS for place in range(len(same))])
    deviation = np.sqrt(np.square(found - wanted).mean())
    random = np.random.default_rng(0)
    noisy = (wanted + deviation * random.standard_normal(wanted.shape) for _ in range(100))
    expected = float(np.mean([(one.argmax(1) == best).mean() for one in noisy]))
    agreement = {"agreement": float(same.mean()), "expected": expected, "of known things": float(same[known].mean())}
    return {"dB": sqnr_db({"": wanted}, {"": found}), **agreement}


def efficientnet(folder: Path, most: bool) -> dict[str, bool]:
    efficientnet_lite0.export(folder / "efficientnet.onnx", batch_norm=True)
    calibration, held_out = (
        [
            efficientnet_lite0.feed(crop)[efficientnet_lite0.INPUT]
            for crop in photos.squares(photos.photos(which), *rest)
        ]
        for which, *rest in ((CALIBRATED, 64, 224, 1), (JUDGED, 96, 224, 2))
    )
    row = Row("efficientnet", folder / "efficientnet.onnx", {}, efficientnet_lite0.INPUT, calibration, held_out, scores)
    row.peer(folder)
    row.ours(folder, FAST, "{effort: fast}")
    row.ours(folder, BALANCED, "{}")
    theirs, fast, balanced = (row.found[way] for way in (PEER, FAST, BALANCED))
    goals = {
        "fast takes at most the peer's time": fast["seconds"] <= theirs["seconds"],
        "balanced takes at most five times the peer's time": balanced["seconds"] <= 5 * theirs["seconds"],
        "balanced: 6.75 dB above the peer": balanced["dB"] >= theirs["dB"] + 6.75,
        "balanced: 98 % agreement": balanced["agreement"] >= 0.98,
    }
    goals["balanced: 98 % agreement on things of its classes"] = balanced["of known things"] >= 0.98
    goals["balanced: a quarter of the peer's disagreements"] = _part(balanced, theirs) <= 1 / 4
    row.ours(folder, SPLIT, "{split_channels: 0.05}")
    row.ours(folder, MIXED, "{split_channels: 0.05, precision: auto, budget: 29}")
    goals["mixed: 98 % agreement"] = row.found[MIXED]["agreement"] >= 0.98
    row.peer(folder, SYMMETRIC, symmetric=True)
    row.ours(folder, TENSORRT, "{}", "trt-host")
    row.ours(folder, f"{TENSORRT}, split", "{split_channels: 0.05}", "trt-host")
    row.ours(folder, f"{TENSORRT}, mixed", "{precision: auto, budget: 30}", "trt-host")
    theirs, ours, split = (row.found[way] for way in (SYMMETRIC, TENSORRT, f"{TENSORRT}, split"))
    goals["TensorRT's scheme: 6.7 dB above the peer"] = ours["dB"] >= theirs["dB"] + 6.7
    goals["TensorRT's scheme, split: 6.7 dB above the peer"] = split["dB"] >= theirs["dB"] + 6.7
    goals["TensorRT's scheme: 97 % agreement"] = ours["agreement"] >= 0.97
    goals["TensorRT's scheme: 97 % agreement on things of its classes"] = ours["of known things"] >= 0.97
    goals["TensorRT's scheme, split: a third of the peer's disagreements"] = _part(split, theirs) <= 1 / 3
    goals["TensorRT's scheme, mixed: 97 % agreement"] = row.found[f"{TENSORRT}, mixed"]["agreement"] >= 0.97
    if most:
        row.ours(folder, MOST, "{effort: max}")
        goals["max: 99 % agreement"] = row.found[MOST]["agreement"] >= 0.99
        goals["max: an eighth of the peer's disagreements"] = _part(row.found[MOST], row.found[PEER]) <= 1 / 8
        goals["max: 8.55 dB above the peer"] = row.found[MOST]["dB"] >= row.found[PEER]["dB"] + 8.55
        goals["max: no worse than balanced"] = row.found[MOST]["dB"] >= balanced["dB"]
    return goals


def _part(ours: Figures, theirs: Figures) -> float:
    """Our disagreements with the float network, as a part of the peer's."""
    return (1 - ours["agreement"]) / max(1 - theirs["agreement"], 1e-9)


def detector(folder: Path, _: bool) -> dict[str, bool]:
    pins = {yolov8n.INPUT: [1, 3, yolov8n.SIZE, yolov8n.SIZE]}
    row = Row("yolov8n", yolov8n.path(), pins, yolov8n.INPUT, yolov8n.calibration(), yolov8n.held_out(), yolov8n.judged)
    row.peer(folder)
    row.ours(folder, BALANCED, "{}")
    row.ours(folder, OUTPUT, "{calibrator: output}")
    row.ours(folder, MIXED, "{precision: auto, budget: 26}")
    row.ours(folder, f"{OUTPUT}, mixed", "{calibrator: output, precision: auto, budget: 26}")
    return {
        f"95 % of the anchors kept, with 95 % precision, {name}": found["kept"] >= 0.95 and found["precision"] >= 0.95
        for name, found in (
            ("all in int8", row.found[BALANCED]),
            ("all in int8, calibrator output", row.found[OUTPUT]),
            ("mixed", row.found[MIXED]),
        )
    }


def regression(folder: Path, _: bool) -> dict[str, bool]:
    angles.export(folder / "angles.onnx")
    calibration, (held_out, truth) = angles.pictures(256, seed=1)[0], angles.pictures(4000, seed=2)

    def errors(wanted: np.ndarray, found: np.ndarray) -> Figures:
        own, theirs = (np.arctan2(outputs[:, 1], outputs[:, 0]) / 2 for outputs in (found, wanted))
        return {
            "dB": sqnr_db({"": wanted}, {"": found}),
            "degrees from the truth": angles.mean_error(found, truth),
            "degrees added": float(np.degrees(np.abs((own - theirs + np.pi / 2) % np.pi - np.pi / 2).mean())),
        }

    row = Row(
        "angles", folder / "angles.onnx", {}, angles.INPUT, [x[None] for x in calibration], [x[None] for x in held_out],
        errors,
    )  # fmt: skip
    print(f"{'angles':12} {'float':32} degrees from the truth {angles.mean_error(row.wanted, truth):.4g}")
    row.peer(folder)
    row.ours(folder, FAST, "{effort: fast}")
    row.ours(folder, BALANCED, "{}")
    row.ours(folder, SPLIT, "{split_channels: 1.0}")
    row.ours(folder, MIXED, f"{{precision: auto, budget: {row.found[PEER]['dB'] + 7:.1f}}}")
    most = row.found[PEER]["degrees added"] / 2
    return {
        "half of the peer's added error, all in int8": row.found[BALANCED]["degrees added"] <= most,
        "half of the peer's added error, all in int8, channels split": row.found[SPLIT]["degrees added"] <= most,
        "half of the peer's added error, mixed": row.found[MIXED]["degrees added"] <= most,
    }


def inspection(folder: Path, _: bool) -> dict[str, bool]:
    """The example's autoencoder: AUROC of the float network that is quantized, and of the quantized ones."""
    capsule.render()
    data = capsule.EXAMPLE / "data"
    flaws = ", ".join(sorted(str(path) for path in (data / "test").iterdir() if path.name != "good"))
    through_rounding = "finetune: {epochs: 10, batch: 4, rate: 0.0003, monitor: loss}"
    goals = {}
    for name, passes in (
        ("whole", "fold, quantize"),
        ("factorized", "fold, factorize: {params: 0.05}, quantize"),
        ("factorized, trained", f"fold, factorize: {{params: 0.05}}, quantize, {through_rounding}"),
    ):
        recipe = folder / "recipe.yaml"
        recipe.write_text(
            "data:\n  preprocess: {size: [128, 128], color: gray, scale: 1/255}\n"
            f"  calibration: {{images: {data / 'train' / 'good'}, samples: 64}}\n"
            f"  train: {{images: {data / 'train' / 'good'}}}\n"
            f"  eval: {{ok: {data / 'test' / 'good'}, ng: [{flaws}], metric: auroc}}\n"
            f"passes: [{passes}]\ntargets: [{HERE}, coral-dev-board, trt-host]\n",
            encoding="utf-8",
        )
        report = edgec.compile(capsule.MODEL, recipe, folder / "out", timing=False)
        exact = report["quality"]["metric"]["compressed"]
        for board, entry in report["targets"].items():
            shown = f"AUROC {entry['metric']:.4f}  of float {exact:.4f}  dB to the original {entry['sqnr_db']:.2f}"
            print(f"{'capsule':12} {f'{name}, {board}':36} {shown}", flush=True)
            goals[f"{name}, {board}: within 0.005 of float"] = abs(entry["metric"] - exact) <= 0.005
            goals[f"{name}, {board}: at most 0.005 below float"] = entry["metric"] >= exact - 0.005
    return goals


ROWS = {"efficientnet": efficientnet, "yolov8n": detector, "angles": regression, "capsule": inspection}


def main() -> int:
    parser = argparse.ArgumentParser(description="int8 against float and against onnxruntime's quantizer.")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--max", action="store_true", help="EfficientNet-Lite0 with effort max too")
    arguments = parser.parse_args()
    good = True
    for name in arguments.rows:
        with tempfile.TemporaryDirectory() as scratch:
            goals = ROWS[name](Path(scratch), arguments.max)
        for goal, met in goals.items():
            print(f"{name:12} goal: {goal}: {'met' if met else 'NOT MET'}", flush=True)
        good &= all(goals.values())
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
