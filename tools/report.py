"""The report: its entries as scripts read them, and the page that people read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgec.passes.pipeline import Record
from edgec.passes.protocol import Remark
from edgec.tools.judging import decibel, rounded

# The only entries that differ between two runs on the same inputs.
TIMINGS = ("seconds", "latency_ms", "memory_bytes")


def pass_entry(record: Record) -> dict[str, Any]:
    """One pass, as ``report.json`` keeps it."""
    return {
        "name": record.name,
        "place": record.place,
        "seconds": round(record.seconds, 3),
        "params_before": record.before["params"],
        "params_after": record.after["params"],
        "macs_before": record.before["macs"],
        "macs_after": record.after["macs"],
        "sqnr_db": decibel(record.sqnr_db),
        "did": [_remark(remark) for remark in record.did],
        "missed": [_remark(remark) for remark in record.missed],
    }


def _remark(remark: Remark) -> dict[str, Any]:
    figures = {key: value if isinstance(value, int) else rounded(value) for key, value in remark.figures.items()}
    return {"node": remark.node, "what": remark.what, **({"figures": figures} if figures else {})}


def write_html(path: Path, report: Mapping[str, Any]) -> None:
    """Writes the page: one file, nothing loaded from elsewhere."""
    from importlib.resources import files

    from jinja2 import Environment, StrictUndefined

    from edgec.tools.summary import amount, rows, size

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(amount=amount, size=size)
    template = files("edgec.tools").joinpath("templates", "report.html.j2").read_text(encoding="utf-8")
    path.write_text(environment.from_string(template).render(report=report, rows=rows(report)), encoding="utf-8")
