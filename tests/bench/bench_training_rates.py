"""The learning rate that finetune and distill find, against fixed ones, on small networks of different kinds.

    python tests/bench/bench_training_rates.py [--seeds 1 2] [--only faces] [--pass finetune distill] [--keep DIR]

Each network of tests/networks/kinds.py is made smaller and trained by the pass's defaults and at five fixed rates, from
the same weights and on the same samples. What comes out is judged on samples that nothing was fitted to or chosen by,
by what it was trained for: the squared error to the original, to the labels or to the input relative to the power of
what is to be met, or the cross entropy with the labels; in dB, more is better. Prints a row for each, with the seconds
that training took and took by itself at a fixed rate, and what the pass said. Exit status 1 where the default is more
than 0.5 dB behind the best of the five on a network, as the mean over the seeds, or more than 0.1 dB below the weights
that it began with. Takes about ten minutes for a seed on one core.
"""

from __future__ import annotations

import argparse
import pickle
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product, repeat
from multiprocessing import get_context
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from networks.kinds import INPUT, SETTINGS, Situation, situation
from training import Data

from edgec.ir.execution import Session
from edgec.ir.files import load, to_bytes
from edgec.ir.graph import Graph
from edgec.passes.framework.context import Context, RunConfig
from edgec.passes.train.distill import Distill
from edgec.passes.train.finetune import Finetune
from edgec.passes.train.training_pass import TrainingPass

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
ALLOWED, NOISE, EPOCHS = 0.5, 0.1, 10


@dataclass(frozen=True)
class Row:
    """One network.

    Attributes:
        before, default: dB on unseen samples.
        fixed: by rate.
        found: the rate by default.
        seconds: of training by default, and of the quickest at a fixed rate.
        said: what the pass said of itself.
    """

    before: float
    default: float
    fixed: tuple[float, ...]
    found: float
    seconds: tuple[float, float]
    said: str


def height(case: Situation, graph: Graph) -> float:
    """How well a network does on unseen samples what it is trained for, in dB."""
    session, teacher = Session(graph), Session(case.original)
    rows = [{INPUT: x[None]} for x in case.unseen.arrays[INPUT]]
    made = np.concatenate([session.run(feeds)["y"] for feeds in rows]).astype(np.float64)
    if case.task == "classes":
        labels = case.unseen.labels
        assert labels is not None
        highest = made.max(1, keepdims=True)
        scores = made - highest - np.log(np.exp(made - highest).sum(1, keepdims=True))
        return float(-10 * np.log10(-scores[np.arange(len(made)), labels].mean()))
    if case.task == "original":
        wanted = np.concatenate([teacher.run(feeds)["y"] for feeds in rows])
    else:
        wanted = case.unseen.arrays[INPUT] if case.task == "itself" else np.asarray(case.unseen.labels)
    return float(-10 * np.log10(np.square(made - wanted).sum() / np.square(wanted.astype(np.float64)).sum()))


def trained(case: Situation, kind: str, rate: float | None, seed: int) -> tuple[float, float, float, str]:
    """Height, the rate, seconds, and what the pass said."""
    teacher = "original" if case.task == "original" else None
    step: TrainingPass = Distill(epochs=EPOCHS, rate=rate)
    if kind == "finetune":
        step = Finetune(epochs=EPOCHS, teacher=teacher, rate=rate)
    graph = case.smaller.copy()
    ctx = Context(graph, RunConfig(data={"train": case.train}, seed=seed, threads=1, original=case.original))
    start = time.process_time()
    step.run(graph, ctx)
    seconds = time.process_time() - start
    said = "; ".join(remark.what for remark in (*ctx.done, *ctx.left))
    return height(case, graph), ctx.done[0].figures["rate"], seconds, said


def kept(name: str, seed: int, folder: Path | None) -> Situation:
    """The situation, trained now where ``folder`` does not hold it yet."""
    if folder is None:
        return situation(name, seed)
    place = folder / f"{name}-{seed}"
    samples = place / "samples.pickle"
    if not samples.exists():
        place.mkdir(parents=True, exist_ok=True)
        case = situation(name, seed)
        for part in ("original", "smaller"):
            (place / f"{part}.onnx").write_bytes(to_bytes(getattr(case, part)))
        samples.write_bytes(pickle.dumps((case.train, case.unseen, case.task)))
    return Situation(load(place / "original.onnx"), load(place / "smaller.onnx"), *pickle.loads(samples.read_bytes()))


def row(task: tuple[str, int, str], folder: Path | None, rates: Sequence[float]) -> Row:
    name, seed, kind = task
    case = kept(name, seed, folder)
    if kind == "distill" and case.task != "original":
        case = Situation(case.original, case.smaller, Data(case.train.arrays), case.unseen, "original")
    default, found, seconds, said = trained(case, kind, None, seed)
    fixed = [trained(case, kind, rate, seed) for rate in rates]
    quickest = min((one[2] for one in fixed), default=float("nan"))
    return Row(height(case, case.smaller), default, tuple(one[0] for one in fixed), found, (seconds, quickest), said)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--only", nargs="+", default=[""], help="parts of the networks' names")
    parser.add_argument("--pass", nargs="+", dest="kinds", choices=["finetune", "distill"], default=["finetune"])
    parser.add_argument("--rates", nargs="*", type=float, default=RATES)
    parser.add_argument("--keep", type=Path, help="a folder that keeps the networks")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    names = [name for name in SETTINGS if any(part in name for part in arguments.only)]
    tasks = list(product(names, arguments.seeds, arguments.kinds))
    print(f"{'':50}{'before':>8}{'default':>9}  {'  '.join(f'{rate:7g}' for rate in arguments.rates)}    rate  s")
    rows: dict[tuple[str, int, str], Row] = {}
    with ProcessPoolExecutor(arguments.processes, get_context("spawn")) as pool:
        for task, one in zip(tasks, pool.map(row, tasks, repeat(arguments.keep), repeat(arguments.rates)), strict=True):
            rows[task] = one
            heights = "  ".join(f"{db:7.2f}" for db in one.fixed)
            print(
                f"{', '.join(map(str, task)):50}{one.before:8.2f}{one.default:9.2f}  {heights}  {one.found:7g}", end=""
            )
            print(f"  {one.seconds[0]:.1f}/{one.seconds[1]:.1f}  {one.said}", flush=True)
    good, behind = True, []
    for name, kind in product(names, arguments.kinds):
        held = [rows[name, seed, kind] for seed in arguments.seeds]
        best = np.mean([one.fixed for one in held], 0).max(initial=-np.inf)
        default = float(np.mean([one.default for one in held]))
        behind.append(float(best) - default)
        good &= behind[-1] <= ALLOWED and default >= np.mean([one.before for one in held]) - NOISE
    print(f"behind the best fixed rate: {max(behind):.2f} dB at most, {np.mean(behind):.2f} on the mean")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
