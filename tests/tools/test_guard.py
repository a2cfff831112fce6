"""Every way a command can end has its status and its line."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import NoReturn

import pytest

from edgec.ir.errors import EdgecError, EmitError, InputError, InternalError, UsageError
from edgec.tools.guard import guarded


def raising(error: BaseException) -> Callable[[], int]:
    def run() -> NoReturn:
        raise error

    return run


@pytest.mark.parametrize(("kind", "status"), [(UsageError, 2), (InputError, 3), (EmitError, 4), (InternalError, 70)])
def test_an_error_of_ours(kind: type[EdgecError], status: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded("edgec", raising(kind("model.onnx", "is empty", "export it again"))) == status
    assert capsys.readouterr() == ("", "edgec: model.onnx: is empty; export it again\n")


def test_every_line_of_an_error_begins_with_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded("edgec-opt", raising(UsageError("", "r.yaml: a\nr.yaml: b"))) == 2
    assert capsys.readouterr().err == "edgec-opt: r.yaml: a\nedgec-opt: r.yaml: b\n"


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ValueError("bad\nmore"), 70,
         "a fault of edgec's own (ValueError: bad); run again with --traceback and report it"),
        (MemoryError(), 70, "not enough memory; close other programs, or calibrate with fewer samples"),
        (PermissionError(13, "Permission denied", "good/0.png"), 3,
         "good/0.png: cannot be read or written (permission denied)"),
        (KeyboardInterrupt(), 130, "interrupted; the earlier output is as it was"),
        (KeyboardInterrupt("SIGTERM"), 143, "interrupted; the earlier output is as it was"),
        (KeyboardInterrupt("SIGHUP"), 129, "interrupted; the earlier output is as it was"),
    ],
)  # fmt: skip
def test_other_endings(error: BaseException, status: int, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded("edgec", raising(error)) == status
    assert capsys.readouterr() == ("", f"edgec: {line}\n")


@pytest.mark.parametrize("error", [InputError("a", "b"), ValueError("bad"), OSError(5, "Input/output error")])
def test_a_traceback_on_request(error: Exception) -> None:
    with pytest.raises(type(error)):
        guarded("edgec", raising(error), traceback=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_runs_what_cleans_up(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(number)
    cleaned = []

    def run() -> int:
        try:
            os.kill(os.getpid(), number)
        finally:
            cleaned.append(number)
        return 0

    assert guarded("edgec", run) == 128 + number
    assert cleaned == [number]
    assert capsys.readouterr().err == "edgec: interrupted; the earlier output is as it was\n"
    assert signal.getsignal(number) is before


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert guarded("edgec", lambda: os.kill(os.getpid(), signal.SIGHUP) or 0) == 0
    finally:
        signal.signal(signal.SIGHUP, before)
