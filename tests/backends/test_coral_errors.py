"""Each line that the coral backend says when it cannot go on, word for word."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.backends.coral.backend import CoralBackend, lower
from edgec.backends.coral.flatbuffer import File
from edgec.backends.coral.interpreter import Interpreter
from edgec.backends.protocol import legalize
from edgec.backends.registry import target
from edgec.ir.errors import EmitError, InputError

IMAGE = (1, 4, 6, 6)
OUT = "replace it in the model"

REFUSALS = {
    "Det": (
        lambda b, x: b("Det", x),
        [IMAGE],
        f"the coral backend cannot lower it; {OUT}",
    ),
    "Conv": (
        lambda b, x: b("Conv", x, b.weight(2, 4, 1, 1, 1)),
        [(1, 4, 3, 3, 3)],
        f"it convolves over 3 dimensions, and TFLite's integer kernels over at most 2; {OUT}",
    ),
    "ConvTranspose": (
        lambda b, x: b("ConvTranspose", x, b.weight(4, 2, 1, 1, 1)),
        [(1, 4, 3, 3, 3)],
        f"it runs over 3 dimensions, and TFLite's over 2; {OUT}",
    ),
    "Conv, computed weights": (
        lambda b, x, w: b("Conv", x, w),
        [IMAGE, (2, 4, 1, 1)],
        f"its weights are computed by the network; {OUT}",
    ),
    "Conv, computed bias": (
        lambda b, x, c: b("Conv", x, b.weight(2, 4, 1, 1), c),
        [IMAGE, (2,)],
        f"its bias is computed by the network; {OUT}",
    ),
    "Gemm": (
        lambda b, x: b("Gemm", x, b.weight(4, 3), b.weight(2, 3)),
        [(2, 4)],
        "its bias of shape [2, 3] differs by row; add it with an Add behind the node",
    ),
    "MatMul": (
        lambda b, x: b("MatMul", x, b.weight(4)),
        [(2, 4)],
        "one side is a vector; reshape it to a matrix in the model",
    ),
    "MaxPool": (
        lambda b, x: b("MaxPool", x, kernel_shape=[2, 2], dilations=[2, 2]),
        [IMAGE],
        f"its window is dilated, and TFLite's windows are not; {OUT}",
    ),
    "MaxPool, three dimensions": (
        lambda b, x: b("MaxPool", x, kernel_shape=[2, 2, 2]),
        [(1, 4, 3, 3, 3)],
        f"it pools over 3 dimensions, and TFLite over at most 2; {OUT}",
    ),
    "MaxPool, indices": (
        lambda b, x: b("Cast", b("MaxPool", x, kernel_shape=[2, 2], outputs=2)[1], to=1),
        [IMAGE],
        f"its output 'maxpool.out1' is read, and the coral backend computes only the first; {OUT}",
    ),
    "Slice, empty": (
        lambda b, x: b("Slice", x, b.ints(3), b.ints(3), b.ints(2)),
        [IMAGE],
        "nothing is left of its input; remove it from the model",
    ),
    "Pad": (
        lambda b, x: b("Pad", x, b.ints(0, 0, 0, 0, 0, 0, -1, 0)),
        [IMAGE],
        "it cuts rows off (negative padding); use a Slice in the model",
    ),
    "Pad, wrap": (
        lambda b, x: b("Pad", x, b.ints(0, 0, 2, 0, 0, 0, 0, 0), mode="wrap"),
        [IMAGE],
        f"TFLite does not pad with mode 'wrap'; {OUT}",
    ),
    "Resize, cubic": (
        lambda b, x: b("Resize", x, None, b.const([1, 1, 2, 2]), mode="cubic"),
        [IMAGE],
        "TFLite does not resize with mode 'cubic'; use 'nearest' or 'linear' in the model",
    ),
    "Resize, nothing left": (
        lambda b, x: b("Resize", x, None, b.const([1, 1, 0.05, 0.5])),
        [IMAGE],
        "nothing is left of its input: 6x6 becomes 0x3; resize by larger scales in the model",
    ),
    "Resize, antialias": (
        lambda b, x: b("Resize", x, None, b.const([1, 1, 2, 2]), mode="linear", antialias=1),
        [IMAGE],
        "TFLite has no counterpart of coordinate_transformation_mode 'half_pixel' with mode 'linear' and antialias for "
        "6x6 to 12x12; use 'half_pixel' without exclude_outside and antialias in the model",
    ),
    "Resize, crop": (
        lambda b, x: b(
            "Resize",
            x,
            b.const([0, 0, 0, 0, 1, 1, 1, 1]),
            b.const([1, 1, 1.5, 1.3]),
            mode="linear",
            coordinate_transformation_mode="tf_crop_and_resize",
        ),
        [IMAGE],
        "TFLite has no counterpart of coordinate_transformation_mode 'tf_crop_and_resize' with mode 'linear' for "
        "6x6 to 9x7; use 'align_corners' in the model",
    ),
    "Resize, channels": (
        lambda b, x: b("Resize", x, None, None, b.ints(1, 8, 6, 6)),
        [IMAGE],
        "it resizes the batch or the channels; resize height and width only",
    ),
    "Resize, rank": (
        lambda b, x: b("Resize", x, None, b.const([1, 1, 2, 2, 2])),
        [(1, 4, 3, 3, 3)],
        f"it resizes a tensor of rank 5, and TFLite images only; {OUT}",
    ),
    "PRelu": (
        lambda b, x, s: b("PRelu", x, s),
        [IMAGE, (4, 1, 1)],
        "its slope is computed by the network; write it as Max and Min in the model",
    ),
    "Relu": (
        lambda b, x: b("Relu", x),
        [(1, 0, 6, 6)],
        "a tensor that it reads has no elements; remove it from the model",
    ),
    "SpaceToDepth": (
        lambda b, x: b("SpaceToDepth", x, blocksize=2, mode="CRD"),
        [IMAGE],
        f"its channels have the block behind (mode 'CRD'); {OUT}",
    ),
    "QuantizeLinear": (
        lambda b, x, s: b("DequantizeLinear", b("QuantizeLinear", x, s), s),
        [IMAGE, ()],
        f"its scale is computed by the network; {OUT}",
    ),
    "Dropout": (
        lambda b, x: b("Dropout", x, b.const(0.5), b.const(True, np.bool_)),
        [IMAGE],
        "it drops at random (training_mode); export the network for inference",
    ),
    "BatchNormalization": (
        lambda b, x: list(b("BatchNormalization", x, *(b.weight(4) for _ in range(4)), outputs=3, training_mode=1)),
        [IMAGE],
        f"its output 'y1' is read, and the coral backend computes only the first; {OUT}",
    ),
    "BatchNormalization, computed": (
        lambda b, x, s: b("BatchNormalization", x, s, *(b.weight(4) for _ in range(3))),
        [IMAGE, (4,)],
        f"its scale, shift or statistics are computed by the network; {OUT}",
    ),
    "LayerNormalization": (
        lambda b, x: list(b("LayerNormalization", x, b.weight(6), outputs=2)),
        [IMAGE],
        f"its output 'y1' is read, and the coral backend computes only the first; {OUT}",
    ),
    "Cast": (
        lambda b, x: b("Cast", b("Cast", x, to=12), to=1),
        [IMAGE],
        "it converts to uint32, which TFLite has not; cast to float32 or int32 in the model",
    ),
}


@pytest.mark.parametrize("case", list(REFUSALS))
def test_refusals(lab, case):
    make, shapes, text = REFUSALS[case]
    graph = lab.build(make, shapes)
    op = case.split(",")[0]
    node = next(n for n in graph.nodes if n.op == op)
    with pytest.raises(EmitError) as caught:
        lower(graph)
    assert str(caught.value) == f"node '{node.name}' ({op}): {text}"
    assert caught.value.exit_status == 4


def test_refusals_come_before_calibration(lab):
    graph = lab.build(lambda b, x: b("Det", x), [IMAGE])
    with pytest.raises(EmitError, match=r"^coral-dev-board: node 'det' \(Det\): "):
        legalize(graph, CoralBackend(), target("coral-dev-board"))


def test_the_cut_is_at_a_tensor_that_the_model_has(lab):
    graph = lab.build(lambda b, x: b("Det", b("Neg", b("HardSwish", b("Relu", x)))), [IMAGE])
    relu, swish, neg, _ = (node.outputs[0] for node in graph.nodes)
    relu.name, swish.name, neg.name = "relu", "swish", "neg"
    with pytest.raises(EmitError) as caught:
        legalize(graph, CoralBackend(), target("coral-dev-board"))
    assert str(caught.value) == (
        "coral-dev-board: node 'det' (Det): the coral backend cannot lower it; "
        "cut the network before it with --cut relu, or replace it in the model"
    )


def test_a_node_without_a_name_is_named_for_its_output(lab):
    graph = lab.build(lambda b, x: b("Det", x), [IMAGE])
    graph.nodes[0].name = ""
    with pytest.raises(EmitError, match=r"^node 'y0' \(Det\): "):
        lower(graph)


def test_a_constant_of_a_type_that_tflite_has_not(lab):
    graph = lab.build(lambda b, x: b("Cast", b("Add", b("Cast", x, to=6), b.const([1], np.uint64)), to=1), [IMAGE])
    with pytest.raises(EmitError) as caught:
        lower(graph)
    assert str(caught.value) == (
        "constant 'constant': TFLite's operators do not take its type uint64; make it int32 or float32 in the model"
    )


def test_another_domain_is_refused(lab):
    graph = lab.build(lambda b, x: b("Relu", x), [IMAGE])
    graph.nodes[0].domain = "com.example"
    with pytest.raises(EmitError, match=r"^node 'relu' \(Relu\): the coral backend cannot lower it; "):
        lower(graph)


def test_an_open_shape(lab):
    graph = lab.build(lambda b, x: b("Relu", x), [IMAGE])
    graph.inputs[0].shape = ["batch", 4, 6, 6]
    with pytest.raises(EmitError) as caught:
        lower(graph)
    assert str(caught.value) == (
        "input 'x0': its shape ['batch', 4, 6, 6] is not static; pin it with --input x0:1x4x6x6"
    )


def test_an_input_of_a_type_that_tflite_has_not(lab):
    graph = lab.build(lambda b, x: b("Cast", x, to=1), [IMAGE])
    graph.inputs[0].dtype = np.dtype(np.uint64)
    with pytest.raises(EmitError) as caught:
        lower(graph)
    assert str(caught.value) == (
        "input 'x0': TFLite's operators do not take its type uint64; "
        "make it int32 or float32 in the model, with a Cast behind it"
    )


def _quantized(lab, make=None, shape=IMAGE):
    graph = lab.build(make or (lambda b, x: b("Conv", x, b.weight(3, 4, 1, 1))), [shape])
    return lab.quantized(graph, lab.noise(graph))


def _weight(graph):
    return next(n for n in graph.nodes if n.op in ("Conv", "Gemm")).inputs[1].inputs[0]


def _text(graph):
    with pytest.raises(EmitError) as caught:
        lower(graph)
    return str(caught.value)


def test_weights_with_a_zero_point(lab):
    graph = _quantized(lab)
    node = _weight(graph)
    node.inputs.append(graph.const("zero", np.array([1, 0, 0], np.int8)))
    assert _text(graph) == (
        "node 'conv' (Conv): its weights are not int8 with zero-point 0; "
        "quantize weights symmetrically to int8 (pass 'quantize' does)"
    )


def test_weights_along_another_axis(lab):
    graph = _quantized(lab)
    node = _weight(graph)
    node.attrs["axis"] = 1
    node.inputs[1] = graph.const("scale", np.full(4, 0.01, np.float32))
    assert _text(graph) == (
        "node 'conv' (Conv): its weights are quantized along axis 1, and its output channels are axis 0; "
        "quantize weights along the output channel (pass 'quantize' does)"
    )


def test_activations_per_channel(lab):
    graph = _quantized(lab)
    quantize = graph.inputs[0].outputs[0]
    quantize.inputs[1] = graph.const("scale", np.full(4, 0.01, np.float32))
    quantize.inputs[2] = graph.const("zero", np.zeros(4, np.int8))
    assert _text(graph) == (
        f"node '{quantize.name}' (QuantizeLinear): it quantizes an activation per channel; "
        "quantize activations with one scale"
    )


def test_activations_of_16_bits(lab):
    graph = _quantized(lab)
    quantize = graph.inputs[0].outputs[0]
    quantize.inputs[2] = graph.const("zero", np.int16(0))
    assert _text(graph) == (
        f"node '{quantize.name}' (QuantizeLinear): it quantizes to int16; "
        "quantize to int8 or uint8 with one scale for a tensor or a channel"
    )


def test_a_dequantize_that_disagrees(lab):
    graph = _quantized(lab)
    dequantize = graph.inputs[0].outputs[0].outputs[0].outputs[0]
    dequantize.inputs[1] = graph.const("scale", np.float32(3.0))
    assert _text(graph) == (
        f"node '{dequantize.name}' (DequantizeLinear): its scale or zero-point is not that of the "
        "QuantizeLinear before it; quantize with one scale and zero-point for each tensor"
    )


def test_a_file_over_2_gib(monkeypatch):
    monkeypatch.setattr("edgec.backends.coral.flatbuffer.LARGEST_FILE", 100)
    file = File()
    source = file.tensor("x", (1, 40), np.float32)
    result = file.tensor("y", (1, 40), np.float32)
    weight = file.constant("w", np.ones(40, np.float32))
    file.operator("ADD", [source, weight], [result])
    file.inputs, file.outputs = [source], [result]
    with pytest.raises(EmitError) as caught:
        file.to_bytes()
    assert str(caught.value) == (
        "model.tflite: the weights take 160 bytes, and a TFLite file holds at most 100; "
        "compress the network, or end it earlier with --cut"
    )


def test_a_file_that_litert_does_not_take():
    with pytest.raises(EmitError) as caught:
        Interpreter(b"not a file", [], [])
    text = str(caught.value)
    assert text.startswith("model.tflite: LiteRT does not take it (")
    assert text.endswith("); cut the network before the operator named, and report it")
    assert "\n" not in text


def test_feeds_that_do_not_fit(lab, tmp_path):
    graph = _quantized(lab)
    backend = CoralBackend()
    backend.emit(graph, target("coral-dev-board"), tmp_path, [])
    run = backend.runner(graph, tmp_path)
    with pytest.raises(InputError) as caught:
        run({})
    assert str(caught.value) == "the data: has no values for the model's input 'x0'; name the array for it"
    with pytest.raises(InputError) as caught:
        run({"x0": np.zeros((1, 4, 6, 7), np.float32)})
    assert str(caught.value) == "input 'x0': has shape [1, 4, 6, 6], and the feed [1, 4, 6, 7]; reshape the feed"
