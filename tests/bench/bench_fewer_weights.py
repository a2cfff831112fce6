"""Factorization that looks at the data and at the whole network, against plain Tucker-2 with one ratio.

    python tests/bench/bench_fewer_weights.py [--network vgg ...] [--removed 50 75 90 95] [--only edgec|plain]

Three networks: the capsule autoencoder, and a VGG-like and a ResNet-like one trained here on real digits. With 50, 75,
90 and 95 % of the parameters removed, and no fine-tuning, it prints for the peers and for the pass ``factorize:
{params: ...}`` run by a recipe with calibration data: what was removed of parameters and multiply-accumulates (of the
folded network), the signal to noise ratio of the output against the original network's, AUROC or top-1, and seconds.
Calibration images are training images; all figures are taken on held-out ones.

The peers (see uniform_tucker) are ``plain``, one ratio for all layers, and ``inner``, one ratio for all but the first
and the last layer, which stay whole, as users of such tools learn to do. The goal: at every budget at least 6 dB more
than the better of the two. Exit status 1 where it is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import uniform_tucker
from networks import capsule, digits

import edgec
from edgec.frontends.metrics_numbers import auroc
from edgec.ir.cost import Cost
from edgec.ir.execution import Session
from edgec.ir.graph import Graph

ROOT = Path(__file__).resolve().parents[2]
GOAL_DB = 6.0
REMOVED = (50, 75, 90, 95)
# Of the digits networks. Passes were developed while looking at those of seed 0, so that these are other ones.
SEED = 1


@dataclass(frozen=True)
class Subject:
    """A network with its data.

    Attributes:
        model: the ONNX file.
        calibration: an .npz of training images.
        images: held-out ones, by the one input's name.
        metric: of the network's outputs on ``images``, with its name.
    """

    name: str
    model: Path
    calibration: Path
    images: dict[str, np.ndarray]
    metric: tuple[str, Callable[[np.ndarray], float]]

    def outputs(self, graph: Graph) -> np.ndarray:
        """What a network computes for the held-out images, one at a time."""
        session = Session(graph, optimize=True)
        [(name, images)] = self.images.items()
        return np.concatenate([next(iter(session.run({name: image[None]}).values())) for image in images])


def capsule_subject(folder: Path) -> Subject:
    capsule.render()
    np.savez(folder / "capsule.npz", **{capsule.INPUT: capsule.calibration()})
    images, flawed = capsule.held_out()

    def score(outputs: np.ndarray) -> float:
        errors = np.square(images.astype(np.float64) - outputs).mean(axis=(1, 2, 3))
        return auroc(errors[~flawed], errors[flawed])

    return Subject("capsule", capsule.MODEL, folder / "capsule.npz", {capsule.INPUT: images}, ("AUROC", score))


def digits_subject(kind: digits.Kind, seed: int = SEED) -> Subject:
    made = digits.trained(digits.Settings(kind, seed=seed), ROOT / "build" / "digits")
    arrays = np.load(made.held_out)
    labels = arrays["labels"]

    def score(outputs: np.ndarray) -> float:
        return float((outputs.argmax(axis=1) == labels).mean())

    return Subject(kind, made.model, made.calibration, {digits.INPUT: arrays[digits.INPUT]}, ("top-1", score))


@dataclass(frozen=True)
class Row:
    """What one tool made of one network at one budget."""

    params: int
    macs: int
    sqnr_db: float
    metric: float
    seconds: float


def compiled(subject: Subject, passes: str, folder: Path) -> tuple[Graph, float]:
    """The network that a recipe leaves, and the seconds that its passes took."""
    recipe = folder / "compress.yaml"
    recipe.write_text(f"data: {{calibration: {{arrays: {subject.calibration}}}}}\npasses: {passes}\n", encoding="utf-8")
    report = edgec.compile(subject.model, recipe, folder / "out", timing=False)
    return edgec.load(folder / "out" / "model.onnx"), sum(step["seconds"] for step in report["passes"])


def peer(folded: Graph, keep: float, inner: bool) -> tuple[Graph, int, int, float]:
    """A peer's network, its parameters and multiply-accumulates, and seconds."""
    start = time.perf_counter()
    made = uniform_tucker.compress(folded, keep, inner=inner)
    return made.graph, made.params, made.macs, time.perf_counter() - start


