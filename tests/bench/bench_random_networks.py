"""Random networks as exporters write them through drawn recipes to every target: faults, refusals, and honest figures.

    python tests/bench/bench_random_networks.py [--seeds FIRST LAST] [--out FILE] [--markdown FILE] [--keep FOLDER]
    python tests/bench/bench_random_networks.py --table FILE [--markdown FILE]

A seed is a network (tests/random_exports.py), 32 to 64 calibration samples, and a recipe: fold; perhaps prune,
factorize or compress; perhaps finetune or distill for two epochs; perhaps quantize. Each is compiled for cpu, the Coral
Dev Board, Jetson Nano and Jetson Orin Nano, in a process of its own with a limit of time. What was emitted is run on 32
samples that the run never saw, and its SQNR to the file that was compiled, in onnxruntime and without edgec, is
compared with what the report says. Both are measured on few samples: a difference counts as beyond chance where the two
intervals of 95 % do not meet. Exit status 1 where a run ends in a fault of edgec's own (70), or breaks off.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

TARGETS = ("cpu", "coral-dev-board", "jetson-nano", "jetson-orin-nano")
FRESH = 32
SHRINKING = ("none", "none", "none", "prune: {ratio: 0.3}", "factorize: {params: 0.8}", "compress: {params: 0.8}")
TRAINING = ("none", "none", "none", "finetune: {teacher: original, epochs: 2}", "distill: {epochs: 2}")
QUANTIZING = ("none", "quantize: {effort: fast}", "quantize: {effort: fast}", "quantize", "quantize")
WITHIN_DB = 1.0


def recipe_of(seed: int) -> tuple[list[str], int]:
    """The passes of a seed, as lines of a recipe, and the number of calibration samples."""
    random = np.random.default_rng([seed, 1])
    drawn = [str(random.choice(kinds)) for kinds in (SHRINKING, TRAINING, QUANTIZING)]
    return ["fold", *(line for line in drawn if line != "none")], int(random.choice([32, 48, 64]))


def compiled(seed: int, folder: Path) -> dict[str, Any]:
    """Compiles the network of a seed in ``folder``; returns its status, stderr's lines, and figures by target."""
    import contextlib
    import io

    import onnx
    from random_exports import exported

    from edgec.tools.cli import main

    network, (passes, count) = exported(seed), recipe_of(seed)
    onnx.save(network.model, folder / "model.onnx")
    np.savez(folder / "data.npz", **network.samples(np.random.default_rng([seed, 2]), count))
    lines = "".join(f"  - {line}\n" for line in passes)
    data = "data:\n  calibration: {arrays: data.npz}\n" + ("  train: {arrays: data.npz}\n" if "epochs" in lines else "")
    recipe = f"{data}passes:\n{lines}targets: [{', '.join(TARGETS)}]\n"
    (folder / "compress.yaml").write_text(recipe)
    said = io.StringIO()
    command = [str(folder / "model.onnx"), "-O", str(folder / "compress.yaml"), "-o", str(folder / "out")]
    start = time.perf_counter()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            status = main([*command, "-q", "--no-timing", "--threads", "1"])
        except SystemExit as stop:
            status = int(stop.code or 0)
    entry = {
        "seed": seed,
        "traits": network.traits,
        "passes": passes,
        "samples": count,
        "status": status,
        "seconds": round(time.perf_counter() - start, 1),
        "lines": [line.replace(str(folder), ".") for line in said.getvalue().splitlines() if "edgec: " in line],
        "targets": {},
    }
    if (folder / "out").is_dir():
        fresh = network.samples(np.random.default_rng([seed, 3]), FRESH)
        entry["targets"] = measured(folder, fresh)
    return entry


