"""The pipeline: what it lets through, what it stops, and what it leaves behind."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx.parser
import pytest

from edgec.ir.errors import EdgecError, InternalError, UsageError
from edgec.ir.execution import Session, seeded_feeds
from edgec.ir.files import load
from edgec.ir.graph import Graph
from edgec.ir.printer import parse
from edgec.ir.shapes import Shapes
from edgec.passes.framework.base import Effect, Pass
from edgec.passes.framework.context import Context
from edgec.passes.framework.instruments import Dumps, Instrument, PrintAfter, PrintChanged, Times
from edgec.passes.framework.pass_manager import PassManager
from edgec.passes.framework.planner import Planned
from edgec.passes.framework.record import Record
from edgec.passes.framework.reference import Reference
from edgec.passes.framework.settling import settle
from edgec.testing import outputs

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[1,4] x) => (float[1,4] y)
<float[4,4] w = {1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16}>
{
  a = MatMul(x, w)
  b = Relu(a)
  y = Neg(b)
}
"""


@dataclass(frozen=True)
class Apply(Pass):
    """Runs a function of the graph; exact unless said otherwise."""

    name: ClassVar[str] = "apply"
    effect: ClassVar[Effect] = "exact"


@dataclass(frozen=True)
class LossyApply(Apply):
    effect: ClassVar[Effect] = "lossy"
    least_db: float | None = None

    def budget_db(self) -> float | None:
        return self.least_db


Change = Callable[[Graph, Context], None]


def step(change: Change, *, lossy: bool = False, least_db: float | None = None) -> Planned:
    base = LossyApply if lossy else Apply
    kind = type("Made", (base,), {"run": lambda self, graph, ctx: change(graph, ctx)})
    return Planned(kind(least_db) if lossy else kind(), "passes[0]", "compress.yaml")


def run(
    change: Change, tmp_path: Path, *instruments: Instrument, lossy: bool = False, **options: float
) -> list[Record]:
    graph = parse(TEXT)
    Shapes(graph).annotate(graph)
    reference = Reference(graph, seeded_feeds(graph))
    pipeline = PassManager(reference, instruments=instruments, repro=tmp_path / "repro")
    return pipeline.run(graph, [step(change, lossy=lossy, **options)])


def scale_weights(graph: Graph, ctx: Context, by: float = 1.01) -> None:
    weight = graph.constants()[0]
    weight.values = weight.values * np.float32(by)
    ctx.did(graph.nodes[0], "scaled", by=by)


def double_negation(graph: Graph, ctx: Context) -> None:
    relu = graph.nodes[1]
    inner = graph.op("Neg", [graph.op("Neg", [relu.outputs[0]], before=graph.nodes[2])], before=graph.nodes[2])
    graph.nodes[-1].inputs[0] = inner
    ctx.did(relu, "negated twice")
    ctx.missed("a", "nothing to do")


def test_an_exact_pass_is_recorded(tmp_path: Path) -> None:
    (record,) = run(double_negation, tmp_path)
    assert record.sqnr_db == float("inf")
    assert (record.before["nodes"], record.after["nodes"]) == (3, 5)
    assert [r.what for r in record.did] == ["negated twice"]
    assert [(r.node, r.what) for r in record.missed] == [("a", "nothing to do")]


def test_an_exact_pass_that_moves_the_outputs_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(InternalError) as caught:
        run(scale_weights, tmp_path)
    text = str(caught.value)
    assert text.startswith("compress.yaml: passes[0] 'apply': is exact but moved output 'y' by ")
    assert "the model before it and the rest of the recipe are in" in text


def test_a_double_output_of_a_float_network_may_move_as_floats_do(tmp_path: Path) -> None:
    graph = parse(
        TEXT.replace("float[1,4] y", "double[1,4] y").replace("y = Neg(b)", "c = Neg(b)\n  y = Cast<to=11>(c)")
    )
    Shapes(graph).annotate(graph)
    pipeline = PassManager(Reference(graph, seeded_feeds(graph)), repro=tmp_path / "repro")
    pipeline.run(graph, [step(lambda g, ctx: scale_weights(g, ctx, by=1 + 2e-7))])
    with pytest.raises(InternalError, match="is exact but moved output 'y'"):
        pipeline.run(graph, [step(scale_weights)])


def test_the_reproducer_holds_the_model_before(tmp_path: Path) -> None:
    with pytest.raises(InternalError):
        run(scale_weights, tmp_path)
    (folder,) = (tmp_path / "repro").iterdir()
    assert {path.name for path in folder.iterdir()} == {"model.onnx", "compress.yaml", "probes.npz", "traceback.txt"}
    kept = load(folder / "model.onnx")
    np.testing.assert_array_equal(kept.constants()[0].values, parse(TEXT).constants()[0].values)
    assert np.load(folder / "probes.npz")["x"].shape == (4, 4)
    assert "- apply" in (folder / "compress.yaml").read_text()


def test_a_lossy_pass_is_measured(tmp_path: Path) -> None:
    (record,) = run(scale_weights, tmp_path, lossy=True)
    assert record.sqnr_db == pytest.approx(40, abs=0.1)  # 1 % too large: 20 log10(100)


