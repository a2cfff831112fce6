"""The bundle's files, relative to the current folder: whether they are as they were, and writing them whole."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Dict

from edgec.backends.tensorrt.driver.board import MIB
from edgec.backends.tensorrt.driver.refusals import PREFLIGHT, Refusal


def sha256(path: Path) -> str:
    """Of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for piece in iter(lambda: file.read(MIB), b""):
            digest.update(piece)
    return digest.hexdigest()


def forget(path: Path) -> None:
    """Removes what an earlier run left, so that it is not taken for what this one makes."""
    if path.exists():
        path.unlink()


def write_json(path: Path, value: Dict[str, Any]) -> None:
    """Whole or not at all: written beside its place and renamed in."""
    part = Path(f"{path}.part")
    with part.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def read_manifest() -> Dict[str, Any]:
    """manifest.json, every file that it lists being what it was."""
    fix = "copy the bundle again"
    try:
        manifest = dict(json.loads(Path("manifest.json").read_text(encoding="utf-8")))
        known, hashes = manifest["format"] == 1, dict(manifest["files"])
    except (OSError, ValueError, KeyError, TypeError):
        raise Refusal(PREFLIGHT, "manifest.json", "is not there or cannot be read", fix) from None
    if not known:
        raise Refusal(PREFLIGHT, "manifest.json", "is of a format that this run.py does not know", fix)
    for name, expected in hashes.items():
        if not Path(name).is_file():
            raise Refusal(PREFLIGHT, name, "is missing", fix)
        if sha256(Path(name)) != expected:
            raise Refusal(PREFLIGHT, name, "was changed: it is not what manifest.json lists", fix)
    return manifest
