"""A classifier at a fifth of its compute: trained again with its teacher, and without.

    python tests/bench/bench_distillation.py [--network vgg] [--seeds 1 2 3 4] [--macs 0.2] [--labels 500]

Each seed is another choice of 3,000 digits to train on and 2,000 that only judge, and another network. The teacher is
trained on the 3,000 with random crops (tests/networks/digits.py); edgec compresses it to a part of its
multiply-accumulates. What there is for the student then is what a user of a trained network has: images, of which a few
are labelled. That one student is trained from the same weights

- for the labels alone (``finetune``), on the images that have some,
- for the teacher's outputs (``finetune: {teacher: ...}``) and
- for its outputs and tensors inside it (``distill``), on all images, without any label,

and, to show what labels for all of them would give, for those. Four random crops of each image are in the arrays. All
take as many steps; the learning rate is found by trying for each of them, and the best epoch is chosen by the loss on a
tenth of its images that is held out of training.

The judging images are seen at nine shifts each. Prints MACs, weights and accuracy (mean and range over the seeds). Exit
status 1 where a goal is missed: at most a third of the teacher's MACs, a mean accuracy of ``distill`` of at least the
teacher's minus 0.1 points, and one above that of the labels alone by twice the standard error of the mean of the
differences.
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
HELD_OUT, CROPS, CALIBRATION = 2000, 4, 512
MOST_MACS, ALLOWED_DROP = 1 / 3, 0.001
# Of the teacher: a patient one, who has seen many crops.
TEACHER_EPOCHS = 25
# How the student is trained: the data, and the pass; LEARNS is what they share.
WAYS = {
    "student, the labels alone": ("labelled", "finetune: {LEARNS}"),
    "student, teacher's outputs": ("bare", "finetune: {teacher: TEACHER, temperature: 4, LEARNS}"),
    "student, distilled": ("bare", "distill: {teacher: TEACHER, temperature: 4, LEARNS}"),
    "student, labels for all": ("all", "finetune: {LEARNS}"),
}
TEACHER, BEFORE = "teacher", "student, not trained"
LABELS, _, DISTILLED, _ = WAYS


@dataclass(frozen=True)
class Setting:
    """What all trials share.

    Attributes:
        macs: the part of the teacher's multiply-accumulates that the student keeps.
        labels: how many images have one.
        epochs: over all images; as many steps are made where fewer have labels.
        batch: of each training of the student.
    """

    macs: float
    labels: int
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
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        counts = arrays(seed, setting.labels, folder)
        found = compiled(made.model, f"[fold, compress: {{macs: {setting.macs:.6g}}}]", "bare", seed, folder, "student")
        before, after = found["baseline"], found["compressed"]
        metric = found["quality"]["metric"]
        top1 = {TEACHER: metric["baseline"], BEFORE: metric["compressed"]}
        student = folder / "student" / "model.onnx"
        for name, (data, way) in WAYS.items():
            epochs = setting.epochs * counts["all"] // counts[data]
            learns = f"epochs: {epochs}, batch: {setting.batch}, monitor: loss"
            step = way.replace("LEARNS", learns).replace("TEACHER", str(made.model))
            report = compiled(student, f"[{step}]", data, seed, folder, "trained")
            top1[name] = report["quality"]["metric"]["compressed"]
    return Trial(top1, (before["macs"], after["macs"]), (before["params"], after["params"]))


def arrays(seed: int, labelled: int, folder: Path) -> dict[str, int]:
    """Writes the data as .npz files of these names; how many samples each has."""
    pixels, labels = digits.images(seed)
    random = np.random.Generator(np.random.PCG64(seed))
    train, target = pixels[HELD_OUT:], labels[HELD_OUT:]
    windows = np.lib.stride_tricks.sliding_window_view(train, (digits.SIZE, digits.SIZE), axis=(2, 3))
    most = train.shape[2] - digits.SIZE + 1
    every = np.arange(len(train))
    crops = np.stack(
        [windows[every, :, down, right] for down, right in random.integers(0, most, (CROPS, 2, len(train)))]
    )
    kept = crops[:, :labelled].reshape(-1, *crops.shape[2:])
    images = crops.reshape(-1, *crops.shape[2:])
    judged = [
        pixels[:HELD_OUT, :, down : down + digits.SIZE, right : right + digits.SIZE]
        for down in range(0, most, 2)
        for right in range(0, most, 2)
    ]
    files: dict[str, dict[str, np.ndarray]] = {
        "calibration": {digits.INPUT: crops[0, :CALIBRATION]},
        "labelled": {digits.INPUT: kept, "labels": np.tile(target[:labelled], CROPS)},
        "bare": {digits.INPUT: images},
        "all": {digits.INPUT: images, "labels": np.tile(target, CROPS)},
        "judged": {digits.INPUT: np.concatenate(judged), "labels": np.tile(labels[:HELD_OUT], len(judged))},
    }
    for name, content in files.items():
        np.savez(folder / f"{name}.npz", **content)
    return {name: len(content[digits.INPUT]) for name, content in files.items()}


def compiled(model: Path, passes: str, data: str, seed: int, folder: Path, name: str) -> dict[str, Any]:
    """The report of a recipe on arrays of ``folder``."""
    recipe = folder / f"{name}.yaml"
    recipe.write_text(
        f"data:\n  calibration: {{arrays: calibration.npz}}\n  train: {{arrays: {data}.npz}}\n"
        f"  eval: {{arrays: judged.npz, metric: top1}}\nseed: {seed}\npasses: {passes}\n",
        encoding="utf-8",
    )
    return edgec.compile(model, recipe, folder / name, threads=1, timing=False)


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
        description="a classifier at a fifth of its compute, with its teacher and without."
    )
    parser.add_argument("--network", nargs="+", choices=["vgg", "resnet"], default=["vgg"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4])
    parser.add_argument("--macs", type=float, default=0.2, help="the part that the student keeps")
    parser.add_argument("--labels", type=int, default=500, help="of the 3,000 images")
    parser.add_argument("--epochs", type=int, default=4, help="of each training of the student, over all images")
    parser.add_argument("--batch", type=int, default=50)
    arguments = parser.parse_args()
    setting = Setting(arguments.macs, arguments.labels, arguments.epochs, arguments.batch)
    start = time.perf_counter()
    print(f"{len(arguments.seeds)} seeds, {setting.labels} labels, {setting.epochs} epochs, batches of {setting.batch}")
    good = True
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        for kind in arguments.network:
            found = list(pool.map(trial, repeat(kind), arguments.seeds, repeat(setting)))
            good &= judged(kind, found)
            print(f"{(time.perf_counter() - start) / 60:.1f} min", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
