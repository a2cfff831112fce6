"""Whether a folder still holds what edgec wrote: its files against the hashes that lie beside them.

The manifest of an output folder has them all. A target's folder that was copied away from it has its own: a bundle's
``manifest.json``, or ``check.json``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from edgec.ir.errors import InputError
from edgec.ir.hashing import sha256
from edgec.ir.json_files import read_object

MANIFEST, CHECK = "manifest.json", "check.json"
AGAIN = "copy the folder again, or compile again"
_DIGEST = re.compile(r"[0-9a-f]{64}")


def verify_output(place: Path) -> None:
    """Holds an output folder to its ``manifest.json``.

    Raises:
        InputError: that cannot be read, or a file is missing or another one; the line names it.
    """
    _verify(place, place / MANIFEST, _listed(place / MANIFEST))


def verify_target(folder: Path) -> None:
    """Holds a target's folder to the manifest of the output folder that it lies in, or to its own hashes.

    Raises:
        InputError: as :func:`verify_output`.
    """
    whole, prefix = folder.resolve().parent, f"{folder.resolve().name}/"
    if (whole / MANIFEST).is_file() and (whole / "report.json").is_file():
        listed = _listed(whole / MANIFEST)
        own = {name.removeprefix(prefix): digest for name, digest in listed.items() if name.startswith(prefix)}
        if own:
            _verify(folder, whole / MANIFEST, own)
            return
    for name in (MANIFEST, CHECK):
        if (folder / name).is_file():
            _verify(folder, folder / name, _listed(folder / name, required=name == MANIFEST))
            return


def _listed(path: Path, *, required: bool = True) -> dict[str, str]:
    """The hash of each file that a JSON file lists under ``files``, by path."""
    value = read_object(path, AGAIN)
    if "files" not in value and not required:  # of an earlier version
        return {}
    entries = value.get("files")
    if not isinstance(entries, Mapping):
        raise InputError(str(path), "lists no files: edgec did not write it", AGAIN)
    return {name: _digest(entry, name, path) for name, entry in entries.items()}


def _digest(entry: Any, name: str, path: Path) -> str:
    digest = entry.get("sha256") if isinstance(entry, Mapping) else entry
    parts = PurePosixPath(name).parts
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest) or name.startswith("/") or ".." in parts:
        raise InputError(str(path), f"its entry of '{name}' is damaged", AGAIN)
    return digest


def _verify(folder: Path, manifest: Path, listed: Mapping[str, str]) -> None:
    for name, digest in listed.items():
        path = folder / name
        try:
            same = sha256(path) == digest
        except (OSError, ValueError):
            raise InputError(str(path), f"cannot be read, and {manifest.name} lists it", AGAIN) from None
        if not same:
            what = f"is not the file that {manifest.name} lists: one of the two was changed or damaged"
            raise InputError(str(path), what, AGAIN)
