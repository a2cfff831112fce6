"""The output folder: whole or not there, whatever happens, and nobody else's files deleted."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgec.ir.errors import EmitError, UsageError
from edgec.ir.hashing import sha256
from edgec.tools.output import output_folder, write_json, write_manifest, writing


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the output goes, as a user writes it."""
    monkeypatch.chdir(tmp_path)
    return Path("out")


def leave(place: Path, text: str, inputs: tuple[Path, ...] = ()) -> None:
    """A run that leaves a file in a folder, and the manifest."""
    with output_folder(place, inputs) as folder:
        (folder / "cpu").mkdir()
        (folder / "cpu" / "model.onnx").write_text(text)
        write_manifest(folder, {"edgec": "test"})


def content(place: Path) -> str:
    return (place / "cpu" / "model.onnx").read_text()


def beside(place: Path) -> list[str]:
    return sorted(path.name for path in place.parent.iterdir())


def test_a_run_takes_the_place_of_the_earlier_one(place: Path) -> None:
    for text in ("first", "second", "third"):
        leave(place, text)
        assert content(place) == text
        assert beside(place) == ["out"]


def test_folders_around_it_are_made(place: Path) -> None:
    leave(place / "a" / "b", "text")
    assert content(place / "a" / "b") == "text"


def test_others_may_read_it_as_they_may_read_new_folders(place: Path) -> None:
    Path("plain").mkdir()
    leave(place, "text")
    assert place.stat().st_mode == Path("plain").stat().st_mode


def test_a_link_is_followed(place: Path) -> None:
    leave(Path("elsewhere/real"), "first")
    place.symlink_to("elsewhere/real")
    leave(place, "second")
    assert place.is_symlink()
    assert content(Path("elsewhere/real")) == "second"
    assert beside(Path("elsewhere/real")) == ["real"]


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyboardInterrupt(), UsageError("a", "b")])
def test_a_run_that_fails_leaves_the_earlier_one(place: Path, error: BaseException) -> None:
    leave(place, "first")
    with pytest.raises(type(error)), output_folder(place) as folder:
        (folder / "half").write_text("half")
        raise error
    assert content(place) == "first"
    assert beside(place) == ["out"]


def failing_at(count: int, call: Callable[..., Any], error: BaseException) -> Callable[..., Any]:
    """``call``, which raises at its ``count``-th time."""
    calls = iter(range(1, 1000))

    def run(*arguments: Any, **named: Any) -> Any:
        if next(calls) == count:
            raise error
        return call(*arguments, **named)

    return run


def operations() -> Iterator[tuple[str, int, Any]]:
    """Every call to the file system that a run makes between its last file and its end, and one error for each."""
    for owner, name, most in ((Path, "chmod", 1), (Path, "rename", 2), (Path, "write_text", 2)):
        for count in range(1, most + 1):
            yield f"{name}-{count}", count, (owner, name)


@pytest.mark.parametrize(("count", "patched"), [o[1:] for o in operations()], ids=[o[0] for o in operations()])
@pytest.mark.parametrize(
    ("error", "kind", "line"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), EmitError,
         "out: the disk is full; free some space and run again"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), EmitError,
         "out: the disk is full; free some space and run again"),
        (OSError(errno.EFBIG, "File too large"), EmitError,
         "out: a file is larger than is allowed here; raise the limit (ulimit -f)"),
        (KeyboardInterrupt(), KeyboardInterrupt, ""),
    ],
    ids=["full", "quota", "limit", "interrupted"],
)  # fmt: skip
def test_a_refusal_at_any_moment_leaves_the_earlier_one(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    patched: tuple[Any, str],
    error: BaseException,
    kind: type[BaseException],
    line: str,
) -> None:
    leave(place, "first")
    owner, name = patched
    with monkeypatch.context() as patch, pytest.raises(kind) as caught:
        patch.setattr(owner, name, failing_at(count, getattr(owner, name), error))
        leave(place, "second")
    assert str(caught.value) == line
    assert content(place) == "first"
    assert beside(place) == ["out"]


