"""Whether fewer multiply-accumulates are less time: the capsule autoencoder with 90 % of its parameters removed.

    python tests/bench/bench_latency.py [--passes "[fold, factorize: {params: 0.1}]"]

Runs the folded network and the compressed ones in onnxruntime on one thread, in turn, and prints the ratios of their
multiply-accumulates and of their times. The goal: where the MACs fall by a factor m, the time falls by at least m / 2.
Exit status 1 where it is missed. Other work on a machine slows the large network more than the small ones, so the goal
is held to both the median of the ratios of all rounds and that of the quarter in which the large one was fastest.

A second table is of budgets of time, `factorize: {latency: ...}`: what was asked for, what the pass found that it had
reached, and what these runs find.
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

from networks import capsule

import edgec
from edgec.backends.cpu.backend import CpuBackend
from edgec.ir.cost import Cost

ROUNDS, WARM_UP = 1000, 20


def main() -> int:
    parser = argparse.ArgumentParser(description="the ratio of times against the ratio of multiply-accumulates.")
    parser.add_argument("--passes", default="[fold, factorize: {params: 0.1}]", help="the recipe's passes")
    parser.add_argument("--latency", type=float, nargs="*", default=[0.5, 0.25], help="budgets of time")
    arguments = parser.parse_args()
    capsule.render()
    recipes = {"folded": "[fold]", "compressed": arguments.passes}
    recipes |= {f"latency {share:g}": f"[fold, factorize: {{latency: {share}}}]" for share in arguments.latency}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        np.savez(folder / "capsule.npz", **{capsule.INPUT: capsule.calibration()})
        for name, passes in recipes.items():
            recipe = folder / f"{name}.yaml"
            recipe.write_text(f"data: {{calibration: {{arrays: capsule.npz}}}}\npasses: {passes}\n", encoding="utf-8")
            edgec.compile(capsule.MODEL, recipe, folder / name, timing=False)
        models = {name: folder / name / "model.onnx" for name in recipes}
        reports = {name: json.loads((folder / name / "report.json").read_text(encoding="utf-8")) for name in recipes}
        costs = {name: Cost(edgec.load(path)) for name, path in models.items()}
        times = timed(models)
    quiet = times[times[:, 0] <= np.quantile(times[:, 0], 0.25)]
    quick = np.median(quiet, axis=0)
    for place, (name, cost) in enumerate(costs.items()):
        print(f"{name}: {cost.params:,} parameters, {cost.macs:,} MACs, {quick[place]:.3f} ms")
    fewer = costs["folded"].macs / max(costs["compressed"].macs, 1)
    faster = {
        "median": float(np.median(times[:, 0] / times[:, 1])),
        "quiet": float(np.median(quiet[:, 0] / quiet[:, 1])),
    }
    met = min(faster.values()) >= fewer / 2
    print(
        f"MACs fell by {fewer:.2f}x, time by {faster['quiet']:.2f}x (all rounds {faster['median']:.2f}x), "
        f"wanted {fewer / 2:.2f}x: {'met' if met else 'NOT MET'}"
    )
    print("\n| time asked for | the pass reached | here | parameters kept | MACs kept | SQNR |")
    print("|---|---|---|---|---|---|")
    for place, share in enumerate(arguments.latency, 2):
        name = f"latency {share:g}"
        step = reports[name]["passes"][-1]
        [own] = [remark for remark in step["did"] if remark["node"] == "the network"]
        reached = own["figures"]["ms_after"] / own["figures"]["ms_before"]
        print(
            f"| {share:g} | {reached:.2f} | {quick[place] / quick[0]:.2f} "
            f"| {costs[name].params / costs['folded'].params:.2f} | {costs[name].macs / costs['folded'].macs:.2f} "
            f"| {step['sqnr_db']:.1f} dB |"
        )
    return 0 if met else 1


def timed(models: dict[str, Path]) -> np.ndarray:
    """ms of each model in runs that take turns: (rounds, models)."""
    runs = [CpuBackend().invoker(path) for path in models.values()]
    times = np.empty((ROUNDS + WARM_UP, len(runs)))
    for number, row in enumerate(times):
        for step in range(len(runs)):
            place = (number + step) % len(runs)
            start = time.perf_counter()
            runs[place]()
            row[place] = 1e3 * (time.perf_counter() - start)
    return times[WARM_UP:]


if __name__ == "__main__":
    raise SystemExit(main())
