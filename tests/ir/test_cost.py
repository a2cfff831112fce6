"""Figures that were worked out by hand."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from edgec.ir.analyses import Analyses
from edgec.ir.cost import Cost, NodeCost, is_weight
from edgec.ir.graph import Constant, Graph, Tensor, Variable
from edgec.ir.printer import parse


class Net:
    """A graph under construction; shapes are inferred."""

    def __init__(self, *shape: int, dtype: type = np.float32) -> None:
        self.x = Variable("x", dtype, shape)
        self.graph = Graph(inputs=[self.x], opset=21)

    def weight(self, *shape: int, dtype: type = np.float32) -> Constant:
        return self.graph.const("w", np.zeros(shape, dtype))

    def add(self, op: str, *inputs: Tensor, **attrs: object) -> Variable:
        return self.graph.op(op, inputs, **attrs)

    def cost(self, *outputs: Variable) -> Cost:
        self.graph.outputs = list(outputs)
        for tensor in outputs:
            tensor.dtype = tensor.dtype or np.dtype(np.float32)
        return Cost(self.graph)


def test_convolution() -> None:
    net = Net(1, 3, 8, 8)
    y = net.add("Conv", net.x, net.weight(4, 3, 3, 3), net.weight(4), pads=[1, 1, 1, 1], name="conv")
    cost = net.cost(y)
    assert cost.macs == 4 * 8 * 8 * 3 * 3 * 3 == 6912
    assert cost.params == 4 * 27 + 4
    assert cost.weight_bytes == 4 * 112
    assert cost.bytes_moved == 4 * (192 + 108 + 4 + 256)
    assert cost.by_node == {net.graph.nodes[0]: NodeCost(112, 6912, 2240)}
    assert cost.peak_activation_bytes == 4 * (192 + 256)
    assert cost.as_dict() == {
        "params": 112,
        "macs": 6912,
        "macs_unknown": 0,
        "weight_bytes": 448,
        "peak_activation_bytes": 1792,
        "bytes_moved": 2240,
        "sizes_unknown": 0,
        "nodes": 1,
    }


def test_strided_grouped_and_depthwise_convolution() -> None:
    net = Net(2, 8, 9, 9)
    y = net.add("Conv", net.x, net.weight(16, 4, 3, 3), group=2, strides=[2, 2])  # 9 -> 4
    z = net.add("Conv", y, net.weight(16, 1, 3, 3), group=16, pads=[1, 1, 1, 1])
    assert net.cost(z).macs == 2 * 16 * 4 * 4 * (4 * 9) + 2 * 16 * 4 * 4 * 9


def test_transposed_convolution() -> None:
    net = Net(1, 8, 5, 5)
    y = net.add("ConvTranspose", net.x, net.weight(8, 3, 2, 2), strides=[2, 2])
    # Each of the 8x5x5 inputs meets 3x2x2 weights; the output's 3x10x10 elements are made of 8 products each.
    assert net.cost(y).macs == 8 * 25 * 12 == 3 * 100 * 8


@pytest.mark.parametrize(("trans_a", "shape"), [(0, (2, 7)), (1, (7, 2))])
def test_gemm(trans_a: int, shape: tuple[int, int]) -> None:
    net = Net(*shape)
    y = net.add("Gemm", net.x, net.weight(5, 7), net.weight(5), transA=trans_a, transB=1)
    assert net.cost(y).macs == 2 * 5 * 7


def test_matmul_with_and_without_batch() -> None:
    net = Net(3, 2, 7)
    y = net.add("MatMul", net.x, net.weight(7, 5))
    z = net.add("MatMul", y, net.weight(3, 5, 4))
    v = net.add("MatMul", z, net.weight(4))
    cost = net.cost(v)
    assert cost.macs == 3 * 2 * 5 * 7 + 3 * 2 * 4 * 5 + 3 * 2 * 4


def test_quantized_operators_and_their_scales() -> None:
    net = Net(1, 3, 8, 8, dtype=np.uint8)
    scale, zero = net.graph.const("s", np.float32(0.1)), net.graph.const("z", np.uint8(0))
    per_channel = net.graph.const("sw", np.ones(4, np.float32))
    w = net.weight(4, 3, 3, 3, dtype=np.uint8)
    bias = net.weight(4, dtype=np.int32)
    y = net.add("QLinearConv", net.x, scale, zero, w, per_channel, zero, scale, zero, bias)
    y.dtype = np.dtype(np.uint8)
    cost = net.cost(y)
    assert cost.macs == 4 * 6 * 6 * 27
    assert cost.params == 108 + 4
    assert cost.weight_bytes == 108 + 16 + 16 + 4 + 1


def test_what_counts_as_a_weight() -> None:
    graph = parse(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[1,3,8,8] x) => (float[1,192] y)
        <float[4] scales = {1.0, 1.0, 2.0, 2.0}, float low = {0.0}, int64[2] shape = {1, -1}, float[1] k = {2.0},
         float[3] slope = {0.1, 0.2, 0.3}>
        {
            r = Resize(x, "", scales)
            c = Clip(r, low)
            m = Mul(c, k)
            p = PRelu(m, slope)
            y = Reshape(p, shape)
        }
        """
    )
    assert {c.name for c in graph.constants() if is_weight(c)} == {"k", "slope"}


