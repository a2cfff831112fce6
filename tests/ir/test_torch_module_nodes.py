"""Every onnx node test that a torch module can run: against onnxruntime, at other batch sizes, under autocast."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases
from torch_modules import agrees, difference, run, torch

from edgec.ir.batch_flow import FLOW_RULES
from edgec.ir.errors import InputError
from edgec.ir.execution import Session
from edgec.ir.graph import Graph, Variable
from edgec.ir.protos import from_proto
from edgec.ir.torch_module.conversion import to_torch
from edgec.ir.torch_module.module import TorchModule
from edgec.ir.torch_module.operators import RULES

#: Operators that node tests have and the lowering has not, by reason.
OUT_OF_SCOPE = {
    "transformers' own; no pass makes or reads it": (
        "Attention CausalConvWithState FlexAttention LinearAttention RotaryEmbedding SwiGLU TensorScatter"
    ),
    "control flow and recurrence": "GRU If LSTM Loop RNN ReverseSequence Scan SequenceMap",
    "sequences, optionals, strings, trees and tables": (
        "ArrayFeatureExtractor Binarizer LabelEncoder OptionalGetElement OptionalHasElement RegexFullMatch "
        "SequenceEmpty SequenceInsert SequenceLength SplitToSequence StringConcat StringNormalizer StringSplit "
        "TfIdfVectorizer TreeEnsemble"
    ),
    "losses and optimizers: a network that is deployed has none": (
        "Adagrad Adam Momentum NegativeLogLikelihoodLoss SoftmaxCrossEntropyLoss"
    ),
    "random": "Bernoulli RandomUniformLike",
    "integer arithmetic without gradients": (
        "BitCast BitShift ConvInteger DynamicQuantizeLinear MatMulInteger QLinearConv QLinearMatMul"
    ),
    "signals and image decoding": "BlackmanWindow DFT HammingWindow HannWindow ImageDecoder MelWeightMatrix STFT",
    "the shape of the result hangs on the values": "Compress NonMaxSuppression NonZero Unique",
    "of detectors and warps, not of the networks that passes take": (
        "AffineGrid CenterCropPad Col2Im DeformConv Det GridSample MaxUnpool RoiAlign"
    ),
    "scattering and products along an axis": "CumProd GatherND Scatter ScatterElements ScatterND",
}
#: Uses of operators that are refused, by the reason in the error.
REFUSED = {
    "torch has no such elements": r"cast.*(FLOAT4|FLOAT8|INT2|INT4|E8M0)",
    "it drops values at random": r"training_dropout",
    "it gives out its batch's statistics": r"batchnorm_.*training_mode",
    "it gives out where its maxima lie": r"maxpool_with_argmax",
    "it has a scale for each block": r"linear_blocked",
    "it quantizes to (float|u?int[24])": r"quantizelinear_(float4|e4m3fn|e5m2|u?int[24]\b)",
}
#: Cases that are left out, by reason.
LEFT_OUT = {
    "torch does not compute with uint16, uint32 and uint64": r"_uint(16|32|64)(_|$)|bitwise_not_3d",
    "strings": r"equal_string",
    "the model itself is not sound: its opset's Constant lacks the form that it uses": r"^test_mvn$",
}


def out_of_scope() -> set[str]:
    return {operator for names in OUT_OF_SCOPE.values() for operator in names.split()}


def reason(name: str, patterns: dict[str, str]) -> str | None:
    return next((why for why, pattern in patterns.items() if re.search(pattern, name)), None)


def array(value: Any) -> np.ndarray:
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


class Case:
    """One node test: its graph, feeds, and what onnx says comes out."""

    def __init__(self, case: Any) -> None:
        self.name, self.model = case.name, case.model
        given, wanted = case.data_sets[0]
        self.feeds = {info.name: array(v) for info, v in zip(self.model.graph.input, given, strict=True)}
        self._wanted = {info.name: v for info, v in zip(self.model.graph.output, wanted, strict=True)}

    @property
    def graph(self) -> Graph:
        return from_proto(self.model)

    def wanted(self) -> dict[str, np.ndarray]:
        """What onnxruntime computes; what is expected where it has no kernel for the model or takes no bfloat16."""
        expected = {name: array(value) for name, value in self._wanted.items()}
        if any(values.dtype.name == "bfloat16" for values in (*self.feeds.values(), *expected.values())):
            return expected
        try:
            return Session(self.graph).run(self.feeds)
        except InputError:
            return expected


@pytest.fixture(scope="module")
def all_models() -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases compute with NaN and infinity on purpose
        return collect_testcases(None)


@pytest.fixture(scope="module")
def cases(all_models: list[Any]) -> list[Case]:
    """Those whose operators have a lowering and that are not left out."""
    lowered = [m for m in all_models if {node.op_type for node in m.model.graph.node} <= set(RULES)]
    return [Case(model) for model in lowered if reason(model.name, LEFT_OUT) is None]


def runnable(cases: list[Case]) -> Iterator[Case]:
    return (case for case in cases if reason(case.name, REFUSED) is None)


def test_every_operator_is_lowered_or_out_of_scope_for_a_reason(all_models: list[Any]) -> None:
    met = {node.op_type for model in all_models for node in model.model.graph.node}
    assert met - set(RULES) == out_of_scope()
    assert set(RULES).isdisjoint(out_of_scope())
    # What starts from constants alone has no samples to follow, but for its own operands that are refused.
    assert set(FLOW_RULES) <= set(RULES)
    assert set(RULES) - set(FLOW_RULES) == {"Constant", "ConstantOfShape", "EyeLike", "Range"}


def test_node_tests_agree_with_onnxruntime(cases: list[Case]) -> None:
    wrong, count = [], 0
    with np.errstate(all="ignore"):
        for case in runnable(cases):
            got = run(TorchModule(case.graph, any_batch=False), case.feeds)
            for name, wanted in case.wanted().items():
                if not agrees(got[name], wanted):
                    wrong.append(f"{case.name}: {name} {got[name].dtype} {difference(got[name], wanted):.3g}")
            count += 1
    assert wrong == []
    assert count > 1000


def test_refused_uses_say_why(cases: list[Case]) -> None:
    refused = [case for case in cases if reason(case.name, REFUSED) is not None]
    assert len(refused) > 100
    for case in refused:
        with pytest.raises(InputError, match=reason(case.name, REFUSED)):
            TorchModule(case.graph, any_batch=False)


def test_batches_of_other_sizes_are_the_samples_one_by_one(cases: list[Case]) -> None:
    """Where a module takes any batch, a larger batch gives what its parts give, and one sample what it gave in its."""
    wrong, tried = [], set()
    for case in runnable(cases):
        graph = case.graph
        first = next((t for t in graph.inputs if isinstance(t, Variable)), None)
        if first is None or len(graph.nodes) > 1 or not case.feeds[first.name].shape:
            continue
        if case.feeds[first.name].shape[0] == 0:
            continue
        for tensor in list(graph.inputs[1:]):  # the samples are in the first; the rest belongs to all
            graph.replace_uses(tensor, graph.const(f"{tensor.name}.fixed", case.feeds[tensor.name]))
        graph.inputs = [first]
        try:
            module = TorchModule(graph)
        except InputError:
            continue
        size = case.feeds[first.name].shape[0]
        axes = module.batch_axes
        one = case.feeds[first.name]
        other = np.flip(one, axis=-1).copy()
        fixed = TorchModule(graph, any_batch=False)
        parts = [run(fixed, {first.name: x}) for x in (one, other)]
        both = run(module, {first.name: np.concatenate([one, other])})
        single = run(module, {first.name: one[:1]})
        for name, axis in axes.items():
            if axis is None:
                continue
            tried.add(graph.nodes[0].op)
            whole = np.concatenate([part[name] for part in parts], axis=axis)
            rows = parts[0][name].shape[axis] // size
            alone = parts[0][name].take(range(rows), axis)
            if not (agrees(both[name], whole) and agrees(single[name], alone)):
                wrong.append(f"{case.name}: {name}")
    assert wrong == []
    assert len(tried) > 100, sorted(tried)


def test_autocast_to_bfloat16_runs_every_float_case(cases: list[Case]) -> None:
    failed, count = [], 0
    for case in runnable(cases):
        if (
            not case.feeds
            or len(case.model.graph.node) > 1
            or any(values.dtype != np.float32 for values in case.feeds.values())
        ):
            continue
        module = TorchModule(case.graph, any_batch=False)
        feeds = {name: to_torch(values) for name, values in case.feeds.items()}
        try:
            with torch.autocast("cpu", torch.bfloat16):
                # Behind a product, as in a network, so that the operator meets bfloat16.
                narrow = {n: v.to(torch.bfloat16) if i == 0 else v for i, (n, v) in enumerate(feeds.items())}
                module(feeds)
                module(narrow)
        except RuntimeError as error:
            failed.append(f"{case.name}: {error}")
        count += 1
    assert failed == []
    assert count > 200
