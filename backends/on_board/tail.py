"""What follows the network on the board, computed with numpy: the nodes behind the tensors where it was cut.

``tail.json`` holds the nodes in order, ``tail.npz`` their constants. Operators are ONNX's, of opset 17 and later.
"""

import json
from pathlib import Path
from typing import Any, Callable, Dict, List

import numpy as np

Node = Dict[str, Any]
Values = Dict[str, np.ndarray]
Rule = Callable[..., Any]


class Tail:
    """The nodes behind a network.

    Args:
        program: the content of tail.json.
        constants: by name.
    """

    def __init__(self, program: Dict[str, Any], constants: Values) -> None:
        self._nodes, self._outputs = program["nodes"], program["outputs"]
        self._constants = constants

    @staticmethod
    def load(folder: Path) -> "Tail":
        """The one that lies in a folder."""
        with (folder / "tail.json").open() as stream:
            program = json.load(stream)
        with np.load(str(folder / "tail.npz"), allow_pickle=False) as stored:
            return Tail(program, {name: stored[name] for name in stored.files})

    def __call__(self, outputs: Values) -> Values:
        """The original network's outputs, by name, from those of the network that was cut."""
        values = dict(self._constants)
        values.update(outputs)
        for node in self._nodes:
            inputs = [values[name] if name else None for name in node["inputs"]]
            with np.errstate(all="ignore"):
                results = RULES[node["op"]](node["attrs"], *inputs)
            if not isinstance(results, (list, tuple)):
                results = [results]
            for name, result in zip(node["outputs"], results):
                if name:
                    values[name] = np.asarray(result)
        return {name: values[name] for name in self._outputs}


def _unary(compute: Rule) -> Rule:
    return lambda attrs, x: compute(x).astype(x.dtype)


def _binary(compute: Rule) -> Rule:
    return lambda attrs, a, b: compute(a, b)


def _many(compute: Rule) -> Rule:
    def rule(attrs: Node, *values: np.ndarray) -> np.ndarray:
        result = values[0]
        for value in values[1:]:
            result = compute(result, value)
        return result

    return rule


def _sigmoid(x: np.ndarray) -> np.ndarray:
    # Neither side overflows.
    return np.where(x >= 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x))))