def test_a_shared_weight_counts_once_and_at_each_reader() -> None:
    net = Net(1, 4)
    w = net.weight(4, 4)
    y = net.add("MatMul", net.add("MatMul", net.x, w), w)
    cost = net.cost(y)
    assert cost.params == 16
    assert [node.params for node in cost.by_node.values()] == [16, 16]


def test_packed_weights_take_their_packed_bytes() -> None:
    net = Net(1, 4)
    w = net.graph.const("w", np.zeros((4, 5), ml_dtypes.int4))
    y = net.add("MatMul", net.x, net.add("DequantizeLinear", w, net.graph.const("s", np.float32(1))))
    cost = net.cost(y)
    assert cost.weight_bytes == 10 + 4
    assert cost.params == 20
    assert cost.by_node[net.graph.nodes[0]].bytes_moved == 10 + 4 + 20 * 4


def test_an_activation_is_written_over_its_input() -> None:
    net = Net(1, 64)
    y = net.add("MatMul", net.x, net.weight(64, 64))
    z = net.add("MatMul", net.add("Relu", y), net.weight(64, 16))
    assert net.cost(z).peak_activation_bytes == 4 * (64 + 64)


def test_an_activation_of_an_input_is_not() -> None:
    net = Net(1, 64)
    assert net.cost(net.add("Relu", net.x)).peak_activation_bytes == 4 * 128


def test_a_residual_keeps_its_skip_alive() -> None:
    net = Net(1, 8, 4, 4)  # 128 elements
    a = net.add("Conv", net.x, net.weight(8, 8, 1, 1))
    b = net.add("Conv", a, net.weight(32, 8, 1, 1))  # 512
    c = net.add("Conv", b, net.weight(8, 32, 1, 1))
    y = net.add("Add", a, c)
    # At b: a and b; at c: a, b and c; the sum goes over a.
    assert net.cost(y).peak_activation_bytes == 4 * (128 + 512 + 128)
    wide = net.add("Conv", y, net.weight(64, 8, 1, 1))  # 1024
    assert net.cost(wide).peak_activation_bytes == 4 * (128 + 1024)


def test_a_view_costs_nothing_and_keeps_its_source_alive() -> None:
    net = Net(1, 64)
    a = net.add("MatMul", net.x, net.weight(64, 64))
    view = net.add("Reshape", a, net.graph.const("shape", np.array([1, 8, 8])))
    relu = net.add("Relu", view)  # must not be written over a, which is read again
    y = net.add("Add", net.add("Flatten", relu), a)
    assert net.cost(y).peak_activation_bytes == 4 * 128


def test_outputs_stay_alive() -> None:
    net = Net(1, 64)
    a = net.add("MatMul", net.x, net.weight(64, 64))
    b = net.add("Relu", a)
    assert net.cost(a, b).peak_activation_bytes == 4 * 128
    c = net.add("MatMul", b, net.weight(64, 64))
    assert net.cost(a, b, c).peak_activation_bytes == 4 * 192


def _qdq(net: Net, tensor: Tensor) -> Variable:
    scale, zero = net.graph.const("s", np.float32(0.1)), net.graph.const("z", np.int8(0))
    return net.add("DequantizeLinear", net.add("QuantizeLinear", tensor, scale, zero), scale, zero)


