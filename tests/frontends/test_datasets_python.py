"""Samples from a user's function, and what is said where the function is not right."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from edgec.frontends import datasets_iterable
from edgec.frontends.datasets import open_dataset
from edgec.frontends.recipe_data import DataSpec
from edgec.ir.errors import EdgecError

F32 = np.dtype(np.float32)
INPUTS = {"x": ((1, 2), F32)}

MODULE = """
import sys
import numpy as np
from values_beside import BASE

def row(i):
    return np.full(2, BASE + i, np.float32)

class Lazy:
    asked = []
    def __len__(self):
        return 10
    def __getitem__(self, i):
        self.asked.append(i)
        return row(i), i % 3

def sequence():
    return Lazy()

def generator():
    for i in range(10):
        yield {"x": row(i)}

def whole_array():
    return np.stack([row(i) for i in range(10)])

def two():
    return [{"x": row(i), "y": np.float32(i)} for i in range(3)]

def fails():
    raise KeyError("no such thing")

def fails_late():
    yield row(0)
    raise OSError("disk is gone")

def shrinking(times=[0]):
    times[0] += 1
    return iter([row(0)] * (3 if times[0] < 3 else 2))

def none(): return None
def empty(): return []
def mapping(): return {"x": row(0)}
def triple(): return [(row(0), 1, 2)]
def misnamed(): return [{"xx": row(0)}]
def of_float64(): return [np.zeros(2)]
def too_long(): return [np.zeros(3, np.float32)]
def not_finite(): return [row(0), row(0) * np.inf]
def ragged_labels(): return [(row(0), [1]), (row(0), [1, 2])]
def leaves(): sys.exit(7)
def leaves_late():
    yield row(0)
    raise GeneratorExit
def no_array(): return [[[1], [1, 2]]]
def endless():
    while True: yield row(0)
