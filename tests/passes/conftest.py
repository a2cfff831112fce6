"""FileCheck for tests of passes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from filecheck.matcher import Matcher
from filecheck.options import Options

from edgec.ir.graph import Graph
from edgec.ir.printer import print_graph


@pytest.fixture
def filecheck(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[Graph, str], None]:
    """Matches a graph's text against CHECK lines; on failure the test shows what FileCheck said."""

    def check(graph: Graph, checks: str) -> None:
        printed, wanted = tmp_path / "graph.txt", tmp_path / "checks.txt"
        printed.write_text(print_graph(graph), encoding="utf-8")
        wanted.write_text(checks, encoding="utf-8")
        status = Matcher.from_opts(Options(match_filename=str(wanted), input_file=str(printed))).run()
        if status:
            said = capsys.readouterr()
            pytest.fail(f"{said.out}{said.err}\n{printed.read_text(encoding='utf-8')}", pytrace=False)

    return check
