"""Small networks, one for each way in which channels hang together, as onnx.parser's text with seeded weights."""

from __future__ import annotations

import numpy as np

from edgec.ir.graph import Graph
from edgec.testing import model

_IMAGE = "(float[1,3,8,8] x) => (float[1,4,8,8] y)"
_SAME = "pads = [1, 1, 1, 1]"
# Nodes, signature, weights; one entry a network.
TEXTS: dict[str, tuple[str, str, str]] = {
    "residual": (
        f"""
        a = Conv <{_SAME}> (x, w1, b1)
        r = Relu(a)
        b = Conv <{_SAME}> (r, w2)
        s = Add(r, b)
        t = Conv <{_SAME}> (s, w3)
        u = Add(t, s)
        y = Conv(u, w4)""",
        _IMAGE,
        "float[8,3,3,3] w1, float[8] b1, float[8,8,3,3] w2, float[8,8,3,3] w3, float[4,8,1,1] w4",
    ),
    "dense concatenations": (
        f"""
        a = Conv <{_SAME}> (x, w1)
        c1 = Concat <axis = 1> (x, a)
        n1 = BatchNormalization(c1, g1, o1, m1, v1)
        b = Conv <{_SAME}> (n1, w2)
        c2 = Concat <axis = 1> (b, c1)
        r = Relu(c2)
        y = Conv(r, w3)""",
        _IMAGE,
        """float[6,3,3,3] w1, float[9] g1, float[9] o1, float[9] m1, float[9] v1, float[5,9,3,3] w2,
        float[4,14,1,1] w3""",
    ),
    "grouped": (
        f"""
        a = Conv <{_SAME}> (x, w1, b1)
        b = Conv <{_SAME}, group = 4> (a, w2, b2)
        r = Relu(b)
        y = Conv(r, w3)""",
        _IMAGE,
        """float[16,3,3,3] w1, float[16] b1, float[24,4,3,3] w2, float[24] b2, float[4,24,1,1] w3""",
    ),
    "depthwise": (
        f"""
        a = Conv <{_SAME}> (x, w1, b1)
        b = Conv <{_SAME}, group = 8> (a, w2, b2)
        c = PRelu(b, slope)
        d = Conv <{_SAME}, group = 8> (c, w3)
        y = Conv(d, w4)""",
        _IMAGE,
        """float[8,3,3,3] w1, float[8] b1, float[8,1,3,3] w2, float[8] b2, float[8,1,1] slope, float[16,1,3,3] w3,
        float[4,16,1,1] w4""",
    ),
    "groups of the input": (
        f"""
        a = Conv <{_SAME}, group = 3> (x, w1)
        y = Conv(a, w2)""",
        _IMAGE,
        "float[12,1,3,3] w1, float[4,12,1,1] w2",
    ),
    "grouped to one a group": (
        f"""
        a = Conv(x, w1)
        b = Conv <{_SAME}, group = 4> (a, w2)
        y = Conv(b, w3)""",
        _IMAGE,
        "float[8,3,1,1] w1, float[4,2,3,3] w2, float[4,4,1,1] w3",
    ),
    "shuffle": (
        f"""
        a = Conv(x, w1)
        b = Conv <group = 2> (a, w2)
        c = Reshape(b, apart)
        d = Transpose <perm = [0, 2, 1, 3, 4]> (c)
        e = Reshape(d, together)
        f = Conv <{_SAME}, group = 12> (e, w3)
        g = Conv <group = 2> (f, w4)
        y = Conv(g, w5)""",
        _IMAGE,
        """float[8,3,1,1] w1, float[12,4,1,1] w2, float[12,1,3,3] w3, float[8,6,1,1] w4, float[4,8,1,1] w5,
        int64[5] apart = {1, 2, 6, 8, 8}, int64[4] together = {0, -1, 8, 8}""",
    ),
    "shuffle of a plain convolution": (
        """
        b = Conv(x, w1, b1)
        c = Reshape(b, apart)
        d = Transpose <perm = [0, 2, 1, 3, 4]> (c)
        e = Reshape(d, together)
        y = Conv(e, w2)""",
        _IMAGE,
        """float[12,3,1,1] w1, float[12] b1, float[4,12,1,1] w2,
        int64[5] apart = {1, 3, 4, 8, 8}, int64[4] together = {1, 12, 8, 8}""",
    ),
    "squeeze and excitation": (
        f"""
        a = Conv <{_SAME}> (x, w1, b1)
        p = GlobalAveragePool(a)
        q = Conv(p, w2, b2)
        r = Relu(q)
        s = Conv(r, w3, b3)
        t = HardSigmoid(s)
        u = Mul(a, t)
        y = Conv(u, w4)""",
        _IMAGE,
        """float[8,3,3,3] w1, float[8] b1, float[4,8,1,1] w2, float[4] b2, float[8,4,1,1] w3, float[8] b3,
        float[4,8,1,1] w4""",
    ),
    "squeeze and excitation by Gemm": (
        f"""
        a = Conv <{_SAME}> (x, w1, b1)
        p = ReduceMean <axes = [2, 3], keepdims = 0> (a)
        q = Gemm <transB = 1> (p, w2, b2)
        r = Relu(q)
        s = Gemm(r, w3, b3)
        t = Sigmoid(s)
        v = Unsqueeze(t, places)
        u = Mul(v, a)
        y = Conv(u, w4)""",
        _IMAGE,
        """float[8,3,3,3] w1, float[8] b1, float[4,8] w2, float[4] b2, float[4,8] w3, float[8] b3,
        float[4,8,1,1] w4, int64[2] places = {2, 3}""",
    ),
    "u-net": (
        f"""
        a = Conv <{_SAME}> (x, w1, b1)
        p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (a)
        b = Conv <{_SAME}> (p, w2, b2)
        n = BatchNormalization(b, g, o, m, v)
        u = ConvTranspose <strides = [2, 2]> (n, w3, b3)
        h = ConvTranspose <{_SAME}, group = 2> (u, w4, b4)
        c = Concat <axis = 1> (a, h)
        y = Conv <{_SAME}> (c, w5)""",
        _IMAGE,
        """float[6,3,3,3] w1, float[6] b1, float[10,6,3,3] w2, float[10] b2, float[10] g, float[10] o, float[10] m,
        float[10] v, float[10,8,2,2] w3, float[8] b3, float[8,3,3,3] w4, float[6] b4, float[4,12,3,3] w5""",
    ),
    "resized": (
        """
        a = Conv(x, w1, b1)
        p = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (a)
        u = Resize <mode = "linear"> (p, "", "", sizes)
        y = Conv(u, w2)""",
        _IMAGE,
        "float[6,3,1,1] w1, float[6] b1, float[4,6,1,1] w2, int64[4] sizes = {1, 6, 8, 8}",
    ),
    "flatten": (
        f"""
        a = Conv <{_SAME}, strides = [2, 2]> (x, w1, b1)
        r = Relu(a)
        f = Flatten(r)
        g = Gemm <transB = 1> (f, w2, b2)
        h = Tanh(g)
        y = MatMul(h, w3)""",
        "(float[1,3,8,8] x) => (float[1,5] y)",
        "float[6,3,3,3] w1, float[6] b1, float[10,96] w2, float[10] b2, float[10,5] w3",
    ),
    "channels last": (
        """
        a = Conv(x, w1)
        t = Transpose <perm = [0, 2, 3, 1]> (a)
        p = PRelu(t, slope)
        f = Reshape(p, rows)
        m = MatMul(f, w2)
        s = Add(m, b2)
        y = MatMul(s, w3)""",
        "(float[1,3,4,4] x) => (float[16,5] y)",
        """float[6,3,1,1] w1, float[6] slope, float[6,7] w2, float[7] b2, float[7,5] w3,
        int64[2] rows = {-1, 6}""",
    ),
    "one dimension": (
        """
        a = Conv <pads = [1, 1]> (x, w1, b1)
        n = InstanceNormalization(a, g, o)
        r = LeakyRelu(n)
        y = Conv(r, w2)""",
        "(float[1,3,16] x) => (float[1,4,16] y)",
        "float[6,3,3] w1, float[6] b1, float[6] g, float[6] o, float[4,6,1] w2",
    ),
    "shared weights": (
        f"""
        a = Conv(x, w1, b1)
        b = Conv <{_SAME}> (a, w2, b2)
        r = Relu(b)
        c = Conv <{_SAME}> (r, w2, b2)
        y = Conv(c, w3)""",
        _IMAGE,
        "float[6,3,1,1] w1, float[6] b1, float[6,6,3,3] w2, float[6] b2, float[4,6,1,1] w3",
    ),
    "split and sliced": (
        """
        a = Conv(x, w1, b1)
        s1, s2 = Split <axis = 1> (a, sizes)
        c = Conv(s2, w2)
        d = Add(s1, c)
        e = Slice(a, from, to, axis, step)
        f = Gather <axis = 1> (a, picked)
        g = Concat <axis = 1> (d, e, f)
        y = Conv(g, w3)""",
        _IMAGE,
        """float[12,3,1,1] w1, float[12] b1, float[5,7,1,1] w2, float[4,12,1,1] w3, int64[2] sizes = {5, 7},
        int64[1] from = {-2}, int64[1] to = {0}, int64[1] axis = {1}, int64[1] step = {-3},
        int64[3] picked = {4, 9, -12}""",
    ),
    "even split": (
        """
        a = Conv(x, w1)
        s1, s2 = Split <axis = 1> (a)
        c = Conv(s1, w2)
        b = Conv(s2, w3)
        y = Sub(c, b)""",
        _IMAGE,
        "float[8,3,1,1] w1, float[4,4,1,1] w2, float[4,4,1,1] w3",
    ),
    "gated halves": (
        """
        a = Conv(x, w1)
        s1 = Slice(a, zero, four, one)
        s2 = Slice(a, four, end, one)
        g = Sigmoid(s2)
        m = Mul(s1, g)
        y = Conv(m, w2)""",
        _IMAGE,
        """float[8,3,1,1] w1, float[4,4,1,1] w2, int64[1] zero = {0}, int64[1] four = {4}, int64[1] end = {1000},
        int64[1] one = {1}""",
    ),
    "pixel shuffle": (
        """
        a = Conv(x, w1, b1)
        d = DepthToSpace <blocksize = 2, mode = "CRD"> (a)
        s = SpaceToDepth <blocksize = 2> (d)
        e = DepthToSpace <blocksize = 2> (s)
        p = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (e)
        y = Conv(p, w2)""",
        _IMAGE,
        "float[12,3,1,1] w1, float[12] b1, float[4,3,1,1] w2",
    ),
    "pixel shuffle by hand": (
        """
        a = Conv(x, w1, b1)
        b = Reshape(a, apart)
        c = Transpose <perm = [0, 1, 4, 2, 5, 3]> (b)
        d = Reshape(c, together)
        p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (d)
        y = Conv(p, w2)""",
        _IMAGE,
        """float[12,3,1,1] w1, float[12] b1, float[4,3,1,1] w2, int64[6] apart = {1, 3, 2, 2, 8, 8},
        int64[4] together = {1, 3, 16, 16}""",
    ),
    "padded, tiled and expanded": (
        """
        a = Conv(x, w1)
        b = Pad(a, pads)
        c = Tile(b, repeats)
        k = Expand(scale, shape)
        d = Mul(c, k)
        y = Conv(d, w2)""",
        _IMAGE,
        """float[6,3,1,1] w1, float[4,18,1,1] w2, float[1,1,1,1] scale, int64[8] pads = {0, 1, 0, 0, 0, 2, 0, 0},
        int64[4] repeats = {1, 2, 1, 1}, int64[4] shape = {1, 18, 1, 1}""",
    ),
    "group normalization by hand": (
        """
        a = Conv(x, w1, b1)
        b = Reshape(a, groups)
        n = InstanceNormalization(b, g, o)
        c = Reshape(n, back)
        d = Mul(c, gamma)
        y = Conv(d, w2)""",
        _IMAGE,
        """float[12,3,1,1] w1, float[12] b1, float[4] g, float[4] o, float[12,1,1] gamma, float[4,12,1,1] w2,
        int64[3] groups = {0, 4, -1}, int64[4] back = {1, 12, 8, 8}""",
    ),
    "dequantized weights": (
        """
        k = DequantizeLinear <axis = 0> (q, scales, zeros)
        a = Conv(x, k, b1)
        r = Relu(a)
        y = Conv(r, w2)""",
        _IMAGE,
        "int8[6,3,1,1] q, float[6] scales, int8[6] zeros, float[6] b1, float[4,6,1,1] w2",
    ),
    "quantized activations": (
        """
        a = Conv(x, w1, b1)
        q = QuantizeLinear(a, s, z)
        d = DequantizeLinear(q, s, z)
        e = QuantizeLinear <axis = 1> (d, each, zeros)
        f = DequantizeLinear <axis = 1> (e, each, zeros)
        y = Conv(f, w2)""",
        _IMAGE,
        """float[6,3,1,1] w1, float[6] b1, float[4,6,1,1] w2, float s = {0.01}, int8 z = {3},
        float[6] each = {0.01, 0.02, 0.03, 0.04, 0.05, 0.06}, int8[6] zeros = {0, 1, 2, 3, 4, 5}""",
    ),
    "transposed products": (
        """
        a = Gemm <transA = 1, transB = 1> (x, w1, b1)
        r = Relu(a)
        t = Transpose(r)
        m = MatMul(w2, t)
        u = MatMul(w3, m)
        y = Transpose(u)""",
        "(float[7,2] x) => (float[2,5] y)",
        "float[9,7] w1, float[9] b1, float[8,9] w2, float[5,8] w3",
    ),
    "summed over channels": (
        """
        a = Conv(x, w1, b1)
        r = Relu(a)
        s = ReduceSum <keepdims = 1> (r, one)
        y = Conv(s, w2)""",
        _IMAGE,
        "float[6,3,1,1] w1, float[6] b1, float[4,1,1,1] w2, int64[1] one = {1}",
    ),
}


def coupled(name: str) -> Graph:
    """The network of that name; variances are positive, slopes and scales are no noise around zero."""
    body, signature, weights = TEXTS[name]
    random = np.random.default_rng(5)
    values: dict[str, np.ndarray] = {}
    for declared in weights.split(","):
        words = declared.split()
        if words and words[-1] in ("v", "v1", "scales"):
            values[words[-1]] = random.uniform(0.5, 1.5, int(words[0].split("[")[1].rstrip("]"))).astype(np.float32)
    if name == "dequantized weights":
        values["q"] = random.integers(-90, 90, (6, 3, 1, 1))
        values["zeros"] = random.integers(-3, 3, 6)
    return model(body, signature, weights, opset=13 if name == "even split" else 17, **values)