def text_labels(): return [(row(0), "a")]
not_callable = 3
"""


@pytest.fixture
def folder(here: Path) -> Path:
    Path("samples.py").write_text(MODULE)
    Path("values_beside.py").write_text("BASE = 5\n")
    yield here
    sys.modules.pop("values_beside", None)


def opened(function: str, folder: Path, inputs: dict = INPUTS, samples: int | None = None):
    spec = DataSpec.model_validate({"python": f"samples:{function}" if ":" not in function else function})
    spec = spec.model_copy(update={"samples": samples})
    spec.located("c.yaml: line 2: data.train", folder)
    return open_dataset(spec, None, inputs)


@pytest.mark.parametrize("function", ["sequence", "generator", "whole_array"])
def test_samples_of_every_kind(folder: Path, function: str) -> None:
    data = opened(function, folder)
    for size in (3, 10):
        values = np.concatenate([batch["x"] for batch in data.batches(size)])
        assert np.array_equal(values, np.repeat(np.arange(5, 15, dtype=np.float32)[:, None], 2, axis=1))
    assert len(data) == 10
    assert data.names[3] == f"python: samples:{function}: sample 3"
    few = opened(function, folder, samples=4)
    assert next(iter(few.batches(9)))["x"][:, 0].tolist() == [5, 7, 10, 12]
    labels = few.labels
    assert labels is None if function != "sequence" else labels.tolist() == [0, 2, 2, 1]
    assert data.content_hash() == opened(function, folder).content_hash() != few.content_hash()


def test_a_sequence_is_asked_for_what_is_needed_only(folder: Path) -> None:
    data = opened("sequence", folder, samples=5)
    asked = data._samples.asked
    asked.clear()
    batches = data.batches(2)
    assert asked == []
    next(batches)
    assert asked == [0, 2]


def test_the_recipe_s_folder_is_searched_and_left_as_it_was(folder: Path) -> None:
    before = list(sys.path)
    opened("sequence", folder)
    assert sys.path == before
    assert sorted(path.name for path in folder.iterdir()) == ["samples.py", "values_beside.py"]


def test_two_recipes_modules_of_one_name_stay_apart(here: Path) -> None:
    for name in ("a", "b"):
        Path(name).mkdir()
        Path(name, "samples.py").write_text(
            f"import numpy as np\ndef f(): return [np.full(2, ord('{name}'), np.float32)]\n"
        )
    values = [next(iter(opened("f", here / name).batches(1)))["x"][0, 0] for name in ("a", "b")]
    assert values == [ord("a"), ord("b")]


def test_several_inputs(folder: Path) -> None:
    inputs = {"x": ((1, 2), F32), "y": ((1,), F32)}
    batch = next(iter(opened("two", folder, inputs).batches(3)))
    assert (batch["x"].shape, batch["y"].tolist()) == ((3, 2), [0, 1, 2])


WRONG = [
    ("nowhere:f", 2, "c.yaml: line 2: data.train: there is no module 'nowhere'; put nowhere.py beside the recipe"),
    (
        "sequense",
        2,
        "c.yaml: line 2: data.train: the module 'samples' has no function 'sequense'; correct the name."
        " Did you mean 'sequence'?",
    ),
    (
        "not_callable",
        2,
        "c.yaml: line 2: data.train: the module 'samples' has no function 'not_callable'; correct the name",
    ),
    (
        "broken:f",
        3,
        "python: broken:f: the module 'broken' cannot be imported: ZeroDivisionError (division by"
        " zero); fix the module",
    ),
    ("needy:f", 3, "python: needy:f: the module 'needy' needs 'not_installed_here'; install it"),
    ("fails", 3, "python: samples:fails: failed with KeyError ('no such thing'); fix the function"),
    ("leaves", 3, "python: samples:leaves: failed with SystemExit (7); fix the function"),
    ("leaves_late", 3, "python: samples:leaves_late: failed with GeneratorExit; fix the function"),
    ("no_array", 3, "python: samples:no_array: sample 0: gives no array for 'x'; give rows of one length"),
    ("endless", 3, "python: samples:endless: gives more than 99 samples; let it come to an end"),
    (
        "quits:f",
        3,
        "python: quits:f: the module 'quits' cannot be imported: SystemExit (7); fix the module",
    ),
    ("fails_late", 3, "python: samples:fails_late: failed with OSError (disk is gone); fix the function"),
    ("none", 3, "python: samples:none: returned NoneType, not samples; return a sequence or an iterable of samples"),
    ("mapping", 3, "python: samples:mapping: returned dict, not samples; return a sequence or an iterable of samples"),
    ("empty", 3, "python: samples:empty: returned no sample; return at least one"),
    ("triple", 3, "python: samples:triple: sample 0: is a tuple of 3; give (sample, label)"),
    (
        "misnamed",
        3,
        "python: samples:misnamed: sample 0: lacks the model's input 'x'; add it to the mapping. Did you mean 'xx'?",
    ),
    (
        "of_float64",
        3,
        "python: samples:of_float64: sample 0: is float64, but the model's input 'x' takes float32;"
        " convert it with array.astype('float32')",
    ),
    (
        "too_long",
        3,
        "python: samples:too_long: sample 0: is of shape 3, but the model's input 'x' takes 2; reshape"
        " it to one sample of 2",
    ),
    (
        "not_finite",
        3,
        "python: samples:not_finite: input 'x': sample 1 holds NaN or infinity; take it out, or repair what wrote it",
    ),
    ("shrinking", 3, "python: samples:shrinking: gave 2 samples of 3 in a later reading; give the same ones each time"),
    ("ragged_labels", 3, "python: samples:ragged_labels: labels differ in shape; give each sample one alike"),
    ("text_labels", 3, "python: samples:text_labels: labels are not numbers; give each sample a number or an array"),
]


@pytest.mark.parametrize(("function", "status", "message"), WRONG, ids=[name for name, _, _ in WRONG])
def test_functions_that_are_not_right(
    folder: Path, function: str, status: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets_iterable, "MOST_SAMPLES", 99)
    Path("broken.py").write_text("1 / 0\n")
    Path("quits.py").write_text("import sys\nsys.exit(7)\n")
    Path("needy.py").write_text("import not_installed_here\n")
    with pytest.raises(EdgecError) as caught:
        data = opened(function, folder)
        list(data.batches(2))
        _ = data.labels
    assert (str(caught.value), caught.value.exit_status) == (message, status)


def test_one_array_for_several_inputs(folder: Path) -> None:
    with pytest.raises(EdgecError) as caught:
        list(opened("sequence", folder, {"x": ((1, 2), F32), "y": ((1,), F32)}).batches(1))
    assert str(caught.value) == (
        "python: samples:sequence: sample 0: is one array, and the model has 2 inputs; give a mapping with 'x', 'y'"
    )


def test_whole_inputs_and_samples_with_a_batch_of_their_own(here: Path) -> None:
    Path("states.py").write_text(
        "import numpy as np\n"
        "def samples():\n"
        "    return [{'x': np.full((1, 4), i, np.float32), 'h': np.full((2, 1, 3), i, np.float32), 'k': np.float32(i)}"
        " for i in range(3)]\n"
    )
    inputs = {"x": ((1, 4), F32), "h": ((1, 2, 1, 3), F32), "k": ((1,), F32)}
    spec = DataSpec.model_validate({"python": "states:samples"})
    spec.located("c.yaml: line 2: data.calibration", Path.cwd())
    feeds = list(open_dataset(spec, None, inputs).batches(2))
    assert [{name: x.shape for name, x in batch.items()} for batch in feeds] == [
        {"x": (2, 4), "h": (2, 2, 1, 3), "k": (2,)},
        {"x": (1, 4), "h": (1, 2, 1, 3), "k": (1,)},
    ]
    np.testing.assert_array_equal(feeds[0]["h"][1], np.ones((2, 1, 3)))
