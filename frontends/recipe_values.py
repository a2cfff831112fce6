"""The recipe's vocabulary: how one value is checked, and what a section says of keys it does not know.

pydantic carries the models; the words of the errors are edgec's own, so that each names its fix.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Protocol, Self, runtime_checkable

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from edgec.frontends.python_functions import FUNCTION
from edgec.frontends.recipe_yaml import Loc
from edgec.ir.errors import did_you_mean

Fault = tuple[Loc, str, str]
"""A place inside a section, what is wrong there, and the fix."""

_FRACTION = re.compile(r"([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)\s*(?:/\s*([0-9.]+(?:[eE][-+]?[0-9]+)?))?")
FRACTION_PATTERN = r"^[-+]?[0-9.]+([eE][-+]?[0-9]+)?\s*(/\s*[0-9.]+([eE][-+]?[0-9]+)?)?$"


def shown(value: object) -> str:
    """A value as a message quotes it, cut where it is long."""
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = f"'{value}'" if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def fault(what: str, fix: str = "") -> PydanticCustomError:
    """The error, to be raised by a validator, that the recipe's reader turns into one line."""
    return PydanticCustomError("edgec", "{what}; {fix}", {"what": what, "fix": fix})


def read_number(value: object) -> float:
    """A finite number, or text such as ``1/255``."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if math.isfinite(value):
            return float(value)
    elif isinstance(value, str) and (match := _FRACTION.fullmatch(value.strip())):
        try:
            number = float(match[1]) / float(match[2] or 1)
        except (ValueError, ZeroDivisionError):
            number = math.nan
        if math.isfinite(number):
            return number
    raise fault(f"must be a number or a fraction such as 1/255, not {shown(value)}")


def read_numbers(value: object) -> tuple[float, ...]:
    """One number, or a list of numbers, one for each channel."""
    if not isinstance(value, list | tuple):
        return (read_number(value),)
    if not value:
        raise fault("the list is empty", "write one number, or one for each channel")
    return tuple(map(read_number, value))


def read_count(value: object) -> int:
    """A whole number of at least 1."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise fault(f"must be a whole number of at least 1, not {shown(value)}")


def read_seed(value: object) -> int:
    """A whole number that every generator of random numbers takes: 0 to 2**32 - 1."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 32:
        return value
    raise fault(f"must be a whole number from 0 to {(1 << 32) - 1}, not {shown(value)}")


def read_text(value: object) -> str:
    """Text that is not empty."""
    if isinstance(value, str) and value.strip():
        return value
    raise fault(f"must be text, not {shown(value)}")


def read_path(value: object, info: ValidationInfo) -> Path:
    """A path, relative to the recipe's folder."""
    if isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value or "\0" in value:
        raise fault(f"must be a path, not {shown(value)}")
    return Path((info.context or {}).get("folder", Path()), value)


def read_paths(value: object, info: ValidationInfo) -> tuple[Path, ...]:
    """One path or a list of paths, each once."""
    items = list(value) if isinstance(value, list | tuple) else [value]
    if not items:
        raise fault("the list is empty", "name at least one folder")
    paths = tuple(read_path(item, info) for item in items)
    for index, path in enumerate(paths):
        if path in paths[:index]:
            raise fault(f"'{items[index]}' is named twice", "name each folder once")
    return paths


def read_function(value: object) -> str:
    """``module:function``."""
    if isinstance(value, str) and FUNCTION.fullmatch(value):
        return value
    raise fault(f"must be module:function, not {shown(value)}", "name a module beside the recipe and a function in it")


@runtime_checkable
class HeldSamples(Protocol):
    """Samples that are in memory: what a recipe that was made in Python may name."""

    def bound(self, inputs: Any) -> Any:
        """The data set for a model with these inputs."""
        ...


def read_samples(value: object) -> object:
    """``module:function``, or samples in memory."""
    return value if isinstance(value, HeldSamples) else read_function(value)


def read_names(value: object, what: str) -> tuple[str, ...]:
    """A list of names, each once; ``what`` says of what."""
    if not isinstance(value, list | tuple):
        fix = f"write [{value}]" if isinstance(value, str) else ""
        raise fault(f"must be a list of {what}s, not {shown(value)}", fix)
    if not value:
        raise fault("the list is empty", f"name at least one {what}, or leave the key out")
    names = tuple(map(read_text, value))
    for index, name in enumerate(names):
        if name in names[:index]:
            raise fault(f"'{name}' is named twice", f"name each {what} once")
    return names


def read_choice(value: object, choices: tuple[str, ...]) -> str:
    """A word out of ``choices``."""
    if isinstance(value, str) and value in choices:
        return value
    near = did_you_mean(value, choices) if isinstance(value, str) else ""
    raise fault(f"must be one of {', '.join(choices)}, not {shown(value)}" + near)


