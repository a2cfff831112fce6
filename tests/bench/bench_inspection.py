"""The institute's experiment: an autoencoder at a hundredth of its weights, trained again, and judged.

    python tests/bench/bench_inspection.py [--removed 50 80 90 95 98 99 99.5] [--trials 3] [--epochs 1.0]

edgec goes down from level to level: it cuts what the level before left (prunes or factorizes) and trains it, the
original being the teacher, so that one trial gives the whole curve. The peer is plain Tucker-2 at one ratio, blind to
data, cut from the original at each level and trained with the mean squared error to the input in batches of 16, as the
paper did, for 60 epochs at each level (edgec: 149 in all down to 99 %). The epoch is chosen by the loss on held-out
training images; test images only judge. Trials differ by the seed and run side by side, one thread each. Memory and
latency are measured afterwards, one network at a time: the peak of a process that runs it, and the mean of 1,000 runs,
the first of them discarded, in onnxruntime on one thread. Prints both and AUROC over all test images (mean and range
over the trials), weights and bytes of the file, and draws the three curves. Exit status 1 where a goal is missed: at
99 % a mean AUROC of at least the original's, at 99.5 % within 0.01 of it, memory and latency falling from level to
level down to 99 %.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from networks import capsule

import edgec

PLAIN_EPOCHS = 60


@dataclass(frozen=True)
class Step:
    """How edgec comes to a level from the one before. Where little is gone little has to be learnt."""

    cut: str
    epochs: int
    batch: int
    rate: float


STEPS = {
    50.0: Step("prune", 2, 8, 0.001),
    80.0: Step("prune", 4, 8, 0.001),
    90.0: Step("prune", 8, 8, 0.002),
    95.0: Step("factorize", 15, 4, 0.003),
    98.0: Step("factorize", 40, 8, 0.003),
    99.0: Step("prune", 80, 8, 0.003),
    99.5: Step("prune", 80, 8, 0.003),
}
DATA = """\
data:
  preprocess: {{size: [128, 128], color: gray, scale: 1/255}}
  calibration: {{images: {root}/train/good, samples: 64}}
  train: {{images: {root}/train/good}}
  eval:
    ok: {root}/test/good
    ng: [{flawed}]
    metric: auroc
"""
# Of a process of its own: the peak of its resident memory, and the mean latency of 1,000 runs without the first.
RUN = """
import json, sys, time
import numpy as np, onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
feeds = {session.get_inputs()[0].name: np.full((1, 1, 128, 128), 0.5, np.float32)}
times = []
for _ in range(1000):
    start = time.perf_counter()
    session.run(None, feeds)
    times.append(time.perf_counter() - start)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]
print(json.dumps({"ms": 1e3 * float(np.mean(times[1:])), "bytes": 1024 * int(peak)}))
"""


@dataclass(frozen=True)
class Result:
    """The networks of one level, one a trial; figures that are not lists are means.

    Attributes:
        aurocs: one a trial.
        weights, file_bytes: of the network and of its file.
        memory_bytes, latency_ms: of a process that runs it.
    """

    aurocs: list[float]
    weights: int
    file_bytes: int
    memory_bytes: float
    latency_ms: float


def data() -> str:
    root = capsule.EXAMPLE / "data"
    flawed = ", ".join(str(path) for path in sorted((root / "test").iterdir()) if path.name != "good")
    return DATA.format(root=root, flawed=flawed)


def compiled(folder: Path, name: str, model: Path, passes: str, seed: int = 0) -> Path:
    """The network that a recipe leaves."""
    recipe = folder / f"{name}.yaml"
    recipe.write_text(f"{data()}seed: {seed}\npasses: {passes}\n", encoding="utf-8")
    edgec.compile(model, recipe, folder / name, threads=1, timing=False)
    return folder / name / "model.onnx"


def report(model: Path) -> dict[str, float]:
    found = json.loads((model.parent / "report.json").read_text(encoding="utf-8"))
    return {"auroc": found["quality"]["metric"]["compressed"], "params": found["compressed"]["params"]}


def run(model: Path) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-c", RUN, str(model)], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def ours(folder: Path, whole: int, levels: Sequence[float], scale: float, seed: int) -> dict[float, Path]:
    """edgec's networks of one trial by level, each from the one before."""
    made: dict[float, Path] = {}
    model, params = capsule.MODEL, whole
    for removed in levels:
        step = STEPS[removed]
        keep = (1 - removed / 100) * whole / params
        passes = (
            f"[fold, {step.cut}: {{params: {keep:.6g}}}, finetune: {{epochs: {scaled(step.epochs, scale)}, "
            f"batch: {step.batch}, rate: {step.rate}, teacher: {capsule.MODEL}, monitor: loss}}]"
        )
        model = made[removed] = compiled(folder, f"edgec-{removed:g}-{seed}", model, passes, seed)
        params = int(report(model)["params"])
    return made


