"""What `edgec passes` and `edgec targets` print of what there is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import pytest
from pydantic import Field

from edgec.backends.registry import target_names
from edgec.ir.graph import Graph
from edgec.passes.framework.base import Effect, Pass
from edgec.passes.framework.context import Context
from edgec.passes.framework.registry import pass_class, pass_names
from edgec.tools.catalogue import option_rows, options_schema

Edgec = Callable[..., tuple[int, str, str]]


@dataclass(frozen=True)
class Everything(Pass):
    """Takes an option of every kind.

    A second paragraph.
    """

    name: ClassVar[str] = "everything"
    effect: ClassVar[Effect] = "exact"

    share: Annotated[float, Field(gt=0, le=1, description="a share")]
    count: Annotated[int | None, Field(ge=1, description="a count")] = None
    kind: Annotated[Literal["a", "b"], Field(description="one of two")] = "a"
    flag: bool = False
    names: list[str] | None = None
    either: int | str = "auto"

    def run(self, graph: Graph, ctx: Context) -> None: ...


def test_options_of_every_kind() -> None:
    assert option_rows(Everything) == [
        ("share", "number > 0, <= 1", "required", "a share"),
        ("count", "integer >= 1", "none", "a count"),
        ("kind", "a | b", '"a"', "one of two"),
        ("flag", "boolean", "false", ""),
        ("names", "list of string", "none", ""),
        ("either", "integer or string", '"auto"', ""),
    ]


def test_the_schema_of_options_is_closed() -> None:
    schema = options_schema(Everything)
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["share"]
    assert schema["description"] == "Takes an option of every kind."


def test_a_line_for_each_pass(edgec: Edgec) -> None:
    status, out, _ = edgec("passes")
    assert status == 0
    first = [line for line in out.splitlines() if not line.startswith(" ")]
    assert [line.split()[:2] for line in first] == [[n, pass_class(n).effect] for n in pass_names()]
    assert f"{'':20} low-rank factorization, Tucker-2, SVD" in out  # by the literature's names
    assert "scale-outputs lossy  Multiplies every output by ``factor``." in out.splitlines()


def test_a_pass_explained(edgec: Edgec) -> None:
    assert edgec("passes", "scale-outputs") == (
        0,
        "scale-outputs (lossy)\n"
        "\n"
        "Multiplies every output by ``factor``.\n"
        "\n"
        "needs: float\n"
        "\n"
        "options:\n"
        "  factor (number > 0, default 2.0)\n"
        "      what the outputs are multiplied by\n",
        "",
    )


@pytest.mark.parametrize("name", pass_names())
def test_every_pass_and_every_option_is_explained(edgec: Edgec, name: str) -> None:
    status, out, _ = edgec("passes", name)
    assert status == 0
    rows = option_rows(pass_class(name))
    assert all(description for *_, description in rows)
    assert out.endswith("no options\n") if not rows else all(f"  {row[0]} (" in out for row in rows)


def test_targets(edgec: Edgec) -> None:
    status, out, _ = edgec("targets")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines() if not line.startswith(" ")] == target_names()


def test_what_the_machine_lacks_is_said(edgec: Edgec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    _, out, _ = edgec("targets")
    assert "here: edgetpu_compiler is not on PATH" in out


@pytest.mark.parametrize("name", target_names())
def test_a_target_explained(edgec: Edgec, name: str) -> None:
    status, out, _ = edgec("targets", name)
    assert status == 0
    assert out.startswith(f"{name}: ")
    assert ("  integer operators: " in out) != ("  no 8-bit arithmetic\n" in out)
    assert "  source: https://" in out


def test_seven_bits_are_said(edgec: Edgec) -> None:
    assert "  weights of 7 bits, per channel: Conv, " in edgec("targets", "cpu-avx2")[1]
    assert "  weights per channel: Conv, " in edgec("targets", "cpu")[1]


def test_the_coral_target_explained(edgec: Edgec) -> None:
    _, out, _ = edgec("targets", "coral-dev-board")
    for line in (
        "coral-dev-board: Coral Dev Board (Edge TPU), backend coral",
        "  on-chip memory for weights: 8,388,608 bytes",
        "  activations int8, asymmetric; bias int32",
        "  fixed output scales: Sigmoid (0.00390625, -128), Softmax (0.00390625, -128), Tanh (0.0078125, 0)",
    ):
        assert line in out.splitlines()
