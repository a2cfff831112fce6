"""What is offered at the cursor, asked for as the shells ask."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgec.passes.framework.registry import pass_names
from edgec.tools.completion import FILES, FOLDERS, SCRIPTS, paths

Edgec = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["edgec", ""], ["inspect", "simplify", "check", "run", "passes", "targets", "schema", "completion", FILES]),
        (["edgec", "ins"], ["inspect", FILES]),
        (["edgec", "model.onnx", ""], []),
        (["edgec", "model.onnx", "-O", ""], [FILES]),
        (["edgec", "-O", "recipe.yaml", ""], [FILES]),
        (["edgec", "model.onnx", "-o", ""], [FOLDERS]),
        (["edgec", "model.onnx", "--dump-ir", ""], [FOLDERS]),
        (["edgec", "model.onnx", "--print-"], ["--print-after", "--print-changed"]),
        (["edgec", "m", "--print-changed", "--print-after", "fold", "--print-"], ["--print-after"]),
        (["edgec", "model.onnx", "--print-after", "quan"], ["quantize"]),
        (["edgec", "model.onnx", "--threads", ""], []),
        (["edgec", "passes", ""], pass_names()),
        (["edgec", "passes", "scale-"], ["scale-outputs"]),
        (["edgec", "targets", "coral"], ["coral-dev-board"]),
        (["edgec", "completion", ""], ["bash", "tcsh", "zsh"]),
        (["edgec", "inspect", "--i"], ["--input", "--ir"]),
        (["edgec", "inspect", ""], [FILES]),
        (["edgec", "schema", ""], []),
        (["bin/edgec-opt", "m.onnx", "-p", "fold,quan"], ["fold,quantize"]),
        (["bin/edgec-opt", "m.onnx", "-p", "quantize{"], []),
        (["bin/edgec-opt", "m.onnx", "--target", "c"], ["coral-dev-board", "cpu", "cpu-avx2"]),
        (["bin/edgec-opt", "m.onnx", "-o", ""], [FILES]),
    ],
)  # fmt: skip
def test_what_is_offered(edgec: Edgec, words: list[str], offered: list[str]) -> None:
    status, out, err = edgec("completion", "--answer", *words)
    assert (status, out.splitlines(), err) == (0, offered, "")


def test_tcsh_gets_paths(edgec: Edgec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").mkdir()
    for name in ("models/a.onnx", "model.onnx", ".hidden"):
        (tmp_path / name).write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMMAND_LINE", "edgec model.onnx -O mo")
    assert edgec("completion", "--answer-line")[1].split() == ["model.onnx", "models/"]
    assert paths(FOLDERS, "mo") == ["models/"]
    assert paths(FILES, "models/") == ["models/a.onnx"]
    assert paths(FILES, f"{tmp_path}/.h") == [f"{tmp_path}/.hidden"]


def shell_environment(tmp_path: Path) -> dict[str, str]:
    """An environment in which ``edgec`` is this interpreter's, in a folder with a few files."""
    (tmp_path / "bin").mkdir()
    for name, module in (("edgec", "cli"), ("edgec-opt", "opt")):
        program = tmp_path / "bin" / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m edgec.tools.{module} "$@"\n')
        program.chmod(0o755)
    (tmp_path / "work" / "a folder").mkdir(parents=True)
    for name in ("my model.onnx", "recipe.yaml", "inner.onnx"):
        (tmp_path / "work" / name).write_text("")
    return {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "HOME": str(tmp_path), "TERM": "xterm"}


def test_bash(tmp_path: Path) -> None:
    environment = shell_environment(tmp_path)
    script = r"""
        set -u
        source <(edgec completion bash)
        [[ $(complete -p edgec-opt) == *_edgec* ]] || exit 1
        try() {
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
            _edgec
            (IFS='|'; echo "${COMPREPLY[*]-}")
        }
        try edgec in
        try edgec my
        try edgec "my model.onnx" -O rec
        try edgec "my model.onnx" -o ""
        try edgec passes scale
        try edgec-opt inner.onnx -p fold,scale
        try edgec targets xyz
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        capture_output=True, text=True, check=False, env=environment, cwd=tmp_path / "work",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "inspect|inner.onnx",
        "my model.onnx",
        "recipe.yaml",
        "a folder",
        "scale-outputs",
        "fold,scale-outputs",
        "",
    ]


# What is typed, Tab at its end, and what the line becomes.
TYPED = [
    ("edgec passes scale", "edgec passes scale-outputs"),
    ("edgec ./inner.onnx -O rec", "edgec ./inner.onnx -O recipe.yaml"),
    ("edgec targets cor", "edgec targets coral-dev-board"),
    ("edgec compl", "edgec completion"),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shell", "arguments", "setup"),
    [
        ("bash", ["--norc", "-i"], "source <(edgec completion bash)"),
        ("zsh", ["-f", "-i"], 'autoload -U compinit; compinit -u; eval "$(edgec completion zsh)"'),
        ("tcsh", ["-f", "-i"], "edgec completion tcsh > ~/e; source ~/e"),
    ],
)
def test_a_real_shell(shell: str, arguments: list[str], setup: str, tmp_path: Path) -> None:
    """Types in a terminal of its own, as a user does."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(tmp_path)
        environment = shell_environment(tmp_path)
        os.chdir(tmp_path / "work")
        os.execvpe(shell, [shell, *arguments], environment)
    try:
        os.write(terminal, setup.encode() + b"; echo rea''dy\r")
        heard_until(terminal, "ready")
        for typed, line in TYPED:
            os.write(terminal, typed.encode() + b"\t")
            heard_until(terminal, line)
            os.write(terminal, b"\x15echo rea''dy\r")  # Ctrl-U: away with the line
            heard_until(terminal, "ready")
    finally:
        os.write(terminal, b"\x15\rexit\r")
        os.close(terminal)
        os.waitpid(child, 0)


def heard_until(terminal: int, wanted: str) -> None:
    """Reads what the terminal shows until ``wanted`` is there."""
    heard = ""
    deadline = time.monotonic() + 30
    while wanted not in heard:
        ready, _, _ = select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"{wanted!r} was not shown in {heard!r}"
        heard += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\a]", "", os.read(terminal, 4096).decode(errors="replace"))


def test_the_scripts_say_how_they_are_used() -> None:
    for shell, script in SCRIPTS.items():
        assert f"edgec completion {shell}" in "".join(script.splitlines(keepends=True)[:2])
