"""`edgec schema` against the recipes that edgec reads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

Edgec = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parents[2]

# DESIGN's sample, with the passes that there are.
SAMPLE = """\
data:
  preprocess: {size: [128, 128], color: gray, scale: 1/255}
  calibration: {images: data/train/good, samples: 64}
  train: {images: data/train/good}
  eval: {ok: data/test/good, ng: [data/test/crack, data/test/scratch], metric: auroc}
passes:
  - fold
  - factorize: {params: 0.01}
  - quantize
targets: [cpu, coral-dev-board]
require: {params_removed: 0.99, metric_drop: 0.01}
"""


@pytest.fixture
def validator(edgec: Edgec) -> Draft202012Validator:
    status, out, _ = edgec("schema")
    assert status == 0
    schema = json.loads(out)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def mistakes(validator: Draft202012Validator, recipe: Any) -> list[str]:
    return [error.json_path for error in validator.iter_errors(recipe)]


def test_recipes_are_accepted(validator: Draft202012Validator) -> None:
    example = (ROOT / "examples" / "capsule" / "compress.yaml").read_text(encoding="utf-8")
    options = "targets: [cpu, jetson-nano: {profiles: {x: {min: [1], opt: [2], max: [4]}}}]"
    for text in (SAMPLE, example, options, "passes: [fold, {scale-outputs: {factor: 3}}, {quantize: null}]"):
        assert mistakes(validator, yaml.safe_load(text)) == []


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("- fold", "- fould", "$.passes[0]"),
        ("params: 0.01", "parms: 0.01", "$.passes[1]"),
        ("params: 0.01", "params: lots", "$.passes[1]"),
        ("- quantize", "- quantize: {per_channel: 3}", "$.passes[2]"),
        ("[cpu,", "[gpu,", "$.targets[0]"),
        ("[cpu,", "[gpu: {a: 1},", "$.targets[0]"),
        ("targets:", "target:", "$"),
        ("metric: auroc", "metric: f1", "$.data.eval.metric"),
        ("size: [128, 128]", "size: 128", "$.data.preprocess.size"),
        ("samples: 64", "samples: 0", "$.data.calibration.samples"),
        ("params_removed: 0.99", "params_removed: 99", "$.require.params_removed"),
    ],
)
def test_mistakes_are_found(validator: Draft202012Validator, old: str, new: str, place: str) -> None:
    assert old in SAMPLE
    assert mistakes(validator, yaml.safe_load(SAMPLE.replace(old, new))) == [place]
