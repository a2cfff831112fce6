"""A refusal, as every test of bad input expects it: one line, the exit status, everything else as it was."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

Edgec = Callable[..., tuple[int, str, str]]
ARGUMENTS = ("model.onnx", "-O", "compress.yaml", "-q", "--no-timing", "-o", "out")


def fingerprint(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def refused(job: Path, edgec: Edgec, status: int, line: str, *more: str) -> None:
    """The command fails with exactly ``line`` and leaves everything as it was."""
    before = fingerprint(job)
    got, _, err = edgec(*ARGUMENTS, *more)
    assert (got, err) == (status, f"edgec: {line}\n")
    assert fingerprint(job) == before
    assert not [p for p in job.iterdir() if p.name.startswith(".out")]


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
