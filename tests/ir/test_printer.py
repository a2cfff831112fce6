"""The text of a graph, and the way back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from filecheck.matcher import Matcher
from filecheck.options import Options

from edgec.ir.files import load
from edgec.ir.graph import Constant, Graph, Variable
from edgec.ir.printer import parse, print_graph, print_node, short_hash
from edgec.ir.protos import to_proto

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[1,3,8,8] x, bool b) => (float[1,4] y)
<float[4,3,3,3] w, float[4] bias = {0.5, 1.0, -2.0, 3.25}>
{
    [conv] c = Conv<pads = [1,1,1,1], auto_pad = "NOTSET">(x, w, bias)
    [relu] r = LeakyRelu<alpha = 0.125>(c)
    [pool] p = GlobalAveragePool(r)
    [flat] y = Flatten(p)
}
"""


def network() -> Graph:
    graph = parse(TEXT.replace("float[4,3,3,3] w, ", ""))
    weight = np.arange(108, dtype=np.float32).reshape(4, 3, 3, 3)
    graph.nodes[0].inputs[1] = Constant("w", weight)
    return graph


def test_a_graph_is_printed_a_line_a_node() -> None:
    digest = short_hash(np.arange(108, dtype=np.float32))
    assert print_graph(network()) == (
        '<ir_version: 8, opset_import: ["" : 17]>\n'
        "g (float[1,3,8,8] x, bool[] b) => (float[1,4] y) {\n"
        f"  float[4,3,3,3] w = #{digest}\n"
        "  float[4] bias = {0.5, 1, -2, 3.25}\n"
        '  [conv] c = Conv <auto_pad = "NOTSET", pads = [1, 1, 1, 1]> (x, w, bias)\n'
        "  [relu] r = LeakyRelu <alpha = 0.125> (c)\n"
        "  [pool] p = GlobalAveragePool (r)\n"
        "  [flat] float[1,4] y = Flatten (p)\n"
        "}\n"
    )


def test_filecheck_takes_the_text(tmp_path: Path) -> None:
    printed, checks = tmp_path / "graph.txt", tmp_path / "checks.txt"
    printed.write_text(print_graph(network()))

    def status(wanted: str) -> int:
        checks.write_text(wanted)
        return int(Matcher.from_opts(Options(match_filename=str(checks), input_file=str(printed))).run())

    assert status("CHECK: [conv] [[C:.+]] = Conv {{.*}}(x, w, bias)\nCHECK-NEXT: LeakyRelu {{.*}}([[C]])\n") == 0
    assert status("CHECK: [conv] [[C:.+]] = Conv\nCHECK-NEXT: Sigmoid\n") != 0


def test_the_hash_tells_weights_apart(small_file: Path) -> None:
    graph = load(small_file)
    before = print_graph(graph)
    weight = graph.nodes[-1].inputs[1].values.copy()
    weight[0, 0] = np.nextafter(weight[0, 0], np.float32(9))
    graph.nodes[-1].inputs[1].values = weight
    assert print_graph(graph) != before
    assert short_hash(weight) == short_hash(np.asfortranarray(weight))
    assert short_hash(np.array(["a", "b"], object)) != short_hash(np.array(["a", "c"], object))


def test_subgraphs_are_indented() -> None:
    graph = parse(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        g (bool cond, float[2] x) => (float[2] y)
        {
            [if] y = If (cond) <
                then_branch = a () => (float[2] p) { [in] p = Relu(x) },
                else_branch = b () => (float[2] q) { q = Neg(x) }
            >
        }
        """
    )
    lines = print_graph(graph).splitlines()
    assert lines[2] == (
        "  [if] float[2] y = If <else_branch = graph of 1 nodes, then_branch = graph of 1 nodes> (cond)"
    )
    assert lines[3:6] == ["    a () => (float[2] p) {", "      [in] float[2] p = Relu (x)", "    }"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1"),
        (np.float32(0.1), "0.1"),
        (True, "True"),
        ([1.5, 2.0], "[1.5, 2]"),
        ("text", '"text"'),
        (["a"], '["a"]'),
        (Constant("", np.array([1, 2])), "{1, 2}"),
        (np.zeros((2, 2), np.float16), f"float16[2, 2] #{short_hash(np.zeros((2, 2), np.float16))}"),
    ],
)
def test_attributes(value: object, text: str) -> None:
    graph = Graph()
    graph.op("Op", [None], domain="org.example", name="n", key=value)
    assert print_node(graph.nodes[0]) == f'[n] n.out = org.example.Op <key = {text}> ("")'


def test_types_that_are_open_are_marked() -> None:
    graph = Graph(inputs=[Variable("a"), Variable("b", np.float32), Variable("c", np.int8, ["N", None, 3])])
    assert print_graph(graph).splitlines()[1] == "graph (a, float b, int8[N,?,3] c) => () {"


def test_onnx_text_is_read_back() -> None:
    graph = parse(TEXT)
    written, _ = to_proto(graph, inline=lambda constant: True)
    assert [node.op_type for node in written.graph.node] == ["Conv", "LeakyRelu", "GlobalAveragePool", "Flatten"]
    again = parse(TEXT)
    assert print_graph(again) == print_graph(graph)
