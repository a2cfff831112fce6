"""Load, verify and save of a Conv/Relu chain against onnx-ir's load and save, and how both grow.

    python tests/bench/bench_chain.py

Goals: at 20,000 nodes the median over pairs, each of one run of both, is at most 1.5 times onnx-ir's; four times the
nodes take less than six times the time (5,000 and 20,000 for files, 1,000 and 4,000 for the verbs of passes).
Verifying is measured both ways: structure alone, and with the weightless inference of all types and shapes, which is
what the compiler does between passes. The whole frontend, which types every tensor and reads every weight as well, is
held to the same. Needs onnx-ir, the extra ``edgec[bench]``.
"""

from __future__ import annotations

import gc
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import onnx
import onnx_ir
from onnx import TensorProto, helper, numpy_helper

from edgec.frontends.model import open_model
from edgec.ir.cost import Cost
from edgec.ir.files import load, save
from edgec.ir.graph import Graph, Variable
from edgec.ir.verifier import verify, verify_types

PAIRS = 9
GOAL, GROWTH_GOAL = 1.5, 6.0


def write_chain(path: Path, nodes: int) -> None:
    """A chain of ``nodes`` alternating Conv and Relu nodes, each Conv with its own 4x4x3x3 weight."""
    random = np.random.default_rng(0)
    made, weights, last = [], [], "x"
    for index in range(nodes // 2):
        weights.append(numpy_helper.from_array(random.standard_normal((4, 4, 3, 3), np.float32), f"w{index}"))
        made.append(helper.make_node("Conv", [last, f"w{index}"], [f"c{index}"], f"conv{index}", pads=[1, 1, 1, 1]))
        made.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"], f"relu{index}"))
        last = f"r{index}"
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 8, 8]) for name in ("x", last))
    graph = helper.make_graph(made, "chain", [x], [y], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one run, with the garbage of what ran before collected first."""
    gc.collect()
    start = time.perf_counter()
    made = work()
    taken = time.perf_counter() - start
    del made
    return taken


def measured(path: Path, pairs: int) -> dict[str, list[float]]:
    """Times of each contestant, interleaved."""
    out = path.with_suffix(".out.onnx")

    def ours(types: bool) -> Graph:
        graph = load(path)
        assert not verify(graph)
        if types:
            verify_types(graph)
        save(graph, out)
        return graph

    def frontend() -> Graph:
        graph = open_model(path)
        save(graph, out)
        return graph

    def theirs() -> object:
        model = onnx_ir.load(path)
        onnx_ir.save(model, out)
        return model

    contestants: dict[str, Callable[[], object]] = {
        "onnx-ir": theirs,
        "edgec, structure": lambda: ours(False),
        "edgec, structure and types": lambda: ours(True),
        "edgec, whole frontend": frontend,
    }
    for work in contestants.values():
        work()  # imports, caches of schemas
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(pairs):
        for name, work in contestants.items():
            times[name].append(seconds(work))
    return times


def verbs(nodes: int) -> dict[str, float]:
    """Least of five times of the verbs that a pass calls once a node, and of the analyses, on a chain made here."""
    runs = [_verbs(nodes) for _ in range(5)]
    return {name: min(run[name] for run in runs) for name in runs[0]}


def _verbs(nodes: int) -> dict[str, float]:
    graph = Graph(inputs=[Variable("x", np.float32, [1, 4])])
    last = graph.inputs[0]
    for index in range(nodes):
        last = graph.op("Relu", [last], name=f"r{index}")
    graph.outputs = [last]
    last.dtype, last.shape = np.dtype(np.float32), [1, 4]

    def replace() -> None:
        for node in list(graph.nodes):
            graph.replace(node, graph.op("Sigmoid", [node.inputs[0]], before=node))

    def reverse_and_sort() -> None:
        graph.nodes.reverse()
        graph.sort()

    return {
        "replace every node": seconds(replace),
        "sort when reversed": seconds(reverse_and_sort),
        "copy": seconds(graph.copy),
        "cost": seconds(lambda: Cost(graph)),
    }


def main() -> int:
    met = True
    with tempfile.TemporaryDirectory() as folder:
        small, large = Path(folder) / "5000.onnx", Path(folder) / "20000.onnx"
        write_chain(small, 5000)
        write_chain(large, 20000)
        few, many = measured(small, 5), measured(large, PAIRS)
        base = many["onnx-ir"]
        print(f"20,000 nodes, {PAIRS} pairs: load, (verify,) save")
        for name, times in many.items():
            ratio = median(mine / other for mine, other in zip(times, base, strict=True))
            growth = min(times) / min(few[name])
            print(f"  {name:28} {median(times):6.3f} s  ratio {ratio:5.2f}  5,000 -> 20,000: x{growth:.2f}")
            if name != "onnx-ir":
                met = met and ratio <= GOAL and growth < GROWTH_GOAL
    quarter, whole = verbs(1000), verbs(4000)
    for name, taken in whole.items():
        growth = taken / quarter[name]
        print(f"  {name:28} {taken:6.3f} s               1,000 -> 4,000: x{growth:.2f}")
        met = met and growth < GROWTH_GOAL
    print(f"goals (ratio at most {GOAL}, growth under {GROWTH_GOAL:.0f}): {'met' if met else 'MISSED'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
