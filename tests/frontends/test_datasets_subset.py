"""Parts of data sets, and samples that are the same one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from edgec.frontends.datasets import DataSet, open_dataset
from edgec.frontends.recipe_data import DataSpec, PreprocessSpec

INPUTS = {"x": (("N", 1, 4, 4), np.dtype(np.float32))}
GENERATOR = """
import numpy as np
def samples():
    for index in range(6):
        yield np.full((1, 4, 4), index, np.float32), index
"""


def data_sets(folder: Path) -> dict[str, DataSet]:
    values = np.broadcast_to(np.arange(6, dtype=np.float32)[:, None, None, None], (6, 1, 4, 4))
    np.savez(folder / "data.npz", x=values, labels=np.arange(6))
    (folder / "subset_samples.py").write_text(GENERATOR)
    (folder / "images").mkdir()
    for index in range(6):
        Image.fromarray(np.full((4, 4), index, np.uint8)).save(folder / "images" / f"{index}.png")
    (folder / "labels.csv").write_text("".join(f"{index}.png,{index}\n" for index in range(6)))
    specs = {
        "arrays": {"arrays": folder / "data.npz"},
        "python": {"python": "subset_samples:samples"},
        "images": {"images": [folder / "images"], "labels": folder / "labels.csv"},
    }
    opened = {}
    for kind, raw in specs.items():
        spec = DataSpec.model_validate(raw)
        spec.located("recipe", folder)
        preprocess = PreprocessSpec.model_validate({"size": [4, 4], "color": "gray", "scale": 1.0})
        opened[kind] = open_dataset(spec, preprocess, INPUTS)
    return opened


def test_a_part_gives_its_samples_labels_and_names(tmp_path: Path) -> None:
    for data in data_sets(tmp_path).values():
        part = data.subset([1, 4, 5])
        assert len(part) == 3 and len(data) == 6
        assert list(part.names) == [data.names[i] for i in (1, 4, 5)]
        batches = list(part.batches(2))
        assert [len(batch["x"]) for batch in batches] == [2, 1]
        assert np.concatenate([batch["x"] for batch in batches])[:, 0, 0, 0].tolist() == [1, 4, 5]
        assert part.labels is not None and part.labels.tolist() == [1, 4, 5]
        assert next(iter(part.subset([0, 2]).batches(9)))["x"][:, 0, 0, 0].tolist() == [1, 5]


def test_the_same_sample_has_the_same_identity_wherever_it_lies(tmp_path: Path) -> None:
    sets = data_sets(tmp_path)
    for data in sets.values():
        whole = data.identities()
        assert len(set(whole)) == 6
        assert data.subset([1, 4]).identities() == [whole[1], whole[4]]
    assert sets["arrays"].identities() == sets["python"].identities()
    (tmp_path / "copies").mkdir()
    (tmp_path / "copies" / "elsewhere.png").write_bytes((tmp_path / "images" / "3.png").read_bytes())
    spec = DataSpec.model_validate({"images": [tmp_path / "copies"]})
    copy = open_dataset(spec, PreprocessSpec.model_validate({"size": [4, 4], "color": "gray"}), INPUTS)
    assert copy.identities() == [sets["images"].identities()[3]]
