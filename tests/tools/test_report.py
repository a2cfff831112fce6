"""report.html and the entries of report.json."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from edgec.passes.framework.record import Record
from edgec.passes.framework.remark import Remark
from edgec.tools.report import charts, pass_entry, write_html

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """The page's elements, its text, and whether every element is closed in its place."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style" and data.strip():
            self.texts.append(" ".join(data.split()))


@pytest.fixture
def page(report: dict[str, Any], tmp_path: Path) -> Page:
    write_html(tmp_path / "report.html", report)
    return Page((tmp_path / "report.html").read_text(encoding="utf-8"))


def test_it_is_well_formed_and_loads_nothing(page: Page) -> None:
    assert page.open == []
    assert not {tag for tag, _ in page.elements} & {"script", "link", "img", "iframe", "object"}
    for _, attributes in page.elements:
        assert not {"src", "href"} & set(attributes)
        assert not any(name.startswith("on") for name in attributes)
        assert "url(" not in (attributes.get("style") or "")
    assert ("meta", "default-src 'none'; style-src 'unsafe-inline'") in [
        (tag, attributes.get("content")) for tag, attributes in page.elements
    ]


def test_names_from_a_model_are_text(page: Page, report: dict[str, Any]) -> None:
    # The heading, and for two targets the node of quantize's remark and a tensor that saturates.
    assert page.texts.count(report["name"]) == 5


def test_every_figure_is_there(page: Page) -> None:
    model = "a-board/model.tflite. The model takes 1.46 KiB. Run here,"
    for text in (
        "weights", "1,000", "250", "MACs", "2,000,000", "auroc", "0.9500", "0.9300", "1.25 ms", "3.00 MiB", "28.0 dB",
        "0.90..0.98", "1.25 %", "0 to 7.5", "net.onnx: the calibration samples are few.",
        "equal", "params_removed", "not met", "met", "infinite", "Passes that all targets share", "A board",
        "nothing was compiled & run", "missed: its rank is full", "relative_error 0.0625",
        f"{model} it keeps 50.5 dB to the graph that it was made from. "
        "By the profile's figures it fits the board's memory.",
        f"{model} it gives exactly what the graph that it was made from gives.",
    ):  # fmt: skip
        assert text in page.texts, text


def test_bars_are_as_long_as_what_they_show(page: Page, report: dict[str, Any]) -> None:
    found = {
        chart["title"]: [(row["name"], row["share"], row["text"]) for row in chart["rows"]] for chart in charts(report)
    }
    assert found["weight bytes"] == [
        ("original", 100.0, "3.91 KiB"), ("compressed", 25.0, "1000 B"), ("a-board", 25.0, "1000 B"),
        ("cpu", 25.0, "1000 B"),
    ]  # fmt: skip
    assert found["multiply-accumulates"][:2] == [("original", 100.0, "2.00 M"), ("compressed", 25.0, "500 k")]
    assert list(found) == [
        "weight bytes", "multiply-accumulates", "peak activations", "latency on this machine, one thread",
    ]  # fmt: skip
    widths = [a["style"] for tag, a in page.elements if tag == "div" and (a.get("style") or "").startswith("width")]
    assert widths.count("width: 25.00%") == 6 + 3 * 2  # in the charts, and weights and MACs after each of three passes


def test_a_report_without_timings_passes_and_metric(report: dict[str, Any], tmp_path: Path) -> None:
    for entry in (report["baseline"], report["compressed"], *report["targets"].values()):
        entry.update(latency_ms=None, memory_bytes=None, metric=None)
    report["quality"]["metric"], report["passes"], report["require"] = None, [], {}
    write_html(tmp_path / "report.html", report)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert not {"latency, 1 thread", "Requirements", "Passes that all targets share", "auroc"} & set(page.texts)
    assert "latency on this machine, one thread" not in page.texts


def test_a_network_without_weights(report: dict[str, Any], tmp_path: Path) -> None:
    for entry in (report["baseline"], report["compressed"], *(t["cost"] for t in report["targets"].values())):
        entry.update(params=0, macs=0, weight_bytes=0)
    write_html(tmp_path / "report.html", report)
    assert "width: 0.00%" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_what_a_pass_leaves() -> None:
    cost = {"params": 10, "macs": 100}
    after = {"params": 5, "macs": 50}
    did = (Remark("conv", "Tucker-2", {"rank": 4, "error": 0.123456789}),)
    record = Record("factorize", "passes[1]", 1.23456, cost, after, float("inf"), did, (Remark("fc", "full rank"),))
    assert pass_entry(record, unseen=True) == {
        "name": "factorize", "place": "passes[1]", "seconds": 1.235,
        "params_before": 10, "params_after": 5, "macs_before": 100, "macs_after": 50, "sqnr_db": None,
        "did": [{"node": "conv", "what": "Tucker-2", "figures": {"rank": 4, "error": 0.123457}}],
        "missed": [{"node": "fc", "what": "full rank"}],
    }  # fmt: skip


def test_curves_are_kept_and_drawn(report: dict[str, Any], tmp_path: Path) -> None:
    cost = {"params": 10, "macs": 10}
    curves = {"loss": [2.0, 1.0, float("nan"), 0.123456789]}
    record = Record("finetune", "passes[0]", 1.0, cost, cost, 20.0, (), (), None, curves)
    entry = pass_entry(record, unseen=True)
    assert entry["curves"] == {"loss": [2.0, 1.0, None, 0.123457]}
    report["passes"] = [entry]
    write_html(tmp_path / "report.html", report)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert not page.open
    [line] = [attributes["points"] for tag, attributes in page.elements if tag == "polyline"]
    assert line == "0.0,1.0 100.0,31.9 300.0,59.0"
    assert "finetune: loss, epoch by epoch, 2.0 to 0.123457" in page.texts