def _divide(attrs: Node, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a / b if a.dtype.kind == "f" else np.trunc(a / b).astype(a.dtype)


def _power(attrs: Node, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.power(a, b).astype(a.dtype)


def _clip(attrs: Node, x: np.ndarray, low: Any = None, high: Any = None) -> np.ndarray:
    x = x if low is None else np.maximum(x, low)
    return x if high is None else np.minimum(x, high)


def _where(attrs: Node, condition: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where(condition, a, b)


def _cast(attrs: Node, x: np.ndarray) -> np.ndarray:
    return x.astype(attrs["to"])


def _reshape(attrs: Node, x: np.ndarray, shape: np.ndarray) -> np.ndarray:
    copied = not attrs.get("allowzero", 0)
    return x.reshape([x.shape[axis] if size == 0 and copied else size for axis, size in enumerate(shape.tolist())])


def _flatten(attrs: Node, x: np.ndarray) -> np.ndarray:
    axis = attrs.get("axis", 1) % (x.ndim + 1)
    return x.reshape(int(np.prod(x.shape[:axis])), -1)


def _transpose(attrs: Node, x: np.ndarray) -> np.ndarray:
    return x.transpose(attrs.get("perm"))


def _squeeze(attrs: Node, x: np.ndarray, axes: Any = None) -> np.ndarray:
    return np.squeeze(x, None if axes is None else tuple(int(axis) for axis in axes))


def _unsqueeze(attrs: Node, x: np.ndarray, axes: np.ndarray) -> np.ndarray:
    rank = x.ndim + len(axes)
    for axis in sorted(int(axis) % rank for axis in axes):
        x = np.expand_dims(x, axis)
    return x


def _concat(attrs: Node, *values: np.ndarray) -> np.ndarray:
    return np.concatenate(values, axis=attrs["axis"])


def _split(attrs: Node, x: np.ndarray, sizes: Any = None) -> List[np.ndarray]:
    axis = attrs.get("axis", 0)
    if sizes is None:
        part = -(-x.shape[axis] // attrs["outputs"])
        return np.split(x, range(part, x.shape[axis], part), axis)
    return np.split(x, np.cumsum(sizes)[:-1], axis)


def _slice(
    attrs: Node, x: np.ndarray, starts: np.ndarray, ends: np.ndarray, axes: Any = None, steps: Any = None
) -> np.ndarray:
    along = range(len(starts)) if axes is None else axes.tolist()
    strides = [1] * len(starts) if steps is None else steps.tolist()
    place = [slice(None)] * x.ndim
    for axis, start, end, step in zip(along, starts.tolist(), ends.tolist(), strides):
        # Backwards, an end in front of the first element takes that one, too.
        last = None if step < 0 and end < -x.shape[axis] else end
        place[axis] = slice(start, last, step)
    return x[tuple(place)]


def _gather(attrs: Node, x: np.ndarray, indices: np.ndarray) -> np.ndarray:
    return np.take(x, indices, axis=attrs.get("axis", 0))


def _gather_elements(attrs: Node, x: np.ndarray, indices: np.ndarray) -> np.ndarray:
    axis = attrs.get("axis", 0) % x.ndim
    grid = list(np.ogrid[tuple(slice(size) for size in indices.shape)])
    grid[axis] = indices
    return x[tuple(grid)]


def _gather_nd(attrs: Node, x: np.ndarray, indices: np.ndarray) -> np.ndarray:
    assert not attrs.get("batch_dims", 0)
    return x[tuple(np.moveaxis(indices, -1, 0))]


def _expand(attrs: Node, x: np.ndarray, shape: np.ndarray) -> np.ndarray:
    return x * np.ones(shape.tolist(), x.dtype)


def _softmax(attrs: Node, x: np.ndarray) -> np.ndarray:
    axis = attrs.get("axis", -1)
    powers = np.exp(x - x.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def _log_softmax(attrs: Node, x: np.ndarray) -> np.ndarray:
    axis = attrs.get("axis", -1)
    less = x - x.max(axis=axis, keepdims=True)
    return less - np.log(np.exp(less).sum(axis=axis, keepdims=True))


def _reduction(compute: Rule) -> Rule:
    def rule(attrs: Node, x: np.ndarray, axes: Any = None) -> np.ndarray:
        along = attrs.get("axes") if axes is None else axes.tolist()
        if not along and attrs.get("noop_with_empty_axes", 0):
            return x
        return compute(x, axis=tuple(along) if along else None, keepdims=bool(attrs.get("keepdims", 1))).astype(x.dtype)

    return rule


def _arg(largest: bool) -> Rule:
    def rule(attrs: Node, x: np.ndarray) -> np.ndarray:
        axis = attrs.get("axis", 0)
        if attrs.get("select_last_index", 0):
            flipped = np.flip(x, axis)
            place = x.shape[axis] - 1 - (flipped.argmax(axis) if largest else flipped.argmin(axis))
        else:
            place = x.argmax(axis) if largest else x.argmin(axis)
        return np.expand_dims(place, axis) if attrs.get("keepdims", 1) else place

    return rule


def _top_k(attrs: Node, x: np.ndarray, count: np.ndarray) -> List[np.ndarray]:
    axis = attrs.get("axis", -1)
    keyed = -x if attrs.get("largest", 1) else x
    order = np.argsort(keyed, axis=axis, kind="stable").take(range(count.item()), axis)
    return [np.take_along_axis(x, order, axis), order]


def _matmul(attrs: Node, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.matmul(a, b)


def _gemm(attrs: Node, a: np.ndarray, b: np.ndarray, c: Any = None) -> np.ndarray:
    left, right = (a.T if attrs.get("transA") else a), (b.T if attrs.get("transB") else b)
    product = attrs.get("alpha", 1.0) * np.matmul(left, right)
    return (product if c is None else product + attrs.get("beta", 1.0) * c).astype(a.dtype)


def _projection(attrs: Node, x: np.ndarray, weights: np.ndarray, bias: Any = None) -> np.ndarray:
    """A convolution of kernel 1: a detector's sum over the bins of a distance."""
    flat = x.reshape(x.shape[0], x.shape[1], -1)
    out = np.matmul(weights.reshape(weights.shape[:2]), flat)
    if bias is not None:
        out = out + bias[:, np.newaxis]
    return out.reshape(x.shape[0], weights.shape[0], *x.shape[2:])


def _shape(attrs: Node, x: np.ndarray) -> np.ndarray:
    return np.array(x.shape[attrs.get("start", 0) : attrs.get("end")], np.int64)


def _range(attrs: Node, start: np.ndarray, end: np.ndarray, step: np.ndarray) -> np.ndarray:
    return np.arange(start.item(), end.item(), step.item(), dtype=start.dtype)


def _non_zero(attrs: Node, x: np.ndarray) -> np.ndarray:
    return np.array(np.nonzero(x), np.int64)


def _suppression(
    attrs: Node, boxes: np.ndarray, scores: np.ndarray, most: Any = None, overlap: Any = None, least: Any = None
) -> np.ndarray:
    """Indices (sample, class, box) of the boxes that stay, as ONNX's NonMaxSuppression has them."""
    count = 0 if most is None else int(np.reshape(most, -1)[0])
    limit = 0.0 if overlap is None else float(np.reshape(overlap, -1)[0])
    chosen = []
    for sample in range(len(boxes)):
        box = boxes[sample].astype(np.float64)
        if attrs.get("center_point_box", 0):
            box = np.concatenate([box[:, :2] - box[:, 2:] / 2, box[:, :2] + box[:, 2:] / 2], axis=1)
        low, high = np.minimum(box[:, :2], box[:, 2:]), np.maximum(box[:, :2], box[:, 2:])
        area = np.prod(high - low, axis=1)
        for kind in range(scores.shape[1]):
            own = scores[sample, kind]
            left = np.argsort(-own, kind="stable")
            if least is not None:
                left = left[own[left] > float(np.reshape(least, -1)[0])]
            kept = 0
            while len(left) and kept < count:
                best, left = left[0], left[1:]
                chosen.append((sample, kind, int(best)))
                kept += 1
                common = np.prod(
                    np.maximum(np.minimum(high[best], high[left]) - np.maximum(low[best], low[left]), 0), 1
                )
                left = left[common / np.maximum(area[best] + area[left] - common, 1e-30) <= limit]
    return np.array(chosen, np.int64).reshape(-1, 3)


RULES = {
    "Abs": _unary(np.abs), "Ceil": _unary(np.ceil), "Cos": _unary(np.cos), "Exp": _unary(np.exp),
    "Floor": _unary(np.floor), "Log": _unary(np.log), "Neg": _unary(np.negative), "Not": _unary(np.logical_not),
    "Reciprocal": _unary(lambda x: 1 / x), "Relu": _unary(lambda x: np.maximum(x, 0)), "Round": _unary(np.rint),
    "Sigmoid": _unary(_sigmoid), "Sign": _unary(np.sign), "Sin": _unary(np.sin), "Sqrt": _unary(np.sqrt),
    "Tanh": _unary(np.tanh), "Softplus": _unary(lambda x: np.logaddexp(x, 0)), "Identity": _unary(lambda x: x),
    "Add": _binary(np.add), "Sub": _binary(np.subtract), "Mul": _binary(np.multiply), "Div": _divide, "Pow": _power,
    "Equal": _binary(np.equal), "Greater": _binary(np.greater), "GreaterOrEqual": _binary(np.greater_equal),
    "Less": _binary(np.less), "LessOrEqual": _binary(np.less_equal), "And": _binary(np.logical_and),
    "Or": _binary(np.logical_or), "Xor": _binary(np.logical_xor), "Max": _many(np.maximum), "Min": _many(np.minimum),
    "Sum": _many(np.add), "Clip": _clip, "Where": _where, "Cast": _cast, "Reshape": _reshape, "Flatten": _flatten,
    "Transpose": _transpose, "Squeeze": _squeeze, "Unsqueeze": _unsqueeze, "Concat": _concat, "Split": _split,
    "Slice": _slice, "Gather": _gather, "GatherElements": _gather_elements, "GatherND": _gather_nd, "Expand": _expand,
    "Softmax": _softmax, "LogSoftmax": _log_softmax, "ReduceSum": _reduction(np.sum), "ReduceMean": _reduction(np.mean),
    "ReduceMax": _reduction(np.max), "ReduceMin": _reduction(np.min), "ReduceProd": _reduction(np.prod),
    "ReduceL2": _reduction(lambda x, **how: np.sqrt(np.sum(x * x, **how))), "ArgMax": _arg(True), "ArgMin": _arg(False),
    "TopK": _top_k, "MatMul": _matmul, "Gemm": _gemm, "Conv": _projection, "Shape": _shape, "Range": _range,
    "NonZero": _non_zero, "NonMaxSuppression": _suppression,
    "Tile": lambda attrs, x, repeats: np.tile(x, repeats.tolist()),
    "HardSigmoid": lambda attrs, x: np.clip(attrs.get("alpha", 0.2) * x + attrs.get("beta", 0.5), 0, 1).astype(x.dtype),
    "LeakyRelu": lambda attrs, x: np.where(x < 0, attrs.get("alpha", 0.01) * x, x).astype(x.dtype),
}  # type: Dict[str, Rule]  # fmt: skip
