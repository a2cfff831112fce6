"""The recipe's text: YAML 1.2 scalars, the line of each value, nothing executed."""

from __future__ import annotations

import pytest

from edgec.frontends.recipe_yaml import dotted, parse_document


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("true", True), ("False", False), ("yes", "yes"), ("off", "off"), ("~", None), ("", None),
        ("12", 12), ("-3", -3), ("010", 10), ("12:30", "12:30"), ("1_000", "1_000"), ("0x10", "0x10"),
        ("1e-3", 1e-3), ("1.", 1.0), (".5", 0.5), ("-2.5E+2", -250.0), (".nan", ".nan"),
        ("2024-01-01", "2024-01-01"), ("1/255", "1/255"), ("'1'", "1"), ("!!str 1", "1"), ("!!int x", "x"),
        ("python:module:function", "python:module:function"), ("<<", "<<"),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(written: str, value: object) -> None:
    got = parse_document(f"a: {written}", "c.yaml").value["a"]
    assert (got, type(got)) == (value, type(value))


def test_every_value_has_its_line() -> None:
    document = parse_document("a:\n  b: [1,\n      2]\n\nc: |\n  text\n", "c.yaml")
    assert document.value == {"a": {"b": [1, 2]}, "c": "text\n"}
    assert document.lines == {
        (): 1, ("a",): 1, ("a", "b"): 2, ("a", "b", 0): 2, ("a", "b", 1): 3, ("c",): 5,
    }  # fmt: skip
    assert document.where(("a", "b", 1)) == "c.yaml: line 3: a.b[1]"
    assert document.where(("a", "x")) == "c.yaml: line 1: a"


def test_an_alias_is_its_anchor_s_value() -> None:
    assert parse_document("a: &x {k: 1}\nb: *x", "c.yaml").value == {"a": {"k": 1}, "b": {"k": 1}}


def test_the_first_of_two_equal_keys_stays() -> None:
    document = parse_document("a: {k: 1, k: 2}", "c.yaml")
    assert document.value == {"a": {"k": 1}}
    assert [str(mistake) for mistake in document.mistakes] == [
        "c.yaml: line 1: a.k: the key is written twice, on line 1 and here; keep one of them"
    ]


def test_a_place_is_written_with_dots_and_brackets() -> None:
    assert dotted(("passes", 1, "prune", "macs")) == "passes[1].prune.macs"
