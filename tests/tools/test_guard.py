"""Every way a command can end has its status and its line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from edgec.ir.errors import EdgecError, EmitError, InputError, InternalError, UsageError, UsageErrors
from edgec.tools.guard import guarded, undisturbed


def raising(error: BaseException) -> Callable[[], int]:
    def run() -> NoReturn:
        raise error

    return run


@pytest.mark.parametrize(("kind", "status"), [(UsageError, 2), (InputError, 3), (EmitError, 4), (InternalError, 70)])
def test_an_error_of_ours(kind: type[EdgecError], status: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded("edgec", raising(kind("model.onnx", "is empty", "export it again"))) == status
    assert capsys.readouterr() == ("", "edgec: model.onnx: is empty; export it again\n")


def test_every_line_of_an_error_begins_with_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded("edgec-opt", raising(UsageErrors([UsageError("r", "a"), UsageError("r", "b")]))) == 2
    assert capsys.readouterr().err == "edgec-opt: r: a\nedgec-opt: r: b\n"


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ValueError("bad\nmore"), 70,
         "a fault of edgec's own (ValueError: bad); run again with --traceback and report it"),
        (MemoryError(), 70, "not enough memory; close other programs, or calibrate with fewer samples"),
        (PermissionError(13, "Permission denied", "good/0.png"), 3,
         "good/0.png: cannot be read or written (permission denied)"),
        (KeyboardInterrupt(), 130, "interrupted; the earlier output is as it was"),
        (ValueError("a\x1b[31m"), 70,
         "a fault of edgec's own (ValueError: a\\x1b[31m); run again with --traceback and report it"),
    ],
)  # fmt: skip
def test_other_endings(error: BaseException, status: int, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded("edgec", raising(error)) == status
    assert capsys.readouterr() == ("", f"edgec: {line}\n")


@pytest.mark.parametrize("error", [InputError("a", "b"), ValueError("bad"), OSError(5, "Input/output error")])
def test_a_traceback_on_request(error: Exception) -> None:
    with pytest.raises(type(error)):
        guarded("edgec", raising(error), traceback=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
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


def test_an_interrupt_that_a_library_turns_into_its_own_error(capsys: pytest.CaptureFixture[str]) -> None:
    def run() -> int:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("initialization failed") from None
        return 0

    assert guarded("edgec", run) == 130
    assert capsys.readouterr().err == "edgec: interrupted; the earlier output is as it was\n"


def test_a_second_signal_does_not_stop_what_cleans_up() -> None:
    before = signal.getsignal(signal.SIGINT)
    with undisturbed():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_a_thread_may_clean_up_too() -> None:
    cleaned = []

    def clean() -> None:
        with undisturbed():
            cleaned.append(True)

    thread = threading.Thread(target=clean)
    thread.start()
    thread.join()
    assert cleaned


RUN = """
import sys
from edgec.tools.guard import guarded, undisturbed
def run():
    print("a name: \\u00fc")
    with open("file", "w") as file:
        file.write("text")
        print("said", flush=True)
    if sys.argv[1:]:
        raise ValueError("bad")
    return 0
sys.exit(guarded("edgec", run, last=True))
"""


@pytest.mark.parametrize("redirect", [">&-", "<&- >&- 2>&-", ">&- 2>&-"])
def test_streams_that_the_caller_closed(redirect: str, tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(RUN)
    command = ["bash", "-c", f'"$0" run.py {redirect}', sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "file").read_text() == "text"


def test_nobody_takes_the_error(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(RUN)
    command = ["bash", "-c", '"$0" run.py fail >/dev/null 2>/dev/full', sys.executable]
    assert subprocess.run(command, check=False, cwd=tmp_path).returncode == 70


def test_a_name_that_the_terminal_has_no_characters_for(tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(RUN)
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "run.py"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert (done.returncode, done.stdout) == (0, "a name: \\xfc\nsaid\n")
