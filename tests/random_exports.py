"""Random small networks as exporters write them, each from one number.

    network = exported(17)
    onnx.save(network.model, path)
    samples = network.samples(np.random.default_rng(1), 64)

Beside :mod:`random_networks`, whose networks are graphs of float images, these are files with what real exports hold:
an opset from 13 to 21, uint8 pictures in NHWC, int64 tokens with padding, open batches, attention with and without
masks, LayerNormalization, If, Reshape in its several forms, Pad and Resize with ``axes``, Split by a number of outputs,
and outputs whose size depends on the data. A seed draws all of it, so that a failure is one number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from export_writer import Writer
from onnx import TensorProto, helper

Samples = dict[str, np.ndarray]
LEAST = float(np.finfo(np.float32).min)
TABLE = 12  # tokens


@dataclass
class Network:
    """A random network.

    Attributes:
        model: the file's contents.
        traits: what was drawn, in words.
        samples: random samples by input, sample axis first.
    """

    model: onnx.ModelProto
    traits: list[str]
    samples: Callable[[np.random.Generator, int], Samples]


def exported(seed: int) -> Network:
    """The network of a seed."""
    random = np.random.default_rng(seed)
    opset = int(random.choice([13, 15, 17, 17, 18, 18, 20, 21]))
    net = Writer(random, opset, "batch" if random.random() < 0.15 else 1)
    start = _STARTS[int(random.choice(len(_STARTS), p=[0.35, 0.3, 0.2, 0.15]))]
    sampler = start(net)
    net.traits = [f"opset {opset}", start.__name__.strip("_"), *(["open batch"] if net.batch != 1 else [])]
    if len(net.shape) == 3:
        for _ in range(int(random.integers(1, 5))):
            _applied(net, _IMAGE_BLOCKS)
        if net.chance(0.3):
            _applied(net, [_patches])
    if len(net.shape) == 2:
        for _ in range(int(random.integers(1, 4))):
            _applied(net, _SEQUENCE_BLOCKS)
    _applied(net, _IMAGE_HEADS if len(net.shape) == 3 else _SEQUENCE_HEADS)
    if net.chance(0.2):
        _applied(net, _IMAGE_HEADS if len(net.shape) == 3 else _SEQUENCE_HEADS)
    graph = helper.make_graph(net.nodes, f"exported{seed}", net.inputs, net.outputs, net.weights)
    versions = {13: 7, 15: 8, 17: 8, 18: 8, 20: 9, 21: 10}
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=versions[opset])
    onnx.checker.check_model(model)
    return Network(model, net.traits, sampler)


def _applied(net: Writer, blocks: list[Callable[[Writer], None]]) -> None:
    block = blocks[int(net.random.integers(len(blocks)))]
    block(net)
    net.traits.append(block.__name__.strip("_").replace("_", " "))


# -- what comes in ----------------------------------------------------------------------------------------------------

Sampler = Callable[[np.random.Generator, int], Samples]


def _pictures(random: np.random.Generator, count: int, channels: int, size: int) -> np.ndarray:
    """Smooth pictures of different brightness in [0, 1]: (count, channels, size, size)."""
    coarse = random.random((count, channels, 3, 3))
    index = np.linspace(0, 2, size).round().astype(int)
    pictures = coarse[:, :, index][:, :, :, index] * random.uniform(0.3, 1.0, (count, 1, 1, 1))
    return np.clip(pictures + 0.05 * random.standard_normal(pictures.shape), 0, 1)


def _image(net: Writer) -> Sampler:
    channels, size = int(net.random.integers(1, 4)), int(net.random.integers(7, 13))
    net.end, net.shape = net.takes("image", TensorProto.FLOAT, channels, size, size), (channels, size, size)
    low = float(net.random.choice([0, -1]))
    return lambda random, count: {
        "image": (low + (1 - low) * _pictures(random, count, channels, size)).astype(np.float32)
    }


def _camera(net: Writer) -> Sampler:
    """Bytes in NHWC, brought into the network's own order and range inside."""
    channels, size = int(net.random.choice([1, 3])), int(net.random.integers(7, 13))
    x = net.takes("camera", TensorProto.UINT8, size, size, channels)
    steps = [("Cast", {"to": TensorProto.FLOAT}), ("Transpose", {"perm": [0, 3, 1, 2]})]
    for op, attributes in steps if net.chance(0.5) else steps[::-1]:
        x = net.op(op, x, **attributes)
    x = net.op("Div", x, net.const(255)) if net.chance(0.5) else net.op("Mul", x, net.const(1 / 255))
    if net.chance(0.5):
        mean, deviation = net.random.uniform(0.4, 0.5, (2, channels, 1, 1))
        x = net.op("Div", net.op("Sub", x, net.const(mean)), net.const(deviation / 2))
    net.end, net.shape = x, (channels, size, size)
    return lambda random, count: {
        "camera": (255 * _pictures(random, count, channels, size).transpose(0, 2, 3, 1)).round().astype(np.uint8)
    }


