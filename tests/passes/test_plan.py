"""The static check of a recipe: each mistake by its exact text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from edgec.ir.errors import UsageError
from edgec.passes.framework.planner import plan
from edgec.passes.framework.registry import pass_class, pass_names


def message(*steps: tuple[str, Mapping[str, Any]], roles: tuple[str, ...] = ("calibration",)) -> str:
    with pytest.raises(UsageError) as caught:
        plan(steps, source="compress.yaml", roles=roles)
    assert caught.value.exit_status == 2
    return str(caught.value)


def test_a_sound_recipe_is_split_where_the_target_begins_to_matter() -> None:
    found = plan([("fold", {}), ("quantize", {}), ("fold", {})], roles=["calibration"])
    assert [item.step.name for item in found.shared] == ["fold"]
    assert [(item.step.name, item.place) for item in found.per_target] == [
        ("quantize", "passes[1]"),
        ("fold", "passes[2]"),
    ]


def test_unknown_pass() -> None:
    assert message(("quantise", {})) == (
        "compress.yaml: passes[0]: no pass named 'quantise'. Did you mean 'quantize'? 'edgec passes' lists them"
    )


def test_unknown_option() -> None:
    text = message(("fold", {}), ("factorize", {"parms": 0.1}))
    assert text.startswith(
        "compress.yaml: passes[1] 'factorize': has no option 'parms'. Did you mean 'params'? It takes "
    )


def test_option_out_of_bounds() -> None:
    text = message(("factorize", {"params": 7}))
    assert text == (
        "compress.yaml: passes[0] 'factorize': params: input should be less than or equal to 1; "
        "'edgec passes factorize' explains"
    )


def test_order() -> None:
    assert message(("quantize", {}), ("factorize", {"params": 0.5})) == (
        "compress.yaml: passes[1] 'factorize' needs a 'float' graph, but passes[0] 'quantize' ended that; "
        "move 'factorize' above it"
    )


def test_a_fact_that_nothing_ended() -> None:
    with pytest.raises(UsageError) as caught:
        plan([("quantize", {})], source="compress.yaml", roles=["calibration"], facts=frozenset({"quantized"}))
    assert str(caught.value) == (
        "compress.yaml: passes[0] 'quantize' needs a 'float' graph, which this is not; put 'dequantize' before it"
    )


def test_missing_data() -> None:
    assert message(("quantize", {}), roles=()) == (
        "compress.yaml: passes[0] 'quantize': needs 'data.calibration', which the recipe does not have; "
        "add data.calibration"
    )


def test_every_mistake_is_reported_at_once() -> None:
    lines = message(("quantise", {}), ("factorize", {"parms": 1})).splitlines()
    assert len(lines) == 2
    assert "passes[0]" in lines[0]
    assert "passes[1]" in lines[1]


def test_the_place_can_be_the_line_of_a_file() -> None:
    with pytest.raises(UsageError) as caught:
        plan([("fold", {"x": 1})], where=lambda index: f"compress.yaml: line {index + 9}: passes[{index}]")
    assert str(caught.value).startswith("compress.yaml: line 9: passes[0] 'fold': has no option 'x'")


@pytest.mark.parametrize("name", pass_names())
def test_each_pass_is_registered_under_its_own_name(name: str) -> None:
    assert pass_class(name).name == name
    assert pass_class(name).effect in ("exact", "lossy")


def test_repeat_reaches_a_budget_in_steps() -> None:
    round_ = [{"compress": {"params": 0.01}}, {"factorize": {"rank": 0.5}}, "fold"]
    found = plan([("fold", {}), ("repeat", {"times": 2, "passes": round_})], roles=["calibration"])
    assert [item.step.name for item in found.shared] == ["fold", *["compress", "factorize", "fold"] * 2]
    assert [item.where for item in found.shared[1:4]] == [
        "the pipeline: passes[1] 'repeat': round 1 of 2: passes[0] 'compress'",
        "the pipeline: passes[1] 'repeat': round 1 of 2: passes[1] 'factorize'",
        "the pipeline: passes[1] 'repeat': round 1 of 2: passes[2] 'fold'",
    ]
    assert found.shared[4].step.params == pytest.approx(0.1)
    assert found.shared[2].step.rank == 0.5


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"passes": ["fold"]}, ": times: is how often the passes run, 2 at least"),
        ({"times": 1, "passes": ["fold"]}, ": times: is how often the passes run, 2 at least"),
        ({"times": 2}, ": passes: is a list of passes"),
        ({"times": 2, "passes": "fold"}, ": passes: is a list of passes"),
        ({"times": 2, "passes": []}, ": passes: is a list of passes"),
        ({"times": 2, "passes": ["fold"], "steps": 3}, ": has no option 'steps'"),
    ],
)
def test_repeat_that_is_not_written_so(options: dict[str, Any], said: str) -> None:
    fix = "write repeat: {times: 4, passes: [compress: {params: 0.01}, finetune]}"
    assert message(("repeat", options)) == f"compress.yaml: passes[0] 'repeat'{said}; {fix}"


def test_what_stands_in_repeat() -> None:
    where = "compress.yaml: passes[0] 'repeat': "
    shape = "a pass is a name, or a name with its options: prune: {macs: 0.7}"
    assert message(("repeat", {"times": 2, "passes": [7]})) == f"{where}passes[0]: is no pass; {shape}"
    inner = {"repeat": {"times": 2, "passes": ["fold"]}}
    text = message(("repeat", {"times": 2, "passes": [inner]}))
    assert text == f"{where}passes[0]: repeat cannot stand in repeat; multiply their times"
    text = message(("repeat", {"times": 2, "passes": ["fold", "quantise"]}))
    assert text.splitlines()[0] == (
        f"{where}round 1 of 2: passes[1]: no pass named 'quantise'. Did you mean 'quantize'? 'edgec passes' lists them"
    )
