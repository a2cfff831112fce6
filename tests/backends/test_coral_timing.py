"""One inference for timing, whatever types the inputs are of."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgec.backends.coral.backend import CoralBackend
from edgec.backends.registry import target
from edgec.testing import model


@pytest.mark.parametrize(
    ("body", "signature"),
    [
        ("y = Gather (t, x)", "(int64[1,4] x) => (float[1,4,6] y)"),
        ("y = Not (x)", "(bool[1,4] x) => (bool[1,4] y)"),
        ("c = Cast <to = 1> (x)\ny = Relu (c)", "(uint8[1,4,4,3] x) => (float[1,4,4,3] y)"),
        ("y = Add (x, x)", "(int32[1,4] x) => (int32[1,4] y)"),
        ("y = Where (k, x, z)", "(float[1,4] x, bool[1,4] k, float[1,4] z) => (float[1,4] y)"),
    ],
)
def test_inputs_of_each_type(tmp_path: Path, body: str, signature: str) -> None:
    graph, backend = model(body, signature, "float[9,6] t"), CoralBackend()
    emitted = backend.emit(graph, target("coral-dev-board"), tmp_path, [])
    backend.invoker(tmp_path / emitted.model)()
