"""Where each operator leaves the batch axis, and when it must not be let through."""

from __future__ import annotations

import math

from edgec.ir.batch_flow import Axes, Crossing, flows
from edgec.ir.dimensions import reshaped


@flows(
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Cast", "Ceil", "Celu", "Cos", "Cosh",
    "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN",
    "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign",
    "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu",
)  # fmt: skip
def each_element(at: Crossing) -> Axes:
    return at.only_first()


@flows("CastLike")
def like_another(at: Crossing) -> Axes:
    return at.axes[0]


@flows(
    "Add", "And", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Clip", "Div", "Equal", "Greater", "GreaterOrEqual", "Less",
    "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "PRelu", "Pow", "Sub", "Sum", "Where", "Xor",
)  # fmt: skip
def broadcast(at: Crossing) -> Axes:
    """All that have samples must have them at one place from the end, in blocks of one size; others one row there."""
    given = [place for place in range(len(at.node.inputs)) if at.has(place)]
    rank = max(at.rank(place) for place in given)
    found = {axis - at.rank(place) for place in given if (axis := at.axes[place]) is not None}
    if len(found) != 1:
        raise at.refusal("its operands have their samples along different axes")
    (axis,) = found
    sizes = {at.dimension(place, axis) for place in given if at.axes[place] is not None}
    if len(sizes) != 1:
        raise at.refusal("it broadcasts one operand's samples over the other's")
    for place in given:
        if at.axes[place] is None and at.rank(place) >= -axis and at.dimension(place, axis) != 1:
            raise at.refusal(
                f"'{at.node.inputs[place].name}' has {at.dimension(place, axis)} rows along the batch's axis"
            )
    return rank + axis


@flows(
    "AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "DepthToSpace", "GlobalAveragePool", "GlobalLpPool",
    "GlobalMaxPool", "GroupNormalization", "InstanceNormalization", "LRN", "LpPool", "MaxPool", "SpaceToDepth",
)  # fmt: skip
def images(at: Crossing) -> Axes:
    axis = at.only_first()
    if axis != 0:
        raise at.refusal(f"its images lie along axis 0 and the samples along axis {axis}")
    return 0


@flows("QuantizeLinear", "DequantizeLinear")
def quantization(at: Crossing) -> Axes:
    axis = at.only_first()
    if at.rank(1) == 0 or at.dimension(1, 0) == 1:
        return axis
    return at.kept(axis, [int(at.node.attrs.get("axis", 1)) % at.rank(0)])


@flows("Gemm")
def gemm(at: Crossing) -> Axes:
    left = 1 if at.node.attrs.get("transA") else 0
    right = 0 if at.node.attrs.get("transB") else 1
    if len(at.axes) > 2 and at.axes[2] is not None:
        raise at.refusal("what it adds differs by sample")
    if (at.axes[0] is None) == (at.axes[1] is None):
        raise at.refusal("both its factors differ by sample")
    place, own, result = (0, left, 0) if at.axes[0] is not None else (1, right, 1)
    axis = at.axes[place]
    if axis != own:
        raise at.joins(1 - own)
    if at.has(2) and at.rank(2) >= 2 - result and at.dimension(2, result - 2) != 1:
        raise at.refusal("what it adds has a row for each sample")
    return result


@flows("MatMul")
def matmul(at: Crossing) -> Axes:
    ranks = [at.rank(0), at.rank(1)]
    places = [None if axis is None else axis - rank for axis, rank in zip(at.axes, ranks, strict=True)]
    summed = (-1, -2 if ranks[1] > 1 else -1)
    for place, axis, along in zip((0, 1), places, summed, strict=True):
        if axis == along:
            raise at.joins(ranks[place] - 1 if along == -1 else ranks[place] - 2)
    rank = max(ranks) - (ranks[0] == 1) - (ranks[1] == 1) if min(ranks) == 1 else max(ranks)
    rows_or_columns = (places[0] == -2, places[1] == -1)
    if any(rows_or_columns):
        if None not in places:
            raise at.refusal("both its factors differ by sample")
        if rows_or_columns[0]:
            return rank - (2 if ranks[1] > 1 else 1)
        return rank - 1
    axis = next(place for place in places if place is not None)
    for place in (0, 1):
        if places[place] is None:
            if ranks[place] >= -axis and at.dimension(place, axis) != 1:
                raise at.refusal(f"'{at.node.inputs[place].name}' has a matrix for each sample")
        elif places[place] != axis:
            raise at.refusal("its operands have their samples along different axes")
    if None not in places and at.dimension(0, axis) != at.dimension(1, axis):
        raise at.refusal("it broadcasts one operand's samples over the other's")
    return max(ranks) + axis


