"""What a user is told while a run goes on."""

from __future__ import annotations

import io

import pytest

from edgec.tools import progress as progressing
from edgec.tools.progress import Progress


def test_plain_lines_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(progressing.time, "monotonic", lambda: now[0])
    with Progress() as progress:
        progress.stage("reading net.onnx")
        progress(1, 100, "sample")  # too soon to be worth a line
        now[0] = 11.0
        progress(50, 100, "sample")
        progress(51, 100, "sample")
        now[0] = 22.0
        progress(90, 100)
        progress.stage("writing the report")
    assert capsys.readouterr() == (
        "",
        "edgec: reading net.onnx\nedgec:   sample 50 of 100\nedgec:   at 90 of 100\nedgec: writing the report\n",
    )


def test_nothing_when_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(quiet=True) as progress:
        progress.stage("reading")
        progress(1, 2)
    assert capsys.readouterr() == ("", "")


def test_bars_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    with monkeypatch.context() as patch:
        patch.setattr("sys.stderr", terminal)
        with Progress() as progress:
            progress.stage("calibrating [bold]")
            progress(3, 8)
            progress._bars.refresh()  # it draws ten times a second by itself
            progress.stage("writing")
        shown = terminal.getvalue()
    assert "calibrating [bold]" in shown
    assert "3/8" in shown
    assert "writing" in shown
    assert "edgec:" not in shown
    assert capsys.readouterr().out == ""
