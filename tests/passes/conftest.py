"""FileCheck for tests of passes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import edgec.testing
from edgec.ir.graph import Graph


@pytest.fixture
def filecheck() -> Callable[[Graph, str], None]:
    """Matches a graph's text against CHECK lines."""
    return edgec.testing.filecheck
