"""The capsule autoencoder: AUROC in int8 against float, with and without factorization, and the same bytes every time.

    python tests/bench/bench_capsule.py

Renders the images where they are missing. Prints AUROC of the original and of every emitted model, then compares the
output folders of three runs of the example's recipe without its training, whose last bits depend on the number of
threads: on one thread and twice on two, every file's hash but those of the reports, and the reports without timings.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import edgec
from edgec.tools.report import TIMINGS

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "capsule"
BOARD = "coral-dev-board"
ALLOWED_DROP = 0.01


def without_timings(value: Any) -> Any:
    """A report without what differs from run to run."""
    if isinstance(value, dict):
        return {key: without_timings(item) for key, item in value.items() if key not in TIMINGS}
    return [without_timings(item) for item in value] if isinstance(value, list) else value


def without(recipe: Path, *left_out: str) -> str:
    """The example's recipe without the passes and keys of these names; paths stay relative to the example."""
    lines = recipe.read_text(encoding="utf-8").splitlines()
    return "\n".join(line for line in lines if not any(f"{word}:" in line for word in left_out)) + "\n"


def differing(first: Path, second: Path) -> list[str]:
    """The files of two outputs whose bytes differ; of the reports only where their figures do."""
    hashes = [json.loads((folder / "manifest.json").read_text())["files"] for folder in (first, second)]
    names = sorted({*hashes[0], *hashes[1]} - {"report.json", "report.html"})
    found = [name for name in names if hashes[0].get(name) != hashes[1].get(name)]
    figures = [without_timings(json.loads((folder / "report.json").read_text())) for folder in (first, second)]
    return found if figures[0] == figures[1] else [*found, "report.json"]


def main() -> int:
    subprocess.run([sys.executable, str(EXAMPLE / "render.py")], check=True)
    model, recipe = EXAMPLE / "autoencoder.onnx", EXAMPLE / "compress.yaml"
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:

        def written(text: str) -> str:
            own = stack.enter_context(tempfile.NamedTemporaryFile("w", suffix=".yaml", dir=EXAMPLE))
            own.write(text)
            own.flush()
            return own.name

        untrained = written(without(recipe, "finetune", "require"))
        folders = [Path(scratch) / name for name in ("int8", "whole", "one", "two", "again")]
        reports = {
            "quantize": edgec.compile(
                model, written(without(recipe, "prune", "factorize", "finetune", "require")), folders[0], timing=False
            ),
            "the example's recipe": edgec.compile(model, recipe, folders[1], timing=False),
        }
        for folder, threads in zip(folders[2:], (1, 2, 2), strict=True):
            edgec.compile(model, untrained, folder, threads=threads, timing=False)
        drops = {}
        for label, report in reports.items():
            original = report["baseline"]["metric"]
            removed = 1 - report["compressed"]["params"] / report["baseline"]["params"]
            found = {name: target["metric"] for name, target in report["targets"].items()}
            drops[label] = original - found[BOARD]
            print(f"{label}: {100 * removed:.1f} % of the weights removed; AUROC {original:.4f} -> {found}")
        apart = {folder.name: differing(folders[2], folder) for folder in folders[3:]}
        print(f"files that differ from the run on one thread: {apart}")
    met = all(drop <= ALLOWED_DROP for drop in drops.values()) and not any(apart.values())
    print(f"goals (int8 TFLite within {ALLOWED_DROP} of float, the same bytes): {'met' if met else 'NOT MET'}")
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