@flows("Softmax", "LogSoftmax", "Hardmax")
def softmax(at: Crossing) -> Axes:
    """Before opset 13 it ran over all axes from the given one on."""
    axis, rank = at.only_first(), at.rank(0)
    if at.opset < 13:
        return at.kept(axis, range(int(at.node.attrs.get("axis", 1)) % rank, rank))
    return at.kept(axis, [int(at.node.attrs.get("axis", -1)) % rank])


@flows("LayerNormalization", "RMSNormalization")
def layer_normalization(at: Crossing) -> Axes:
    axis, rank = at.only_first(), at.rank(0)
    return at.kept(axis, range(int(at.node.attrs.get("axis", -1)) % rank, rank))


@flows("LpNormalization", "CumSum", "TopK")
def along_one_axis(at: Crossing) -> Axes:
    axis, rank = at.only_first(), at.rank(0)
    own = at.numbers(1) if at.node.op == "CumSum" else None
    return at.kept(axis, [(own[0] if own else int(at.node.attrs.get("axis", -1))) % rank])


@flows("MeanVarianceNormalization")
def mean_variance(at: Crossing) -> Axes:
    return at.kept(at.only_first(), [int(a) % at.rank(0) for a in at.node.attrs.get("axes", [0, 2, 3])])


@flows(
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSum", "ReduceSumSquare",
)  # fmt: skip
def reduction(at: Crossing) -> Axes:
    axis, rank = at.only_first(), at.rank(0)
    axes = at.numbers(1, "axes")
    if not axes:
        if at.node.attrs.get("noop_with_empty_axes"):
            return axis
        axes = list(range(rank))
    used = {a % rank for a in axes}
    at.kept(axis, list(used))
    return axis if at.node.attrs.get("keepdims", 1) else axis - sum(a < axis for a in used)


@flows("ArgMax", "ArgMin")
def arg_reduction(at: Crossing) -> Axes:
    axis, own = at.only_first(), int(at.node.attrs.get("axis", 0)) % at.rank(0)
    at.kept(axis, [own])
    return axis if at.node.attrs.get("keepdims", 1) else axis - (own < axis)


@flows("Concat")
def concat(at: Crossing) -> Axes:
    found = {axis for axis in at.axes if axis is not None}
    own = int(at.node.attrs["axis"]) % at.rank(0)
    if len(found) != 1:
        raise at.refusal("its operands have their samples along different axes")
    (axis,) = found
    at.kept(axis, [own])
    if None in at.axes and at.dimension(at.axes.index(axis), axis) != 1:
        raise at.refusal("it puts a part that belongs to all samples beside several rows of each")
    return axis


@flows("Split", "Trilu")
def parts(at: Crossing) -> Axes:
    axis, rank = at.only_first(), at.rank(0)
    own = [int(at.node.attrs.get("axis", 0)) % rank] if at.node.op == "Split" else [rank - 2, rank - 1]
    return at.kept(axis, own)


@flows("Slice")
def slices(at: Crossing) -> Axes:
    axis, rank, size = at.only_first(), at.rank(0), at.shape(0)
    starts, ends = at.numbers(1, "starts") or [], at.numbers(2, "ends") or []
    axes = at.numbers(3, "axes") or list(range(len(starts)))
    steps = at.numbers(4) or [1] * len(starts)
    for own, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if own % rank == axis and range(size[axis])[slice(start, end, step)] != range(size[axis]):
            raise at.joins(axis)
    return axis


@flows("Gather")
def gather(at: Crossing) -> Axes:
    own = int(at.node.attrs.get("axis", 0)) % at.rank(0)
    data, indices = at.axes[:2]
    if data is not None and indices is not None:
        raise at.refusal("both its data and its indices differ by sample")
    if indices is not None:
        return own + indices
    assert data is not None
    at.kept(data, [own])
    return data if data < own else data + at.rank(1) - 1


@flows("GatherElements")
def gather_elements(at: Crossing) -> Axes:
    if at.axes[0] is None or at.axes[0] != at.axes[1]:
        raise at.refusal("its data and its indices do not both differ by sample along one axis")
    return at.kept(at.axes[0], [int(at.node.attrs.get("axis", 0)) % at.rank(0)])


