"""Attributes and older forms of operators that node tests do not have, against onnxruntime; gradients."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from torch_modules import agrees, assert_agree, difference, run, torch

from edgec.ir.errors import InputError
from edgec.ir.execution import Session
from edgec.ir.graph import Graph
from edgec.ir.torch_module.module import TorchModule
from edgec.testing import model


def image(graph: Graph, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        t.name: random.standard_normal([d if isinstance(d, int) else 7 for d in t.shape]).astype(t.dtype)
        for t in graph.inputs
    }


def assert_as_onnxruntime(graph: Graph) -> None:
    feeds = image(graph)
    wanted = Session(graph).run(feeds)
    assert_agree(run(TorchModule(graph, any_batch=False), feeds), wanted)
    if all(tensor.shape[0] == 1 for tensor in graph.inputs):
        assert_agree(run(TorchModule(graph), feeds), wanted)


CONVOLUTIONS = [
    'auto_pad="SAME_UPPER", strides=[2,2]',
    'auto_pad="SAME_LOWER", strides=[2,2]',
    'auto_pad="VALID"',
    "pads=[0,1,2,3]",
    "pads=[1,2,1,2], strides=[1,2], dilations=[2,1]",
]


@pytest.mark.parametrize("attributes", CONVOLUTIONS)
@pytest.mark.parametrize("group", [1, 2, 4])
def test_convolutions(attributes: str, group: int) -> None:
    body = f"y = Conv<{attributes}, group={group}>(x, w, b)"
    assert_as_onnxruntime(
        model(body, "(float[1,4,9,8] x) => (float[n,c,h,v] y)", f"float[8,{4 // group},3,2] w, float[8] b")
    )


def test_convolutions_in_one_and_three_dimensions() -> None:
    assert_as_onnxruntime(
        model("y = Conv<pads=[2,1], group=2>(x, w)", "(float[1,4,9] x) => (float[n,c,h] y)", "float[4,2,3] w")
    )
    assert_as_onnxruntime(
        model(
            "y = Conv<pads=[0,1,2,1,1,0]>(x, w, b)",
            "(float[1,2,5,6,4] x) => (float[n,c,d,h,v] y)",
            "float[3,2,2,3,2] w, float[3] b",
        )
    )


TRANSPOSED = [
    "",
    "pads=[1,1,1,1], strides=[2,2]",
    "pads=[1,1,1,1], strides=[2,2], output_padding=[1,1]",
    "pads=[0,1,2,0], strides=[2,3]",
    "pads=[0,0,1,1], strides=[2,2], output_padding=[1,0]",
    "dilations=[2,1], pads=[2,0,2,0]",
    "strides=[2,2], output_shape=[10,8]",
    'strides=[2,2], output_shape=[9,9], auto_pad="SAME_UPPER"',
    'auto_pad="SAME_UPPER", strides=[2,2]',
    'auto_pad="SAME_LOWER", strides=[2,2]',
    'auto_pad="VALID", strides=[2,2]',
]


@pytest.mark.parametrize("attributes", TRANSPOSED)
@pytest.mark.parametrize("group", [1, 2])
def test_transposed_convolutions(attributes: str, group: int) -> None:
    body = f"y = ConvTranspose<{attributes}{', ' if attributes else ''}group={group}>(x, w, b)"
    shape = "(float[1,4,5,4] x) => (float[n,c,h,v] y)"
    assert_as_onnxruntime(model(body, shape, f"float[4,3,3,3] w, float[{3 * group}] b"))


POOLS = list(
    itertools.product(
        ["kernel_shape=[3,3]", "kernel_shape=[3,2], strides=[2,2]", "kernel_shape=[2,2], strides=[3,3]"],
        ["", "pads=[1,1,1,1]", "pads=[0,1,1,0]", 'auto_pad="SAME_UPPER"', 'auto_pad="SAME_LOWER"'],
        ["", "ceil_mode=1"],
    )
)


@pytest.mark.parametrize("attributes", [", ".join(filter(None, parts)) for parts in POOLS])
def test_pools(attributes: str) -> None:
    shape = "(float[1,2,8,9] x) => (float[n,c,h,v] y)"
    for body in (
        f"y = MaxPool<{attributes}>(x)",
        f"y = AveragePool<{attributes}>(x)",
        f"y = AveragePool<{attributes}, count_include_pad=1>(x)",
        f"y = LpPool<{attributes.replace(', ceil_mode=1', '')}, p=3>(x)",
    ):
        if body.count("auto_pad") and body.count("ceil_mode"):
            continue  # SAME leaves nothing to round
        if body.count("auto_pad") and body.count("strides=[3,3]"):
            continue  # onnxruntime refuses SAME where windows leave gaps
        assert_as_onnxruntime(model(body, shape, opset=19 if "Lp" in body else 17))


def test_dilated_pools() -> None:
    shape = "(float[1,2,8,9] x) => (float[n,c,h,v] y)"
    for attributes in (
        "dilations=[2,2]",
        "dilations=[2,1], pads=[1,0,1,1], strides=[2,1]",
        "dilations=[1,3], ceil_mode=1",
    ):
        assert_as_onnxruntime(model(f"y = MaxPool<kernel_shape=[2,2], {attributes}>(x)", shape))
        assert_as_onnxruntime(model(f"y = AveragePool<kernel_shape=[2,2], {attributes}>(x)", shape, opset=19))


RESIZES = [
    (mode, coordinates, more, scales)
    for mode, coordinates, more in [
        *(
            ("nearest", c, f', nearest_mode="{n}"')
            for c in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
            for n in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
        ),
        *(
            ("linear", c, "")
            for c in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric")
        ),
        *(
            ("cubic", c, m)
            for c in ("half_pixel", "asymmetric", "align_corners")
            for m in ("", ", cubic_coeff_a=-0.5", ", exclude_outside=1")
        ),
        ("linear", "half_pixel", ", antialias=1"),
        ("cubic", "half_pixel", ", antialias=1"),
    ]
    for scales in ("1.0, 1.0, 2.0, 3.0", "1.0, 1.0, 0.5, 0.6", "1.0, 1.0, 1.7, 2.0")
]


@pytest.mark.parametrize(("mode", "coordinates", "more", "scales"), RESIZES)
def test_resizes(mode: str, coordinates: str, more: str, scales: str) -> None:
    body = f'y = Resize<mode="{mode}", coordinate_transformation_mode="{coordinates}"{more}>(x, , k)'
    shape = "(float[1,2,6,5] x) => (float[n,c,h,v] y)"
    opset = 19 if "antialias" in more or "symmetric" in coordinates else 13
    assert_as_onnxruntime(model(body, shape, f"float[4] k = {{{scales}}}", opset=opset))


OLD = {
    "old Softmax": (11, "y = Softmax<axis=1>(x)"),
    "old LogSoftmax": (11, "y = LogSoftmax<axis=2>(x)"),
    "Clip by attributes": (10, "y = Clip<min=-0.5, max=0.5>(x)"),
    "Clip with one bound": (13, "y = Clip(x, , one)"),
    "Clip with the other bound": (13, "y = Clip(x, one)"),
    "Clip with bounds that cross": (13, "y = Clip(x, many, one)"),
    "Pad by attributes": (10, 'y = Pad<mode="constant", pads=[0,0,1,-1,0,0,2,3], value=0.5>(x)'),
    "Pad by reflection": (13, 'y = Pad<mode="reflect">(x, pads)'),
    "Pad by the edge": (13, 'y = Pad<mode="edge">(x, pads)'),
    "Pad around": (19, 'y = Pad<mode="wrap">(x, pads)'),
    "Pad of the channels": (13, 'y = Pad<mode="edge">(x, channels)'),
    "Squeeze by attributes": (11, "t = ReduceMean<axes=[2]>(x)\ny = Squeeze<axes=[2]>(t)"),
    "Unsqueeze by attributes": (11, "y = Unsqueeze<axes=[0,-1]>(x)"),
    "Split by attributes": (11, "t, y = Split<axis=1, split=[1,2]>(x)"),
    "Split in equal parts": (11, "t, u, y = Split<axis=1>(x)"),
    "Slice by attributes": (9, "y = Slice<starts=[1,-4], ends=[3,100], axes=[1,2]>(x)"),
    "Slice backwards": (13, "y = Slice(x, s, e, a, k)"),
    "ReduceSum by attributes": (11, "y = ReduceSum<axes=[1,-1], keepdims=0>(x)"),
    "ReduceSum by an input": (13, "y = ReduceSum(x, a)"),
    "ReduceMean by an input": (18, "y = ReduceMean<keepdims=0>(x, a)"),
    "ReduceL2": (18, "y = ReduceL2(x, a)"),
    "Upsample": (9, 'y = Upsample<mode="linear">(x, scales)'),
    "PRelu by position": (13, "y = PRelu(x, slopes)"),
    "PRelu by channel": (13, "y = PRelu(x, slope)"),
    "LRN": (13, "y = LRN<size=3, alpha=0.1, beta=0.5, bias=2.0>(x)"),
    "InstanceNormalization": (13, "y = InstanceNormalization(x, three, three)"),
    "GroupNormalization": (21, "y = GroupNormalization<num_groups=3>(x, three, three)"),
    "LayerNormalization over two axes": (17, "y = LayerNormalization<axis=-2>(x, plane)"),
    "Gelu": (20, 'y = Gelu<approximate="tanh">(x)'),
    "HardSigmoid": (13, "y = HardSigmoid<alpha=0.3, beta=0.4>(x)"),
    "Softplus of large numbers": (13, "t = Mul(x, many)\ny = Softplus(t)"),
    "TopK": (13, "y, i = TopK<axis=2>(x, two)"),
    "DepthToSpace": (13, 't = Concat<axis=1>(x, x, x, x)\ny = DepthToSpace<blocksize=2, mode="CRD">(t)'),
}


@pytest.mark.parametrize("case", OLD)
def test_forms_of_other_opsets(case: str) -> None:
    opset, body = OLD[case]
    constants = (
        "float one = {1.0}, int64[8] pads = {0, 0, 2, 1, 0, 0, 0, 3}, int64[8] channels = {0, 1, 0, 0, 0, 2, 1, 0}, "
        "int64[2] s = {4, 0}, int64[2] e = {-100, 2}, int64[2] a = {2, 3}, int64[2] k = {-2, 1}, "
        "float[4] scales = {1.0, 1.0, 2.0, 2.0}, float[3,6,4] slopes, float[3,1,1] slope, "
        "float[3] three = {0.5, 1.0, -2.0}, float[6,4] plane, float many = {60.0}, int64[1] two = {2}"
    )
    graph = model(body, "(float[1,3,6,4] x) => (float[r] y)", constants, opset=opset)
    graph.outputs[0].shape = None
    assert_as_onnxruntime(graph)


DIFFERENTIABLE = {
    "Clip": "y = Clip(x, low, high)",
    "Conv": "y = Conv<pads=[1,0,1,2], strides=[2,1]>(x, w)",
    "ConvTranspose": "y = ConvTranspose<pads=[0,1,1,0], strides=[2,2]>(x, u)",
    "MaxPool": "y = MaxPool<kernel_shape=[2,2], pads=[1,0,0,1]>(x)",
    "AveragePool": "y = AveragePool<kernel_shape=[2,2], pads=[1,0,0,1], ceil_mode=1, strides=[2,2]>(x)",
    "BatchNormalization": "y = BatchNormalization(x, p, q, r, p2)",
    "GroupNormalization": "y = GroupNormalization<num_groups=1>(x, o, o)",
    "LayerNormalization": "y = LayerNormalization(x, g)",
    "PRelu": "y = PRelu(x, slope)",
    "Resize": 'y = Resize<mode="cubic", coordinate_transformation_mode="asymmetric">(x, , k)',
    "Pad": 'y = Pad<mode="reflect">(x, pads)',
    "Mish": "y = Mish(x)",
    "ReduceL2": "y = ReduceL2(x, axes)",
    "a layer": "a = Transpose<perm=[0,2,3,1]>(x)\nb = MatMul(a, m)\nc = Add(b, v)\nd = HardSwish(c)\ny = Softmax(d)",
}


@pytest.mark.parametrize("case", DIFFERENTIABLE)
def test_gradients_are_the_finite_differences(case: str) -> None:
    graph = model(
        DIFFERENTIABLE[case],
        "(float[2,2,4,4] x) => (float[r] y)",
        "float[3,2,2,3] w, float[2,3,2,2] u, float[2] p, float[2] q, float[2] r, float[2] p2 = {0.5, 2.0}, "
        "float[1] o = {1.5}, float[4] g, float[2,1,1] slope, float[4] k = {1.0, 1.0, 1.5, 0.7}, "
        "int64[8] pads = {0, 0, 1, 1, 0, 0, 2, 0}, int64[2] axes = {1, 2}, float[2,3] m, float[3] v, "
        "float low = {-0.3}, float high = {0.8}",
        opset=18,
    )
    graph.outputs[0].shape = None
    module = TorchModule(graph).double()
    names = [name for name, _ in module.named_parameters()]
    x = torch.from_numpy(np.random.default_rng(5).standard_normal((2, 2, 4, 4))).requires_grad_()

    def through(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(module, dict(zip(names, values, strict=True)), ({"x": x},))["y"]

    values = [p.detach().clone().requires_grad_() for p in module.parameters()]
    assert torch.autograd.gradcheck(through, (x, *values), eps=1e-6, atol=1e-6, fast_mode=True)


def test_a_wrong_attribute_is_seen() -> None:
    graph = model("y = Conv<pads=[1,1,1,1]>(x, w)", "(float[1,2,5,5] x) => (float[1,2,5,5] y)", "float[2,2,3,3] w")
    feeds = image(graph)
    wanted = Session(graph).run(feeds)["y"]
    values = graph.nodes[0].inputs[1].values
    graph.nodes[0].inputs[1].values = np.flip(values, axis=-1)
    got = run(TorchModule(graph), feeds)["y"]
    assert not agrees(got, wanted) and difference(got, wanted) > 0.1


@pytest.mark.parametrize(
    ("body", "opset", "line"),
    [
        (
            "[n] y, m = MaxPool<kernel_shape=[2,2]>(x)",
            17,
            "node 'n' (MaxPool): it gives out where its maxima lie; end the network before it with --cut",
        ),
        (
            "[n] y, m = Dropout(x, half, yes)",
            17,
            "node 'n' (Dropout): it drops values at random; export the network in evaluation mode",
        ),
        (
            "[n] y, m, v = BatchNormalization<training_mode=1>(x, two, two, two, two)",
            17,
            "node 'n' (BatchNormalization): it gives out its batch's statistics; export the network in evaluation mode",
        ),
        (
            "[n] y = Cast<to=17>(x)",
            19,
            "node 'n' (Cast): it casts float32 to float8_e4m3fn, and torch has no such elements; cast to float32",
        ),
    ],
)
def test_uses_that_cannot_be_lowered_are_refused(body: str, opset: int, line: str) -> None:
    graph = model(
        body, "(float[1,2,4,4] x) => (float[r] y)", "float half = {0.5}, bool yes = {1}, float[2] two", opset=opset
    )
    graph.outputs[0].shape = graph.outputs[0].dtype = None
    with pytest.raises(InputError) as caught:
        TorchModule(graph)
    assert str(caught.value) == line


@pytest.mark.parametrize(
    ("layer", "channels"),
    [
        ("n = InstanceNormalization(t, one, one) y = HardSwish(n)", 3),
        ("y = Conv<strides=[2,2], kernel_shape=[1,1]>(t, w)", 1),
    ],
)
def test_gradients_of_pictures_out_of_nhwc(layer: str, channels: int) -> None:
    """torch's kernels for channels_last write beside their memory here where the gradient is in the usual order."""
    graph = model(
        f"t = Transpose<perm=[0,3,1,2]>(x) {layer}",
        f"(float[1,10,10,{channels}] x) => (float[1,n,m,k] y)",
        "float[3] one" if channels == 3 else "float[6,1,1,1] w",
    )
    module = TorchModule(graph)
    x = torch.rand(16, 10, 10, channels, requires_grad=True)
    y = module({"x": x})["y"]
    y.backward(torch.ones(y.shape))
    assert y.is_contiguous()
    usual = x.detach().permute(0, 3, 1, 2).clone(memory_format=torch.contiguous_format).requires_grad_()
    if channels == 3:
        weights = next(iter(module.parameters())).detach()
        expected = torch.nn.functional.hardswish(torch.nn.functional.instance_norm(usual, weight=weights, bias=weights))
    else:
        expected = torch.nn.functional.conv2d(usual, next(iter(module.parameters())).detach(), stride=2)
    expected.backward(torch.ones(expected.shape))
    assert torch.allclose(y, expected, atol=1e-5)
    assert torch.allclose(x.grad.permute(0, 3, 1, 2), usual.grad, atol=1e-4)
