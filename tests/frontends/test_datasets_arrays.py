"""Arrays in files: read in pieces, fed as they are, refused where the model takes something else."""

from __future__ import annotations

import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgec.frontends.datasets import open_dataset
from edgec.frontends.recipe_data import DataSpec
from edgec.ir.errors import InputError

F32 = np.dtype(np.float32)
INPUTS = {"x": ((1, 2, 3), F32)}
X = np.arange(7 * 2 * 3, dtype=np.float32).reshape(7, 2, 3)


def opened(path: str, inputs: dict = INPUTS, **data: object):
    return open_dataset(DataSpec.model_validate({"arrays": Path(path), **data}), None, inputs)


@pytest.mark.parametrize("write", ["savez", "savez_compressed", "save"])
def test_rows_come_in_order_and_in_batches(here: Path, write: str) -> None:
    path = "x.npy" if write == "save" else "x.npz"
    np.save(path, X) if write == "save" else getattr(np, write)(path, x=X, labels=np.arange(7), other=np.zeros(2))
    data = opened(path)
    for size in (1, 3, 7, 10):
        batches = list(data.batches(size))
        assert np.array_equal(np.concatenate([batch["x"] for batch in batches]), X)
        assert [len(batch["x"]) for batch in batches] == [min(size, 7 - i) for i in range(0, 7, size)]
    assert (len(data), data.source, data.names[2]) == (7, path, f"{path}: sample 2")
    assert data.labels is None if write == "save" else data.labels.tolist() == list(range(7))
    few = opened(path, samples=3)
    assert np.array_equal(next(iter(few.batches(9)))["x"], X[[0, 2, 4]])
    assert few.labels is None or few.labels.tolist() == [0, 2, 4]
    assert few.names == [f"{path}: sample {row}" for row in (0, 2, 4)]


def test_several_inputs_and_other_byte_orders(here: Path) -> None:
    np.savez("x.npz", x=X.astype(">f4"), ids=np.arange(7, dtype=np.int64))
    inputs = {"x": ((None, 2, "width"), F32), "ids": ((1,), np.dtype(np.int64))}
    batch = next(iter(opened("x.npz", inputs).batches(7)))
    assert np.array_equal(batch["x"], X) and batch["x"].dtype == F32 and batch["x"].dtype.isnative
    assert batch["ids"].tolist() == list(range(7))


def test_an_input_may_be_called_labels(here: Path) -> None:
    np.savez("x.npz", labels=X)
    data = opened("x.npz", {"labels": ((1, 2, 3), F32)})
    assert data.labels is None and len(data) == 7


