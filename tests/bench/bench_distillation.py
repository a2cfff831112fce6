"""A classifier at a third of its compute: trained again with its teacher, and without.

    python tests/bench/bench_distillation.py [--network vgg resnet] [--seeds 1 2 3 4] [--macs 0.33] [--epochs 10]

Each seed is another choice of 3,000 digits to train on and 2,000 that only judge, and another network. The teacher is
trained on the 3,000 with random crops (tests/networks/digits.py); edgec compresses it to a part of its
multiply-accumulates. That one student is then trained three times from the same weights, on the same 3,000 labelled
images (the middle of each), for as many epochs, in batches of the same size, in the same order: for the labels alone
(``finetune``), for the teacher's outputs (``finetune: {teacher: ...}``), and for its outputs and tensors inside it
(``distill``). The learning rate is found by trying for each of them, and the best epoch is chosen by the loss on 300 of
the 3,000 that are held out of training.

Prints MACs, weights and accuracy (mean and range over the seeds). Exit status 1 where a goal is missed: at most a third
of the teacher's MACs, a mean accuracy of ``distill`` of at least the teacher's minus 0.1 points, and one above that of
the labels alone by twice the standard error of the mean of the differences.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from networks import digits

import edgec

ROOT = Path(__file__).resolve().parents[2]
HELD_OUT = 2000
MOST_MACS, ALLOWED_DROP = 1 / 3, 0.001
# Of the teacher: a patient one, who has seen many crops, knows what the student's few images do not show.
TEACHER_EPOCHS = 25
# How the student is trained, the passes of each way; LEARNS is what they share.
WAYS = {
    "student, labels alone": "finetune: {LEARNS}",
    "student, teacher's outputs": "finetune: {teacher: TEACHER, LEARNS}",
    "student, distilled": "distill: {teacher: TEACHER, LEARNS}",
}
TEACHER, BEFORE = "teacher", "student, not trained"
LABELS, _, DISTILLED = WAYS


@dataclass(frozen=True)
class Setting:
    """What all trials share.

    Attributes:
        macs: the part of the teacher's multiply-accumulates that the student keeps.
        epochs, batch: of each training of the student.
    """

    macs: float
    epochs: int
    batch: int


@dataclass(frozen=True)
class Trial:
    """One teacher and its students.

    Attributes:
        top1: by name, on the images that only judge.
        macs, weights: of the teacher and of the student.
    """

    top1: dict[str, float]
    macs: tuple[int, int]
    weights: tuple[int, int]


def trial(kind: digits.Kind, seed: int, setting: Setting) -> Trial:
    """Trains a teacher where that is not kept from before, compresses it, and trains the student in each way."""
    settings = digits.Settings(kind, epochs=TEACHER_EPOCHS, seed=seed, held_out=HELD_OUT, split=seed)
    made = digits.trained(settings, ROOT / "build" / "digits")
    learns = f"epochs: {setting.epochs}, batch: {setting.batch}, monitor: loss"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        found = compiled(made, made.model, f"[fold, compress: {{macs: {setting.macs:.6g}}}]", seed, folder / "student")
        before, after = found["baseline"], found["compressed"]
        metric = found["quality"]["metric"]
        top1 = {TEACHER: metric["baseline"], BEFORE: metric["compressed"]}
        student = folder / "student" / "model.onnx"
        for name, way in WAYS.items():
            step = way.replace("LEARNS", learns).replace("TEACHER", str(made.model))
            report = compiled(made, student, f"[{step}]", seed, folder / "trained")
            top1[name] = report["quality"]["metric"]["compressed"]
    return Trial(top1, (before["macs"], after["macs"]), (before["params"], after["params"]))


def compiled(made: digits.Trained, model: Path, passes: str, seed: int, output: Path) -> dict[str, Any]:
    """The report of a recipe on the digits of a split."""
    recipe = output.with_suffix(".yaml")
    recipe.write_text(
        f"data:\n  calibration: {{arrays: {made.calibration}}}\n  train: {{arrays: {made.training}}}\n"
        f"  eval: {{arrays: {made.held_out}, metric: top1}}\nseed: {seed}\npasses: {passes}\n",
        encoding="utf-8",
    )
    return edgec.compile(model, recipe, output, threads=1, timing=False)


def line(name: str, found: list[float]) -> str:
    return f"  {name:28} {np.mean(found):.4f} ({min(found):.4f} to {max(found):.4f})"


def judged(kind: str, found: list[Trial]) -> bool:
    """Prints the figures of a kind of network; whether the goals are met."""
    for name, pairs in (("MACs", [t.macs for t in found]), ("weights", [t.weights for t in found])):
        before, after = (float(np.mean(values)) for values in zip(*pairs, strict=True))
        print(f"{kind}: {name} {before:,.0f} -> {after:,.0f}, {100 * after / before:.1f} %")
    for name in found[0].top1:
        print(line(name, [t.top1[name] for t in found]))
    gained = np.array([t.top1[DISTILLED] - t.top1[LABELS] for t in found])
    error = float(gained.std(ddof=1) / len(gained) ** 0.5) if len(found) > 1 else 0.0
    print(f"  distilled above labels alone by {100 * gained.mean():.2f} points, standard error {100 * error:.2f}")
    drop = float(np.mean([t.top1[TEACHER] - t.top1[DISTILLED] for t in found]))
    goals = {
        "at most a third of the MACs": all(after <= MOST_MACS * before for before, after in (t.macs for t in found)),
        "the teacher's accuracy minus 0.1 points": drop <= ALLOWED_DROP,
        "above the labels alone by two standard errors": float(gained.mean()) > 2 * error,
    }
    for goal, met in goals.items():
        print(f"  {goal}: {'met' if met else 'NOT MET'}")
    return all(goals.values())


def main() -> int:
    parser = argparse.ArgumentParser(
        description="a classifier at a third of its compute, with its teacher and without."
    )
    parser.add_argument("--network", nargs="+", choices=["vgg", "resnet"], default=["vgg", "resnet"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4])
    parser.add_argument("--macs", type=float, default=0.33, help="the part that the student keeps")
    parser.add_argument("--epochs", type=int, default=10, help="of each training of the student")
    parser.add_argument("--batch", type=int, default=50)
    arguments = parser.parse_args()
    setting = Setting(arguments.macs, arguments.epochs, arguments.batch)
    start = time.perf_counter()
    print(f"{len(arguments.seeds)} seeds, {setting.epochs} epochs in batches of {setting.batch}", flush=True)
    good = True
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        for kind in arguments.network:
            found = list(pool.map(trial, repeat(kind), arguments.seeds, repeat(setting)))
            good &= judged(kind, found)
            print(f"{(time.perf_counter() - start) / 60:.1f} min", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
