"""Which layers a pass may change: those that the patterns of ``only`` and ``skip`` leave to it, and none in a body."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import ClassVar, Protocol

from edgec.ir.errors import UsageError, did_you_mean
from edgec.ir.graph import Graph, Node
from edgec.passes.layers.linear import LINEAR


class Choosy(Protocol):
    """A pass that has both options."""

    name: ClassVar[str]

    @property
    def only(self) -> tuple[str, ...]: ...

    @property
    def skip(self) -> tuple[str, ...]: ...


def check_patterns(step: Choosy, names: list[str], kind: str, fix: str) -> None:
    """Raises a UsageError where a pattern matches none of ``names``, which are names of ``kind``."""
    for option, patterns in (("only", step.only), ("skip", step.skip)):
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise UsageError(
                    f"{step.name}: {option}", f"'{pattern}' matches no {kind}{did_you_mean(pattern, names)}", fix
                )


def check_layers(step: Choosy, graph: Graph) -> None:
    """Raises a UsageError where a pattern matches no layer of ``graph``."""
    names = [node.name for node in graph.nodes if node.op in LINEAR]
    check_patterns(step, names, "Conv, ConvTranspose, Gemm or MatMul", "'edgec inspect' lists the layers")


def excluded(step: Choosy, *names: str) -> str | None:
    """Why layers that go or stay together are left alone; ``None`` where they are not. One that matches decides."""
    if step.only and not any(fnmatchcase(name, pattern) for name in names for pattern in step.only):
        return "not named by 'only'"
    for pattern in step.skip:
        if any(fnmatchcase(name, pattern) for name in names):
            return f"named by 'skip' ({pattern})"
    return None


def in_bodies(graph: Graph) -> Iterator[tuple[Node, str]]:
    """The layers in bodies of If, Loop and Scan, which are left as they are, each with that reason."""
    for holder in graph.nodes:
        for body in holder.subgraphs(recursive=True):
            for node in body.nodes:
                if node.op in LINEAR:
                    yield node, f"it lies in a body of '{holder.name or holder.op}' ({holder.op})"
