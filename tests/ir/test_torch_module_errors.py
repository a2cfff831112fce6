"""What a graph that cannot become a torch module is told, word for word."""

from __future__ import annotations

import pytest

from edgec.ir.errors import InputError
from edgec.ir.graph import Graph, Variable
from edgec.ir.torch_module.module import TorchModule
from edgec.testing import model


def refusal(graph: Graph, **options: bool) -> str:
    for tensor in graph.outputs:
        tensor.shape = tensor.dtype = None
    with pytest.raises(InputError) as caught:
        TorchModule(graph, **options)
    return str(caught.value)


FIXED = "export the network with a dynamic batch, so that samples stay apart"
ONLY = f", so the model runs at batch size 1 only; {FIXED}"


@pytest.mark.parametrize(
    ("body", "shape", "opset", "line"),
    [
        (
            '[n] y = Pad<mode="twist">(x, p)',
            "1,4",
            17,
            "node 'n' (Pad): its mode is 'twist'; pad by constant, reflect, edge or wrap",
        ),
        (
            '[n] y = Resize<mode="area">(x, , sc)',
            "1,2,4,4",
            17,
            "node 'n' (Resize): its mode is 'area'; resize by nearest, linear or cubic",
        ),
        (
            '[n] y = Resize<coordinate_transformation_mode="odd">(x, , sc)',
            "1,2,4,4",
            17,
            "node 'n' (Resize): its coordinates are 'odd'; export the network at a newer opset",
        ),
        (
            "[n] y = BatchNormalization<spatial=0>(x, v, v, v, v)",
            "1,4,2",
            8,
            "node 'n' (BatchNormalization): it has statistics for each position; export the network at a newer opset",
        ),
        (
            "[n] y = Conv(x, w6)",
            "1,2,3,3,3,3",
            17,
            "node 'n' (Conv): it works along 4 axes; torch has it for one to three",
        ),
        (
            '[n] y = Constant<value_string="text">()\nt = Relu(x)',
            "1,4",
            17,
            "node 'n' (Constant): its value is none that torch has; fold the constants first",
        ),
        (
            "a = Cast<to=6>(x)\n[n] y = QuantizeLinear(a, s, z)",
            "1,4",
            21,
            "node 'n' (QuantizeLinear): it quantizes int32; cast to float32 before it",
        ),
        (
            "[n] y = ConstantOfShape<value=float8e4m3fn[1] {1}>(one)\nt = Relu(x)",
            "1,4",
            20,
            "node 'n' (ConstantOfShape): torch has no elements of type float8_e4m3fn; cast to float32",
        ),
    ],
)
def test_forms_that_cannot_be_lowered(body: str, shape: str, opset: int, line: str) -> None:
    constants = (
        "int64[4] p = {0, 1, 0, 1}, float[4] sc = {1, 1, 2, 2}, float[4] v, float[2,2,1,1,1,1] w6, float s = {0.5}, "
        "int8 z = {0}, int64[1] one = {1}"
    )
    assert refusal(model(body, f"(float[{shape}] x) => (float[r] y)", constants, opset=opset), any_batch=False) == line


