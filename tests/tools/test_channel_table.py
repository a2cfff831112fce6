"""``edgec inspect --groups``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from networks.coupled import coupled

from edgec.ir.files import save
from edgec.ir.graph import Graph

Edgec = Callable[..., tuple[int, str, str]]


def written(graph: Graph, folder: Path) -> str:
    for node in graph.nodes:
        node.name = f"{node.op}.{node.outputs[0].name}"
    path = folder / "net.onnx"
    save(graph, path)
    return str(path)


def test_groups_as_a_table(edgec: Edgec, tmp_path: Path) -> None:
    path = written(coupled("grouped to one a group"), tmp_path)
    status, out, err = edgec("inspect", path, "--groups")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "net.onnx: channels that are removed together",
        "",
        "group   computed also by  read by  fixed             width  params each",
        "------  ----------------  -------  ----------------  -----  -----------",
        "Conv.a  Conv.b            Conv.y                     4 x 2           28",
        "Conv.y                             a model's output      4            4",
        "",
        "2 groups; 1 can be cut, 4 units in all",
    ]


def test_more_layers_than_there_is_room_for(edgec: Edgec, tmp_path: Path) -> None:
    _, out, _ = edgec("inspect", written(coupled("shared weights"), tmp_path), "--groups")
    assert "Conv.b, Conv.c and 1 more" in out
    _, out, _ = edgec("inspect", written(coupled("split and sliced"), tmp_path), "--groups")
    assert out.splitlines()[4].endswith("12      9 to 23")


def test_groups_as_json(edgec: Edgec, tmp_path: Path) -> None:
    path = written(coupled("grouped to one a group"), tmp_path)
    status, out, _ = edgec("inspect", path, "--groups", "--json")
    assert status == 0
    assert json.loads(out) == {
        "model": "net.onnx",
        "groups": [
            {
                "name": "Conv.a",
                "width": 4,
                "channels_per_unit": 2,
                "computed_by": ["Conv.a", "Conv.b"],
                "read_by": ["Conv.y"],
                "params_each": [28, 28],
                "fixed": None,
            },
            {
                "name": "Conv.y",
                "width": 4,
                "channels_per_unit": 1,
                "computed_by": ["Conv.y"],
                "read_by": [],
                "params_each": [4, 4],
                "fixed": "a model's output",
            },
        ],
    }


def test_a_padding_that_an_exporter_computed_hides_nothing(edgec: Edgec, tmp_path: Path) -> None:
    graph = coupled("resized")
    node = next(n for n in graph.nodes if n.op == "Resize")
    node.inputs[3] = graph.op("Neg", [graph.op("Neg", [node.inputs[3]], before=node)], before=node)
    _, out, _ = edgec("inspect", written(graph, tmp_path), "--groups", "--json")
    assert [group["fixed"] for group in json.loads(out)["groups"]] == [None, "a model's output"]


@pytest.mark.parametrize("order", [("--groups", "--ir"), ("--ir", "--groups")])
def test_groups_are_no_part_of_the_text(edgec: Edgec, tmp_path: Path, order: tuple[str, str]) -> None:
    path = written(coupled("residual"), tmp_path)
    line = "edgec: inspect: argument --ir: not allowed with argument --groups; 'edgec inspect --help' explains\n"
    assert edgec("inspect", path, *order) == (2, "", line)