def cut_plainly(folder: Path, whole: int, removed: float) -> Path:
    """The original as Tucker-2 chains at the one ratio that meets the budget, found by halving."""
    low, high, best = 0.0, 1.0, None
    for step in range(12):
        rank = (low + high) / 2
        passes = f"[fold, factorize: {{rank: {rank:.6g}, method: tucker, data_aware: false, min_rank: 1}}]"
        made = compiled(folder, f"plain-{removed:g}-{step}", capsule.MODEL, passes)
        if report(made)["params"] <= (1 - removed / 100) * whole:
            low, best = rank, made
        else:
            high = rank
    if best is None:
        raise SystemExit(f"plain Tucker-2 cannot remove {removed:g} %")
    return best


def plain(folder: Path, cut: Path, removed: float, epochs: int, seed: int) -> dict[float, Path]:
    """The peer's network of one trial, trained as the paper did."""
    passes = f"[finetune: {{epochs: {epochs}, loss: mse, monitor: loss}}]"
    return {removed: compiled(folder, f"plain-{removed:g}-trained-{seed}", cut, passes, seed)}


def scaled(epochs: int, scale: float) -> int:
    return max(round(epochs * scale), 1)


def trials(
    folder: Path, whole: int, tools: Sequence[str], levels: Sequence[float], count: int, scale: float
) -> dict[str, dict[float, list[Path]]]:
    """All networks by tool and level, made by as many processes as there are cores, in the order of the seeds."""
    made: dict[str, dict[float, list[Path]]] = {tool: {level: [] for level in levels} for tool in tools}
    began = time.perf_counter()
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        waiting: dict[Future[dict[float, Path]], str] = {}
        if "edgec" in tools:
            for seed in range(count):
                waiting[pool.submit(ours, folder, whole, levels, scale, seed)] = "edgec"
        if "plain" in tools:
            epochs = scaled(PLAIN_EPOCHS, scale)
            cuts = {pool.submit(cut_plainly, folder, whole, removed): removed for removed in levels}
            for cut in as_completed(cuts):
                for seed in range(count):
                    waiting[pool.submit(plain, folder, cut.result(), cuts[cut], epochs, seed)] = "plain"
        for done in as_completed(waiting):
            for removed, path in done.result().items():
                made[waiting[done]][removed].append(path)
                minutes = (time.perf_counter() - began) / 60
                print(f"{minutes:5.1f} min  {path.parent.name} AUROC {report(path)['auroc']:.4f}", flush=True)
    return {tool: {level: sorted(paths) for level, paths in by_level.items()} for tool, by_level in made.items()}


def result(made: Sequence[Path]) -> Result:
    figures = [run(path) for path in made]
    return Result(
        [report(path)["auroc"] for path in made],
        round(np.mean([report(path)["params"] for path in made])),
        round(np.mean([path.stat().st_size for path in made])),
        float(np.mean([figure["bytes"] for figure in figures])),
        float(np.mean([figure["ms"] for figure in figures])),
    )