def test_a_lossy_pass_is_stopped_by_its_budget(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        run(scale_weights, tmp_path, lossy=True, least_db=60.0)
    assert str(caught.value) == (
        "compress.yaml: passes[0] 'apply': leaves 40.0 dB, below its budget of 60 dB; compress less, or allow more loss"
    )


def make_nan(graph: Graph, ctx: Context) -> None:
    scale_weights(graph, ctx, by=float("nan"))


def rename_output(graph: Graph, ctx: Context) -> None:
    graph.outputs[0].name = "z"


def read_nothing(graph: Graph, ctx: Context) -> None:
    graph.nodes[1].inputs.clear()


def no_such_operator(graph: Graph, ctx: Context) -> None:
    graph.nodes[1].op = "Rely"


def widen(graph: Graph, ctx: Context) -> None:
    weight = graph.constants()[0]
    weight.values = np.ones((5, 4), np.float32)


def fail(graph: Graph, ctx: Context) -> None:
    raise ZeroDivisionError("by nothing")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (make_nan, "made outputs that are not finite"),
        (rename_output, "changed the names of the model's outputs"),
        (read_nothing, "has 0 inputs where it takes 1"),
        (no_such_operator, "is no operator of opset 17"),
        (widen, "left a broken graph: "),
        (fail, "raised ZeroDivisionError: by nothing"),
    ],
)
def test_a_broken_promise_is_a_fault_of_the_pass(change: Change, what: str, tmp_path: Path) -> None:
    with pytest.raises(InternalError) as caught:
        run(change, tmp_path, lossy=True)
    assert str(caught.value).startswith("compress.yaml: passes[0] 'apply': ")
    assert what in str(caught.value)
    assert caught.value.exit_status == 70


def test_a_users_mistake_passes_through_without_a_reproducer(tmp_path: Path) -> None:
    def refuse(graph: Graph, ctx: Context) -> None:
        raise UsageError("apply: skip", "no node is named 'x'", "correct the name")

    with pytest.raises(UsageError) as caught:
        run(refuse, tmp_path)
    assert str(caught.value) == "compress.yaml: passes[0] 'apply': skip: no node is named 'x'; correct the name"
    assert not (tmp_path / "repro").exists()


def test_dead_code_goes_and_order_comes_back(tmp_path: Path) -> None:
    def mess(graph: Graph, ctx: Context) -> None:
        graph.op("Exp", [graph.inputs[0]])
        graph.nodes.reverse()

    (record,) = run(mess, tmp_path)
    assert record.after["nodes"] == 3


def test_analyses_live_until_the_pass_ends(tmp_path: Path) -> None:
    seen = []

    def ask(graph: Graph, ctx: Context) -> None:
        seen.append((ctx.get(Shapes), ctx.get(Shapes)))
        ctx.changed()
        seen.append((ctx.get(Shapes), ctx.get(Shapes)))

    run(ask, tmp_path)
    assert seen[0][0] is seen[0][1]
    assert seen[1][0] is seen[1][1]
    assert seen[0][0] is not seen[1][0]


def test_dumps_are_numbered(tmp_path: Path) -> None:
    dumps = Dumps(tmp_path / "ir")
    dumps.start(parse(TEXT))
    run(double_negation, tmp_path, dumps)
    assert sorted(p.name for p in (tmp_path / "ir").iterdir()) == [
        "00-input.onnx", "00-input.txt", "01-apply.onnx", "01-apply.txt",
    ]  # fmt: skip
    graph = load(tmp_path / "ir" / "01-apply.onnx")
    assert Session(graph).run({"x": np.ones((1, 4), np.float32)})["y"].tolist() == [[-28, -32, -36, -40]]


def test_what_a_failed_pass_left_is_dumped(tmp_path: Path) -> None:
    dumps = Dumps(tmp_path / "ir")
    with pytest.raises(EdgecError):
        run(no_such_operator, tmp_path, dumps)
    assert "Rely" in (tmp_path / "ir" / "00-apply-failed.txt").read_text()


def test_print_after_and_print_changed(tmp_path: Path) -> None:
    after, changed, times = io.StringIO(), io.StringIO(), Times()
    run(double_negation, tmp_path, PrintAfter(["apply"], after), PrintChanged(changed), times)
    assert after.getvalue().startswith("// after passes[0] 'apply'\n")
    lines = changed.getvalue().splitlines()
    assert lines[0] == "// passes[0] 'apply' changed"
    assert [line for line in lines if line.startswith("-")] == ["-  float[1,4] y = Neg (b)"]
    table = io.StringIO()
    times.print(table)
    assert [line.split()[-1] for line in table.getvalue().splitlines()] == ["apply", "passes"]


def test_what_the_body_of_a_loop_declares_stays(tmp_path: Path) -> None:
    """onnxruntime refuses a Loop whose body does not say that its counter is a scalar."""
    text = """
        <ir_version: 8, opset_import: ["": 17]>
        g (float[1,4] x) => (float[1,4] y) <int64 n = {2}, bool go = {1}> {
            y = Loop <body = body (int64 i, bool c, float[1,4] s) => (bool k, float[1,4] t) {
                k = Identity (c)
                t = Add (s, s)
            }> (n, go, x)
        }"""
    file = tmp_path / "loop.onnx"
    onnx.save(onnx.parser.parse_model(text), file)
    graph = load(file)
    settle(graph, "here")
    [body] = graph.subgraphs()
    assert [tensor.shape for tensor in body.inputs] == [[], [], [1, 4]]
    x = np.ones((1, 4), np.float32)
    np.testing.assert_array_equal(outputs(graph, {"x": x})["y"], 4 * x)
