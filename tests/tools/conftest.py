"""A report as a run makes it, for the tests of what is printed and drawn from it."""

from __future__ import annotations

from typing import Any

import pytest

COST = {
    "params": 1000, "macs": 2_000_000, "macs_unknown": 0, "weight_bytes": 4000, "peak_activation_bytes": 65536,
    "bytes_moved": 1, "sizes_unknown": 0,
    "nodes": 3,
}  # fmt: skip
HOSTILE = "<script>alert('conv')</script>[bold]\x1b[31m"


def pass_entry(name: str, **changes: Any) -> dict[str, Any]:
    """What one pass leaves in a report."""
    entry = {
        "name": name, "place": "passes[0]", "seconds": 0.25, "params_before": 1000, "params_after": 250,
        "macs_before": 2_000_000, "macs_after": 500_000, "sqnr_db": 31.4,
        "did": [{"node": HOSTILE, "what": "Tucker-2, ranks 4 and 6", "figures": {"relative_error": 0.0625}}],
        "missed": [{"node": "fc", "what": "its rank is full"}],
    }  # fmt: skip
    return {**entry, **changes}


@pytest.fixture
def report() -> dict[str, Any]:
    """Two targets, a metric, a requirement met and one not, a pass in each part, a name out of a bad dream."""
    small = {**COST, "params": 250, "macs": 500_000, "weight_bytes": 1000}
    timed = {"latency_ms": 1.25, "memory_bytes": 3 << 20}
    target = {
        "title": "A board", "files": ["a-board/model.tflite"], "file_bytes": 1500, "sqnr_db": 28.0,
        "sqnr_interval": [27.0, 29.5], "sqnr_db_to_graph": 50.5, "metric": 0.93, "metric_interval": [0.87, 0.97],
        "saturation": [{"tensor": HOSTILE, "share": 0.0125, "samples": 2, "range": [0, 6], "reached": [0.0, 7.5]}],
        "fits": True, "notes": ["nothing was compiled & run"],
        "cost": small, "passes": [pass_entry("quantize")], **timed,
    }  # fmt: skip
    return {
        "edgec": "0.1.0", "model": "net.onnx", "recipe": "compress.yaml", "name": HOSTILE, "machine": "x86_64",
        "baseline": {**COST, "metric": 0.95, "metric_interval": [0.9, 0.98], **timed},
        "compressed": {**small, "metric": 0.94, "metric_interval": [0.88, 0.975], **timed},
        "passes": [pass_entry("fold", sqnr_db=None, did=[], missed=[])],
        "measured_on": {
            "confidence": 0.95, "metric": {"samples": 132, "source": "eval"},
            **{name: {"samples": 64, "source": "eval", "unseen": True} for name in ("sqnr", "passes")},
        },
        "notes": ["the batch of input 'x' is open & taken as 1", "the calibration samples are few"],
        "quality": {
            "sqnr_db": None, "sqnr_interval": [None, None],
            "metric": {"name": "auroc", "baseline": 0.95, "compressed": 0.94},
        },
        "targets": {"a-board": target, "cpu": {**target, "sqnr_db_to_graph": None, "fits": None, "notes": []}},
        "require": {
            "params_removed": {"asked": 0.99, "got": 0.75, "met": False},
            "sqnr_min": {"asked": 20.0, "got": None, "met": True},
        },
    }  # fmt: skip