def _tokens(net: Writer) -> Sampler:
    """Numbers of words, zero behind the end of each sentence."""
    length, width = int(net.random.integers(4, 9)), int(net.random.choice([4, 8]))
    tokens = net.takes("tokens", TensorProto.INT64, length)
    table = net.const(net.random.standard_normal((TABLE, width)))
    x = net.op("Gather", table, tokens)
    net.end = net.op("Add", x, net.const(0.3 * net.random.standard_normal((1, length, width))))
    net.shape = (length, width)
    if net.chance(0.7):
        there = net.op("Not", net.op("Equal", tokens, net.ints(0)))
        net.padding = net.op("Unsqueeze", there, net.ints(1, 2))

    def sampler(random: np.random.Generator, count: int) -> Samples:
        words = random.integers(1, TABLE, (count, length))
        words[np.arange(length) >= random.integers(2, length + 1, (count, 1))] = 0
        return {"tokens": words}

    return sampler


def _signal(net: Writer) -> Sampler:
    length, width = int(net.random.integers(4, 9)), int(net.random.choice([4, 6]))
    net.end, net.shape = net.takes("signal", TensorProto.FLOAT, length, width), (length, width)
    return lambda random, count: {"signal": random.standard_normal((count, length, width)).astype(np.float32)}


_STARTS = [_image, _camera, _tokens, _signal]


# -- blocks of images -------------------------------------------------------------------------------------------------