def one_of(*choices: str) -> BeforeValidator:
    """A validator for a word out of ``choices``."""
    return BeforeValidator(lambda value: read_choice(value, choices))


_NUMBER_SCHEMA = {"anyOf": [{"type": "number"}, {"type": "string", "pattern": FRACTION_PATTERN}]}
_PATH_SCHEMA = {"type": "string", "minLength": 1}

Number = Annotated[float, BeforeValidator(read_number), WithJsonSchema(_NUMBER_SCHEMA)]
Numbers = Annotated[
    tuple[float, ...],
    BeforeValidator(read_numbers),
    WithJsonSchema({"anyOf": [*_NUMBER_SCHEMA["anyOf"], {"type": "array", "items": _NUMBER_SCHEMA, "minItems": 1}]}),
]
Count = Annotated[int, BeforeValidator(read_count), WithJsonSchema({"type": "integer", "minimum": 1})]
Text = Annotated[str, BeforeValidator(read_text), WithJsonSchema({"type": "string", "minLength": 1})]
FilePath = Annotated[Path, BeforeValidator(read_path), WithJsonSchema(_PATH_SCHEMA)]
FolderPaths = Annotated[
    tuple[Path, ...],
    BeforeValidator(read_paths),
    WithJsonSchema(
        {
            "anyOf": [
                _PATH_SCHEMA,
                {"type": "array", "items": _PATH_SCHEMA, "minItems": 1, "uniqueItems": True},
            ]
        }
    ),
]
Function = Annotated[
    Any,
    BeforeValidator(read_samples),
    WithJsonSchema({"type": "string", "pattern": r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"}),
]


def between(low: float, high: float, fix: str) -> BeforeValidator:
    """A validator of numbers from ``low`` to ``high``."""

    def read(value: object) -> float:
        number = read_number(value)
        if not low <= number <= high:
            limits = f"between {low:g} and {high:g}" if high < math.inf else f"at least {low:g}"
            raise fault(f"must be {limits}, not {shown(value)}", fix)
        return number

    return BeforeValidator(read)


Fraction = Annotated[
    float,
    between(0, 1, "write a number such as 0.25"),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "string"}]}),
]


class Section(BaseModel):
    """A mapping of the recipe. All that is wrong inside it is gathered: its own faults and its values'."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @classmethod
    def not_a_mapping(cls, value: object) -> Fault:
        """What to say where something else than a mapping stands."""
        if value is None:
            return (), "is empty", f"write at least one of {cls.keys()}, or leave the key out"
        return (), f"must be a mapping, not {shown(value)}", f"the keys here are {cls.keys()}"

    @classmethod
    def faults_of_keys(cls, raw: Mapping[str, Any]) -> Iterable[Fault]:
        """What is wrong with the choice of keys, before their values are looked at."""
        return ()

    def faults_of_values(self) -> Iterable[Fault]:
        """What is wrong between values that are each fine."""
        return ()

    @classmethod
    def keys(cls) -> str:
        return ", ".join(cls.model_fields)

    @model_validator(mode="wrap")
    @classmethod
    def _gather(cls, value: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping):
            raise _gathered(cls, [cls.not_a_mapping(value)], [], value)
        known = {key: item for key, item in value.items() if key in cls.model_fields}
        faults: list[Fault] = list(cls.faults_of_keys(known))
        for key in value:
            if key not in cls.model_fields:
                near = did_you_mean(str(key), list(cls.model_fields))
                fix = f"the keys here are {cls.keys()}" + near
                faults.append(((str(key),), "unknown key", fix))
            elif value[key] is None and info.context is not None:
                del known[key]
                faults.append(((key,), "is empty", "give it a value, or leave the key out"))
        try:
            section = handler(known)
        except ValidationError as error:
            raise _gathered(cls, faults, _details(error, value), value) from None
        faults += section.faults_of_values()
        if faults:
            raise _gathered(cls, faults, [], value)
        return section


def _details(error: ValidationError, value: Mapping[str, Any]) -> list[InitErrorDetails]:
    details = []
    for detail in error.errors():
        context, loc = detail.get("ctx", {}), detail["loc"]
        if detail["type"] == "missing":
            if loc[-1] in value:  # written, empty, and said so already
                continue
            loc, context = loc[:-1], {"what": f"the key '{loc[-1]}' is missing", "fix": "add it"}
        custom = fault(context.get("what", detail["msg"]), context.get("fix", ""))
        details.append(InitErrorDetails(type=custom, loc=loc, input=None))
    return details


def _gathered(
    cls: type[Section], faults: Iterable[Fault], details: list[InitErrorDetails], value: object
) -> ValidationError:
    own = [InitErrorDetails(type=fault(what, fix), loc=loc, input=None) for loc, what, fix in faults]
    return ValidationError.from_exception_data(cls.__name__, [*own, *details])
