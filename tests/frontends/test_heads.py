"""What outputs mean is told by their shapes and by what computes them; what is not told for certain is not guessed."""

from __future__ import annotations

from typing import Any

import pytest

from edgec.frontends.heads import results_of
from edgec.frontends.recipe_data import DataSection
from edgec.frontends.recipe_results import ResultsSpec
from edgec.ir.errors import UsageError
from edgec.ir.graph import Graph
from edgec.ir.shapes import Shapes
from edgec.testing import model

PICTURE = "float[1,3,64,64] x"
# 64 x 64 pixels have 64 + 16 + 4 cells of 8, 16 and 32 pixels.
TOLD = {
    "YOLO v8": (
        "float[1,7,84]",
        "Identity",
        {"kind": "boxes", "form": "centres", "classes": 3, "channels_first": True},
    ),
    "YOLO v5": (
        "float[1,252,8]",
        "Identity",
        {"kind": "boxes", "form": "objects", "classes": 3, "channels_first": False},
    ),
    "YOLOX": ("float[1,84,8]", "Identity", {"kind": "boxes", "form": "grid", "classes": 3, "strides": [8, 16, 32]}),
    "YOLOX, decoded": ("float[1,84,8]", "Exp", {"kind": "boxes", "form": "objects", "classes": 3}),
    "YOLO v10": ("float[1,300,6]", "Identity", {"kind": "boxes", "form": "corners", "classes": None}),
    "text": ("float[1,1,64,64]", "Sigmoid", {"kind": "boxes", "form": "map", "classes": 1}),
    "an autoencoder": ("float[1,3,64,64]", "Sigmoid", {"kind": "score"}),
    "a mask of scores": ("float[1,5,32,32]", "Identity", {"kind": "mask", "classes": 5, "channels_first": True}),
    "classes": ("float[1,9]", "Softmax", {"kind": "classes", "classes": 9, "logits": False}),
    "classes of places": ("float[1,9,1,1]", "LogSoftmax", {"kind": "classes", "classes": 9, "logits": True}),
}
UNTOLD = {
    "numbers": ("float[1,4]", "Identity"),
    "one number": ("float[1,1]", "Softmax"),
    "anchors of another grid": ("float[1,7,86]", "Identity"),
    "a map without probabilities": ("float[1,1,64,64]", "Identity"),
    "a small map": ("float[1,5,4,4]", "Identity"),
    "a batch": ("float[2,9]", "Softmax"),
}


def network(kind: str, op: str, picture: str = PICTURE) -> Graph:
    """A network whose only output is of that type and computed by ``op``, from something unknown."""
    graph = model(f"y = {op}(hidden)", f"({picture}, {kind} hidden) => ({kind} y)")
    Shapes(graph).annotate(graph)
    del graph.inputs[1:]
    return graph


@pytest.mark.parametrize("case", list(TOLD))
def test_told(case: str) -> None:
    kind, op, expected = TOLD[case]
    known = results_of(network(kind, op), ResultsSpec(), DataSection())
    assert known is not None and known["output"] == "y"
    assert {key: known[key] for key in expected} == expected


@pytest.mark.parametrize("case", list(UNTOLD))
def test_not_guessed(case: str) -> None:
    assert results_of(network(*UNTOLD[case]), ResultsSpec(), DataSection()) is None


def test_pictures_with_channels_last() -> None:
    data = DataSection.model_validate({"preprocess": {"size": [64, 64], "layout": "nhwc"}})
    known = results_of(network("float[1,7,84]", "Identity", "float[1,64,64,3] x"), ResultsSpec(), data)
    assert known is not None and known["input_size"] == [64, 64] and known["preprocess"]["layout"] == "nhwc"


def test_what_the_recipe_says_goes_before() -> None:
    graph = network("float[1,84,8]", "Identity")
    known = results_of(graph, ResultsSpec(form="centres"), DataSection())
    assert known is not None and (known["form"], known["classes"]) == ("centres", 4)
    assert results_of(graph, ResultsSpec(kind="none"), DataSection()) is None
    known = results_of(network("float[1,4]", "Identity"), ResultsSpec(kind="classes"), DataSection())
    assert known is not None and (known["kind"], known["logits"]) == ("classes", True)
    with pytest.raises(UsageError, match=r"results.kind: no output is of kind 'mask' \('y' \[1, 84, 8\]\)"):
        results_of(graph, ResultsSpec(kind="mask"), DataSection())


def test_a_metric_of_classes_tells_them() -> None:
    data: dict[str, Any] = {"eval": {"arrays": "x.npz", "metric": "top1"}}
    known = results_of(network("float[1,4]", "Identity"), ResultsSpec(), DataSection.model_validate(data))
    assert known is not None and known["kind"] == "classes"
