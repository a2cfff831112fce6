"""What TensorRT's ONNX parser refuses, or reads as something else, of operators that it knows.

A row for each, from a reading of the importers in onnx/onnx-tensorrt at the releases 8.2, 8.4, 8.5, 8.6, 10.0 and
10.1 (``builtin_op_importers.cpp`` and ``onnx2trt_utils.cpp``; from 10 on ``onnxOpImporters.cpp``, ``importerUtils.cpp``
and ``onnxOpCheckers.cpp``). Rows that :mod:`.spelling` has a rewrite of are fixed before anything is emitted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from edgec.backends.tensorrt.spelling import Site, is_read
from edgec.ir.graph import Graph
from edgec.ir.shapes import Shapes

Version = tuple[int, ...]
REPLACE = "replace it in the network"
_NEVER: Version = (1000,)
_RECURRENT = ("GRU", "LSTM", "RNN")
_MOST_DIMENSIONS = 8
_MOST_K = 3840


@dataclass(frozen=True)
class Limit:
    """One row.

    Attributes:
        name: unique, and the key of its rewrite where there is one.
        operators: that it holds for.
        holds: whether a node is beyond it.
        what: what is said of the node; ``{tensorrt}`` stands for the version.
        source: file, function and release that it was read in.
        below: the first version that takes it; ``None`` where none does.
        fix: what to do about it.
        fatal: whether the build fails, or the answer is wrong; else the network only runs otherwise than it says.
        since: the first version that has the operator.
    """

    name: str
    operators: tuple[str, ...]
    holds: Callable[[Site], bool]
    what: str
    source: str
    below: Version | None = None
    fix: str = REPLACE
    fatal: bool = True
    since: Version = (8, 2)

    def concerns(self, version: Version) -> bool:
        """Whether a TensorRT has this limit."""
        return self.since <= version < (self.below or _NEVER)

    @property
    def advice(self) -> str:
        """What to do about it, a newer TensorRT included where that helps."""
        if self.below is None:
            return self.fix
        return f"{self.fix}, or compile for a board with TensorRT {'.'.join(map(str, self.below))} or later"


def beyond(graph: Graph, version: Version) -> Iterator[tuple[Limit, Site]]:
    """Every node of a network, its bodies included, that is beyond a limit of one TensorRT's parser."""
    shapes = Shapes(graph)
    rows: dict[str, list[Limit]] = {}
    for limit in LIMITS:
        if limit.concerns(version):
            for op in limit.operators:
                rows.setdefault(op, []).append(limit)
    for inside in graph.graphs():
        for node in list(inside.nodes):
            if node.domain not in ("", "ai.onnx", None):
                continue
            site = Site(inside, node, shapes)
            for limit in rows.get(node.op, ()):
                if limit.holds(site):
                    yield limit, site


# -- what the conditions are made of -----------------------------------------------------------------------------------


def _attribute(name: str, usual: object, *taken: object) -> Callable[[Site], bool]:
    """Whether an attribute is none of those that are taken."""
    return lambda site: site.node.attrs.get(name, usual) not in taken


def _is(name: str, usual: object, *refused: object) -> Callable[[Site], bool]:
    return lambda site: site.node.attrs.get(name, usual) in refused


def _computed(*places: int) -> Callable[[Site], bool]:
    return lambda site: any(site.computed(place) for place in places)


def _integers(*places: int) -> Callable[[Site], bool]:
    return lambda site: any(site.input(place) is not None and site.dtype_of(place).kind in "iu" for place in places)


def _truth(*places: int) -> Callable[[Site], bool]:
    return lambda site: any(site.dtype_of(place) == np.bool_ for place in places)


def _dilated(site: Site) -> bool:
    return any(int(value) != 1 for value in site.node.attrs.get("dilations", ()))


def _read_output(place: int) -> Callable[[Site], bool]:
    outputs = lambda site: list(site.node.outputs)  # noqa: E731
    return lambda site: len(outputs(site)) > place and any(is_read(site.graph, t) for t in outputs(site)[place:])


def _resized(site: Site) -> list[int]:
    """The axes, from the end, that a Resize changes."""
    shape, sizes = site.shape(), site.static(site.node.outputs[0])
    if shape is None or sizes is None:
        return []
    return [len(shape) - axis for axis, (length, size) in enumerate(zip(shape, sizes, strict=True)) if length != size]