def test_shapes_and_types_that_are_not_known() -> None:
    graph = model("[n] y = Unsqueeze<axes=[1]>(x)\nz = GlobalMaxPool(x)", "(float[1,2,3] x) => (float[r] y)", opset=11)
    del graph.nodes[1]
    graph.inputs[0].shape = None
    graph.op("GlobalMaxPool", [graph.inputs[0]], name="pool", outputs=[Variable("p")])
    assert refusal(graph) == (
        "node 'pool' (GlobalMaxPool): the rank of its input is not known; export the network with its shapes"
    )
    graph = model("[n] y = Conv(x, k)", "(float[1,2,5] x, float[3,2,K] k) => (float[r] y)")
    assert refusal(graph, any_batch=False) == (
        "node 'n' (Conv): the size of its kernel is not known; export the network with its shapes"
    )
    graph = model(
        '[n] y = ConvTranspose<auto_pad="SAME_UPPER">(x, w)', "(float[1,2,L] x) => (float[r] y)", "float[2,2,3] w"
    )
    assert refusal(graph, any_batch=False) == (
        "node 'n' (ConvTranspose): its padding depends on the size of its input; pin the inputs' shapes with --input"
    )
    graph = model(
        "[n] y = Identity(w)\nt = Relu(x)", "(float[1,2] x) => (float8e4m3fn[2] y)", "float8e4m3fn[2] w", opset=19
    )
    assert refusal(graph) == (
        "node 'n' (Identity): torch has no elements of type float8_e4m3fn; convert the model to float32"
    )


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (
            "t = Transpose<perm=[1,0,2,3]>(x)\n[n] y = GlobalMaxPool(t)",
            "node 'n' (GlobalMaxPool): its images lie along axis 0 and the samples along axis 1",
        ),
        ("t = Flatten(x)\n[n] y = Gemm<transB=1>(t, t)", "node 'n' (Gemm): both its factors differ by sample"),
        (
            "t = Flatten(x)\n[n] y = Gemm<transA=1>(t, c)",
            "node 'n' (Gemm): it works along axis 0, which is the batch's",
        ),
        ("t = Flatten(x)\n[n] y = Gemm(t, m, t)", "node 'n' (Gemm): what it adds differs by sample"),
        (
            "t = Transpose<perm=[2,1,0,3]>(x)\n[n] y = Concat<axis=1>(x, t)",
            "node 'n' (Concat): its operands have their samples along different axes",
        ),
        (
            't = Flatten(x)\nu = Unsqueeze(t, one)\n[n] y = Einsum<equation="bij->ij">(u)',
            "node 'n' (Einsum): it sums over 'b', the batch's axis",
        ),
        (
            't = Flatten(x)\n[n] y = Einsum<equation="bi,bi">(t, t)',
            "node 'n' (Einsum): its equation leaves the output, or axes, unnamed",
        ),
        (
            't = Flatten(x)\n[n] y = Einsum<equation="bi,bi->bi">(t, c)',
            "node 'n' (Einsum): an operand that belongs to all samples has the batch's axis 'b'",
        ),
        (
            't = Flatten(x)\n[n] y = Einsum<equation="bi,ib->bi">(t, t)',
            "node 'n' (Einsum): its operands have their samples along different axes",
        ),
        (
            "i = ArgMax<axis=1>(x)\n[n] y = Gather<axis=3>(x, i)",
            "node 'n' (Gather): both its data and its indices differ by sample",
        ),
        (
            "t = Flatten(x)\nr = Reshape(t, fours)\n[n] y = Concat<axis=1>(r, c4)",
            "node 'n' (Concat): it puts a part that belongs to all samples beside several rows of each",
        ),
        (
            "s = ReduceMax<keepdims=0, axes=[1,2,3]>(x)\nf = Cast<to=7>(s)\nt = Flatten(x)\n[n] y = Reshape(t, f)",
            "node 'n' (Reshape): an operand that belongs to all samples differs by sample",
        ),
    ],
)
def test_samples_that_do_not_stay_apart(body: str, line: str) -> None:
    constants = "float[4,4] m, float[1,4] c, int64[1] one = {1}, int64[2] fours = {4, 1}, float[4,2] c4"
    graph = model(body, "(float[1,4,1,1] x) => (float[r] y)", constants)
    assert refusal(graph) == line + ONLY


def test_more_than_one_row_of_a_sample() -> None:
    graph = model(
        "t = Reshape(x, fours)\n[n] y = Add(x, t)", "(float[1,4] x) => (float[r] y)", "int64[2] fours = {4, 1}"
    )
    assert refusal(graph) == "node 'n' (Add): it broadcasts one operand's samples over the other's" + ONLY
    graph = model("[n] y = Gemm(x, m, c)", "(float[1,4] x) => (float[r] y)", "float[4,4] m, float[3,4] c")
    assert refusal(graph) == "node 'n' (Gemm): what it adds has a row for each sample" + ONLY
    graph = model("[n] y = MatMul(x, mats)", "(float[1,2,4] x) => (float[r] y)", "float[3,4,4] mats")
    assert refusal(graph) == "node 'n' (MatMul): 'mats' has a matrix for each sample" + ONLY
    graph = model("[n] y = Slice(x, z, z, z)", "(float[1,4] x) => (float[r] y)", "int64[1] z = {0}")
    assert refusal(graph) == "node 'n' (Slice): it works along axis 0, which is the batch's" + ONLY


def test_numbers_that_the_network_computes() -> None:
    graph = model(
        "f = ReduceMax<keepdims=0, axes=[0]>(v)\ni = Cast<to=7>(x)\nj = ReduceMax<axes=[1], keepdims=0>(i)\n"
        "[n] y = Tile(x, i)",
        "(float[1,2] x) => (float[r] y)",
        "float[2] v",
    )
    graph.nodes[-1].inputs[1] = graph.nodes[2].outputs[0]
    assert refusal(graph) == "node 'n' (Tile): an operand that belongs to all samples differs by sample" + ONLY


def test_a_target_that_hangs_on_a_weight() -> None:
    graph = model(
        "h = MatMul(x, w)\nr = ReduceMax<axes=[0], keepdims=0>(w)\nf = Cast<to=7>(r)\n[n] y = Reshape(h, f)",
        "(float[1,2] x) => (float[r] y)",
        "float[2,2] w = {1, 2, 1, 1}",
    )
    assert refusal(graph) == "node 'n' (Reshape): it takes 'f', which the network computes" + ONLY