def line(tool: str, removed: float, found: Result) -> str:
    mean = float(np.mean(found.aurocs))
    spread = f"{min(found.aurocs):.4f} to {max(found.aurocs):.4f}"
    size = f"{found.weights:9,} weights {found.file_bytes / 1e6:7.3f} MB file"
    return (
        f"{tool:8} {removed:5g} % {mean:.4f} ({spread})  {size} "
        f"{found.memory_bytes / 1e6:6.1f} MB peak {found.latency_ms:7.3f} ms"
    )


def draw(results: dict[str, dict[float, Result]], path: Path) -> None:
    """The three curves over the part that is removed: AUROC, peak memory, latency."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "edgec"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(13, 3.6))
    for tool, by_level in results.items():
        levels = sorted(by_level)
        x = [100 - level for level in levels]
        aurocs = [by_level[level].aurocs for level in levels]
        axes[0].plot(x, [np.mean(a) for a in aurocs], marker="o", label=tool)
        axes[0].fill_between(x, [min(a) for a in aurocs], [max(a) for a in aurocs], alpha=0.2)
        axes[1].plot(x, [by_level[level].memory_bytes / 1e6 for level in levels], marker="o", label=tool)
        axes[2].plot(x, [by_level[level].latency_ms for level in levels], marker="o", label=tool)
    for axis, label in zip(axes, ("AUROC", "peak memory of the process, MB", "latency, ms"), strict=True):
        axis.set_xscale("log")
        axis.invert_xaxis()
        axis.set_xlabel("weights kept, %")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> int:
    parser = argparse.ArgumentParser(description="the capsule autoencoder at a hundredth of its weights.")
    parser.add_argument("--removed", nargs="+", type=float, default=list(STEPS), choices=list(STEPS), help="percent")
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=1.0, help="scale of the epochs")
    parser.add_argument("--tools", nargs="+", choices=["edgec", "plain"], default=["edgec", "plain"])
    parser.add_argument("--picture", type=Path, help="an SVG of the three curves")
    arguments = parser.parse_args()
    began = time.perf_counter()
    capsule.render()
    levels = sorted(arguments.removed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        original = compiled(folder, "original", capsule.MODEL, "[fold]")
        whole = int(report(original)["params"])
        print(
            f"scale of the epochs {arguments.epochs:g}, {arguments.trials} trials, {os.cpu_count()} cores", flush=True
        )
        made = trials(folder, whole, arguments.tools, levels, arguments.trials, arguments.epochs)
        base = result([original] * arguments.trials)
        print(line("original", 0, base), flush=True)
        results: dict[str, dict[float, Result]] = {}
        for tool, by_level in made.items():
            results[tool] = {}
            for removed, paths in by_level.items():
                results[tool][removed] = result(paths)
                print(line(tool, removed, results[tool][removed]), flush=True)
        if arguments.picture is not None:
            draw({tool: {0.0: base, **by_level} for tool, by_level in results.items()}, arguments.picture)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cores = (used.ru_utime + used.ru_stime) / 60
    print(f"{(time.perf_counter() - began) / 60:.1f} min in all, {cores:.1f} min of one core's time")
    return judged(base, results.get("edgec", {}))


def judged(original: Result, ours: dict[float, Result]) -> int:
    """Prints which goals are met."""
    met = True
    base = original.aurocs[0]
    for removed, allowed in ((99.0, 0.0), (99.5, 0.01)):
        if removed in ours:
            good = float(np.mean(ours[removed].aurocs)) >= base - allowed
            met &= good
            print(f"AUROC at {removed:g} % within {allowed:g} of the original's: {'met' if good else 'NOT MET'}")
    levels = [original, *(ours[level] for level in sorted(ours) if level <= 99)]
    for name in ("memory_bytes", "latency_ms"):
        values = [getattr(result, name) for result in levels]
        good = all(a > b for a, b in pairwise(values))
        met &= good
        print(f"{name} falls at every level down to 99 %: {'met' if good else 'NOT MET'}")
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
