"""Files that change while a run reads them: nothing is made of half of the old and half of the new."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from refusals import ARGUMENTS, Edgec, fingerprint

from edgec.ir.graph import Graph
from edgec.passes.fold.fold import Fold
from edgec.passes.framework.context import Context

CHANGED = "changed while the run read it; leave it as it is until the run is done, and run again"


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Has something done while the first pass runs."""

    def arrange(change: Callable[[], None]) -> None:
        run = Fold.run

        def changed(self: Fold, graph: Graph, ctx: Context) -> None:
            change()
            run(self, graph, ctx)

        monkeypatch.setattr(Fold, "run", changed)

    return arrange


def overwrite(path: Path, place: int, byte: int = 255) -> None:
    """One byte in place, as by a tool that patches files."""
    with path.open("r+b") as file:
        file.seek(place)
        old = file.read(1)
        file.seek(place)
        file.write(bytes([old[0] ^ byte]))


def external(folder: Path) -> None:
    model = onnx.load(folder / "model.onnx")
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)


@pytest.mark.parametrize("place", [100, 500, 1000, 2000, -1])
def test_the_model(place: int, job: Path, edgec: Edgec, meanwhile: Callable[[Callable[[], None]], None]) -> None:
    path = job / "model.onnx"
    meanwhile(lambda: overwrite(path, place % path.stat().st_size))
    assert edgec(*ARGUMENTS) == (3, "", f"edgec: model.onnx: {CHANGED}\n")
    assert not (job / "out").exists()
    assert not [entry for entry in job.iterdir() if entry.name.startswith(".out")]


def test_its_external_data(job: Path, edgec: Edgec, meanwhile: Callable[[Callable[[], None]], None]) -> None:
    external(job)
    meanwhile(lambda: overwrite(job / "weights.bin", 40))
    assert edgec(*ARGUMENTS) == (3, "", f"edgec: weights.bin: {CHANGED}\n")
    assert not (job / "out").exists()


def test_a_change_that_makes_a_pass_fail_is_named_as_what_it_is(
    job: Path, edgec: Edgec, meanwhile: Callable[[Callable[[], None]], None]
) -> None:
    """A fold that finds other weights than the reference ran on is no fault of fold."""
    external(job)
    data = job / "weights.bin"

    def scale() -> None:
        values = np.fromfile(data, np.float32) * np.float32(1.5)
        with data.open("r+b") as file:
            file.write(values.tobytes())

    meanwhile(scale)
    assert edgec(*ARGUMENTS) == (3, "", f"edgec: weights.bin: {CHANGED}\n")


def test_an_earlier_output_stays(earlier: Path, edgec: Edgec, meanwhile: Callable[[Callable[[], None]], None]) -> None:
    before = fingerprint(earlier / "out")
    meanwhile(lambda: overwrite(earlier / "model.onnx", 1000))
    assert edgec(*ARGUMENTS)[0] == 3
    assert fingerprint(earlier / "out") == before


@pytest.mark.parametrize("name", ["good/0.png", "bad/3.png"])
def test_the_data(name: str, job: Path, edgec: Edgec, meanwhile: Callable[[Callable[[], None]], None]) -> None:
    meanwhile(lambda: shutil.copy(job / "good/1.png", job / name))
    assert edgec(*ARGUMENTS) == (3, "", f"edgec: {name}: {CHANGED}\n")
    assert not (job / "out").exists()


def test_a_file_that_is_replaced_goes_on_being_read_as_it_was(
    job: Path, edgec: Edgec, meanwhile: Callable[[Callable[[], None]], None]
) -> None:
    """The next export, written aside and renamed in; and the recipe of the next run: neither is this run's."""
    digests = {name: hashlib.sha256((job / name).read_bytes()).hexdigest() for name in ("model.onnx", "compress.yaml")}

    def replace() -> None:
        (job / "next.onnx").write_bytes((job / "model.onnx").read_bytes()[:-4] + b"abcd")
        (job / "next.onnx").replace(job / "model.onnx")
        (job / "compress.yaml").write_text("passes: [fold]\n")

    meanwhile(replace)
    assert edgec(*ARGUMENTS)[0] == 0
    manifest = json.loads((job / "out" / "manifest.json").read_text())
    assert {name: manifest[kind]["sha256"] for name, kind in zip(digests, ("model", "recipe"), strict=True)} == digests


def test_files_that_are_only_touched_or_added(
    job: Path, edgec: Edgec, meanwhile: Callable[[Callable[[], None]], None]
) -> None:
    def touch() -> None:
        os.utime(job / "model.onnx")
        shutil.copy(job / "good/1.png", job / "good/new.png")

    meanwhile(touch)
    assert edgec(*ARGUMENTS)[0] == 0
