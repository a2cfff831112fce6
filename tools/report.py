"""The report: its entries as scripts read them, and the page that people read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgec.passes.calibration.requirements import decibel, rounded
from edgec.passes.framework.record import Record
from edgec.passes.framework.remark import Remark
from edgec.passes.quantize.report.saturation import Saturated
from edgec.tools.failed_targets import emitted

# The only entries that differ between two runs on the same inputs.
TIMINGS = ("seconds", "latency_ms", "memory_bytes")


def pass_entry(record: Record, *, unseen: bool) -> dict[str, Any]:
    """One pass, as ``report.json`` keeps it.

    Args:
        record: of the pass.
        unseen: whether its SQNR was measured on samples that no pass is fitted to.
    """
    level = decibel(record.sqnr_db)
    return {
        "name": record.name,
        "place": record.place,
        "seconds": round(record.seconds, 3),
        "params_before": record.before["params"],
        "params_after": record.after["params"],
        "macs_before": record.before["macs"],
        "macs_after": record.after["macs"],
        **({"sqnr_db": level} if unseen else {"sqnr_db": None, "sqnr_db_fitted": level}),
        "did": [_remark(remark) for remark in record.did],
        "missed": [_remark(remark) for remark in record.missed],
        **({"curves": _curves(record.curves)} if record.curves else {}),
    }


def _curves(curves: Mapping[str, Sequence[float]]) -> dict[str, list[float | None]]:
    """Values to six significant digits; what is not finite, which JSON has not, is ``None``."""
    return {
        name: [float(f"{value:.6g}") if math.isfinite(value) else None for value in values]
        for name, values in curves.items()
    }


def _remark(remark: Remark) -> dict[str, Any]:
    figures = {key: value if isinstance(value, int) else rounded(value) for key, value in remark.figures.items()}
    return {"node": remark.node, "what": remark.what, **({"figures": figures} if figures else {})}


def saturation_entry(one: Saturated) -> dict[str, Any]:
    """A quantized activation that goes beyond its range, as ``report.json`` keeps it."""
    return {
        "tensor": one.name,
        "share": rounded(one.share),
        "samples": one.samples,
        "range": [rounded(one.range.low), rounded(one.range.high)],
        "reached": [rounded(one.reached.low), rounded(one.reached.high)],
    }


def write_html(path: Path, report: Mapping[str, Any]) -> None:
    """Writes the page: one file, nothing loaded from elsewhere."""
    from importlib.resources import files

    from jinja2 import Environment, StrictUndefined

    from edgec.tools.summary import amount, got, measured_on, rows, size, verdict

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(amount=amount, size=size, share=_share, polyline=_polyline, verdict=verdict, got=got)
    template = files("edgec.tools").joinpath("templates", "report.html.j2").read_text(encoding="utf-8")
    page = environment.from_string(template).render(
        report=report,
        measured_on=measured_on(report),
        rows=rows(report),
        charts=charts(report),
        emitted=emitted(report["targets"]),
    )
    path.write_text(page + "\n", encoding="utf-8")


def charts(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The page's charts: a title, and a bar a model with its share of the longest in percent and its text."""
    from edgec.tools.summary import counted, short, size

    targets = emitted(report["targets"])
    costs = {
        "original": report["baseline"],
        "compressed": report["compressed"],
        **{name: target["cost"] for name, target in targets.items()},
    }
    found = []
    for title, key, text in (
        ("weight bytes", "weight_bytes", size),
        ("multiply-accumulates", "macs", short),
        ("peak activations", "peak_activation_bytes", size),
    ):
        found.append(_chart(title, {name: (cost[key], counted(cost, key, text)) for name, cost in costs.items()}))
    models = {"original": report["baseline"], "compressed": report["compressed"], **targets}
    if all(model["latency_ms"] is not None for model in models.values()):
        latencies = {name: (model["latency_ms"], f"{model['latency_ms']:.3g} ms") for name, model in models.items()}
        found.append(_chart("latency on this machine, one thread", latencies))
    return found


def _chart(title: str, values: Mapping[str, tuple[float, str]]) -> dict[str, Any]:
    longest = max(value for value, _ in values.values())
    bars = [{"name": name, "share": _share(value, longest), "text": text} for name, (value, text) in values.items()]
    return {"title": title, "rows": bars}


def _share(value: float, whole: float) -> float:
    """``value`` in percent of ``whole``, at most 100."""
    return min(100.0, 100 * value / whole) if whole else 0.0


def _polyline(values: Sequence[float | None]) -> str:
    """A curve as SVG points in a field of 300 by 60, its least value at the bottom; gaps are left out."""
    known = [(place, value) for place, value in enumerate(values) if value is not None]
    if not known:
        return ""
    least, most = min(value for _, value in known), max(value for _, value in known)
    across, up = 300 / max(len(values) - 1, 1), 58 / ((most - least) or 1.0)
    return " ".join(f"{place * across:.1f},{59 - (value - least) * up:.1f}" for place, value in known)
