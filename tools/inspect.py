"""``edgec inspect``: a network layer by layer, with what each layer costs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from edgec.frontends.model import Pins, open_model
from edgec.frontends.sources import Source, opened
from edgec.ir.cost import Cost
from edgec.ir.errors import printable
from edgec.ir.graph import Graph, Tensor
from edgec.ir.printer import print_graph
from edgec.tools.console import print_table
from edgec.tools.options import print_notes
from edgec.tools.summary import amount, counted, short, size


def inspect(
    model: Source,
    pins: Pins,
    cuts: Sequence[str] = (),
    *,
    as_json: bool = False,
    as_text: bool = False,
) -> None:
    """Prints a network as a table, as JSON, or as the IR's text."""
    with opened(model) as path:
        notes: list[str] = []
        graph = open_model(path, pins, cuts, notes=notes)
    print_notes(model.name, notes)
    if as_text:
        print(print_graph(graph), end="")
        return
    cost = Cost(graph)
    rows = layers(graph, cost)
    if as_json:
        print(
            json.dumps({"model": model.name, "opset": graph.opset, "total": cost.as_dict(), "layers": rows}, indent=2)
        )
        return
    print_table(
        f"{printable(model.name)}: {printable(graph.name)}, opset {graph.opset}",
        ("layer", "operator", "output", "params", "MACs", "MACs %", "moved"),
        [_cells(row, cost.macs) for row in rows],
        left=2,
    )
    for tensor, role in [*((t, "input") for t in graph.inputs), *((t, "output") for t in graph.outputs)]:
        print(f"{role} {printable(tensor.name)}: {tensor.dtype} {_shape(tensor)}")
    total = cost.as_dict()
    macs, peak = counted(total, "macs", amount), counted(total, "peak_activation_bytes", size)
    print(
        f"{cost.nodes} nodes, {cost.params:,} params in {size(cost.weight_bytes)}, {macs} MACs, peak activations {peak}"
    )
    if cost.macs_unknown or cost.sizes_unknown:
        print(
            f"not known, because shapes are not static: MACs of layers ({cost.macs_unknown}),"
            f" sizes of tensors ({cost.sizes_unknown})"
        )


def layers(graph: Graph, cost: Cost) -> list[dict[str, Any]]:
    """One entry a node: name, operator, shape of its first output, params, MACs (``None`` if unknown), bytes moved."""
    return [
        {
            "name": node.name,
            "operator": node.op,
            "output": list(node.outputs[0].shape or []) if node.outputs else [],
            "params": cost.by_node[node].params,
            "macs": cost.by_node[node].macs,
            "bytes_moved": cost.by_node[node].bytes_moved,
        }
        for node in graph.nodes
    ]


def _cells(row: Mapping[str, Any], macs: int) -> list[str]:
    return [
        printable(row["name"]),
        printable(row["operator"]),
        "x".join(map(str, row["output"])),
        short(row["params"]),
        "?" if row["macs"] is None else short(row["macs"]),
        f"{100 * row['macs'] / macs:.1f}" if row["macs"] else "",
        size(row["bytes_moved"]),
    ]


def _shape(tensor: Tensor) -> str:
    return "x".join("?" if d is None else str(d) for d in tensor.shape or ())
