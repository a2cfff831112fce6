"""EfficientNet-Lite0 at half of its multiply-accumulates, with distillation on unlabelled photographs and without.

    python tests/bench/bench_efficientnet_half.py [--crops 768] [--epochs 7]

`prune` (or another pass, by --compress) takes half of the multiply-accumulates away, with 256 crops to look at;
`distill` trains what is left on random crops of thirty photographs that packages ship, in other colours and mixed, for
the outputs of the original and tensors inside it. Judged on 96 crops of other photographs: SQNR of the scores and top-1
agreement with the original, after compression alone and after distillation. Prints the scale and the time of each run;
exit status 1 where distillation does not raise the agreement.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench_efficientnet import feeds, scores
from networks import efficientnet_lite0, photos

import edgec
from edgec.ir.execution import Session, sqnr_db
from edgec.ir.files import load
from edgec.passes.framework import input_domain

INPUT = efficientnet_lite0.INPUT


def save_feeds(path: Path, crops: list[np.ndarray]) -> None:
    """Crops as one array of feeds."""
    np.savez(path, **{INPUT: np.concatenate([feed[INPUT] for feed in feeds(crops)])})


def scores_of(model: Path, samples: list[dict[str, np.ndarray]]) -> np.ndarray:
    """A network's scores; what normalizes its input may have moved into it."""
    graph = load(model)
    session = Session(graph, threads=2, optimize=True)
    return scores(lambda feed: session.run(input_domain.enter(graph, feed)), samples)


def compiled(folder: Path, name: str, model: str, passes: str) -> tuple[Path, float]:
    """The network that a recipe leaves, and the seconds that it took."""
    recipe = folder / f"{name}.yaml"
    data = "{calibration: {arrays: calibration.npz}, train: {arrays: train.npz}}"
    recipe.write_text(f"data: {data}\npasses: {passes}\n", encoding="utf-8")
    start = time.perf_counter()
    edgec.compile(folder / model, recipe, folder / name, timing=False)
    return folder / name / "model.onnx", time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description="EfficientNet-Lite0 at half of its multiply-accumulates.")
    parser.add_argument("--calibration", type=int, default=256, help="crops that compression sees")
    parser.add_argument("--crops", type=int, default=768, help="random crops to train on")
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--macs", type=float, default=0.5, help="the part that is kept")
    parser.add_argument("--compress", default="prune: {{macs: {macs:g}}}", help="the pass that compresses")
    parser.add_argument("--options", default="batch: 16, rate: 0.002", help="of distill")
    arguments = parser.parse_args()
    cut = arguments.compress.format(macs=arguments.macs)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        efficientnet_lite0.export(folder / "model.onnx", batch_norm=True)
        save_feeds(folder / "calibration.npz", photos.training_crops(arguments.calibration))
        save_feeds(folder / "train.npz", photos.training_crops(arguments.crops))
        held_out = feeds(photos.held_out_crops())
        wanted = scores_of(folder / "model.onnx", held_out)
        print(f"{cut}, with {arguments.calibration} crops of {len(photos.TRAINING)} photographs", flush=True)
        print(f"{arguments.epochs} epochs on {arguments.crops} crops of them, {arguments.options}", flush=True)

        def judged(name: str, model: Path, seconds: float) -> float:
            found = scores_of(model, held_out)
            db = sqnr_db({"": wanted}, {"": found})
            agreement = float((wanted.argmax(1) == found.argmax(1)).mean())
            print(f"{name:12} {db:6.2f} dB  top-1 agreement {agreement:.3f}  {seconds:5.0f} s", flush=True)
            return agreement

        model, seconds = compiled(folder, "compressed", "model.onnx", f"[fold, {cut}]")
        report = json.loads((model.parent / "report.json").read_text(encoding="utf-8"))
        for figure in ("macs", "params"):
            before, after = report["baseline"][figure], report["compressed"][figure]
            print(f"{figure} {before:,} -> {after:,}, {100 * after / before:.1f} %")
        without = judged("compressed", model, seconds)
        distill = f"distill: {{teacher: model.onnx, epochs: {arguments.epochs}, {arguments.options}}}"
        distilled = judged("distilled", *compiled(folder, "distilled", str(model), f"[{distill}]"))
    good = distilled > without
    print(f"goal (agreement with distillation above that without): {'met' if good else 'NOT MET'}")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
