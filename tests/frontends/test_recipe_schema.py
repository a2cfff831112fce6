"""The exported JSON Schema says what the reader reads."""

from __future__ import annotations

import json
import re
from typing import Any

from edgec.frontends.recipe import Recipe
from edgec.frontends.recipe_schema import recipe_schema


def _sections(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {"": schema, **schema["$defs"]}


def test_every_section_is_closed_and_every_key_is_explained() -> None:
    schema = recipe_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert set(schema["properties"]) == set(Recipe.model_fields)
    assert set(schema["$defs"]) == {"DataSection", "DataSpec", "EvalSpec", "PreprocessSpec", "Require", "ResultsSpec"}
    for name, section in _sections(schema).items():
        assert section["additionalProperties"] is False, name
        for key, entry in section["properties"].items():
            assert entry.get("description"), f"{name}.{key}"
    assert json.loads(json.dumps(schema)) == schema


def test_no_key_may_be_written_as_null() -> None:
    def nulls(value: Any, path: str) -> list[str]:
        if isinstance(value, dict):
            found = [path] if value.get("type") == "null" or value.get("default", 0) is None else []
            return found + [hit for key, item in value.items() for hit in nulls(item, f"{path}/{key}")]
        if isinstance(value, list):
            return [hit for index, item in enumerate(value) for hit in nulls(item, f"{path}/{index}")]
        return []

    assert nulls(recipe_schema(), "") == []


def test_every_reference_is_defined() -> None:
    schema = recipe_schema()
    references = re.findall(r'"\$ref": "#/\$defs/(\w+)"', json.dumps(schema))
    assert references and set(references) <= set(schema["$defs"])


def test_the_passes_and_targets_of_an_installation_are_put_in() -> None:
    options = {"type": "object", "properties": {"params": {"type": "number"}}, "additionalProperties": False}
    schema = recipe_schema({"prune": options, "fold": {"type": "object"}}, ["cpu", "coral-dev-board"])
    names, mapping = schema["properties"]["passes"]["items"]["anyOf"]
    assert names == {"enum": ["fold", "prune"]}
    assert mapping["properties"]["prune"] == {"anyOf": [options, {"type": "null"}]}
    assert (mapping["additionalProperties"], mapping["minProperties"], mapping["maxProperties"]) == (False, 1, 1)
    names = {"enum": ["coral-dev-board", "cpu"]}
    with_options = {"type": "object", "minProperties": 1, "maxProperties": 1, "propertyNames": names}
    options = {"additionalProperties": {"type": ["object", "null"]}}
    assert schema["properties"]["targets"]["items"] == {"anyOf": [names, {**with_options, **options}]}
    assert schema["properties"]["targets"]["default"] == ["cpu"]


def test_a_data_set_is_exactly_one_of_three() -> None:
    choices = recipe_schema()["$defs"]["DataSpec"]["anyOf"]
    assert [choice["required"] for choice in choices] == [["images"], ["arrays"], ["python"]]
    assert choices[0]["not"] == {"anyOf": [{"required": ["arrays"]}, {"required": ["python"]}]}
    assert recipe_schema()["$defs"]["EvalSpec"]["anyOf"][3] == {"required": ["ok", "ng"]}
