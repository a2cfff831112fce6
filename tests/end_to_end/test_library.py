"""edgec from Python: pipelines, data and models in every form, recipes as dictionaries."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
import torch

import edgec
from edgec.ir.errors import InputError, UsageError, UsageErrors
from edgec.ir.files import to_bytes
from edgec.passes import Finetune, Fold, Pipeline, Prune, Quantize
from edgec.testing import model, outputs

BODY = "c = Conv <pads = [1, 1, 1, 1]> (x, w)\nr = Relu (c)\nd = Conv <pads = [1, 1, 1, 1]> (r, v)\ny = Relu (d)"
WEIGHTS = "float[16,3,3,3] w, float[8,16,3,3] v"


def network() -> Any:
    return model(BODY, "(float[1,3,8,8] x) => (float[1,8,8,8] y)", WEIGHTS)


def images(count: int = 64) -> np.ndarray:
    return np.random.default_rng(1).random((count, 3, 8, 8), np.float32)


class Rows:
    """A data set of rows with names, as Hugging Face's are."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": images()[index].tolist(), "label": index % 3}


def generator() -> Iterator[np.ndarray]:
    yield from images()


LOADERS = {
    "an array": lambda: edgec.Dataset(images()),
    "a list": lambda: edgec.Dataset(list(images())),
    "a function": lambda: edgec.Dataset(generator),
    "rows": lambda: edgec.Dataset(Rows(), lambda row: (np.array(row["image"], np.float32), row["label"])),
    "tensors": lambda: edgec.Dataset([torch.from_numpy(image).requires_grad_() for image in images()]),
    "a loader": lambda: edgec.Dataset(
        torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(torch.from_numpy(images()), torch.arange(64)), batch_size=10
        )
    ),
    "batches by name": lambda: edgec.Dataset([{"x": images()[:40]}, {"x": images()[40:]}]),
}


@pytest.mark.parametrize("form", list(LOADERS))
def test_data_are_anything_that_can_be_gone_through(form: str) -> None:
    data = LOADERS[form]().bound({"x": ((1, 3, 8, 8), np.dtype(np.float32))})
    assert len(data) == 64
    np.testing.assert_array_equal(np.concatenate([feeds["x"] for feeds in data.batches(7)]), images())
    wanted = {"rows": np.arange(64) % 3, "a loader": np.arange(64)}.get(form)
    if wanted is None:
        assert data.labels is None
    else:
        np.testing.assert_array_equal(data.labels, wanted)


def test_data_that_cannot_be_gone_through_again_are_refused() -> None:
    with pytest.raises(TypeError, match="give the function that makes it"):
        edgec.Dataset(generator())
    shuffled = torch.utils.data.DataLoader(torch.arange(4), shuffle=True)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="shuffle=False"):
        edgec.Dataset(shuffled)
    with pytest.raises(InputError, match="the faces: sample 0: is of shape 8x8, but the model's input 'x' takes 3x8x8"):
        list(edgec.Dataset([np.zeros((8, 8), np.float32)], name="the faces").bound(
            {"x": ((1, 3, 8, 8), np.dtype(np.float32))}
        ).batches(1))  # fmt: skip


def test_a_pipeline_measures_on_what_nothing_was_fitted_to() -> None:
    graph = network()
    before = to_bytes(graph)
    result = Pipeline([Fold(), Prune(params=0.6)], data=images()).run(graph)
    assert to_bytes(graph) == before
    assert [record.name for record in result.records] == ["fold", "prune"]
    assert result.after["params"] <= 0.6 * result.before["params"]
    assert (result.samples, result.source) == (16, "calibration")
    assert result.sqnr_db is not None
    assert result.sqnr_interval is not None
    low, high = result.sqnr_interval
    assert low < result.sqnr_db < high
    # What it says holds on other images.
    unseen = np.random.default_rng(9).random((32, 3, 8, 8), np.float32)
    errors = [(outputs(graph, {"x": x[None]})["y"], outputs(result.graph, {"x": x[None]})["y"]) for x in unseen]
    signal = sum(float((a**2).sum()) for a, _ in errors)
    noise = sum(float(((a - b) ** 2).sum()) for a, b in errors)
    assert abs(10 * np.log10(signal / noise) - result.sqnr_db) < 1


def test_pipelines_nest_and_have_a_text() -> None:
    inner = Pipeline([Fold(), Prune(macs=0.5, only=("conv*",))])
    outer = Pipeline([inner, Quantize(effort="fast")])
    assert str(outer) == 'fold,prune{macs=0.5,only=["conv*"]},quantize{effort="fast"}'
    assert Pipeline.parse(str(outer)).passes == outer.passes == (*inner, *Pipeline.parse("quantize{effort=fast}"))
    with pytest.raises(UsageErrors) as caught:
        Pipeline.parse("fold,prun{macs=1},quantize{efort=fast}")
    assert str(caught.value) == (
        "Pipeline: no pass named 'prun'. Did you mean 'prune'? 'edgec passes' lists them\n"
        "Pipeline: 'quantize': has no option 'efort'. Did you mean 'effort'? It takes "
        + ", ".join(field.name for field in dataclasses.fields(Quantize))
    )
    with pytest.raises(TypeError, match="a step is a pass such as Fold"):
        Pipeline([Fold])  # type: ignore[list-item]


