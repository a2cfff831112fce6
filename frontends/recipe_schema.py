"""The recipe's JSON Schema, for editors and for ``edgec schema``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgec.frontends.recipe import Recipe

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def recipe_schema(
    passes: Mapping[str, Mapping[str, Any]] | None = None, targets: Sequence[str] | None = None
) -> dict[str, Any]:
    """The schema of compress.yaml, JSON Schema draft 2020-12.

    Args:
        passes: for each pass that a recipe may name, the schema of its options (an object's); without it any
            name and options are let through.
        targets: the targets that a recipe may name; without it any name is let through.
    """
    schema = Recipe.model_json_schema(mode="validation")
    properties = schema["properties"]
    for section in (schema, *schema["$defs"].values()):
        for name, entry in section["properties"].items():
            section["properties"][name] = _plain(entry)
        section.pop("description", None)
        section.pop("title")
    for name in ("data", "passes", "require"):  # what they stand for when left out is not written so
        properties[name].pop("default")
    properties["targets"]["default"] = ["cpu"]
    for name in ("DataSpec", "EvalSpec"):
        schema["$defs"][name]["anyOf"] = _choices(name)
    if passes is not None:
        properties["passes"]["items"] = {"anyOf": list(_steps(passes))}
    if targets is not None:
        names = {"enum": sorted(targets)}
        mapping = {**properties["targets"]["items"]["anyOf"][1], "propertyNames": names}
        properties["targets"]["items"] = {"anyOf": [names, mapping]}
    return {"$schema": DIALECT, **schema, "title": "edgec recipe"}


def _plain(entry: dict[str, Any]) -> dict[str, Any]:
    """A key that is left out is null inside, and never written as null."""
    entry = {key: value for key, value in entry.items() if key != "title"}
    choices = [choice for choice in entry.get("anyOf", ()) if choice != {"type": "null"}]
    if "anyOf" in entry and len(choices) < len(entry["anyOf"]):
        del entry["anyOf"]
        if entry.get("default", 0) is None:
            del entry["default"]
        return {**entry, **(choices[0] if len(choices) == 1 else {"anyOf": choices})}
    return entry


def _choices(name: str) -> list[dict[str, Any]]:
    keys = ("images", "arrays", "python")
    single: list[dict[str, Any]] = [
        {"required": [key], "not": {"anyOf": [{"required": [other]} for other in keys if other != key]}} for key in keys
    ]
    return [*single, {"required": ["ok", "ng"]}] if name == "EvalSpec" else single


def _steps(passes: Mapping[str, Mapping[str, Any]]) -> Sequence[dict[str, Any]]:
    names = sorted(passes)
    properties = {name: {"anyOf": [dict(passes[name]), {"type": "null"}]} for name in names}
    return [
        {"enum": names},
        {
            "type": "object",
            "properties": properties,
            "additionalProperties": False,
            "minProperties": 1,
            "maxProperties": 1,
        },
    ]
