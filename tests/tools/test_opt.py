"""edgec-opt's pipelines: what is written is what runs, and each mistake has its words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.ir.errors import UsageError
from edgec.passes.framework.pipeline_text import parse_pipeline

NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True)
KEYS = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXT)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3))
STEPS = st.lists(st.tuples(NAMES, st.dictionaries(KEYS, VALUES, max_size=3)), max_size=4)


def printed(steps: list[tuple[str, dict[str, Any]]]) -> str:
    return ", ".join(
        name + ("{" + ", ".join(f"{k}={json.dumps(v)}" for k, v in options.items()) + "}" if options else "")
        for name, options in steps
    )


@given(STEPS)
@settings(max_examples=200, deadline=None)
def test_what_is_printed_is_read_back(steps: list[tuple[str, dict[str, Any]]]) -> None:
    assert parse_pipeline(printed(steps)) == steps


@given(st.text(st.sampled_from("ab{}[],='\"\\ :1"), max_size=20))
@settings(max_examples=300, deadline=None)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        steps = parse_pipeline(text)
    except UsageError as error:
        assert error.where == f"-p '{text}'"
        assert error.fix
    else:
        assert all(name for name, _ in steps)


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("", []),
        (" fold ", [("fold", {})]),
        ("fold{}", [("fold", {})]),
        ("fold,factorize{params=0.1}", [("fold", {}), ("factorize", {"params": 0.1})]),
        ("a{x=1e-3,y=true,z=null}", [("a", {"x": 0.001, "y": True, "z": None})]),
        ("a{skip=[head*, 'b,c'], by=energy}", [("a", {"skip": ["head*", "b,c"], "by": "energy"})]),
        ("a{x={k: [1, 2]}, y='}'},b", [("a", {"x": {"k": [1, 2]}, "y": "}"}), ("b", {})]),
    ],
)
def test_pipelines(text: str, steps: list[tuple[str, dict[str, Any]]]) -> None:
    assert parse_pipeline(text) == steps


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("fold,,fold", "a pass has no name; write fold,factorize{params=0.1}"),
        ("{a=1}", "a pass has no name; write fold,factorize{params=0.1}"),
        ("fold{a=1", "} is missing; close what was opened"),
        ("fold{a=[1}", "'}' closes nothing; write fold,factorize{params=0.1}"),
        ("fold}", "'}' closes nothing; write fold,factorize{params=0.1}"),
        ("fold{a='b}", "' is missing; close what was opened"),
        ("fold{a=1}b", "'fold{a=1}b' goes on behind '}'; put a comma between passes"),
        ("fold{a}", "'a' of 'fold' is no option; write option=value"),
        ("fold{a=}", "'a=' of 'fold' is no option; write option=value"),
        ("fold{=1}", "'=1' of 'fold' is no option; write option=value"),
        ("fold{a=1, a=2}", "'a' of 'fold' is given twice; give each option once"),
        ("fold{a=b: c: d}", "'a' of 'fold' is no value: b: c: d; write it as in a recipe"),
    ],
)
def test_mistakes(text: str, line: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_pipeline(text)
    assert str(caught.value) == f"-p '{text}': {line}"