def measured(folder: Path, fresh: dict[str, np.ndarray]) -> dict[str, Any]:
    """What the report says of each target's file, and what the file does on fresh samples."""
    import onnxruntime as ort

    from edgec.ir.signal import sqnr_scores
    from edgec.tools.emitted_networks import networks_in

    report = json.loads((folder / "out" / "report.json").read_text())
    feeds = [{name: values[row : row + 1] for name, values in fresh.items()} for row in range(FRESH)]
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(folder / "model.onnx"), options)
    names = [output.name for output in session.get_outputs()]
    exact = [dict(zip(names, session.run(None, one), strict=True)) for one in feeds]
    networks = networks_in(folder / "out")
    entries: dict[str, Any] = {}
    for target, told in report["targets"].items():
        network = next((n for n in networks if n.name.split("/")[0] == target), None)
        if network is None:
            entries[target] = {"error": told.get("error", ""), "status": told.get("exit_status")}
            continue
        scores = sqnr_scores(exact, [network.run(one) for one in feeds])
        low, high = scores.interval()
        entries[target] = {
            "reported": told["sqnr_db"],
            "reported_interval": told["sqnr_interval"],
            "unseen": finite(scores.value()),
            "unseen_interval": [finite(low), finite(high)],
            "to_graph": told["sqnr_db_to_graph"],
            "other_shape": bool(told["other_shape"]) or bool(scores.mismatched),
            "discrete": any(values.dtype.kind != "f" for values in exact[0].values()),
        }
    return entries


def finite(value: float | None) -> float | None:
    """A figure as JSON has it: null for an infinite one, -999 for outputs that are not finite."""
    if value is None or value == float("inf"):
        return None
    return round(value, 2) if np.isfinite(value) else -999.0


# -- many of them -----------------------------------------------------------------------------------------------------


def _child(seed: int, keep: Path | None, place: Path) -> None:
    os.nice(10)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if keep is None else keep / str(seed)
        folder.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(compiled(seed, folder)))


def run_all(seeds: Sequence[int], out: Path, keep: Path | None, limit: float, workers: int) -> None:
    """Adds a line of JSON to ``out`` for each seed; one that takes too long or breaks off has a status in words."""
    # The parent loads what the children share, and opens no session itself, so that a fork costs next to nothing.
    import onnxruntime  # noqa: F401

    import edgec.tools.compile  # noqa: F401

    fork = multiprocessing.get_context("fork")
    waiting, running = list(seeds), dict[int, tuple[Any, float]]()
    with tempfile.TemporaryDirectory() as scratch:
        while waiting or running:
            while waiting and len(running) < workers:
                seed = waiting.pop(0)
                child = fork.Process(target=_child, args=(seed, keep, Path(scratch) / f"{seed}.json"))
                child.start()
                running[seed] = child, time.monotonic()
            time.sleep(0.05)
            for seed, (child, start) in list(running.items()):
                late = time.monotonic() - start > limit
                if child.is_alive() and not late:
                    continue
                if late:
                    child.kill()
                child.join()
                del running[seed]
                place = Path(scratch) / f"{seed}.json"
                entry = {"seed": seed, "passes": recipe_of(seed)[0], "lines": [], "targets": {}}
                entry["status"] = "too long" if late else f"broke off ({child.exitcode})"
                if place.is_file() and not late:
                    entry = json.loads(place.read_text())
                with out.open("a") as file:
                    file.write(json.dumps(entry) + "\n")
                print(seed, entry["status"], entry.get("seconds", ""), *entry["passes"], *entry["lines"], flush=True)


# -- what it comes to -------------------------------------------------------------------------------------------------