def test_a_file_is_never_held_whole(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgec.frontends.sample_store._MEMORY_BYTES", 1 << 20)
    rows = np.zeros((400, 25_000), np.float32)  # 40 MB
    np.savez_compressed("x.npz", x=rows)
    np.save("x.npy", rows)
    del rows
    for path in ("x.npz", "x.npy"):
        tracemalloc.start()
        data = opened(path, {"x": ((1, 25_000), F32)})
        count = sum(len(batch["x"]) for _ in range(2) for batch in data.batches(2))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == 800
        assert peak < 4 << 20


def test_the_hash_is_the_file_s(here: Path) -> None:
    np.save("x.npy", X)
    first = opened("x.npy").content_hash()
    assert first == opened("x.npy").content_hash()
    np.save("x.npy", X + 1)
    assert first != opened("x.npy").content_hash()


REFUSED = [
    (
        {"y": X},
        "x.npz: holds no array 'x' for the model's input; it holds 'y'; save it with numpy.savez(FILE, **{'x': array})",
    ),
    (
        {},
        "x.npz: holds no array 'x' for the model's input; it holds none; save it with numpy.savez(FILE,"
        " **{'x': array})",
    ),
    (
        {"x": X.astype(np.float64)},
        "x.npz: array 'x': is float64, but the model's input 'x' takes float32; convert it with"
        " array.astype('float32')",
    ),
    (
        {"x": X[:, :, :2]},
        "x.npz: array 'x': holds samples of shape 2x2, but the model's input 'x' takes 2x3; reshape it"
        " to samples of 2x3",
    ),
    (
        {"x": X[0]},
        "x.npz: array 'x': holds samples of shape 3, but the model's input 'x' takes 2x3; put the"
        " samples on the first axis: array[numpy.newaxis]",
    ),
    ({"x": X[0, 0, 0]}, "x.npz: array 'x': is one number; put the samples on the first axis"),
    ({"x": X[:0]}, "x.npz: holds no sample; write at least one row"),
    ({"x": X.T.copy().T}, "x.npz: array 'x': is in Fortran order; save numpy.ascontiguousarray(array)"),
    ({"x": np.array([None, {}])}, "x.npz: array 'x': holds Python objects or records; save plain numbers"),
    ({"x": X, "labels": np.arange(3)}, "x.npz: array 'labels': has 3 rows for 7 samples; give each sample one"),
    ({"x": X, "labels": np.array(3)}, "x.npz: array 'labels': has no rows for 7 samples; give each sample one"),
    (
        {"x": X, "labels": np.array([0, 1, np.nan, 3, 4, 5, 6])},
        "x.npz: array 'labels': sample 2 holds NaN or infinity; take it out, or repair what wrote it",
    ),
]


@pytest.mark.parametrize(("arrays", "message"), REFUSED, ids=range(len(REFUSED)))
def test_arrays_that_the_model_does_not_take(here: Path, arrays: dict, message: str) -> None:
    np.savez("x.npz", **arrays)
    with pytest.raises(InputError) as caught:
        opened("x.npz")
    assert str(caught.value) == message


def test_arrays_of_different_lengths(here: Path) -> None:
    np.savez("x.npz", x=X, y=X[:5])
    with pytest.raises(InputError) as caught:
        opened("x.npz", {"x": ((1, 2, 3), F32), "y": ((1, 2, 3), F32)})
    assert str(caught.value) == "x.npz: its arrays differ in samples ('x' 7, 'y' 5); give each as many rows"


def test_an_npy_feeds_one_input(here: Path) -> None:
    np.save("x.npy", X)
    with pytest.raises(InputError) as caught:
        opened("x.npy", {"x": ((1, 2, 3), F32), "y": ((1,), F32)})
    assert str(caught.value) == (
        "x.npy: feeds one input, and the model has 2 ('x', 'y'); save an .npz with an array for each"
    )


def test_nan_is_told_with_its_sample(here: Path) -> None:
    bad = X.copy()
    bad[4, 1, 1] = np.nan
    np.savez("x.npz", x=bad)
    with pytest.raises(InputError) as caught:
        list(opened("x.npz").batches(2))
    assert str(caught.value) == (
        "x.npz: array 'x': sample 4 holds NaN or infinity; take it out, or repair what wrote it"
    )


def test_files_that_are_broken(here: Path) -> None:
    np.save("cut.npy", X)
    Path("cut.npy").write_bytes(Path("cut.npy").read_bytes()[:-5])
    np.savez("cut.npz", x=X)
    Path("cut.npz").write_bytes(Path("cut.npz").read_bytes()[:-40])
    Path("text.npy").write_text("a,b\n" * 20)
    Path("folder.npz").mkdir()
    with zipfile.ZipFile("liar.npz", "w") as archive:  # a header that promises more than is there
        np.save("tiny.npy", np.zeros(1))
        archive.writestr("x.npy", Path("tiny.npy").read_bytes().replace(b"(1,), }  ", b"(9000,), }")[:-8])
    messages = {}
    for path in ("cut.npy", "cut.npz", "text.npy", "gone.npz", "folder.npz", "liar.npz"):
        with pytest.raises(InputError) as caught:
            opened(path)
        messages[path] = str(caught.value)
    assert messages == {
        "cut.npy": "cut.npy: is cut off: 291 bytes of 296; write the file again",
        "cut.npz": "cut.npz: cannot be read as an .npz file (File is not a zip file); write it again with numpy",
        "text.npy": "text.npy: cannot be read as an .npy file (the magic string is not correct; expected"
        " b'\\x93NUMPY', got b'a,b\\na,'); write it again with numpy",
        "gone.npz": "gone.npz: there is no such file; correct the path; it is relative to the recipe",
        "folder.npz": "folder.npz: cannot be read (Is a directory); check the path and its permissions",
        "liar.npz": messages["liar.npz"],
    }
    assert messages["liar.npz"].startswith("liar.npz: array 'x': is cut off: ")


def test_a_flipped_byte_is_found_by_the_checksum(here: Path) -> None:
    np.savez("x.npz", x=X)
    content = bytearray(Path("x.npz").read_bytes())
    at = content.index(X[6].tobytes())
    content[at] ^= 1
    Path("x.npz").write_bytes(bytes(content))
    with pytest.raises(InputError) as caught:
        list(opened("x.npz").batches(7))
    assert str(caught.value) == (
        "x.npz: cannot be read as an .npz file (Bad CRC-32 for file 'x.npy'); write it again with numpy"
    )


STATE = {"x": ((1, 4), F32), "h": ((1, 2, 1, 3), F32), "k": ((1,), F32)}  # x: 1x4, h: 2x1x3, k: one number


def test_whole_inputs_are_fed_sample_by_sample(here: Path) -> None:
    rows, states, numbers = (np.random.default_rng(0).random((5, *s), np.float32) for s in ((4,), (2, 1, 3), ()))
    for x in (rows, rows[:, np.newaxis]):
        np.savez("x.npz", x=x, h=states, k=numbers)
        data = opened("x.npz", STATE)
        assert len(data) == 5
        for index, feeds in enumerate(data.batches(1)):
            np.testing.assert_array_equal(feeds["x"], rows[index : index + 1])
            np.testing.assert_array_equal(feeds["h"], states[index : index + 1])
            np.testing.assert_array_equal(feeds["k"], numbers[index : index + 1])


def test_whole_batches_are_rows(here: Path) -> None:
    batches = np.random.default_rng(0).random((3, 2, 4), np.float32)
    np.savez("x.npz", x=batches)
    data = opened("x.npz", {"x": ((2, 4), F32)})
    assert len(data) == 6
    for index, feeds in enumerate(data.batches(2)):
        np.testing.assert_array_equal(feeds["x"], batches[index])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"x": np.zeros((5, 4), np.float32), "h": np.zeros((2, 1, 3), np.float32), "k": np.zeros(5, np.float32)},
            "x.npz: array 'h': holds samples of shape 1x3, but the model's input 'h' takes 2x1x3; put the samples on"
            " the first axis: array[numpy.newaxis]",
        ),
        (
            {"x": np.zeros((5, 4), np.float32), "h": np.zeros((5, 2, 1, 3), np.float32), "k": np.float32(3)},
            "x.npz: array 'k': is one number; put the samples on the first axis, or pin the input with --input k=VALUE",
        ),
    ],
)
def test_whole_inputs_of_another_form(here: Path, arrays: dict, message: str) -> None:
    np.savez("x.npz", **arrays)
    with pytest.raises(InputError) as caught:
        opened("x.npz", STATE)
    assert str(caught.value) == message