def _resize_rank(site: Site) -> bool:
    innermost = {"linear": 3, "cubic": 2}.get(str(site.node.attrs.get("mode", "nearest")))
    return innermost is not None and any(axis > innermost for axis in _resized(site))


def _resize_coordinates(site: Site) -> bool:
    attrs = site.node.attrs
    form = attrs.get("coordinate_transformation_mode", "half_pixel")
    if form == "tf_half_pixel_for_nn":
        nearest = attrs.get("mode", "nearest") == "nearest"
        return not nearest or attrs.get("nearest_mode", "round_prefer_floor") != "round_prefer_floor"
    return form not in ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners")


def _trains(site: Site) -> bool:
    flag = site.fixed(2)
    return flag is not None and bool(flag.reshape(-1)[0])


def _diagonal(site: Site) -> bool:
    terms = str(site.node.attrs["equation"]).replace(" ", "").partition("->")[0].replace("...", "").split(",")
    return any(len(set(term)) < len(term) for term in terms)


def _einsum_broadcasts(site: Site) -> bool:
    terms = str(site.node.attrs["equation"]).replace(" ", "").partition("->")[0].split(",")
    sizes: dict[str, set[int]] = {}
    for place, term in enumerate(terms):
        shape = site.shape(place)
        if shape is not None and len(shape) == len(term):
            for letter, size in zip(term, shape, strict=True):
                sizes.setdefault(letter, set()).add(size)
    return any(len(each) > 1 for each in sizes.values())