def table(entries: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of markdown."""
    statuses = Counter(str(entry["status"]) for entry in entries)
    lines = [f"{len(entries)} networks.", "", "| exit status | networks |", "|---|---|"]
    lines += [f"| {status} | {count} |" for status, count in sorted(statuses.items())]
    faults = [
        f"- seed {entry['seed']}, {', '.join(entry['passes'])}: {' '.join(entry['lines'])}"
        for entry in entries
        if entry["status"] not in (0, 1, 2, 3, 4, "too long")
    ]
    lines += ["", f"Faults of edgec's own: {len(faults)}.", *faults, ""]
    lines += [
        "| target | outputs | files | reported - unseen, dB: median | 95th percentile | largest |"
        " above 1 dB | below -1 dB | above 1 dB and beyond chance | lowest unseen SQNR without lossy passes |",
        f"|{'---|' * 10}",
    ]
    for target in TARGETS:
        emitted = [entry for entry in entries if "unseen" in entry["targets"].get(target, {})]
        for words, discrete in (("values", False), ("numbers of places too", True)):
            told = [(entry, entry["targets"][target]) for entry in emitted]
            told = [pair for pair in told if pair[1]["discrete"] == discrete]
            lines.append(f"| {target} | {words} | {len(told)} | {_excess(told)} | {_exact(told)} |")
    lines += ["", "| refused because | files |", "|---|---|"]
    reasons: dict[str, int] = defaultdict(int)
    for entry in entries:
        told_errors = [told["error"] for told in entry["targets"].values() if told.get("error")]
        for line in told_errors or (entry["lines"] if entry["status"] in (2, 3, 4) else []):
            reasons[re.sub(r"'[^']*'|\d+", "...", line.removeprefix("edgec: "))[:160].replace("|", "/")] += 1
    return [*lines, *(f"| {reason} | {count} |" for reason, count in sorted(reasons.items(), key=lambda p: -p[1]))]


def differences(told: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> list[tuple[float, bool, int]]:
    """Reported less unseen SQNR, whether that is beyond chance, and the seed; where both are finite."""
    rows = []
    for entry, figures in told:
        reported, unseen = figures["reported"], figures["unseen"]
        if figures["other_shape"] or reported is None or unseen is None or -999 in (reported, unseen):
            continue
        low, high = (figures["reported_interval"] or [None])[0], figures["unseen_interval"][1]
        rows.append((reported - unseen, low is not None and high is not None and low > high, entry["seed"]))
    return rows


def _excess(told: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> str:
    rows = differences(told)
    if not rows:
        return "- | - | - | - | - | -"
    values, (largest, _, seed) = np.array([row[0] for row in rows]), max(rows)
    over = [row for row in rows if row[0] > WITHIN_DB]
    beyond = [row for row in over if row[1]]
    named = f" (seeds {', '.join(str(row[2]) for row in beyond)})" if beyond else ""
    return (
        f"{np.median(values):.2f} | {np.quantile(values, 0.95):.2f} | {largest:.1f} (seed {seed}) |"
        f" {len(over)} of {len(rows)} | {int((values < -WITHIN_DB).sum())} | {len(beyond)}{named}"
    )


def _exact(told: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> str:
    plain = [
        (figures["unseen"], entry["seed"])
        for entry, figures in told
        if entry["passes"] == ["fold"] and figures["unseen"] is not None and not figures["other_shape"]
    ]
    return "-" if not plain else "{:.1f} (seed {})".format(*min(plain))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs=2, type=int, default=(0, 500), metavar=("FIRST", "LAST"))
    parser.add_argument("--only", nargs="*", type=int, metavar="SEED", help="these instead")
    parser.add_argument("--out", type=Path, default=Path("random-networks.jsonl"), metavar="FILE")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave models, recipes and outputs there")
    parser.add_argument("--limit", type=float, default=180, metavar="SECONDS", help="of one network")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--table", type=Path, metavar="FILE", help="only print what an earlier run came to")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there too")
    options = parser.parse_args()
    place = options.table or options.out
    if options.table is None:
        run_all(options.only or range(*options.seeds), place, options.keep, options.limit, options.workers)
    latest = {entry["seed"]: entry for entry in map(json.loads, place.read_text().splitlines())}
    entries = [latest[seed] for seed in sorted(latest)]
    lines = table(entries)
    print(*lines, sep="\n")
    if options.markdown is not None:
        options.markdown.write_text("\n".join(lines) + "\n")
    return int(any(entry["status"] not in (0, 1, 2, 3, 4, "too long") for entry in entries))


if __name__ == "__main__":
    sys.exit(main())