def _conv(net: Writer, x: str, channels: int, kernel: int = 3, group: int = 1, stride: int = 1) -> str:
    inputs = net.shape[0]
    weight, rest = net.noise(channels, inputs // group, kernel, kernel), [net.noise(channels)] * net.chance(0.7)
    pads = [kernel // 2] * 4
    x = net.op("Conv", x, weight, *rest, pads=pads, group=group, strides=[stride] * 2, kernel_shape=[kernel] * 2)
    if net.chance(0.4):
        gamma, variance = net.const(net.random.uniform(0.5, 1.5, channels)), net.random.uniform(0.5, 2, channels)
        x = net.op("BatchNormalization", x, gamma, net.noise(channels), net.noise(channels), net.const(variance))
    return x


def _convolution(net: Writer) -> None:
    channels, stride = int(net.random.choice([4, 6, 8])), 2 if net.shape[1] > 8 and net.chance(0.4) else 1
    net.end = net.activated(_conv(net, net.end, channels, int(net.random.choice([1, 3])), stride=stride))
    net.shape = (channels, -(-net.shape[1] // stride), -(-net.shape[2] // stride))


def _depthwise(net: Writer) -> None:
    net.end = net.activated(_conv(net, net.end, net.shape[0], group=net.shape[0]))


def _grouped(net: Writer) -> None:
    _convolution(net)
    net.end = net.activated(_conv(net, net.end, net.shape[0], group=2))


def _residual(net: Writer) -> None:
    branch = _conv(net, net.activated(_conv(net, net.end, net.shape[0])), net.shape[0])
    net.end = net.activated(net.op("Add", net.end, branch))


def _concatenation(net: Writer) -> None:
    branch = net.activated(_conv(net, net.end, 4, 1))
    net.end, net.shape = net.op("Concat", net.end, branch, axis=1), (net.shape[0] + 4, *net.shape[1:])


def _squeeze(net: Writer) -> None:
    c = net.shape[0]
    x = net.op("GlobalAveragePool", net.end) if net.chance(0.5) else net.reduced("ReduceMean", net.end, [2, 3], 1)
    x = net.op("Conv", net.op("Relu", net.op("Conv", x, net.noise(4, c, 1, 1))), net.noise(c, 4, 1, 1))
    net.end = net.op("Mul", net.end, net.op(str(net.pick("Sigmoid", "HardSigmoid")), x))


def _pool(net: Writer) -> None:
    if net.shape[1] < 4:
        return
    net.end = net.op(str(net.pick("MaxPool", "AveragePool")), net.end, kernel_shape=[2, 2], strides=[2, 2])
    net.shape = (net.shape[0], net.shape[1] // 2, net.shape[2] // 2)


def _padded(net: Writer) -> None:
    mode = str(net.pick("constant", "reflect", "edge"))
    by_axes = net.opset >= 18
    pads = [net.ints(1, 1, 1, 1), "", net.ints(2, 3)] if by_axes else [net.ints(0, 0, 1, 1, 0, 0, 1, 1)]
    x = net.op("Pad", net.end, *pads, mode=mode)
    net.end = net.activated(net.op("Conv", x, net.noise(6, net.shape[0], 3, 3)))
    net.shape = (6, *net.shape[1:])


def _resized(net: Writer) -> None:
    if net.shape[1] > 10:
        return
    mode = str(net.pick("nearest", "linear"))
    way = str(net.pick("asymmetric", "half_pixel", "align_corners"))
    attributes: dict[str, object] = {"mode": mode, "coordinate_transformation_mode": way}
    if mode == "nearest":
        attributes["nearest_mode"] = "floor"
    if net.opset >= 18 and net.chance(0.6):
        attributes["axes"] = [2, 3]
    net.end = net.op("Resize", net.end, "", net.const([2, 2] if "axes" in attributes else [1, 1, 2, 2]), **attributes)
    net.shape = (net.shape[0], net.shape[1] * 2, net.shape[2] * 2)


def _halves(net: Writer) -> None:
    """Split, one part worked on, the parts joined again."""
    if net.shape[0] % 2:
        _convolution(net)
    half = net.shape[0] // 2
    if net.opset >= 18:
        first, second = net.ops("Split", 2, net.end, axis=1, num_outputs=2)
    else:
        first, second = net.ops("Split", 2, net.end, net.ints(half, half), axis=1)
    first = net.op("Relu", net.op("Conv", first, net.noise(half, half, 1, 1)))
    net.end = net.op("Concat", second, first, axis=1)


def _normalized(net: Writer) -> None:
    scale, shift = net.const(net.random.uniform(0.5, 1.5, net.shape[0])), net.noise(net.shape[0])
    net.end = net.activated(net.op("InstanceNormalization", net.end, scale, shift))


def _branched(net: Writer) -> None:
    """If: by a constant, or by the mean of what comes in."""
    if net.chance(0.5):
        condition = net.const(net.chance(0.5), np.bool_)
    else:
        mean = net.reduced("ReduceMean", net.end, list(range(len(net.shape) + 1)), 0)
        condition = net.op("Greater", mean, net.const(float(net.random.normal(0, 0.2))))
    branches = {}
    for number, side in enumerate(("then_branch", "else_branch")):
        out, op = f"{net.name('side')}_{number}", str(net.pick("Relu", "Tanh", "Neg"))
        info = helper.make_empty_tensor_value_info(out)
        branches[side] = helper.make_graph([helper.make_node(op, [net.end], [out], f"{out}_{op}")], side, [], [info])
    net.end = net.op("If", condition, **branches)


_IMAGE_BLOCKS = [
    _convolution, _convolution, _depthwise, _grouped, _residual, _concatenation, _squeeze, _pool, _padded, _resized,
    _halves, _normalized, _branched,
]  # fmt: skip


def _patches(net: Writer) -> None:
    """Patches as a sequence, as vision transformers have them."""
    width = 8
    if net.shape[1] > 6:
        _pool(net)
    patches = _conv(net, net.end, width, 1)
    net.shape = (net.shape[1] * net.shape[2], width)
    net.end = net.op("Transpose", net.reshaped(patches, width, net.shape[0]), perm=[0, 2, 1])


# -- blocks of sequences: (1, tokens, width) --------------------------------------------------------------------------


def _layer_normalized(net: Writer) -> None:
    width = net.shape[1]
    scale, shift = net.const(net.random.uniform(0.5, 1.5, width)), net.noise(width)
    if net.opset >= 17:
        net.end = net.op("LayerNormalization", net.end, scale, shift, axis=-1)
        return
    centred = net.op("Sub", net.end, net.reduced("ReduceMean", net.end, [-1], 1))
    variance = net.reduced("ReduceMean", net.op("Pow", centred, net.const(2)), [-1], 1)
    deviation = net.op("Sqrt", net.op("Add", variance, net.const(1e-5)))
    net.end = net.op("Add", net.op("Mul", net.op("Div", centred, deviation), scale), shift)


def _attention(net: Writer) -> None:
    """Self-attention of one or two heads, with a mask of padding, a causal one, or none."""
    tokens, width = net.shape
    heads = int(net.random.choice([1, 2]))
    split = [
        net.op("Transpose", net.reshaped(net.linear(net.end, width, width), tokens, heads, width // heads), perm=perm)
        for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
    ]
    scores = net.op("Mul", net.op("MatMul", *split[:2]), net.const((width // heads) ** -0.5))
    low = float(net.random.choice([-1e4, LEAST]))
    if net.padding:
        if net.chance(0.5):
            scores = net.op("Where", net.padding, scores, net.const(low))
        else:
            mask = net.op("Cast", net.padding, to=TensorProto.FLOAT)
            scores = net.op("Add", scores, net.op("Mul", net.op("Sub", net.const(1), mask), net.const(low)))
    elif net.chance(0.4):
        scores = net.op("Add", scores, net.const(np.where(np.tri(tokens) > 0, 0, low)))
    mixed = net.op("MatMul", net.op("Softmax", scores, axis=-1), split[2])
    joined = net.reshaped(net.op("Transpose", mixed, perm=[0, 2, 1, 3]), tokens, width)
    net.end = net.op("Add", net.end, net.linear(joined, width, width))


def _perceptron(net: Writer) -> None:
    width = net.shape[1]
    x = net.linear(net.end, width, 2 * width)
    kind = net.pick("Gelu by Erf", "Relu", "Gelu")
    if kind == "Gelu" and net.opset >= 20:
        x = net.op("Gelu", x)
    elif kind == "Relu":
        x = net.op("Relu", x)
    else:
        erf = net.op("Add", net.op("Erf", net.op("Div", x, net.const(2**0.5))), net.const(1))
        x = net.op("Mul", net.op("Mul", x, erf), net.const(0.5))
    net.end = net.op("Add", net.end, net.linear(x, 2 * width, width))


_SEQUENCE_BLOCKS = [_layer_normalized, _attention, _attention, _perceptron, _branched]


# -- what goes out ----------------------------------------------------------------------------------------------------


def _classes(net: Writer) -> None:
    """Scores of classes behind a mean over places, or over all values."""
    channels, axes = (net.shape[0], [2, 3]) if len(net.shape) == 3 else (net.shape[1], [1])
    if net.chance(0.6):
        x = net.reduced("ReduceMean", net.end, axes, 0)
    else:
        channels = int(np.prod(net.shape))
        x = net.op("Flatten", net.end) if net.chance(0.5) else net.reshaped(net.end, channels)
    classes = int(net.random.integers(2, 10))
    x = net.op("Gemm", x, net.noise(classes, channels), net.noise(classes), transB=1)
    if net.chance(0.4):
        x = net.op("Softmax", x, axis=-1)
    net.gives(x, TensorProto.FLOAT, [net.batch, classes])


def _whole(net: Writer) -> None:
    net.gives(net.end, TensorProto.FLOAT, [net.batch, *net.shape])


def _image_out(net: Writer) -> None:
    x = _conv(net, net.end, 2, 1)
    x = net.op("Sigmoid", x) if net.chance(0.4) else x
    net.gives(x, TensorProto.FLOAT, [net.batch, 2, *net.shape[1:]])


def _flat(net: Writer) -> str:
    return net.reshaped(net.end, int(np.prod(net.shape)))


def _best(net: Writer) -> None:
    """TopK of a constant number."""
    values, places = net.ops("TopK", 2, _flat(net), net.ints(3), axis=-1, largest=int(net.chance(0.8)))
    net.gives(values, TensorProto.FLOAT, [net.batch, 3])
    if net.chance(0.5):
        net.gives(places, TensorProto.INT64, [net.batch, 3])


def _best_of_so_many(net: Writer) -> None:
    """TopK of as many values as there are positive ones, and one."""
    flat = _flat(net)
    positive = net.op("Cast", net.op("Greater", flat, net.const(0)), to=TensorProto.INT64)
    count = net.op("Reshape", net.op("ReduceSum", positive, keepdims=0), net.ints(1))
    values, _ = net.ops("TopK", 2, flat, net.op("Min", net.op("Add", count, net.ints(1)), net.ints(4)), axis=-1)
    net.gives(values, TensorProto.FLOAT, [net.batch, "best"])


def _places(net: Writer) -> None:
    """NonZero, and the values there."""
    mask = net.op("Greater", net.end, net.const(0.3))
    net.gives(net.op("NonZero", mask), TensorProto.INT64, [len(net.shape) + 1, "places"])
    if net.chance(0.5):
        net.gives(net.end, TensorProto.FLOAT, [net.batch, *net.shape])


def _boxes(net: Writer) -> None:
    """Boxes and scores through NonMaxSuppression."""
    count = 8
    size = int(np.prod(net.shape))
    flat = _flat(net)
    boxes = net.op("Sigmoid", net.op("Gemm", flat, net.noise(4 * count, size), net.noise(4 * count), transB=1))
    scores = net.op("Sigmoid", net.op("Gemm", flat, net.noise(2 * count, size), net.noise(2 * count), transB=1))
    boxes, scores = net.reshaped(boxes, count, 4), net.reshaped(scores, 2, count)
    limits = net.ints(4), net.const([0.5]), net.const([0.4])
    net.gives(net.op("NonMaxSuppression", boxes, scores, *limits), TensorProto.INT64, ["kept", 3])
    if net.chance(0.5):
        net.gives(boxes, TensorProto.FLOAT, [net.batch, count, 4])


def _most_likely(net: Writer) -> None:
    net.gives(net.op("ArgMax", net.end, axis=1, keepdims=0), TensorProto.INT64, [net.batch, *net.shape[1:]])


_IMAGE_HEADS = [_classes, _classes, _classes, _image_out, _image_out, _whole, _best, _best_of_so_many, _places, _boxes,
                _most_likely]  # fmt: skip
_SEQUENCE_HEADS = [_classes, _classes, _classes, _whole, _whole, _best, _best_of_so_many, _places, _boxes, _most_likely]
