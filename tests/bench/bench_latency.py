"""Whether fewer multiply-accumulates are less time: the capsule autoencoder with 90 % of its parameters removed.

    python tests/bench/bench_latency.py [--passes "[fold, factorize: {params: 0.1}]"]

Runs the folded network and the compressed one in onnxruntime on one thread, in turn, and prints the ratio of their
multiply-accumulates and of their median times. The goal: where the MACs fall by a factor m, the time falls by at least
m / 2. Exit status 1 where it is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from networks import capsule

import edgec
from edgec.backends.cpu.backend import CpuBackend
from edgec.ir.cost import Cost

ROUNDS, WARM_UP = 200, 20


def main() -> int:
    parser = argparse.ArgumentParser(description="the ratio of times against the ratio of multiply-accumulates.")
    parser.add_argument("--passes", default="[fold, factorize: {params: 0.1}]", help="the recipe's passes")
    arguments = parser.parse_args()
    capsule.render()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        np.savez(folder / "capsule.npz", **{capsule.INPUT: capsule.calibration()})
        for name, passes in (("folded", "[fold]"), ("compressed", arguments.passes)):
            recipe = folder / f"{name}.yaml"
            recipe.write_text(f"data: {{calibration: {{arrays: capsule.npz}}}}\npasses: {passes}\n", encoding="utf-8")
            edgec.compile(capsule.MODEL, recipe, folder / name, timing=False)
        models = {name: folder / name / "model.onnx" for name in ("folded", "compressed")}
        costs = {name: Cost(edgec.load(path)) for name, path in models.items()}
        runs = {name: CpuBackend().invoker(path) for name, path in models.items()}
        times: dict[str, list[float]] = {name: [] for name in runs}
        for number in range(ROUNDS + WARM_UP):
            for name, run in runs.items():
                start = time.perf_counter()
                run()
                if number >= WARM_UP:
                    times[name].append(1e3 * (time.perf_counter() - start))
    for name, cost in costs.items():
        print(f"{name}: {cost.params:,} parameters, {cost.macs:,} MACs, {median(times[name]):.3f} ms")
    fewer = costs["folded"].macs / max(costs["compressed"].macs, 1)
    faster = median(a / b for a, b in zip(times["folded"], times["compressed"], strict=True))
    met = faster >= fewer / 2
    print(f"MACs fell by {fewer:.2f}x, time by {faster:.2f}x, wanted {fewer / 2:.2f}x: {'met' if met else 'NOT MET'}")
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