@flows("Pad")
def pad(at: Crossing) -> Axes:
    axis, rank = at.only_first(), at.rank(0)
    pads = at.numbers(1, "pads") or at.numbers(9, "paddings") or []
    axes = [a % rank for a in at.numbers(3) or range(rank)]
    half = len(pads) // 2
    if axis in axes and (pads[axes.index(axis)] or pads[half + axes.index(axis)]):
        raise at.joins(axis)
    return axis


@flows("Resize", "Upsample")
def resize(at: Crossing) -> Axes:
    axis = at.only_first()
    if at.output_shape()[axis] != at.shape(0)[axis]:
        raise at.joins(axis)
    return axis


@flows("Reshape", "Flatten")
def reshape(at: Crossing) -> Axes:
    """The axis must become one with as many elements before it, since elements keep their order in memory."""
    axis, shape = at.only_first(), at.shape(0)
    if at.node.op == "Reshape":
        dims = reshaped(at.numbers(1, "shape") or [], shape, bool(at.node.attrs.get("allowzero")))
    else:
        own = int(at.node.attrs.get("axis", 1))
        own += len(shape) if own < 0 else 0
        dims = [math.prod(shape[:own]), math.prod(shape[own:])]
    before = math.prod(shape[:axis])
    places = [p for p in range(len(dims)) if math.prod(dims[:p]) == before and dims[p] % at.size == 0 and dims[p]]
    if not places:
        raise at.refusal(f"it gives {list(shape)} the shape {dims}, which tears samples apart")
    return next((p for p in places if dims[p] == at.size), places[0])


@flows("Transpose")
def transpose(at: Crossing) -> Axes:
    rank = at.rank(0)
    return list(at.node.attrs.get("perm") or range(rank - 1, -1, -1)).index(at.only_first())


@flows("Unsqueeze")
def unsqueeze(at: Crossing) -> Axes:
    axis = at.only_first()
    axes = at.numbers(1, "axes") or []
    rank = at.rank(0) + len(axes)
    new = {a % rank for a in axes}
    return [place for place in range(rank) if place not in new][axis]


@flows("Squeeze")
def squeeze(at: Crossing) -> Axes:
    axis, shape = at.only_first(), at.shape(0)
    axes = at.numbers(1, "axes")
    gone = {i for i, d in enumerate(shape) if d == 1} if axes is None else {a % len(shape) for a in axes}
    at.kept(axis, list(gone))
    return axis - sum(a < axis for a in gone)


@flows("Expand")
def expand(at: Crossing) -> Axes:
    axis, shape = at.only_first(), at.shape(0)
    target = at.numbers(1) or []
    place = axis - len(shape)
    if len(target) >= -place and target[place] not in (1, shape[axis]):
        raise at.joins(axis)
    return max(len(target), len(shape)) + place


@flows("Tile")
def tile(at: Crossing) -> Axes:
    axis = at.only_first()
    if (at.numbers(1) or [])[axis] != 1:
        raise at.joins(axis)
    return axis


@flows("OneHot")
def one_hot(at: Crossing) -> Axes:
    axis = at.only_first()
    rank = at.rank(0) + 1
    own = int(at.node.attrs.get("axis", -1)) % rank
    return axis if axis < own else axis + 1


@flows("Einsum")
def einsum(at: Crossing) -> Axes:
    equation = str(at.node.attrs["equation"]).replace(" ", "")
    terms, arrow, result = equation.partition("->")
    if not arrow or "." in equation:
        raise at.refusal("its equation leaves the output, or axes, unnamed")
    letters = {term[axis] for term, axis in zip(terms.split(","), at.axes, strict=True) if axis is not None}
    if len(letters) != 1:
        raise at.refusal("its operands have their samples along different axes")
    (letter,) = letters
    for term, axis in zip(terms.split(","), at.axes, strict=True):
        if (axis is None and letter in term) or term.count(letter) > 1:
            raise at.refusal(f"an operand that belongs to all samples has the batch's axis '{letter}'")
    if letter not in result:
        raise at.refusal(f"it sums over '{letter}', the batch's axis")
    return result.index(letter)


@flows("Shape", "Size")
def sizes(at: Crossing) -> Axes:
    """Known when the module is made: of one sample, as the rule has it, which is what the export's shapes say at 1."""
    at.shape(0)
    if at.size == 1:
        return None
    rank, axis = at.rank(0), at.only_first()
    start, end = int(at.node.attrs.get("start", 0)), at.node.attrs.get("end")
    if at.node.op == "Size" or axis in range(rank)[slice(start, None if end is None else int(end))]:
        raise at.refusal("it reads the batch size")
    return None