def test_what_lies_between_quantize_and_dequantize_counts_at_8_bits() -> None:
    net = Net(1, 8, 4, 4)
    w = net.add("DequantizeLinear", net.weight(32, 8, 1, 1, dtype=np.int8), net.graph.const("s", np.float32(0.1)))
    a = net.add("Conv", _qdq(net, net.x), w)  # 512
    relu = net.add("Relu", _qdq(net, a))
    y = _qdq(net, relu)
    z = net.add("Conv", y, net.weight(8, 32, 1, 1))
    cost = net.cost(_qdq(net, z))
    # 128 and 512 bytes around each convolution, the activation in place; at the end 128 bytes beside 128 floats.
    assert cost.peak_activation_bytes == 640


def test_what_is_not_known_is_left_out_and_said() -> None:
    graph = parse(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[1,4] a, int64[8] pads, float[1,4,6,6] x) => (float[1,4] b, float[N,M,H,W] y)
        <float[4,4] w, float[4,4,3,3] v>
        {
            [known] b = MatMul(a, w)
            [pad] p = Pad(x, pads)
            [unknown] y = Conv(p, v)
        }"""
    )
    cost = Cost(graph)
    assert [cost.by_node[node].macs for node in graph.nodes] == [16, 0, None]
    assert (cost.macs, cost.macs_unknown) == (16, 1)
    # p and y, of which nothing is known but that they have four dimensions, one of them 4.
    assert cost.sizes_unknown == 2
    assert cost.bytes_moved == sum(node.bytes_moved for node in cost.by_node.values())
    assert cost.as_dict() | {"macs_unknown": 1, "sizes_unknown": 2} == cost.as_dict()


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose", "Gemm", "MatMul"])
def test_no_layer_counts_as_one_position(op: str) -> None:
    spatial = ",N,N" if op.startswith("Conv") else ""
    shape, taps = f"float[{'1' if spatial else 'N'},4{spatial}]", ",3,3" if spatial else ""
    graph = parse(
        f'<ir_version: 8, opset_import: ["" : 17]> g ({shape} x, float[4,4{taps}] w) => (y) {{ y = {op}(x, w) }}'
    )
    assert (Cost(graph).macs, Cost(graph).macs_unknown) == (0, 1)


def test_types_without_sizes_cost_nothing() -> None:
    graph = parse('<ir_version: 8, opset_import: ["" : 17]> g (string[2] x) => (string[2] y) { y = Identity(x) }')
    assert Cost(graph).bytes_moved == 0
    assert Cost(graph).peak_activation_bytes == 0


def test_cost_takes_the_shapes_that_are_there() -> None:
    net = Net(1, 4)
    net.cost(net.add("MatMul", net.x, net.weight(4, 4)))
    analyses = Analyses(net.graph)
    assert analyses.get(Cost).macs == 16
    assert analyses.computed == 2


def test_what_an_integer_kernel_applies_to_its_sums_is_not_held() -> None:
    graph = parse(
        """<ir_version: 8, opset_import: ["" : 17]>
        net (float[1,1,8,8] x) => (float[1,1,8,8] y)
        <float s = {0.1}, int8 z = {0}, float[1,1,1,1] w = {2}> {
          q = QuantizeLinear(x, s, z)
          d = DequantizeLinear(q, s, z)
          c = Conv(d, w)
          r = Relu(c)
          p = QuantizeLinear(r, s, z)
          y = DequantizeLinear(p, s, z)
        }"""
    )
    # The float input is the signature's; then one int8 tensor becomes the next. The output is float again.
    assert Cost(graph).peak_activation_bytes == 64 * 4 + 64


def test_a_float_activation_is_held_where_it_is_not_fused() -> None:
    graph = parse(
        """<ir_version: 8, opset_import: ["" : 17]>
        net (float[1,1,8,8] x) => (float[1,1,8,8] y)
        <float s = {0.1}, int8 z = {0}, float[1,1,1,1] w = {2}> {
          c = Conv(x, w)
          r = Sigmoid(c)
          p = QuantizeLinear(r, s, z)
          y = DequantizeLinear(p, s, z)
        }"""
    )
    assert Cost(graph).peak_activation_bytes == 2 * 64 * 4
