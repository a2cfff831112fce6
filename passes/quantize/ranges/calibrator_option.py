"""The type of the option ``calibrator``: the name of one that there is, whoever brings it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from edgec.ir.errors import did_you_mean
from edgec.passes.quantize.ranges.calibrators import calibrator_names

AUTO = "auto"


class _Known:
    """Checks a name when a recipe is read, and lists the names in its schema."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(_checked, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"enum": [AUTO, *calibrator_names()], "type": "string"}


def _checked(name: str) -> str:
    known = [AUTO, *calibrator_names()]
    if name not in known:
        near = did_you_mean(name, known)
        raise ValueError(f"no calibrator named '{name}'" + (near or f"; there are {', '.join(known)}"))
    return name


CalibratorName = Annotated[str, _Known()]