def test_a_real_limit_on_the_size_of_files(place: Path) -> None:
    leave(place, "first")
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, old[1]))
    try:
        with pytest.raises(EmitError) as caught:
            leave(place, "x" * (1 << 17))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert str(caught.value) == "out: a file is larger than is allowed here; raise the limit (ulimit -f)"
    assert content(place) == "first"
    assert beside(place) == ["out"]


def test_a_real_full_disk(place: Path) -> None:
    """/dev/full is always there on Linux: every write to it finds the disk full."""
    leave(place, "first")
    with pytest.raises(EmitError) as caught, output_folder(place) as folder:
        (folder / "model.onnx").symlink_to("/dev/full")
        (folder / "model.onnx").write_text("text")
    assert str(caught.value) == "out: the disk is full; free some space and run again"
    assert content(place) == "first"


KILLED = """
import os, signal, sys
from pathlib import Path
from edgec.tools.output import output_folder, write_manifest
rename, calls = Path.rename, []
def killing(self, target):
    calls.append(target)
    if len(calls) == {count}:
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, target)
Path.rename = killing
with output_folder(Path("out")) as folder:
    (folder / "cpu").mkdir()
    (folder / "cpu" / "model.onnx").write_text("second")
    write_manifest(folder, {{}})
"""


@pytest.mark.parametrize("count", [1, 2])
def test_a_run_that_is_killed_leaves_the_earlier_one_to_the_next(place: Path, count: int) -> None:
    leave(place, "first")
    done = subprocess.run([sys.executable, "-c", KILLED.format(count=count)], check=False)
    assert done.returncode == -signal.SIGKILL
    with pytest.raises(ValueError), output_folder(place):
        assert content(place) == "first"
        raise ValueError
    assert content(place) == "first"
    leave(place, "third")
    assert content(place) == "third"


def refused(place: Path, line: str, inputs: tuple[Path, ...] = ()) -> None:
    with pytest.raises(UsageError) as caught:
        leave(place, "second", inputs)
    assert str(caught.value) == line


def test_a_file_in_its_place(place: Path) -> None:
    place.write_text("")
    refused(place, "out: is a file, and the output is a folder; give another folder with -o")


