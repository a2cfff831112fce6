"""What few calibration samples give: factorize, prune and compress, judged on samples that nothing was fitted to.

    python tests/bench/bench_few_samples.py --wheels FOLDER [--out FILE] [--network ...] [--samples ...] [--share ...]
    python tests/bench/bench_few_samples.py --table AFTER [--before BEFORE]

Seven networks (tests/networks/few_samples.py), each after `fold`, at three budgets of parameters, with the first 1 to
128 samples of a set: the signal to noise ratio of the outputs on the samples that were fitted to and on others. Samples
0 stand for the same pass without data. A line of JSON is added to the file for each run; what is there already is not
run again, so that a run can be stopped and go on, and files of two commits are compared by --table.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from networks.few_samples import SUBJECTS, Subject

from edgec.ir.errors import UsageError
from edgec.ir.execution import Session, sqnr_db
from edgec.ir.graph import Graph
from edgec.passes.calibration.dataset import InMemory
from edgec.passes.compress.compress import Compress
from edgec.passes.factorize.factorize import Factorize
from edgec.passes.fold.fold import Fold
from edgec.passes.framework.base import Pass
from edgec.passes.framework.context import Context, RunConfig
from edgec.passes.framework.settling import settle
from edgec.passes.prune.prune import Prune

PASSES: dict[str, type[Pass]] = {"factorize": Factorize, "prune": Prune, "compress": Compress}
SAMPLES, SHARES = (0, 1, 4, 8, 16, 32, 128), (0.3, 0.5, 0.7)
# Beyond the noise of two figures that come from some ten networks: so much worse than without data is a failure.
TOLERANCE_DB = 0.3


def outputs(graph: Graph, samples: np.ndarray) -> dict[str, np.ndarray]:
    """What a network computes for samples one at a time, by output: (samples, ...)."""
    session = Session(graph, optimize=True)
    name = session.inputs[0]
    runs = [session.run({name: sample[None]}) for sample in samples]
    return {key: np.stack([run[key] for run in runs]) for key in runs[0]}


def applied(step: Pass, graph: Graph, data: dict[str, Any]) -> tuple[Graph, float]:
    """A copy after a pass, and the seconds that it took."""
    made = graph.copy()
    start = time.perf_counter()
    step.run(made, Context(made, RunConfig(data=data)))
    seconds = time.perf_counter() - start
    settle(made, step.name)
    return made, seconds


def measured(subject: Subject, graph: Graph, name: str, count: int, share: float) -> dict[str, Any]:
    """One run: decibels on what was fitted to and on unseen samples."""
    fitted = subject.pool[:count]
    data = {"calibration": InMemory({graph.inputs[0].name: fitted}, "the samples")} if count else {}
    try:
        made, seconds = applied(PASSES[name](**{"params": share}), graph, data)  # type: ignore[arg-type]
    except UsageError as error:
        return {"refused": str(error)}
    seen, unseen = fitted if count else subject.pool[:32], subject.unseen
    figures = {key: sqnr_db(outputs(graph, of), outputs(made, of)) for key, of in (("seen", seen), ("unseen", unseen))}
    return {**{key: round(value, 3) for key, value in figures.items()}, "seconds": round(seconds, 2)}


def run(arguments: argparse.Namespace) -> None:
    out = Path(arguments.out)
    known = {key_of(row) for row in read(out)} if out.exists() else set()
    for network in arguments.network:
        wanted = [
            (name, count, share)
            for count in arguments.samples
            for share in arguments.share
            for name in arguments.passes
            if (network, name, count, share) not in known
        ]
        if not wanted:
            continue
        try:
            subject = SUBJECTS[network](Path(arguments.wheels))
        except (FileNotFoundError, ImportError) as error:
            print(f"{network} is left out: {error}", flush=True)
            continue
        graph, _ = applied(Fold(), subject.graph, {})
        for name, count, share in wanted:
            row = {"network": network, "pass": name, "samples": count, "share": share}
            row |= measured(subject, graph, name, count, share)
            print(json.dumps(row), flush=True)
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def key_of(row: dict[str, Any]) -> tuple[str, str, int, float]:
    return row["network"], row["pass"], row["samples"], row["share"]


def table(after: Path, before: Path | None) -> int:
    """Prints the tables; 1 where samples did worse than none."""
    new = {key_of(row): row for row in read(after) if "unseen" in row}
    old = {key_of(row): row for row in read(before) if "unseen" in row} if before else new
    keys = [key for key in new if key in old]
    figures: dict[tuple[str, str, int], list[tuple[float, ...]]] = defaultdict(list)
    worse = []
    for key in keys:
        network, name, count, share = key
        none = (network, name, 0, share)
        gains = [rows[key]["unseen"] - rows[none]["unseen"] if none in rows else np.nan for rows in (old, new)]
        figures[network, name, count].append(
            (old[key]["seen"], old[key]["unseen"], new[key]["seen"], new[key]["unseen"], *gains)
        )
        if count and gains[1] < -TOLERANCE_DB:
            worse.append((gains[1], *key))
    networks = list(dict.fromkeys(key[0] for key in keys))
    print("Mean over the shares in dB: on the samples that were fitted to / on others, before -> after\n")
    for name in PASSES:
        counts = sorted({key[2] for key in figures if key[1] == name})
        print(f"| {name} | " + " | ".join(f"{count} samples" if count else "no data" for count in counts) + " |")
        print("|---" * (len(counts) + 1) + "|")
        for network in networks:
            cells = [_cell(figures.get((network, name, count)), before is not None) for count in counts]
            print(f"| {network} | " + " | ".join(cells) + " |")
        together = {n: [f for (_, p, c), fs in figures.items() if p == name and c == n for f in fs] for n in counts}
        least = [_cell(together[count], before is not None) for count in counts]
        print("| mean of all | " + " | ".join(least) + " |")
        worst = [_worst(together[count], before is not None) if count else "" for count in counts]
        print("| least gain over no data | " + " | ".join(worst) + " |\n")
    for gain, *key in sorted(worse):
        print(f"worse than without data by {-gain:.2f} dB: {key}")
    seconds = [(old[key]["seconds"], new[key]["seconds"]) for key in keys]
    print(f"\nseconds in all: {sum(a for a, _ in seconds):.0f} -> {sum(b for _, b in seconds):.0f}")
    return int(bool(worse))


def _cell(rows: list[tuple[float, ...]] | None, compared: bool) -> str:
    if not rows:
        return "-"
    seen_old, old, seen_new, new, _, _ = np.mean(np.clip(rows, -99, 150), axis=0)
    return f"{seen_old:.1f}/{old:.1f} -> {seen_new:.1f}/{new:.1f}" if compared else f"{seen_new:.1f}/{new:.1f}"


def _worst(rows: list[tuple[float, ...]], compared: bool) -> str:
    least = np.nanmin(np.array(rows)[:, 4:], axis=0)
    return f"{least[0]:+.1f} -> {least[1]:+.1f}" if compared else f"{least[1]:+.1f}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Few calibration samples, judged on others.")
    parser.add_argument("--wheels", default="wheels", help="a folder with the packages' wheels")
    parser.add_argument("--out", default="few_samples.jsonl", help="where rows are added")
    parser.add_argument("--network", nargs="+", choices=list(SUBJECTS), default=list(SUBJECTS))
    parser.add_argument("--passes", nargs="+", choices=list(PASSES), default=list(PASSES))
    parser.add_argument("--samples", nargs="+", type=int, default=SAMPLES)
    parser.add_argument("--share", nargs="+", type=float, default=SHARES)
    parser.add_argument("--table", type=Path, help="print the table of a file instead")
    parser.add_argument("--before", type=Path, help="the file of another commit, to compare with")
    arguments = parser.parse_args()
    if arguments.table:
        return table(arguments.table, arguments.before)
    run(arguments)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
