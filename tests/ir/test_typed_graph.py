"""The graph is typed: a type checker sees what a misspelt attribute is."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SNIPPET = """
from edgec.ir.graph import Constant, Graph, Node, Variable

def look(graph: Graph, node: Node, x: Variable, w: Constant) -> None:
    node.atrs
    graph.nonsense()
    x.shapes
    w.value
    node.inputs[0].outputs[0].opp
    reveal_type(node.attrs)
    reveal_type(node.outputs[0])
"""


def test_misspelt_attributes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mypy import api

    tree = tmp_path / "typing" / "edgec"
    tree.mkdir(parents=True)
    for folder in ("ir", "passes", "frontends", "backends", "tools"):
        (tree / folder).symlink_to(ROOT / folder)
    for file in (ROOT / "edgec").iterdir():
        (tree / file.name).symlink_to(file)
    (tmp_path / "snippet.py").write_text(SNIPPET)
    monkeypatch.setenv("MYPYPATH", str(tmp_path / "typing"))
    arguments = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(tmp_path / "cache")]
    said, problems, _ = api.run([*arguments, "--follow-imports", "silent", str(tmp_path / "snippet.py")])
    assert problems == ""
    lines = [line.partition("snippet.py:")[2] for line in said.splitlines() if "snippet.py" in line]
    assert [line.split('"')[3] for line in lines if "has no attribute" in line and "Item" not in line] == [
        "atrs", "nonsense", "shapes", "value", "opp",
    ]  # fmt: skip
    revealed = [line for line in lines if "Revealed type" in line]
    assert "dict[" in revealed[0]
    assert "edgec.ir.tensors.Variable" in revealed[1]
