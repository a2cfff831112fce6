"""The institute's experiment: an autoencoder at a hundredth of its weights, trained again, and judged.

    python tests/bench/bench_inspection.py [--removed 50 80 90 95 98 99 99.5] [--trials 3] [--epochs 1.0]

For each part of the weights that is removed and each seed, edgec prunes, trains, factorizes and trains again, the
original being the teacher. The peer is plain Tucker-2 at one ratio, blind to data, trained once for as many epochs with
the mean squared error to the input in batches of 16, as the paper did. The epoch is chosen by the loss on held-out
training images; test images only judge. Prints AUROC over all test images (mean and range over the trials), weights,
bytes of the file, peak memory of a process that runs the network and the mean latency of 1,000 runs, the first of them
discarded, in onnxruntime on one thread, and draws the three curves. Exit status 1 where a goal is missed: at 99 % a
mean AUROC of at least the original's, at 99.5 % within 0.01 of it, memory and latency falling from level to level down
to 99 %.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from networks import capsule

import edgec

REMOVED = (50, 80, 90, 95, 98, 99, 99.5)
# Where little is gone little has to be learnt, and an epoch takes longer.
EPOCHS = {50: 6, 80: 10, 90: 15, 95: 25, 98: 40, 99: 50, 99.5: 50}
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
    """One network after training.

    Attributes:
        aurocs: one a trial.
        weights, file_bytes: of the network and of its file.
        memory_bytes, latency_ms: of the first trial's.
        seconds: of compression and of all trials.
    """

    aurocs: list[float]
    weights: int
    file_bytes: int
    memory_bytes: int
    latency_ms: float
    seconds: float


def data() -> str:
    root = capsule.EXAMPLE / "data"
    flawed = ", ".join(str(path) for path in sorted((root / "test").iterdir()) if path.name != "good")
    return DATA.format(root=root, flawed=flawed)


def compiled(folder: Path, name: str, model: Path, passes: str, seed: int = 0) -> Path:
    """The network that a recipe leaves."""
    recipe = folder / f"{name}.yaml"
    recipe.write_text(f"{data()}seed: {seed}\npasses: {passes}\n", encoding="utf-8")
    edgec.compile(model, recipe, folder / name, timing=False)
    return folder / name / "model.onnx"


def report(model: Path) -> dict[str, float]:
    found = json.loads((model.parent / "report.json").read_text(encoding="utf-8"))
    return {"auroc": found["quality"]["metric"]["compressed"], "params": found["compressed"]["params"]}


def run(model: Path) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-c", RUN, str(model)], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def ours(folder: Path, removed: float, epochs: int, trials: int) -> list[Path]:
    """edgec's networks: pruned half of the way (in the logarithm), trained, factorized, and trained again."""
    part = (1 - removed / 100) ** 0.5
    learns = f"teacher: {capsule.MODEL}, monitor: loss"
    passes = (
        f"[fold, prune: {{params: {part:.6g}}}, finetune: {{epochs: {max(epochs // 5, 1)}, batch: 8, {learns}}}, "
        f"factorize: {{params: {part:.6g}}}, finetune: {{epochs: {epochs}, batch: 4, rate: 0.003, {learns}}}]"
    )
    return [compiled(folder, f"edgec-{removed:g}-{seed}", capsule.MODEL, passes, seed) for seed in range(trials)]


def plain(folder: Path, removed: float, epochs: int, trials: int) -> list[Path]:
    """The peer's: Tucker-2 at the one ratio that meets the budget, found by halving, then trained as the paper did."""
    total = report(compiled(folder, "whole", capsule.MODEL, "[fold]"))["params"]
    low, high, best = 0.0, 1.0, None
    for step in range(12):
        rank = (low + high) / 2
        passes = f"[fold, factorize: {{rank: {rank:.6g}, method: tucker, data_aware: false, min_rank: 1}}]"
        made = compiled(folder, f"plain-{removed:g}-{step}", capsule.MODEL, passes)
        if report(made)["params"] <= (1 - removed / 100) * total:
            low, best = rank, made
        else:
            high = rank
    assert best is not None, "the budget cannot be met"
    passes = f"[finetune: {{epochs: {epochs}, loss: mse, monitor: loss}}]"
    return [compiled(folder, f"plain-{removed:g}-trained-{seed}", best, passes, seed) for seed in range(trials)]


def judged_networks(made: list[Path], began: float) -> Result:
    seconds = time.perf_counter() - began
    figures = run(made[0])
    return Result(
        [report(path)["auroc"] for path in made],
        int(report(made[0])["params"]),
        made[0].stat().st_size,
        int(figures["bytes"]),
        figures["ms"],
        seconds,
    )


def line(tool: str, removed: float, result: Result) -> str:
    mean = float(np.mean(result.aurocs))
    spread = f"{min(result.aurocs):.4f} to {max(result.aurocs):.4f}"
    size = f"{result.weights:9,} weights {result.file_bytes / 1e6:7.3f} MB file"
    return (
        f"{tool:8} {removed:5g} % {mean:.4f} ({spread})  {size} "
        f"{result.memory_bytes / 1e6:6.1f} MB peak {result.latency_ms:7.3f} ms  {result.seconds:6.0f} s"
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
    parser.add_argument("--removed", nargs="+", type=float, default=REMOVED, help="percent of the weights")
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=1.0, help="scale of the epochs")
    parser.add_argument("--tools", nargs="+", choices=["edgec", "plain"], default=["edgec", "plain"])
    parser.add_argument("--picture", type=Path, help="an SVG of the three curves")
    arguments = parser.parse_args()
    capsule.render()
    results: dict[str, dict[float, Result]] = {tool: {} for tool in arguments.tools}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        whole = compiled(folder, "original", capsule.MODEL, "[fold]")
        figures = run(whole)
        original = Result(
            [report(whole)["auroc"]], int(report(whole)["params"]), whole.stat().st_size, int(figures["bytes"]),
            figures["ms"], 0.0,
        )  # fmt: skip
        print(f"scale of the epochs {arguments.epochs:g}, {arguments.trials} trials")
        print(line("original", 0, original), flush=True)
        for removed in arguments.removed:
            epochs = max(round(EPOCHS.get(removed, 50) * arguments.epochs), 1)
            for tool in arguments.tools:
                began = time.perf_counter()
                make = ours if tool == "edgec" else plain
                result = judged_networks(make(folder, removed, epochs, arguments.trials), began)
                results[tool][removed] = result
                print(line(tool, removed, result), flush=True)
        if arguments.picture is not None:
            draw({tool: {0.0: original, **by_level} for tool, by_level in results.items()}, arguments.picture)
    return judged(original, results.get("edgec", {}))


def judged(original: Result, ours: dict[float, Result]) -> int:
    """Prints which goals are met."""
    met = True
    [base] = original.aurocs
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
