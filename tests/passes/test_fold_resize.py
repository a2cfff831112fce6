"""fold: Resize in the coordinates that every runtime knows."""

from __future__ import annotations

import pytest

from edgec.passes.fold.fold import Fold
from edgec.testing import assert_same, did, missed, model, run_pass

_KERAS = 'mode="nearest", coordinate_transformation_mode="tf_half_pixel_for_nn", nearest_mode="floor"'


def _resized(attributes, inputs, weights):
    body = f"y = Resize<{attributes}>({inputs})"
    return model(body, "(float[1,2,5,7] x) => (float[N,C,H,W] y)", weights, opset=13)


@pytest.mark.parametrize(
    ("inputs", "weights"),
    [
        ('x, "", s', "float[4] s = {1.0, 1.0, 2.0, 3.0}"),
        ('x, "", "", s', "int64[4] s = {1, 2, 10, 21}"),
    ],
)
def test_upsampling_of_keras_is_asymmetric(inputs, weights):
    graph = _resized(_KERAS, inputs, weights)
    before = graph.copy()
    run = run_pass(Fold(), graph)
    assert graph.nodes[0].attrs["coordinate_transformation_mode"] == "asymmetric"
    assert graph.nodes[0].attrs["nearest_mode"] == "floor"
    assert [said for _, said in did(run)] == ["by whole factors 'tf_half_pixel_for_nn' is 'asymmetric'"]
    assert_same(before, graph)


@pytest.mark.parametrize(
    ("attributes", "scale", "said"),
    [
        (_KERAS, 1.5, ["it is of 'tf_half_pixel_for_nn', which few runtimes take, and not by whole factors"]),
        (_KERAS.replace("floor", "ceil"), 2.0, []),
        (_KERAS.replace("tf_half_pixel_for_nn", "half_pixel"), 2.0, []),
    ],
)
def test_others_stay(attributes, scale, said):
    graph = _resized(attributes, 'x, "", s', f"float[4] s = {{1.0, 1.0, {scale}, {scale}}}")
    run = run_pass(Fold(), graph)
    assert graph.nodes[0].attrs["coordinate_transformation_mode"] in attributes
    assert [reason for _, reason in missed(run)] == said
