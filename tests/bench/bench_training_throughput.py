"""Whether training a graph as a torch module costs more than training the same network written by hand.

    python tests/bench/bench_training_throughput.py [--batch 16] [--rounds 40] [--threads 2]

The capsule autoencoder at batch 16: forward, backward and a step of SGD, the module and the network as
examples/capsule/train.py writes it in turn; once with the batch's own statistics in BatchNormalization, as when a
network is trained from the start, and once with the running ones, as when it is fine-tuned. Both start from the same
weights, and before they are timed their outputs and gradients are compared. The goal: the median over the rounds of
the ratio of images per second is at least 0.95, both times. Exit status 1 where it is missed.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "capsule"))

import torch
from networks import capsule
from train import build_autoencoder

import edgec
from edgec.ir.torch_module.module import TorchModule

GOAL, WARM_UP, AGREE = 0.95, 3, 1e-4


class Trained:
    """A network with its optimizer; :meth:`step` is what is timed."""

    def __init__(self, network: torch.nn.Module, through_names: bool) -> None:
        self.network = network
        self.through_names = through_names
        self.optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=1e-3)

    def output(self, images: torch.Tensor) -> Any:
        return self.network({capsule.INPUT: images})[capsule.OUTPUT] if self.through_names else self.network(images)

    def step(self, images: torch.Tensor) -> float:
        """Seconds of one step."""
        start = time.perf_counter()
        self.optimizer.zero_grad()
        torch.nn.functional.mse_loss(self.output(images), images).backward()
        self.optimizer.step()
        return time.perf_counter() - start


def pair(batch_statistics: bool) -> tuple[Trained, Trained]:
    """The module and the hand-written network, with the same weights."""
    ours = TorchModule(edgec.load(capsule.MODEL), batch_statistics=batch_statistics)
    theirs = build_autoencoder()
    missing, unexpected = theirs.load_state_dict(ours.state_dict(), strict=False)
    if unexpected or any(not name.endswith("num_batches_tracked") for name in missing):
        raise SystemExit(f"the example's network is another one: {missing} {unexpected}")
    theirs.train(batch_statistics)
    ours.train()
    return Trained(ours, True), Trained(theirs, False)


def compared(ours: Trained, theirs: Trained, images: torch.Tensor) -> float:
    """The largest difference of outputs and gradients, each as a share of the largest value."""
    results = []
    for one in (ours, theirs):
        output = one.output(images)
        torch.nn.functional.mse_loss(output, images).backward()
        gradients = {name: p.grad for name, p in one.network.named_parameters()}
        results.append({"the output": output.detach(), **gradients})
    mine, other = results
    # Convolutions without effect on the output (their channels are dead) have gradients of rounding noise only.
    largest = max(float(g.abs().max()) for name, g in other.items() if name != "the output")
    worst = 0.0
    for name, values in other.items():
        scale = float(values.abs().max()) if name == "the output" else max(float(values.abs().max()), 1e-3 * largest)
        worst = max(worst, float((mine[name] - values).abs().max()) / scale)
    return worst


def main() -> int:
    parser = argparse.ArgumentParser(description="images per second of training, against a hand-written network.")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    images = torch.rand(arguments.batch, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    print(f"batch {arguments.batch}, {arguments.threads} threads, torch {torch.__version__}")
    met = True
    for title, batch_statistics in (("statistics of the batch", True), ("running statistics", False)):
        both = pair(batch_statistics)
        difference = compared(*both, images)
        if difference > AGREE:
            raise SystemExit(f"{title}: outputs or gradients differ by {difference:.2g}: nothing to time")
        seconds = np.empty((arguments.rounds + WARM_UP, 2))
        for number, row in enumerate(seconds):
            for turn in range(2):
                place = (number + turn) % 2
                row[place] = both[place].step(images)
        seconds = seconds[WARM_UP:]
        ratio = float(np.median(seconds[:, 1] / seconds[:, 0]))
        ours, theirs = arguments.batch / np.median(seconds, axis=0)
        met &= ratio >= GOAL
        print(
            f"{title}: module {ours:.1f} images/s, by hand {theirs:.1f} images/s, ratio {ratio:.3f} "
            f"(median of {arguments.rounds} pairs, wanted {GOAL}): {'met' if ratio >= GOAL else 'NOT MET'}; "
            f"they agreed to {difference:.1g}"
        )
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
