"""The table that ends a run: what the network cost before and costs after, for every target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgec.ir.errors import printable
from edgec.tools.console import print_table
from edgec.tools.failed_targets import emitted, failed


def print_summary(report: Mapping[str, Any], place: Path) -> None:
    """Prints the report's figures side by side, the requirements, and where the output lies."""
    targets = emitted(report["targets"])
    columns = ("", "original", "compressed", *targets)
    print_table(f"{printable(report['name'])}: before and after", columns, rows(report))
    print(measured_on(report))
    for note in report["notes"]:
        print(f"{printable(report['model'])}: {printable(note)}")
    for name, target in targets.items():
        for note in target["notes"]:
            print(f"{name}: {printable(note)}")
    for name in failed(report["targets"]):
        print(f"{name}: NOT EMITTED")
    for name, entry in report["require"].items():
        said = verdict(entry)
        said = said.upper() if entry["met"] is False else said
        because = f" ({entry['because']})" if entry.get("because") else ""
        print(f"require {name}: asked {entry['asked']:g}, got {got(entry)}: {said}{because}")
    files = ("model.onnx", "report.html", "report.json", "manifest.json", *targets)
    print(f"{printable(str(place))}: {', '.join(files)}")


def verdict(requirement: Mapping[str, Any]) -> str:
    """Whether a requirement is met, in words."""
    if requirement["met"] is None:
        return f"met by what was emitted, not known for {', '.join(requirement['unjudged'])}"
    return "met" if requirement["met"] else "not met"


def got(requirement: Mapping[str, Any]) -> str:
    """What was got, with the bound that holds by the confidence that was asked for."""
    if requirement["got"] is None:
        return "nothing" if requirement.get("because") else "infinite"
    bound = requirement.get("bound")
    bounded = "" if bound is None else f" ({bound:g} with a confidence of {requirement['confidence']:g})"
    return f"{requirement['got']:g}{bounded}"


# Whose samples figures were measured on, in words.
_SOURCES = {
    "eval": "of data.eval",
    "train": "set aside from data.train",
    "calibration": "set aside from data.calibration",
    "noise": "of seeded noise, since there are no data",
    "fitted": "that passes were fitted to",
}


def measured_on(report: Mapping[str, Any]) -> str:
    """What stands behind the figures of quality: how many samples, and whose."""
    entry = report["measured_on"]
    words = f"SQNR was measured on {entry['sqnr']['samples']:,} samples {_SOURCES[entry['sqnr']['source']]}"
    if entry["metric"] is not None and report["quality"]["metric"] is not None:
        words += f", {report['quality']['metric']['name']} on {entry['metric']['samples']:,} {_SOURCES['eval']}"
    return f"{words}; intervals hold with {100 * entry['confidence']:g} % confidence"


def rows(report: Mapping[str, Any]) -> list[list[str]]:
    """The table's rows: a label, then the original's, the compressed network's and each target's figure."""
    baseline, compressed = report["baseline"], report["compressed"]
    targets = list(emitted(report["targets"]).values())
    quality = report["quality"]
    found = []
    for label, key, show in (
        ("weights", "params", amount),
        ("MACs", "macs", amount),
        ("weight bytes", "weight_bytes", size),
        ("peak activations", "peak_activation_bytes", size),
    ):
        costs = (baseline, compressed, *(target["cost"] for target in targets))
        found.append([label, *(counted(cost, key, show) for cost in costs)])
    everything = (baseline, compressed, *targets)
    if any(e["latency_ms"] is not None for e in everything):
        found.append(["memory to run", *(size(e["memory_bytes"]) for e in everything)])
        found.append(["latency, 1 thread", *(_ms(e["latency_ms"]) for e in everything)])
    compared = (quality, *targets)
    if report["measured_on"]["sqnr"]["unseen"]:
        found.append(["SQNR to original", "", *(_db(e["sqnr_db"]) for e in compared)])
        if any(e["sqnr_interval"] for e in compared):
            found.append(["95 % interval", "", *(_interval(e["sqnr_interval"], ".1f") for e in compared)])
    else:
        found.append(["SQNR on fitted samples", "", *(_db(e["sqnr_db_fitted"]) for e in compared)])
    if quality["metric"] is not None:
        name = quality["metric"]["name"]
        found.append([name, *("-" if e["metric"] is None else f"{e['metric']:.4f}" for e in everything)])
        if any(e["metric_interval"] for e in everything):
            found.append(["95 % interval", *(_interval(e["metric_interval"], ".2f") for e in everything)])
    return found


def _interval(ends: Sequence[float | None] | None, digits: str) -> str:
    if ends is None:
        return "-"
    return "..".join(dict.fromkeys("equal" if end is None else format(end, digits) for end in ends))


# What says that a figure leaves something out.
_UNKNOWN = {"macs": "macs_unknown", "peak_activation_bytes": "sizes_unknown"}


def counted(cost: Mapping[str, Any], key: str, show: Callable[[Any], str]) -> str:
    """A figure of a cost; ``at least`` it where some layers or tensors could not be counted."""
    return f"{'at least ' if key in _UNKNOWN and cost[_UNKNOWN[key]] else ''}{show(cost[key])}"


def amount(value: int | None) -> str:
    """A count with its thousands apart."""
    return "-" if value is None else f"{value:,}"


def short(value: int) -> str:
    """A count to three digits with k, M or G; nothing where it is zero."""
    return _scaled(value, 1000, ("", " k", " M", " G", " T")) if value else ""


def size(value: int | None) -> str:
    """Bytes to three digits with a binary unit."""
    return "-" if value is None else _scaled(value, 1024, (" B", " KiB", " MiB", " GiB", " TiB"))


def _scaled(value: int, step: int, units: Sequence[str]) -> str:
    number, place = float(value), 0
    # What would round up to a full step is shown in the next unit.
    while number >= step - 0.5 and place < len(units) - 1:
        number, place = number / step, place + 1
    digits = 0 if place == 0 or number >= 99.95 else 1 if number >= 9.995 else 2
    return f"{number:.{digits}f}{units[place]}"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g} ms"


def _db(value: float | None) -> str:
    return "equal" if value is None else f"{value:.1f} dB"