def test_a_folder_that_is_not_ours(place: Path) -> None:
    place.mkdir()
    leave(place, "an empty one may be taken")
    shutil.rmtree(place)
    place.mkdir()
    (place / "thesis.txt").write_text("years of work")
    refused(place, "out: holds files that are no output of edgec (no manifest.json); give another folder with -o")
    assert (place / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("name", ["notes.txt", "cpu/engine.plan"])
def test_a_file_that_somebody_put_there(place: Path, name: str) -> None:
    leave(place, "first")
    (place / name).write_text("an hour of work")
    refused(place, f"out: holds '{name}', which is no output of edgec; move it, or give another folder with -o")
    assert (place / name).read_text() == "an hour of work"


@pytest.mark.parametrize("manifest", ["", "[]", "{}", '{"files": 3}', "\x00"])
def test_a_manifest_that_is_not_ours(place: Path, manifest: str) -> None:
    leave(place, "first")
    (place / "manifest.json").write_text(manifest)
    refused(place, "out: holds 'cpu/model.onnx', which is no output of edgec; move it, or give another folder with -o")


def test_a_link_that_leads_to_itself(place: Path) -> None:
    place.symlink_to("out")
    refused(place, "out: is a link that leads back to itself; give another folder with -o")


def test_a_mount_point(place: Path) -> None:
    refused(Path("/proc"), "/proc: is a mount point, which cannot be replaced; give a folder inside it with -o")


def test_a_run_that_fails_leaves_no_folder_around_it(place: Path) -> None:
    (place / "kept").mkdir(parents=True)
    with pytest.raises(ValueError), output_folder(place / "kept" / "a" / "b"):
        raise ValueError
    with pytest.raises(UsageError), output_folder(place / "kept" / ("a" * 250) / ("b" * 250)):
        pass
    assert list((place / "kept").iterdir()) == []


def test_a_second_interrupt_leaves_nothing_behind(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(place, "first")
    remove = shutil.rmtree

    def interrupted(path: Path, **named: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        remove(path, **named)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt), output_folder(place) as folder:
        (folder / "half").write_text("half")
        patch.setattr(shutil, "rmtree", interrupted)
        raise KeyboardInterrupt
    assert content(place) == "first"
    assert beside(place) == ["out"]


RACING = """
from pathlib import Path
from edgec.tools.output import output_folder, write_manifest
for _ in range(200):
    with output_folder(Path("out")) as folder:
        write_manifest(folder, {})
"""


def test_runs_at_the_same_time_do_not_meet(place: Path) -> None:
    runs = [subprocess.Popen([sys.executable, "-c", RACING], stderr=subprocess.PIPE, text=True) for _ in range(2)]
    assert [(run.communicate()[1], run.returncode) for run in runs] == [("", 0), ("", 0)]
    assert beside(place) == ["out"]


def test_the_current_folder(place: Path) -> None:
    for given in (Path(), Path(".."), Path("/")):
        refused(given, f"{given}: is the current folder or one around it; give another folder with -o")


def test_what_is_read_is_not_replaced(place: Path) -> None:
    leave(place, "first")
    refused(
        place,
        "out: holds 'out/cpu/model.onnx', which this run reads, and is replaced at its end; "
        "give another folder with -o",
        (place / "cpu" / "model.onnx",),
    )
    Path("link.onnx").symlink_to("out/cpu/model.onnx")
    refused(
        place,
        "out: holds 'link.onnx', which this run reads, and is replaced at its end; give another folder with -o",
        (Path("recipe.yaml"), Path("link.onnx")),
    )
    assert content(place) == "first"


def test_a_place_that_cannot_be_written(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("blocked").write_text("")
    refused(Path("blocked/out"), "blocked/out: cannot be written (not a directory); give another folder with -o")
    refused(Path("n" * 300), f"{'n' * 300}: cannot be written (file name too long); give another folder with -o")
    denied = PermissionError(errno.EACCES, "Permission denied", "out")
    monkeypatch.setattr("tempfile.mkdtemp", failing_at(1, lambda **_: "", denied))
    refused(place, "out: cannot be written (permission denied); give another folder with -o")


def test_a_place_that_is_busy(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave(place, "first")
    busy = OSError(errno.EBUSY, "Device or resource busy", str(place))
    monkeypatch.setattr(Path, "rename", failing_at(1, Path.rename, busy))
    refused(place, "out: cannot be written (device or resource busy); give another folder with -o")
    assert content(place) == "first"
    assert beside(place) == ["out"]


def test_only_refusals_of_the_output_are_the_outputs(place: Path) -> None:
    data = PermissionError(errno.EACCES, "Permission denied", "good/0.png")
    with pytest.raises(PermissionError) as caught, output_folder(place):
        raise data
    assert caught.value is data
    with pytest.raises(UsageError) as refusal, writing(Path("ir"), fix="give another folder with --dump-ir"):
        Path("out-of-the-way/ir").mkdir()
    assert str(refusal.value) == (
        "ir: cannot be written (no such file or directory); give another folder with --dump-ir"
    )


def test_the_manifest_lists_every_file(place: Path) -> None:
    with output_folder(place) as folder:
        (folder / "cpu").mkdir()
        (folder / "cpu" / "model.onnx").write_bytes(b"weights")
        (folder / "empty").mkdir()
        write_json(folder / "report.json", {"b": 1.5, "a": None})
        write_manifest(folder, {"edgec": "1"})
    manifest = json.loads((place / "manifest.json").read_text())
    report = b'{\n  "b": 1.5,\n  "a": null\n}\n'
    assert manifest == {
        "edgec": "1",
        "files": {
            "cpu/model.onnx": {"sha256": hashlib.sha256(b"weights").hexdigest(), "bytes": 7},
            "report.json": {"sha256": hashlib.sha256(report).hexdigest(), "bytes": len(report)},
        },
    }
    assert (place / "report.json").read_bytes() == report
    assert sha256(place / "report.json") == hashlib.sha256(report).hexdigest()


def test_json_has_no_infinity(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "report.json", {"sqnr_db": float("inf")})
