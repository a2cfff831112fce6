"""The table that ends a run: what the network cost before and costs after, for every target."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgec.tools.console import console, printable, table


def print_summary(report: Mapping[str, Any], place: Path) -> None:
    """Prints the report's figures side by side, the requirements, and where the output lies."""
    shown = table(f"{printable(report['name'])}: before and after", ("", "original", "compressed", *report["targets"]))
    for row in rows(report):
        shown.add_row(*row)
    out = console()
    out.print(shown)
    for name, target in report["targets"].items():
        for note in target["notes"]:
            out.print(f"{name}: {printable(note)}")
    for name, entry in report["require"].items():
        got = "infinite" if entry["got"] is None else f"{entry['got']:g}"
        out.print(f"require {name}: asked {entry['asked']:g}, got {got}: {'met' if entry['met'] else 'NOT MET'}")
    out.print(f"{place}: model.onnx, report.html, report.json, manifest.json, {', '.join(report['targets'])}")


def rows(report: Mapping[str, Any]) -> list[list[str]]:
    """The table's rows: a label, then the original's, the compressed network's and each target's figure."""
    baseline, compressed = report["baseline"], report["compressed"]
    targets = list(report["targets"].values())
    quality = report["quality"]
    found = []
    for label, key, show in (
        ("weights", "params", amount),
        ("MACs", "macs", amount),
        ("weight bytes", "weight_bytes", size),
        ("peak activations", "peak_activation_bytes", size),
    ):
        found.append([label, *(show(e[key]) for e in (baseline, compressed, *(t["cost"] for t in targets)))])
    everything = (baseline, compressed, *targets)
    found.append(["memory to run (here)", *(size(e["memory_bytes"]) for e in everything)])
    found.append(["latency, 1 thread (here)", *(_ms(e["latency_ms"]) for e in everything)])
    found.append(["SQNR to the original", "", *(_db(e["sqnr_db"]) for e in (quality, *targets))])
    if quality["metric"] is not None:
        name = quality["metric"]["name"]
        found.append([name, *("-" if e["metric"] is None else f"{e['metric']:.4f}" for e in everything)])
    return found


def amount(value: int | None) -> str:
    """A count with its thousands apart."""
    return "-" if value is None else f"{value:,}"


def size(value: int | None) -> str:
    """Bytes with a binary unit and three digits."""
    if value is None:
        return "-"
    number, unit = float(value), "B"
    for larger in ("KiB", "MiB", "GiB"):
        if number < 1024:
            break
        number, unit = number / 1024, larger
    return f"{value} B" if unit == "B" else f"{number:.3g} {unit}" if number < 1000 else f"{number:.0f} {unit}"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g} ms"


def _db(value: float | None) -> str:
    return "equal" if value is None else f"{value:.1f} dB"
