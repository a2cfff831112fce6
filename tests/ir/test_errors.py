"""The one line that a user sees."""

from __future__ import annotations

import pytest

from edgec.ir.errors import EdgecError, EmitError, InputError, InternalError, UsageError, did_you_mean


@pytest.mark.parametrize(
    ("kind", "status"), [(EdgecError, 70), (UsageError, 2), (InputError, 3), (EmitError, 4), (InternalError, 70)]
)
def test_place_fault_and_mend(kind: type[EdgecError], status: int) -> None:
    assert str(kind("file: place", "is wrong", "mend it")) == "file: place: is wrong; mend it"
    assert str(kind("file", "is wrong")) == "file: is wrong"
    assert str(kind("", "is wrong", "mend it")) == "is wrong; mend it"
    assert kind.exit_status == status


def test_suggestions() -> None:
    assert did_you_mean("quantise", ["fold", "quantize"]) == ". Did you mean 'quantize'?"
    assert did_you_mean("nothing", ["fold", "quantize"]) == ""
    assert did_you_mean("x", []) == ""
