"""The one line that a user sees."""

from __future__ import annotations

import pytest

from edgec.ir.errors import (
    EdgecError,
    EmitError,
    InputError,
    InputErrors,
    InternalError,
    UsageError,
    UsageErrors,
    did_you_mean,
)


@pytest.mark.parametrize(
    ("kind", "status"), [(EdgecError, 70), (UsageError, 2), (InputError, 3), (EmitError, 4), (InternalError, 70)]
)
def test_place_fault_and_mend(kind: type[EdgecError], status: int) -> None:
    assert str(kind("file: place", "is wrong", "fix it")) == "file: place: is wrong; fix it"
    assert str(kind("file", "is wrong")) == "file: is wrong"
    assert str(kind("", "is wrong", "fix it")) == "is wrong; fix it"
    assert kind.exit_status == status


def test_suggestions() -> None:
    assert did_you_mean("quantise", ["fold", "quantize"]) == ". Did you mean 'quantize'?"
    assert did_you_mean("nothing", ["fold", "quantize"]) == ""
    assert did_you_mean("x", []) == ""


def test_a_name_with_any_character_stays_on_one_line() -> None:
    names = "a\nb\r\x1b[2J\u2028\ud800"
    assert str(InputError(f"node '{names}'", "is wrong")) == r"node 'a\nb\r\x1b[2J\u2028\ud800': is wrong"
    assert str(InputError("node 'größe'", "is wrong")) == "node 'größe': is wrong"


@pytest.mark.parametrize(("kind", "status"), [(UsageErrors, 2), (InputErrors, 3)])
def test_a_line_for_each_mistake(kind: type[UsageErrors] | type[InputErrors], status: int) -> None:
    error = kind([EdgecError("a", "is wrong", "fix it"), EdgecError("b\n", "is it?", "no")])
    assert str(error) == "a: is wrong; fix it\nb\\n: is it? No"
    assert (error.where, error.what, error.fix, error.exit_status) == ("a", "is wrong", "fix it", status)