def _other_way_back(site: Site) -> bool:
    """Whether the two directions of a recurrent layer have other activations."""
    attrs = site.node.attrs
    if attrs.get("direction", "forward") != "bidirectional":
        return False
    halves = [attrs.get(name, []) for name in ("activations", "activation_alpha", "activation_beta")]
    return any(list(half[: len(half) // 2]) != list(half[len(half) // 2 :]) for half in halves)


def _uneven_padding(site: Site) -> bool:
    pads = [int(value) for value in site.node.attrs.get("pads", ())]
    rank = len(pads) // 2
    return any(pads[i + rank] - pads[i] not in (0, 1) for i in range(min(rank, 2)))


def _uneven_deconvolution(site: Site) -> bool:
    pads = [int(value) for value in site.node.attrs.get("pads", ())]
    return site.rank() == 5 and pads[:3] != pads[3:]


def _large_k(site: Site) -> bool:
    k = site.fixed(1)
    return k is not None and int(k.reshape(-1)[0]) > _MOST_K


def _rank_outside(least: int, most: int) -> Callable[[Site], bool]:
    return lambda site: (rank := site.rank()) is not None and not least <= rank <= most


def _instance_form(site: Site) -> bool:
    return site.computed(1) or site.computed(2) or _rank_outside(3, 5)(site)


def _same_names(site: Site) -> bool:
    names = [{tensor.name for tensor in body.outputs} for body in site.node.subgraphs()]
    return any(one & other for one, other in combinations(names, 2))


def _float_range(site: Site) -> bool:
    return site.dtype.kind == "f" and any(site.computed(place) for place in range(3))


def _shape_part(site: Site) -> bool:
    return bool(site.node.attrs.get("start", 0)) or site.node.attrs.get("end") is not None


_IMPORTERS, _HELPERS = "builtin_op_importers.cpp", "onnx2trt_utils.cpp"
_NEW_IMPORTERS, _CHECKERS = "onnxOpImporters.cpp", "onnxOpCheckers.cpp"
_MOVES = ("DepthToSpace", "Gather", "GatherElements", "GatherND", "Resize", "SpaceToDepth")

LIMITS: tuple[Limit, ...] = (
    # -- Resize and Pad
    Limit("resize-cubic", ("Resize",), _is("mode", "nearest", "cubic"),
          "is cubic, and {tensorrt} knows nearest and linear", f"{_IMPORTERS}, Resize, release/8.4-GA", (8, 5)),
    Limit("resize-coordinates", ("Resize",), _resize_coordinates,
          "has coordinates that {tensorrt} does not know", f"{_CHECKERS}, Resize, release/10.1-GA"),
    Limit("resize-antialias", ("Resize",), _attribute("antialias", 0, 0),
          "is antialiased, which {tensorrt} does not do", f"{_CHECKERS}, Resize, release/10.1-GA"),
    Limit("resize-aspect-ratio", ("Resize",), _attribute("keep_aspect_ratio_policy", "stretch", "stretch"),
          "keeps the aspect ratio, which {tensorrt} does not do", f"{_CHECKERS}, Resize, release/10.1-GA"),
    Limit("resize-rank", ("Resize",), _resize_rank,
          "interpolates other than the last 3 dimensions (cubic: 2), and {tensorrt} only those",
          f"{_IMPORTERS}, Resize (canUseLinearResize), release/8.2-GA; {_NEW_IMPORTERS}, release/10.1-GA"),
    Limit("resize-integers", ("Resize",), _integers(0),
          "resizes integers, and {tensorrt} only floats", f"{_IMPORTERS}, Resize, release/8.4-GA", (8, 5)),
    Limit("resize-scales-computed", ("Resize",), _computed(2),
          "has scales that the network computes, and {tensorrt} wants constants",
          f"{_IMPORTERS}, Resize, release/8.2-GA", (8, 4), "pin the network's shapes with --input"),
    Limit("pad-wrap", ("Pad",), _attribute("mode", "constant", "constant", "reflect", "edge"),
          "wraps around, which {tensorrt} does not do", f"{_NEW_IMPORTERS}, Pad, release/10.1-GA"),
    # -- selecting
    Limit("top-k-smallest", ("TopK",), _is("largest", 1, 0),
          "asks for the smallest, and {tensorrt} answers with the largest",
          f"{_IMPORTERS}, TopK, release/8.4-GA", (8, 5)),
    Limit("top-k-unsorted", ("TopK",), _is("sorted", 1, 0),
          "asks for any order, and {tensorrt} only sorts", "docs/operators.md, TopK, release/10.1-GA"),
    Limit("top-k-integers", ("TopK",), _integers(0),
          "orders integers, and {tensorrt} only floats", f"{_IMPORTERS}, TopK, release/8.5-GA", (8, 6),
          "cast what it reads to float"),
    Limit("top-k-computed", ("TopK",), _computed(1),
          "has a k that the network computes, and {tensorrt} wants a constant",
          f"{_IMPORTERS}, TopK, release/8.5-GA", (8, 6), "give it a constant k"),
    Limit("top-k-large", ("TopK",), _large_k,
          f"has a k above {_MOST_K}, and {{tensorrt}} takes no larger one", "docs/operators.md, TopK, release/10.1-GA",
          fix=f"give it a k of at most {_MOST_K}"),
    Limit("arg-integers", ("ArgMax", "ArgMin"), _integers(0),
          "orders integers, and {tensorrt} only floats", f"{_HELPERS}, argMinMaxHelper, release/8.4-GA", (8, 5),
          "cast what it reads to float"),
    Limit("one-hot-depth", ("OneHot",), _computed(1),
          "has a depth that the network computes, and {tensorrt} wants a constant",
          "docs/operators.md, OneHot, release/10.1-GA", since=(8, 5), fix="give it a constant depth"),
    Limit("trilu-rank", ("Trilu",), _rank_outside(2, 3),
          "has more than 3 dimensions, and {tensorrt} takes 2 or 3", f"{_IMPORTERS}, Trilu, release/8.5-GA", (8, 6),
          since=(8, 5)),
    Limit("nms-computed", ("NonMaxSuppression",), _computed(2, 3, 4),
          "has a limit that the network computes, and {tensorrt} wants constants",
          f"{_IMPORTERS}, NonMaxSuppression, release/8.4-GA", (8, 5), "give it constant limits"),
    Limit("nms-rows", ("NonMaxSuppression",), lambda site: True,
          "gives as many rows as there are boxes, and {tensorrt} a fixed number, filled up",
          "docs/operators.md, NonMaxSuppression, release/8.2-GA", (8, 5),
          "end the network at the boxes and scores that it reads (--cut) and select on the CPU"),
    Limit("bool-moves", _MOVES, _truth(0),
          "moves truth values, and {tensorrt} only numbers", f"{_IMPORTERS}, Gather, release/8.4-GA", (8, 5)),
    Limit("bool-moves", ("Where",), _truth(1),
          "chooses between truth values, and {tensorrt} only between numbers",
          f"{_IMPORTERS}, Where, release/8.4-GA", (8, 5)),
    Limit("bool-moves", ("Equal",), _truth(0, 1),
          "compares truth values, and {tensorrt} only numbers", f"{_HELPERS}, elementwiseCheck, release/8.4-GA",
          (8, 5)),
    Limit("scatter-reduction", ("ScatterND",), lambda site: "reduction" in site.node.attrs,
          "reduces, and {tensorrt} overwrites or refuses it", f"{_NEW_IMPORTERS}, ScatterND, release/10.1-GA",
          fix="scatter to places that are constant and each named once"),
    Limit("scatter-reduction", ("ScatterElements",), _attribute("reduction", "none", "none"),
          "reduces, and {tensorrt} overwrites", f"{_IMPORTERS}, ScatterElements, release/8.6-GA", (10, 0),
          "scatter to places that are constant and each named once"),
    # -- sums of products
    Limit("einsum-ellipsis", ("Einsum",), lambda site: "..." in str(site.node.attrs["equation"]),
          "has an ellipsis, which {tensorrt} does not read", "docs/operators.md, Einsum, release/10.1-GA",
          fix="write its dimensions as letters, and pin the network's shapes with --input"),
    Limit("einsum-letters", ("Einsum",), lambda site: str(site.node.attrs["equation"]).lower() !=
          str(site.node.attrs["equation"]),
          "has upper-case letters, which {tensorrt} does not read", f"{_CHECKERS}, Einsum, release/10.1-GA",
          fix="write it in lower-case letters"),
    Limit("einsum-diagonal", ("Einsum",), _diagonal,
          "takes a diagonal, which {tensorrt} does not", "docs/operators.md, Einsum, release/10.1-GA"),
    Limit("einsum-broadcast", ("Einsum",), _einsum_broadcasts,
          "broadcasts a dimension of 1, which {tensorrt} does not", "docs/operators.md, Einsum, release/10.1-GA"),
    Limit("matmul-integers", ("MatMul", "Gemm"), _integers(0, 1),
          "multiplies integers, and {tensorrt} only floats", f"{_IMPORTERS}, MatMul and Gemm, release/8.5-GA",
          fix="cast what it reads to float"),
    Limit("pow-integers", ("Pow",), _integers(0, 1),
          "has integers, and {tensorrt} only powers of floats", "importerUtils.cpp, elementwiseCheck, release/10.1-GA",
          fix="cast what it reads to float"),
    Limit("bias-computed", ("ConvTranspose",), _computed(2),
          "has a bias that the network computes, and {tensorrt} wants a constant",
          f"{_IMPORTERS}, ConvTranspose, release/8.4-GA", (8, 5)),
    Limit("deconvolution-padding", ("ConvTranspose",), _uneven_deconvolution,
          "is 3-D and padded unevenly, which {tensorrt} does not do",
          f"{_IMPORTERS}, ConvTranspose, release/8.2-GA", (8, 4), "pad it alike on both sides, and crop behind it"),
    # -- pooling
    Limit("max-pool-indices-unread", ("MaxPool",),
          lambda site: len(site.node.outputs) > 1 and not is_read(site.graph, site.node.outputs[1]),
          "names its indices, which {tensorrt} refuses", f"{_CHECKERS}, MaxPool, release/10.1-GA"),
    Limit("max-pool-indices", ("MaxPool",), _read_output(1),
          "gives the positions of its maxima, which {tensorrt} does not", f"{_CHECKERS}, MaxPool, release/10.1-GA"),
    Limit("max-pool-dilations", ("MaxPool",), _dilated,
          "is dilated, which {tensorrt} does not do", f"{_CHECKERS}, MaxPool (poolingHelper), release/10.1-GA"),
    Limit("average-pool-dilations", ("AveragePool",), _dilated,
          "is dilated, which {tensorrt} does not do", f"{_CHECKERS}, AveragePool (poolingHelper), release/10.1-GA"),
    Limit("lp-pool-dilations", ("LpPool",), _dilated,
          "is dilated, which {tensorrt} does not do", "docs/operators.md, LpPool, release/10.1-GA"),
    Limit("average-pool-padding", ("AveragePool",), _uneven_padding,
          "is padded unevenly, which {tensorrt} does not do", f"{_HELPERS}, poolingHelper, release/8.4-GA", (8, 5)),
    Limit("lp-order", ("LpNormalization", "LpPool"), _attribute("p", 2, 1, 2),
          "is of an order other than 1 and 2, and {tensorrt} knows those", f"{_CHECKERS}, LpPool, release/10.1-GA"),
    # -- normalizing
    Limit("batch-norm-training", ("BatchNormalization",), _is("training_mode", 0, 1),
          "normalizes by the batch, and {tensorrt} by the stored statistics",
          f"{_IMPORTERS}, BatchNormalization, release/8.6-GA", fix="export the network in inference mode"),
    Limit("layer-norm-statistics", ("LayerNormalization",), _read_output(1),
          "gives its mean or deviation, which {tensorrt} does not",
          "docs/operators.md, LayerNormalization, release/10.1-GA", since=(8, 6)),
    Limit("instance-norm-form", ("InstanceNormalization",), _instance_form,
          "has a computed scale or bias, or not 3 to 5 dimensions, and {tensorrt} wants constants and those",
          f"{_IMPORTERS}, InstanceNormalization, release/8.5-GA"),
    Limit("dropout-mask", ("Dropout",), lambda site: _read_output(1)(site) and not (_trains(site) or site.computed(2)),
          "gives its mask", f"{_IMPORTERS}, Dropout, release/8.2-GA"),
    Limit("dropout-training", ("Dropout",), lambda site: _trains(site) or site.computed(2),
          "drops values at random, which {tensorrt} does not", f"{_NEW_IMPORTERS}, Dropout, release/10.1-GA",
          fix="export the network in inference mode"),
    # -- recurrent layers and control flow
    Limit("recurrent-layout", _RECURRENT, _attribute("layout", 0, 0),
          "has its batch first, and {tensorrt} takes the sequence first",
          "docs/operators.md, LSTM, release/10.1-GA"),
    Limit("recurrent-activations", _RECURRENT, _other_way_back,
          "has other activations backwards than forwards, and {tensorrt} takes the same",
          f"{_CHECKERS}, GRU, LSTM and RNN, release/10.1-GA", fix="split it into two layers, one a direction"),
    Limit("coupled-gates", ("LSTM",), _attribute("input_forget", 0, 0),
          "couples its input and forget gates, which {tensorrt} does not", f"{_CHECKERS}, LSTM, release/10.1-GA"),
    Limit("if-names", ("If",), _same_names,
          "has branches whose results have one name, and {tensorrt} wants two", f"{_IMPORTERS}, If, release/8.2-GA",
          (8, 4)),
    # -- shapes, and what must be known
    Limit("shape-part", ("Shape",), _shape_part,
          "gives a part of the shape, and {tensorrt} gives all of it", f"{_IMPORTERS}, Shape, release/8.6-GA",
          (10, 0)),
    Limit("range-floats", ("Range",), _float_range,
          "counts in floats that the network computes, and {tensorrt} only in integers",
          f"{_IMPORTERS}, Range, release/8.2-GA", (8, 4), "give it constants"),
    Limit("cumsum-axis", ("CumSum",), _computed(1),
          "has an axis that the network computes, and {tensorrt} wants a constant",
          "docs/operators.md, CumSum, release/10.1-GA", fix="give it a constant axis"),
    Limit("axes-computed", ("Squeeze", "Unsqueeze"), _computed(1),
          "has axes that the network computes, and {tensorrt} wants constants",
          f"{_IMPORTERS}, Squeeze and Unsqueeze, release/8.2-GA", fix="give it constant axes"),
    Limit("axes-computed", ("Slice",), _computed(3),
          "has axes that the network computes, and {tensorrt} wants constants",
          f"{_IMPORTERS}, Slice, release/8.2-GA", fix="give it constant axes"),
    Limit("axes-computed", ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
                            "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare"), _computed(1),
          "has axes that the network computes, and {tensorrt} wants constants",
          f"{_HELPERS}, reduceTensor, release/8.2-GA", fix="give it constant axes"),
    Limit("axes-computed", ("Pad",), _computed(3),
          "has axes that the network computes, and {tensorrt} wants constants",
          f"{_NEW_IMPORTERS}, Pad, release/10.1-GA", fix="give it constant axes"),
    Limit("eye-like-form", ("EyeLike",), _rank_outside(2, 2),
          "is not of 2 dimensions, and {tensorrt} takes those", f"{_IMPORTERS}, EyeLike, release/8.2-GA"),
    Limit("grid-sample-rank", ("GridSample",), _rank_outside(4, 4),
          "samples volumes, and {tensorrt} only images", "docs/operators.md, GridSample, release/10.1-GA",
          since=(8, 5)),
    Limit("grid-sample-names", ("GridSample",), _attribute("mode", "bilinear", "bilinear", "nearest", "bicubic"),
          "names its mode as opset 20 does, which {tensorrt} takes for 'nearest'",
          f"{_NEW_IMPORTERS}, GridSample, release/10.1-GA", since=(8, 5), fix="emit it in opset 16"),
)  # fmt: skip