def test_a_pipeline_checks_its_order_and_data_before_it_runs() -> None:
    with pytest.raises(UsageErrors, match=r"'quantize': needs calibration data, and there are none"):
        Pipeline([Quantize()], target="cpu").run(network())
    with pytest.raises(UsageErrors, match="'prune' needs a 'float' graph"):
        Pipeline([Quantize(), Prune(macs=0.5)], target="cpu", data=images()).run(network())
    with pytest.raises(UsageError, match="cpuu"):
        Pipeline([Fold()], target="cpuu")


def test_a_result_is_emitted_for_its_target(tmp_path: Path) -> None:
    result = Pipeline([Fold(), Quantize(effort="fast")], target="coral-dev-board", data=images()).run(network())
    emitted = result.emit(tmp_path / "coral")
    assert (tmp_path / "coral" / "model.tflite").stat().st_size > 0
    assert emitted.sqnr_db > 30
    result.save(tmp_path / "network.onnx")
    onnx.checker.check_model(tmp_path / "network.onnx")
    with pytest.raises(UsageError, match="coral: is not an empty folder; name another folder, or empty it"):
        result.emit(tmp_path / "coral")
    with pytest.raises(UsageError, match="the pipeline has no target"):
        Pipeline([Fold()]).run(network()).emit(tmp_path / "none")


def test_a_loader_may_give_tuples_of_one() -> None:
    torch = pytest.importorskip("torch", reason="the data are a loader's")
    values = torch.from_numpy(images())
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(values), batch_size=8)
    data = edgec.Dataset(loader).bound({"x": ((1, 3, 8, 8), np.dtype(np.float32))})
    np.testing.assert_array_equal(np.concatenate([feeds["x"] for feeds in data.batches(7)]), images())


def test_training_takes_the_labels_of_a_loader() -> None:
    told: list[str] = []
    graph = model("f = Flatten (x)\ny = Gemm (f, w)", "(float[1,3,8,8] x) => (float[1,3] y)", "float[192,3] w")
    data = edgec.Dataset(list(zip(images(), np.arange(64) % 3, strict=True)))
    step = Finetune(epochs=2, rate=1e-3, loss="cross_entropy")
    result = Pipeline([step], data=data, progress=lambda done, total, what: told.append(what)).run(graph)
    assert "cross_entropy" in result.records[0].did[0].what or "labels" in str(result.records[0])
    assert told


def test_a_result_shows_itself() -> None:
    result = Pipeline([Fold()]).run(network())
    page = result._repr_html_()
    assert page.count("<table>") == 2
    assert "of noise" in page
    assert "fold" in page


FORMS = {
    "a graph": lambda graph: graph,
    "onnx": lambda graph: onnx.load_model_from_string(to_bytes(graph)),
    "onnx_ir": lambda graph: onnx_ir.from_proto(onnx.load_model_from_string(to_bytes(graph))),
}


@pytest.mark.parametrize("form", list(FORMS))
def test_models_and_recipes_in_memory(form: str, tmp_path: Path) -> None:
    given = FORMS[form](network())
    recipe = {
        "data": {"calibration": edgec.Dataset(images())},
        "passes": ["fold", {"quantize": {"effort": "fast"}}],
        "targets": ["cpu"],
    }
    report = edgec.compile(given, recipe, tmp_path / "out", timing=False)
    assert report["measured_on"]["sqnr"] == {"samples": 16, "source": "calibration", "unseen": True}
    assert report["targets"]["cpu"]["sqnr_db"] > 30
    assert report["recipe"] == "recipe"


def test_what_is_wrong_with_a_dictionary_is_said_without_lines() -> None:
    with pytest.raises(UsageErrors) as caught:
        edgec.compile(network(), {"passes": [{"prune": {"maks": 0.5}}], "targets": ["cpu"]})
    assert str(caught.value).startswith("recipe: passes[0] 'prune': has no option 'maks'. Did you mean 'macs'?")
    with pytest.raises(TypeError, match=r"a recipe is a path, a dictionary or an edgec\.Recipe, not int"):
        edgec.compile(network(), 3)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="not Linear alone"):
        edgec.compile(torch.nn.Linear(1, 1))  # type: ignore[call-overload]


def test_each_pass_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "edgec"):
        Pipeline([Fold()]).run(network())
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["passes[0] fold"]


def test_a_list_of_arrays_is_one_sample() -> None:
    """Rows of an array, as they always were: only torch's loaders make pairs of lists."""
    data = edgec.Dataset([[np.zeros((4, 4), np.float32), np.ones((4, 4), np.float32)]] * 3)
    bound = data.bound({"x": ((1, 2, 4, 4), np.dtype(np.float32))})
    assert (len(bound), bound.labels) == (3, None)
    assert next(iter(bound.batches(3)))["x"].shape == (3, 2, 4, 4)


def test_nothing_is_left_of_an_emission_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = Pipeline([Fold()], target="cpu").run(network())

    def fails(*given: Any) -> None:
        raise InputError("the file", "cannot be", "do otherwise")

    monkeypatch.setattr("edgec.backends.cpu.backend.CpuBackend.emit", fails)
    with pytest.raises(InputError, match="cannot be"):
        result.emit(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
