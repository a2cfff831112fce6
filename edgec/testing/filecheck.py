"""A graph's text against CHECK lines, as LLVM's FileCheck matches them (https://llvm.org/docs/CommandGuide/FileCheck.html)."""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path

from edgec.ir.graph import Graph
from edgec.ir.printer import print_graph


def filecheck(graph: Graph, checks: str) -> None:
    """Matches a graph, as ``edgec-opt`` prints it, against lines of ``CHECK:``, ``CHECK-NEXT:``, ``CHECK-NOT:``.

    Raises:
        AssertionError: a line is not matched; the text says which, and what the graph is.
    """
    from filecheck.matcher import Matcher
    from filecheck.options import Options

    text, said = print_graph(graph), io.StringIO()
    with tempfile.TemporaryDirectory() as folder:
        printed, wanted = Path(folder, "graph.txt"), Path(folder, "checks.txt")
        printed.write_text(text, encoding="utf-8")
        wanted.write_text(checks, encoding="utf-8")
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            status = Matcher.from_opts(Options(match_filename=str(wanted), input_file=str(printed))).run()
    assert not status, f"{said.getvalue()}\n{text}"
