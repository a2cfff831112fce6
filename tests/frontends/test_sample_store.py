"""Samples that are kept: in memory, in a file beyond a limit, not at all where the disk is full."""

from __future__ import annotations

import tempfile
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from edgec.frontends.sample_store import SampleStore

ARRAYS = [
    np.arange(6, dtype=np.uint8).reshape(2, 3),
    np.full((3, 1), 0.5, np.float32),
    np.zeros((0, 4), np.int64),
    np.asarray(7.0),
    np.arange(12, dtype=np.float16).reshape(3, 4).T,
]


@pytest.mark.parametrize("memory", [0, 20, 1000])
def test_what_is_kept_is_what_was_given(memory: int) -> None:
    store = SampleStore(memory)
    assert store.get(0) is None
    for number, array in enumerate(ARRAYS):
        store.put(number, array)
    for number, array in enumerate(ARRAYS):
        kept = store.get(number)
        assert kept is not None and kept.dtype == array.dtype
        np.testing.assert_array_equal(kept, array)


def test_the_first_stays() -> None:
    store = SampleStore()
    store.put("a", np.zeros(1))
    store.put("a", np.ones(1))
    assert store.get("a") == 0


def test_the_file_goes_with_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    store = SampleStore(0)
    store.put("a", np.ones(1000))
    assert not list(tmp_path.iterdir())  # it has no name even now
    kept = store.get("a")
    assert kept is not None and kept.sum() == 1000


def test_a_full_disk_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(20))
    store = SampleStore(0)
    store.put("a", np.ones(1))
    store.put("b", np.ones(1))  # of 20 bytes that are free half is taken
    assert store.get("a") == 1
    assert store.get("b") is None


def test_a_disk_that_fills_up_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    store = SampleStore(0)
    store.put("a", np.ones(2))
    monkeypatch.setattr("os.pwrite", lambda file, content, offset: 3)
    store.put("b", np.ones(2))
    monkeypatch.undo()
    store.put("c", np.ones(2))
    kept = store.get("a")
    assert kept is not None and kept.tolist() == [1, 1]
    assert store.get("b") is None and store.get("c") is None


def test_nowhere_to_write_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    store = SampleStore(0)
    store.put("a", np.ones(2))
    assert store.get("a") is None
