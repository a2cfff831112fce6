"""Where to cut: the tensors named carry everything that the outputs need, and can be named."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.backends.coral.backend import CoralBackend
from edgec.backends.cut_advice import carriers, depends_on_inputs
from edgec.backends.protocol import legalize
from edgec.backends.registry import target
from edgec.frontends.cutting import cut
from edgec.ir.errors import EmitError
from edgec.ir.graph import Variable


def _named(lab, make, shapes=((1, 4, 6, 6),)):
    """A graph whose tensors are called as the nodes that compute them."""
    graph = lab.build(make, shapes)
    for node in graph.nodes:
        for tensor in node.outputs:
            if tensor not in graph.outputs:
                tensor.name = node.name
    return graph


def _detector(b, x):
    boxes = b("Sigmoid", b("Reshape", x, b.ints(1, 36, 4)))
    scores = b("Transpose", b("Softmax", b("Reshape", x, b.ints(1, 36, 4))), perm=[0, 2, 1])
    chosen = b("NonMaxSuppression", boxes, scores, b.ints(10), b.const([0.5]), b.const([0.5]))
    picked = b("Gather", b("Tanh", boxes), b("Squeeze", b("Slice", chosen, b.ints(2), b.ints(3), b.ints(1))), axis=1)
    return [b("Cast", chosen, to=1), picked, b("Relu", x)]


def test_a_detector_is_cut_at_all_that_its_outputs_need(lab):
    graph = _named(lab, _detector)
    refused = [node for node in graph.nodes if node.op == "NonMaxSuppression"]
    assert carriers(graph, refused) == ["sigmoid", "transpose", "tanh", "y2"]
    with pytest.raises(EmitError) as caught:
        legalize(graph.copy(), CoralBackend(), target("coral-dev-board"))
    assert str(caught.value) == (
        "coral-dev-board: node 'nonmaxsuppression' (NonMaxSuppression): the coral backend cannot lower it; "
        "cut the network before it with --cut sigmoid --cut transpose --cut tanh --cut y2, or replace it in the model"
    )
    cut(graph, ["sigmoid", "transpose", "tanh", "y2"], "model.onnx")
    legalize(graph, CoralBackend(), target("coral-dev-board"))


def test_all_that_cannot_be_lowered_is_cut_at_once(lab):
    def make(b, x):
        x = b("Relu", x)
        return [b("Cast", b("NonZero", b("Sigmoid", x)), to=1), b("Det", b("Tanh", x)), b("Det", x)]

    graph = _named(lab, make)
    with pytest.raises(EmitError) as caught:
        legalize(graph, CoralBackend(), target("coral-dev-board"))
    assert str(caught.value) == (
        "coral-dev-board: node 'nonzero' (NonZero): the coral backend cannot lower it; "
        "cut the network before it with --cut relu --cut sigmoid --cut tanh, or replace it in the model"
    )


def test_an_input_is_no_place_to_cut(lab):
    graph = _named(lab, lambda b, x: b("Cast", b("NonZero", x), to=1))
    with pytest.raises(EmitError) as caught:
        legalize(graph, CoralBackend(), target("coral-dev-board"))
    assert str(caught.value) == (
        "coral-dev-board: node 'nonzero' (NonZero): the coral backend cannot lower it; replace it in the model"
    )


def test_only_what_the_model_has_is_named(lab):
    graph = _named(lab, lambda b, x: b("Det", b("Neg", b("Relu", x))))
    assert carriers(graph, [graph.nodes[-1]], {"relu"}) == ["relu"]
    assert carriers(graph, [graph.nodes[-1]], set()) == []


def test_what_depends_on_shapes_alone_does_not_depend_on_inputs(lab):
    graph = _named(lab, lambda b, x: b("Reshape", b("Relu", x), b("Mul", b("Shape", x), b.ints(1))))
    relu, shape = graph.nodes[0].outputs[0], graph.nodes[-1].inputs[1]
    assert depends_on_inputs(graph, relu)
    assert isinstance(shape, Variable)
    assert not depends_on_inputs(graph, shape)


def test_what_could_be_folded_is_to_be_folded(lab):
    graph = _named(lab, lambda b, x: b("Conv", x, b("Mul", b.weight(2, 4, 1, 1), b.const(np.float32(2)))))
    with pytest.raises(EmitError) as caught:
        legalize(graph, CoralBackend(), target("coral-dev-board"))
    assert str(caught.value) == (
        "coral-dev-board: node 'conv' (Conv): its weights are computed by the network; "
        "put the pass 'fold' into the recipe, and pin open shapes with --input"
    )
