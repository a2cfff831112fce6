"""``--build``: the engines of a bundle built on this machine, where it is one that the bundle is for.

It is the bundle's own program that does it, on a copy of the folder, as it does on a board: it builds every engine,
compares it with the golden outputs and times it. What is kept is its report and the engine that it found best.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgec.backends.tensorrt.bundle import DRIVER
from edgec.ir.errors import EmitError

REPORT, ENGINE = "built.json", "best.engine"
# The bundle's exit status where the machine is not one that it is for, or has no TensorRT.
_NOT_HERE = 10


@dataclass(frozen=True)
class Built:
    """What came of it.

    Attributes:
        files: what was added to the folder.
        latency_ms: median of one inference on this machine's GPU, of the usual batch where that may vary; ``None``
            where nothing was built.
        note: what a user should know.
    """

    files: list[str]
    latency_ms: float | None
    note: str


def is_bundle(folder: Path) -> bool:
    """Whether a target's folder is one that builds engines."""
    return all((folder / name).is_file() for name in DRIVER)


def build_here(folder: Path, target: str) -> Built:
    """Builds, checks and times the engines of the bundle in ``folder``.

    Raises:
        EmitError: this machine is one that the bundle is for, and no engine could be built or passed.
    """
    with tempfile.TemporaryDirectory(prefix="edgec-") as scratch:
        copy = Path(scratch) / folder.name
        shutil.copytree(folder, copy)
        command = [sys.executable, "-P", "run.py"]
        done = subprocess.run(command, cwd=copy, capture_output=True, text=True, errors="replace", check=False)
        report = _report(copy)
        if done.returncode == _NOT_HERE and report.get("error"):
            error = report["error"]
            return Built([], None, f"No engine was built here: {error['where']} {error['what']}; {error['fix']}.")
        if done.returncode != 0:
            said = done.stderr.strip().splitlines()
            what = said[-1].removeprefix("run.py: ") if said else f"run.py ended with {done.returncode}"
            raise EmitError(f"{target}: --build", what, "leave out --build to emit the bundle alone")
        shutil.copyfile(copy / ENGINE, folder / ENGINE)
        (folder / REPORT).write_text(json.dumps(report, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        best, board = report["best"], report["board"]
        latency = float(best["latency"]["median_ms"])
        at_once = f" for {best['latency']['batch']} samples at once" if "batch" in best["latency"] else ""
        note = (
            f"built here on {board['model']}, compute capability {board['compute_capability']}, TensorRT "
            f"{report['trtexec']['version']}: {best['file']} is the fastest that passed, {latency:.3f} ms{at_once}."
        )
        return Built([REPORT, ENGINE], latency, note[0].upper() + note[1:])


def _report(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found
