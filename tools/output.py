"""The output folder: built beside its place under another name, renamed in when it is whole.

An interrupted run leaves the old output as it was.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from edgec.ir.errors import EmitError, InputError, UsageError
from edgec.ir.hashing import sha256
from edgec.ir.json_files import read_object
from edgec.tools.guard import undisturbed

MANIFEST = "manifest.json"
_ANOTHER = "give another folder with -o"
_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def output_folder(place: Path, inputs: Iterable[Path] = (), dumps: Iterable[Path] = ()) -> Iterator[Path]:
    """A temporary folder that takes ``place`` when the block ends well, and is removed when it does not.

    Args:
        place: the output folder; a link is followed.
        inputs: what the run reads; none of it may lie in ``place``, whose old content goes away.
        dumps: folders that the run writes to by the way, likewise.

    Raises:
        UsageError: the place cannot be written, or holds something that is not edgec's output.
        EmitError: the disk is full.
    """
    real = Path(os.path.realpath(place))
    _check(place, real, inputs, dumps)
    with _parents(place, real):
        try:
            with _alone(real.parent):
                _restore(real)
                _check_content(place, real)
            temporary = Path(tempfile.mkdtemp(prefix=f".{real.name}.", dir=real.parent))
        except OSError as error:
            raise _unwritable(place, error) from None
        try:
            with writing(place, temporary):
                yield temporary
                # mkdtemp makes folders private; outputs are as readable as the user's other files.
                mask = os.umask(0)
                os.umask(mask)
                temporary.chmod(0o777 & ~mask)
            with writing(place), _alone(real.parent), undisturbed():
                _swap(temporary, real)
        finally:
            with undisturbed():
                shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _parents(place: Path, real: Path) -> Iterator[None]:
    """Makes the folders around the output; those that are empty when the block fails go away again."""
    made: list[Path] = []
    try:
        try:
            made = [folder for folder in real.parents if not folder.exists()]
            real.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(place, error) from None
        yield
    except BaseException:
        with undisturbed():
            for folder in made:
                with suppress(OSError):
                    folder.rmdir()
        raise


def _restore(place: Path) -> None:
    """Puts an earlier output back that a run which was killed between its two renames had moved away."""
    previous = _previous(place)
    if previous.exists() and not place.exists():
        previous.rename(place)


def _previous(place: Path) -> Path:
    """Where the earlier output is between the two renames."""
    return place.with_name(f".{place.name}.previous")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Within the block no other run renames in ``folder``, where that can be read and its file system knows locks."""
    descriptor = None
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _swap(new: Path, place: Path) -> None:
    """``new`` takes ``place``; what was there goes away only after that, and comes back when that fails."""
    previous = _previous(place)
    if previous.exists():
        shutil.rmtree(previous)
    if not place.exists():
        new.rename(place)
        return
    try:
        place.rename(previous)
        new.rename(place)
    except BaseException:  # an interrupt between the two renames must not lose the old output
        if previous.exists() and not place.exists():
            previous.rename(place)
        raise
    shutil.rmtree(previous, ignore_errors=True)


@contextmanager
def writing(place: Path, within: Path | None = None, fix: str = _ANOTHER) -> Iterator[None]:
    """Turns what the file system refuses into an error that names ``place``.

    Args:
        within: only refusals below this path are about ``place``; any path that an error names, without it. An error
            that names no path comes from writing to an open file.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise EmitError(str(place), "the disk is full", "free some space and run again") from error
        if error.errno == errno.EFBIG:
            raise EmitError(
                str(place), "a file is larger than is allowed here", "raise the limit (ulimit -f)"
            ) from error
        named = error.filename
        if isinstance(named, str | os.PathLike) and (within is None or Path(named).is_relative_to(within)):
            raise _unwritable(place, error, fix) from error
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


def _check(place: Path, real: Path, inputs: Iterable[Path], dumps: Iterable[Path]) -> None:
    if Path.cwd().is_relative_to(real):
        raise UsageError(str(place), "is the current folder or one around it", _ANOTHER)
    for path in inputs:
        if Path(os.path.realpath(path)).is_relative_to(real):
            raise UsageError(str(place), f"holds '{path}', which this run reads, and is replaced at its end", _ANOTHER)
    for path in dumps:
        if Path(os.path.realpath(path)).is_relative_to(real):
            what = f"lies in the output folder '{place}', which is replaced at the end"
            raise UsageError(str(path), what, "give another folder with --dump-ir")


def _check_content(place: Path, real: Path) -> None:
    """Raises UsageError where something stands in the output's place that is not edgec's, or cannot be replaced."""
    if real.is_symlink():
        raise UsageError(str(place), "is a link that leads back to itself", _ANOTHER)
    if os.path.ismount(real):
        raise UsageError(str(place), "is a mount point, which cannot be replaced", "give a folder inside it with -o")
    if not real.exists():
        return
    if not real.is_dir():
        raise UsageError(str(place), "is a file, and the output is a folder", _ANOTHER)
    # Replacing the folder deletes what is in it: only edgec's own output may be deleted.
    found = {path.relative_to(real).as_posix() for path in real.rglob("*") if not path.is_dir() or path.is_symlink()}
    if not found:
        return
    if MANIFEST not in found:
        raise UsageError(str(place), f"holds files that are no output of edgec (no {MANIFEST})", _ANOTHER)
    strange = sorted(found - _listed(real / MANIFEST) - {MANIFEST})
    if strange:
        raise UsageError(str(place), f"holds '{strange[0]}', which is no output of edgec", f"move it, or {_ANOTHER}")


def _listed(manifest: Path) -> set[str]:
    """The files that an earlier run left, by its manifest; none where it cannot be read as one."""
    try:
        return set(read_object(manifest, "")["files"])
    except (InputError, TypeError, KeyError):
        return set()


def _unwritable(place: Path, error: OSError, fix: str = _ANOTHER) -> UsageError:
    # mkdir says "file exists" of a file on the way.
    reason = "not a directory" if isinstance(error, FileExistsError) else (error.strerror or "unknown reason").lower()
    return UsageError(str(place), f"cannot be written ({reason})", fix)