def ours(subject: Subject, passes: str, folder: Path) -> tuple[Graph, int, int, float]:
    """The same of edgec's."""
    graph, seconds = compiled(subject, passes, folder)
    cost = Cost(graph)
    return graph, cost.params, cost.macs, seconds


def judged(subject: Subject, wanted: np.ndarray, made: tuple[Graph, int, int, float]) -> Row:
    graph, params, macs, seconds = made
    found = subject.outputs(graph).astype(np.float64)
    noise = np.square(wanted - found).sum()
    sqnr = 10 * np.log10(np.square(wanted).sum() / noise) if noise else np.inf
    return Row(params, macs, float(sqnr), subject.metric[1](found), seconds)


def compare(subject: Subject, removed: list[float], tools: list[str], passes: str, folder: Path) -> bool:
    """Prints the table of one network; whether the goal is met in every line."""
    folded, _ = compiled(subject, "[fold]", folder)
    whole = Cost(folded)
    wanted = subject.outputs(folded).astype(np.float64)
    label, score = subject.metric
    print(f"\n{subject.name}: {whole.params:,} parameters, {whole.macs:,} MACs, {label} {score(wanted):.4f}")
    print(f"{'asked':>6} {'tool':>6} {'params':>8} {'MACs':>7} {'SQNR':>9} {label:>7} {'seconds':>8} {'gain':>9}")
    met = True
    for part in removed:
        keep = 1 - part / 100
        best = -np.inf
        for tool in tools:
            if tool == "edgec":
                made = ours(subject, passes.replace("KEEP", f"{keep:.6g}"), folder)
            else:
                made = peer(folded, keep, tool == "inner")
            row = judged(subject, wanted, made)
            assert row.params <= keep * whole.params, f"{tool} keeps {row.params} parameters"
            gain = ""
            if tool != "edgec":
                best = max(best, row.sqnr_db)
            elif len(tools) > 1:
                gain = f"{row.sqnr_db - best:+6.1f} dB"
                met &= row.sqnr_db - best >= GOAL_DB
            print(
                f"{part:5g}% {tool:>6} {100 * (1 - row.params / whole.params):7.2f}% "
                f"{100 * (1 - row.macs / whole.macs):6.1f}% {row.sqnr_db:6.2f} dB {row.metric:7.4f} "
                f"{row.seconds:8.1f} {gain:>9}".rstrip(),
                flush=True,
            )
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description="factorize against plain Tucker-2 at the same numbers of parameters.")
    parser.add_argument(
        "--network", nargs="+", choices=["capsule", "vgg", "resnet"], default=["capsule", "vgg", "resnet"]
    )
    parser.add_argument("--removed", nargs="+", type=float, default=REMOVED, help="percent of the parameters")
    parser.add_argument("--seed", type=int, default=SEED, help="of the digits networks")
    parser.add_argument("--only", choices=["edgec", "plain"], help="edgec or the peers alone; no goal is checked then")
    parser.add_argument(
        "--passes", default="[fold, factorize: {params: KEEP}]", help="the recipe's passes, KEEP being the part to keep"
    )
    arguments = parser.parse_args()
    tools = [["edgec"], ["plain", "inner"], ["plain", "inner", "edgec"]][["edgec", "plain", None].index(arguments.only)]
    met = True
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name in arguments.network:
            subject = capsule_subject(folder) if name == "capsule" else digits_subject(name, arguments.seed)
            met &= compare(subject, list(arguments.removed), tools, arguments.passes, folder)
    if not arguments.only:
        print(f"\ngoal (at least {GOAL_DB:g} dB above uniform Tucker-2 at every budget): {'met' if met else 'NOT MET'}")
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
