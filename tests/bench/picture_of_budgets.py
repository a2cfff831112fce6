"""Pictures of error against budget for the pages of the passes.

    python tests/bench/picture_of_budgets.py [--network capsule ...] [--out docs/pictures]

For each network of ``bench_fewer_weights.py``: the signal to noise ratio on held-out images against the part of the
parameters that is removed, nothing retrained, for uniform Tucker-2 and for the passes ``factorize``, ``prune`` and
``compress`` with calibration data. Figures are kept in build/budgets.json and measured only where they are missing;
delete it to measure all again. Also prints them as the table of docs/results/fewer-weights.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import bench_fewer_weights as bench
import numpy as np

from edgec.ir.cost import Cost
from edgec.ir.errors import EdgecError

REMOVED = (50, 75, 90, 95, 99)
TOOLS = {
    "uniform": "",
    "factorize": "[fold, factorize: {params: KEEP}]",
    "prune": "[fold, prune: {params: KEEP}]",
    "compress": "[fold, compress: {params: KEEP}]",
}
COLOURS = {"uniform": "#8a8f98", "factorize": "#1f6feb", "prune": "#d97706", "compress": "#0f9d58"}
TITLES = {"capsule": "capsule autoencoder", "vgg": "VGG-like, digits", "resnet": "ResNet-like, digits"}
NETWORKS = tuple(TITLES)


def measured(names: list[str], kept: Path) -> dict[str, Any]:
    """Figures by network, tool and percent removed; ``None`` where the budget cannot be met."""
    figures: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            found = figures.setdefault(name, {})
            if all(str(part) in found.get(tool, {}) for tool in TOOLS for part in REMOVED):
                continue
            folder = Path(scratch)
            subject = bench.capsule_subject(folder) if name == "capsule" else bench.digits_subject(name)  # type: ignore[arg-type]
            folded, _ = bench.compiled(subject, "[fold]", folder)
            wanted = subject.outputs(folded).astype(np.float64)
            found["original"] = {"metric": subject.metric[1](wanted), "label": subject.metric[0]}
            found["original"]["params"] = Cost(folded).params
            for tool, passes in TOOLS.items():
                for part in REMOVED:
                    if str(part) in found.setdefault(tool, {}):
                        continue
                    row = _row(subject, folded, wanted, passes, 1 - part / 100, folder)
                    found[tool][str(part)] = row
                    print(name, tool, part, row, flush=True)
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    kept.write_text(json.dumps(figures, indent=1))
    return figures


def _row(
    subject: bench.Subject, folded: Any, wanted: np.ndarray, passes: str, keep: float, folder: Path
) -> dict[str, float] | None:
    try:
        if passes:
            made = bench.ours(subject, passes.replace("KEEP", f"{keep:.6g}"), folder)
        else:  # the better of one ratio for all layers and one for all but the first and the last
            rows = [bench.judged(subject, wanted, bench.peer(folded, keep, inner)) for inner in (False, True)]
            best = max(rows, key=lambda row: row.sqnr_db)
            return {"sqnr_db": best.sqnr_db, "metric": best.metric, "macs": best.macs, "seconds": best.seconds}
    except EdgecError as error:
        print(error, file=sys.stderr)
        return None
    row = bench.judged(subject, wanted, made)
    return {"sqnr_db": row.sqnr_db, "metric": row.metric, "macs": row.macs, "seconds": row.seconds}


def picture(figures: dict[str, Any], tools: list[str], path: Path) -> None:
    """One panel a network, one line a tool; removed parts on a logarithmic scale of what is left."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"svg.hashsalt": "edgec", "font.size": 10, "svg.fonttype": "none"})
    names = [name for name in NETWORKS if name in figures]
    board, panels = pyplot.subplots(1, len(names), figsize=(4 * len(names), 3.2), squeeze=False, layout="constrained")
    for panel, name in zip(panels[0], names, strict=True):
        for tool in tools:
            points = [(part, row) for part in REMOVED if (row := figures[name].get(tool, {}).get(str(part)))]
            panel.plot(
                [100 - part for part, _ in points], [row["sqnr_db"] for _, row in points], marker="o", markersize=4,
                color=COLOURS[tool], label="Tucker-2, one ratio" if tool == "uniform" else tool,
            )  # fmt: skip
        panel.set_xscale("log")
        panel.invert_xaxis()
        panel.set_xticks([100 - part for part in REMOVED], [f"{part} %" for part in REMOVED])
        panel.minorticks_off()
        panel.set_title(TITLES[name], fontsize=10)
        panel.set_xlabel("parameters removed")
        panel.grid(color="#e5e7eb", linewidth=0.8)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_ylabel("SQNR to the original, dB")
    panels[0][-1].legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    board.savefig(path, metadata={"Date": None})
    pyplot.close(board)


def table(figures: dict[str, Any]) -> str:
    """Markdown: a row for each network and budget."""
    lines = ["| network | removed | " + " | ".join(TOOLS) + " |", "|---" * (len(TOOLS) + 2) + "|"]
    for name in NETWORKS:
        if name not in figures:
            continue
        original = figures[name]["original"]
        lines.append(f"| {TITLES[name]} | 0 % | " + " | ".join([f"{original['metric']:.3f}"] * len(TOOLS)) + " |")
        for part in REMOVED:
            rows = [figures[name].get(tool, {}).get(str(part)) for tool in TOOLS]
            cells = [f"{row['sqnr_db']:.1f} dB, {row['metric']:.3f}" if row else "-" for row in rows]
            lines.append(f"| | {part} % | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Pictures of error against budget.")
    parser.add_argument("--network", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--out", type=Path, default=bench.ROOT / "docs" / "pictures")
    arguments = parser.parse_args()
    figures = measured(arguments.network, bench.ROOT / "build" / "budgets.json")
    for tool in ("factorize", "prune"):
        picture(figures, ["uniform", tool], arguments.out / f"{tool}-budget.svg")
    picture(figures, ["factorize", "prune", "compress"], arguments.out / "compress-budget.svg")
    print(table(figures))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
