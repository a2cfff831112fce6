"""What a recipe that is right says, and how its parts are found again for later errors."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.frontends.recipe import Step, load_recipe, parse_recipe
from edgec.frontends.recipe_targets import TargetEntry

COMPLETE = """\
name: capsule
seed: 7
data:
  preprocess: {size: [128, 96], color: gray, scale: 1/255, mean: 0.5, std: 1/4}
  calibration: {images: data/train/good, samples: 64}
  train: {arrays: train.npz}
  eval: {ok: data/test/good, ng: [data/test/crack, data/test/scratch], metric: auroc, samples: 5}
passes:
  - fold
  - prune: {macs: 0.7}
  - factorize:
      params: 1e-2
      keep: [a, b]
  - quantize:
targets: [cpu, coral-dev-board]
require: {params_removed: 99/100, metric_drop: 0.01, sqnr_min: 35}
"""


def test_a_complete_recipe_is_read() -> None:
    recipe = parse_recipe(COMPLETE, "compress.yaml", "examples")
    assert (recipe.name, recipe.seed, recipe.file, recipe.folder) == ("capsule", 7, "compress.yaml", Path("examples"))
    preprocess = recipe.data.preprocess
    assert preprocess is not None
    assert (preprocess.size, preprocess.color, preprocess.std) == ((128, 96), "gray", (0.25,))
    assert recipe.data.calibration is not None and recipe.data.calibration.images == (Path("examples/data/train/good"),)
    assert recipe.data.calibration.samples == 64
    assert recipe.data.train is not None and recipe.data.train.arrays == Path("examples/train.npz")
    assert recipe.data.eval is not None
    classes = recipe.data.eval.classes()
    assert classes is not None
    assert [spec.samples for spec in classes] == [5, 5]
    assert classes[1].images == (Path("examples/data/test/crack"), Path("examples/data/test/scratch"))
    assert [entry.name for entry in recipe.targets] == ["cpu", "coral-dev-board"]
    assert recipe.require.asked() == {"params_removed": 0.99, "metric_drop": 0.01, "sqnr_min": 35.0}


def test_targets_keep_their_options_and_places() -> None:
    text = "targets:\n  - cpu\n  - jetson-nano:\n      profiles: {x: {min: [1]}}\n  - trt-host:\n"
    recipe = parse_recipe(text, "c.yaml")
    assert recipe.targets == (
        TargetEntry("cpu"), TargetEntry("jetson-nano", {"profiles": {"x": {"min": [1]}}}), TargetEntry("trt-host"),
    )  # fmt: skip
    where = recipe.where("targets", 1, "jetson-nano", "profiles", "x", "min")
    assert where == "c.yaml: line 4: targets[1].jetson-nano.profiles.x.min"


def test_passes_keep_their_options_and_places() -> None:
    steps = parse_recipe(COMPLETE, "compress.yaml").passes
    assert [(step.name, step.options) for step in steps] == [
        ("fold", {}),
        ("prune", {"macs": 0.7}),
        ("factorize", {"params": 0.01, "keep": ["a", "b"]}),
        ("quantize", {}),
    ]
    assert steps[2] == Step(
        "factorize",
        {"params": 0.01, "keep": ["a", "b"]},
        place="passes[2] 'factorize'",
        where="compress.yaml: line 11: passes[2] 'factorize'",
        places={
            "params": "compress.yaml: line 12: passes[2] 'factorize': params",
            "keep": "compress.yaml: line 13: passes[2] 'factorize': keep",
        },
    )


def test_every_part_knows_where_it_was_written() -> None:
    recipe = parse_recipe(COMPLETE, "compress.yaml")
    assert recipe.where("targets", 1) == "compress.yaml: line 15: targets[1]"
    assert recipe.where("data", "preprocess", "layout") == "compress.yaml: line 4: data.preprocess"
    assert recipe.where() == recipe.where("nothing") == "compress.yaml"
    assert recipe.data.calibration is not None and recipe.data.eval is not None and recipe.data.eval.ng is not None
    assert recipe.data.calibration.where == "compress.yaml: line 5: data.calibration"
    assert recipe.data.eval.where == "compress.yaml: line 7: data.eval"
    assert recipe.data.eval.ng.where == "compress.yaml: line 7: data.eval.ng"


def test_what_is_left_out_has_a_default() -> None:
    recipe = parse_recipe("passes: [fold]")
    assert (recipe.targets, recipe.seed, recipe.name) == ((TargetEntry("cpu"),), 0, None)
    assert (recipe.data.preprocess, recipe.data.calibration, recipe.data.eval) == (None, None, None)
    assert recipe.require.asked() == {}
    preprocess = parse_recipe("data: {preprocess: {size: [2, 3]}}").data.preprocess
    assert preprocess is not None
    assert (preprocess.color, preprocess.resize, preprocess.fit, preprocess.layout) == (
        "rgb",
        "bilinear",
        "stretch",
        "nchw",
    )


def test_paths_are_relative_to_the_recipe(tmp_path: Path, folder_of_images: Path) -> None:
    (tmp_path / "recipes").mkdir()
    path = tmp_path / "recipes" / "compress.yaml"
    path.write_text(
        f"data: {{preprocess: {{}}, train: {{images: ../images}}, calibration: {{images: {folder_of_images}}}}}"
    )
    recipe = load_recipe(path)
    assert recipe.data.train is not None and recipe.data.calibration is not None
    assert recipe.data.train.images == (path.parent / "../images",)
    assert recipe.data.calibration.images == (folder_of_images,)


@pytest.mark.parametrize(
    ("written", "value"),
    [("1/255", 1 / 255), ("-1 / 4", -0.25), ("1e-3", 1e-3), ("'1e-3'", 1e-3), (".5", 0.5), ("010", 10.0)],
)
def test_numbers_and_fractions(written: str, value: float) -> None:
    preprocess = parse_recipe(f"data: {{preprocess: {{scale: {written}}}}}").data.preprocess
    assert preprocess is not None
    assert preprocess.scale == (value,)


@settings(deadline=None, max_examples=50)
@given(st.integers(-(10**6), 10**6), st.integers(1, 10**6))
def test_a_fraction_is_its_quotient(above: int, below: int) -> None:
    recipe = parse_recipe(f"data: {{preprocess: {{mean: {above}/{below}}}}}")
    assert recipe.data.preprocess is not None
    assert recipe.data.preprocess.mean == (above / below,)


def test_the_affine_map_holds_scale_mean_and_std() -> None:
    preprocess = parse_recipe(
        "data: {preprocess: {scale: 1/255, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}}"
    ).data.preprocess
    assert preprocess is not None
    scale, offset = preprocess.affine()
    assert scale.tolist() == pytest.approx([1 / 255 / 0.229, 1 / 255 / 0.224, 1 / 255 / 0.225])
    assert offset.tolist() == pytest.approx([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225])
    gray = parse_recipe("data: {preprocess: {color: gray}}").data.preprocess
    assert gray is not None
    assert [values.tolist() for values in gray.affine()] == [[1.0], [0.0]]
