"""The command's own manners: fast help, one line for each mistake, statuses, pipes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgec import __version__

Edgec = Callable[..., tuple[int, str, str]]
COMMAND = [sys.executable, "-m", "edgec.tools.cli"]


@pytest.mark.parametrize("module", ["cli", "opt"])
def test_help_imports_nothing_heavy(module: str) -> None:
    program = (
        "import sys\n"
        f"from edgec.tools.{module} import main\n"
        "try:\n"
        "    main(['--help'])\n"
        "except SystemExit as stop:\n"
        "    assert stop.code == 0\n"
        "heavy = {'numpy', 'onnx', 'onnxruntime', 'onnx_graphsurgeon', 'pydantic', 'rich', 'yaml', 'scipy', 'torch'}\n"
        "print('heavy:', *sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "MODEL" in done.stdout
    assert done.stderr == "heavy:\n"


def test_help_names_every_command_and_status(edgec: Edgec) -> None:
    status, out, _ = edgec("--help")
    assert status == 0
    for line in (
        "usage: edgec MODEL -O RECIPE [-o DIR] [options]",
        "  edgec inspect MODEL      prints a network layer by layer with its cost",
        "  edgec completion SHELL   prints a completion script for a shell",
        "3 model or data; 4 a backend could not emit; 70 a fault of edgec's own",
    ):
        assert line in out.splitlines()
    assert all(len(line) <= 80 for line in out.splitlines())


def test_version(edgec: Edgec) -> None:
    assert edgec("--version")[:2] == (0, f"edgec {__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "the following arguments are required: MODEL, -O; 'edgec --help' explains"),
        (("model.onnx",), "the following arguments are required: -O; 'edgec --help' explains"),
        (("m", "-O", "r", "--quite"), "unrecognized arguments: --quite; 'edgec --help' explains"),
        (("m", "-O", "r", "--no-time"), "unrecognized arguments: --no-time; 'edgec --help' explains"),
        (
            ("m", "-O", "r", "--threads", "-1"),
            "argument --threads: must be a whole number, 0 for all cores, not '-1'; 'edgec --help' explains",
        ),
        (
            ("inspct", "model.onnx"),
            "no command and no file is named 'inspct'. Did you mean 'inspect'? 'edgec --help' lists the commands",
        ),
        (("inspect",), "inspect: the following arguments are required: MODEL; 'edgec inspect --help' explains"),
        (("schema", "x"), "schema: unrecognized arguments: x; 'edgec schema --help' explains"),
        (("passes", "fould"), "passes: no pass named 'fould'. Did you mean 'fold'? 'edgec passes' lists them"),
        (("passes", "xyzzy"), "passes: no pass named 'xyzzy'; 'edgec passes' lists them"),
        (("targets", "gpu"), "targets: no target named 'gpu'. Did you mean 'cpu'? 'edgec targets' lists them"),
        (
            ("m", "-O", "r", "--print-after", "fould"),
            "--print-after: no pass named 'fould'. Did you mean 'fold'? 'edgec passes' lists them",
        ),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(edgec: Edgec, arguments: tuple[str, ...], line: str) -> None:
    assert edgec(*arguments) == (2, "", f"edgec: {line}\n")


def test_a_reader_that_goes_away_is_no_fault() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        done = subprocess.run([*COMMAND, "targets", "cpu"], stdout=pipe, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (141, "")


def test_an_output_that_cannot_be_written_to() -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([*COMMAND, "targets", "cpu"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 3
    assert done.stderr == "edgec: standard output: cannot be read or written (no space left on device)\n"
