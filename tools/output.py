"""The output folder: built beside its place under another name, renamed in when it is whole.

An interrupted run leaves the old output as it was.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgec.ir.errors import EmitError, UsageError

MANIFEST = "manifest.json"
_CHUNK = 1 << 20


@contextmanager
def output_folder(place: Path) -> Iterator[Path]:
    """A temporary folder that takes ``place`` when the block ends well, and is removed when it does not.

    Raises:
        UsageError: the place cannot be written, or holds something that is not an output of edgec.
        EmitError: the disk is full.
    """
    _check(place)
    previous = _previous(place)
    if previous.exists() and not place.exists():
        previous.rename(place)  # a run was killed between its two renames
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
    except OSError as error:
        raise _unwritable(place, error) from None
    try:
        with writing(place):
            yield temporary
            # mkdtemp makes folders private; outputs are as readable as the user's other files.
            mask = os.umask(0)
            os.umask(mask)
            temporary.chmod(0o777 & ~mask)
            if place.exists():
                shutil.rmtree(previous, ignore_errors=True)
                place.rename(previous)
                try:
                    temporary.rename(place)
                except OSError:
                    previous.rename(place)
                    raise
                shutil.rmtree(previous, ignore_errors=True)
            else:
                temporary.rename(place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turns what the file system refuses into an error that names ``place``."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise EmitError(str(place), "the disk is full", "free some space and run again") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) and error.filename is not None:
            raise _unwritable(place, error) from None
        raise


def write_json(path: Path, value: Any) -> None:
    """Writes ``value`` with sorted keys where order has no meaning to readers, two spaces deep, one line at the end."""
    path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_manifest(folder: Path, head: Mapping[str, Any]) -> None:
    """Writes ``manifest.json``: ``head``, then sha256 and bytes of every file in ``folder``, by path."""
    entries = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            entries[path.relative_to(folder).as_posix()] = {"sha256": sha256(path), "bytes": path.stat().st_size}
    write_json(folder / MANIFEST, {**head, "files": entries})


def sha256(path: Path) -> str:
    """The file's SHA-256 in hexadecimal, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _check(place: Path) -> None:
    if not place.exists():
        return
    if not place.is_dir():
        raise UsageError(str(place), "is a file, and the output is a folder", "give another folder with -o")
    # Replacing the folder deletes what is in it: only edgec's own output may be deleted.
    if any(place.iterdir()) and not (place / MANIFEST).is_file():
        raise UsageError(
            str(place), f"holds files that are no output of edgec (no {MANIFEST})", "give another folder with -o"
        )


def _previous(place: Path) -> Path:
    return place.with_name(f".{place.name}.previous")


def _unwritable(place: Path, error: OSError) -> UsageError:
    reason = (error.strerror or "unknown reason").lower()
    return UsageError(str(place), f"cannot be written ({reason})", "give another folder with -o")
