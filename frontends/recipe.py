"""The recipe, compress.yaml: read and checked whole before a weight is read.

What is checked here is the recipe's own: its shape, its values, the data that it names. The names, options
and order of passes are checked by whoever holds the passes, with :meth:`Recipe.where` and :attr:`Step.where`
to say where the mistake stands.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainValidator, PrivateAttr, ValidationError, WithJsonSchema

from edgec.frontends.recipe_data import HIGHER_IS_BETTER, DataSection, DataSpec
from edgec.frontends.recipe_results import ResultsSpec
from edgec.frontends.recipe_targets import TARGETS_SCHEMA, TargetEntry, read_targets
from edgec.frontends.recipe_values import (
    Fault,
    HeldSamples,
    Number,
    Section,
    Text,
    between,
    fault,
    read_seed,
    shown,
)
from edgec.frontends.recipe_yaml import (
    Document,
    Loc,
    MissingDataError,
    RecipeError,
    document_of,
    parse_document,
    read_document,
)
from edgec.ir.errors import InputError, UsageError

__all__ = [
    "MissingDataError",
    "Recipe",
    "RecipeError",
    "Require",
    "Step",
    "check_data",
    "load_recipe",
    "parse_recipe",
    "recipe_of",
]


@dataclass(frozen=True)
class Step:
    """One entry of ``passes``.

    Attributes:
        name: the pass, as it was written.
        options: its options, as they were written.
        place: ``passes[1] 'quantize'``.
        where: the same with the file and the line, as an error begins.
        places: the same for each option: ``compress.yaml: line 9: passes[1] 'prune': macs``.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    place: str = ""
    where: str = ""
    places: dict[str, str] = field(default_factory=dict)


def _read_step(value: object) -> Step:
    shape = "a pass is a name, or a name with its options: prune: {macs: 0.7}"
    if isinstance(value, Step):
        return value
    if isinstance(value, str) and value.strip():
        return Step(value)
    if not isinstance(value, Mapping):
        raise fault(f"must be a pass, not {shown(value)}", shape)
    if len(value) != 1:
        what = "is empty" if not value else f"holds {len(value)} keys ({', '.join(value)})"
        raise fault(what, f"{shape}; indent the options below the name" if value else shape)
    name, options = next(iter(value.items()))
    if options is None:
        return Step(name)
    if not isinstance(options, Mapping):
        raise fault(f"the options of '{name}' must be a mapping, not {shown(options)}", shape)
    return Step(name, dict(options))


def _read_steps(value: object) -> object:
    if not isinstance(value, list | tuple):
        fix = f"write [{value}]" if isinstance(value, str) else "begin each pass with '- '"
        raise fault(f"must be a list of passes, not {shown(value)}", fix)
    if not value:
        raise fault("the list is empty", "name at least one pass, or leave the key out")
    return value


_SHARE_SCHEMA = {"anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "string"}]}
Share = Annotated[float, between(0, 1, "write the share that goes away, 0.99 for 99 %"), WithJsonSchema(_SHARE_SCHEMA)]
Drop = Annotated[
    float,
    between(0, math.inf, "write how much worse the metric may become"),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"type": "string"}]}),
]


Confidence = Annotated[
    float,
    between(0.5, 0.9999, "write a probability such as 0.95"),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0.5, "maximum": 0.9999}, {"type": "string"}]}),
]


class Require(Section):
    """What the compressed network must reach; a requirement that is not met makes the exit status 1."""

    params_removed: Share | None = Field(default=None, description="the share of the parameters that is gone")
    macs_removed: Share | None = Field(default=None, description="the share of the multiply-accumulates that is gone")
    weight_bytes_removed: Share | None = Field(default=None, description="the share of the weights' bytes that is gone")
    metric_drop: Drop | None = Field(
        default=None, description="how much worse data.eval's metric may be than the original's"
    )
    metric_min: Number | None = Field(default=None, description="the least value of data.eval's metric")
    metric_max: Number | None = Field(
        default=None, description="the greatest value of a metric that is better when lower"
    )
    sqnr_min: Number | None = Field(default=None, description="the least SQNR to the original network, in dB")
    confidence: Confidence | None = Field(
        default=None,
        description="the probability with which what is measured must be within its limit (0.95, say): enough samples"
        " are needed for it",
    )

    def asked(self) -> dict[str, float]:
        """The requirements that were written, by name, in the order of the recipe's schema."""
        written = self.model_dump(exclude={"confidence"})
        return {name: value for name, value in written.items() if value is not None}


_STEP_SCHEMA = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {
            "type": "object",
            "minProperties": 1,
            "maxProperties": 1,
            "additionalProperties": {"type": ["object", "null"]},
        },
    ]
}


class Recipe(Section):
    """A recipe whose own mistakes are all found."""

    name: Text | None = Field(default=None, description="a name for the report")
    seed: Annotated[
        int,
        BeforeValidator(read_seed),
        WithJsonSchema({"type": "integer", "minimum": 0, "maximum": (1 << 32) - 1}),
    ] = Field(default=0, description="the seed of everything that is drawn by chance")
    data: DataSection = Field(default=DataSection(), description="the data that passes and the judgement draw on")
    passes: Annotated[
        tuple[Annotated[Step, PlainValidator(_read_step), WithJsonSchema(_STEP_SCHEMA)], ...],
        BeforeValidator(_read_steps),
        WithJsonSchema({"type": "array", "items": _STEP_SCHEMA, "minItems": 1}),
    ] = Field(default=(), description="the passes, in the order they run")
    targets: Annotated[
        tuple[TargetEntry, ...],
        PlainValidator(read_targets),
        WithJsonSchema(TARGETS_SCHEMA),
    ] = Field(default=(TargetEntry("cpu"),), description="the devices to emit for, with options of their backends")
    results: ResultsSpec = Field(
        default_factory=ResultsSpec, description="what the outputs mean, for the programs that show them"
    )
    require: Require = Field(default=Require(), description="what the compressed network must reach")
    _document: Document = PrivateAttr(Document("recipe"))
    _folder: Path = PrivateAttr(Path())

    @classmethod
    def not_a_mapping(cls, value: object) -> Fault:
        if value is None:
            return (), "the recipe is empty", "write at least 'passes:' and a list of passes"
        return (), f"a recipe is a mapping, not {shown(value)}", f"the keys are {cls.keys()}"

    def faults_of_values(self) -> Iterator[Fault]:
        asked = [key for key in ("metric_drop", "metric_min", "metric_max") if getattr(self.require, key) is not None]
        spec = self.data.eval
        for key in asked:
            loc: Loc = ("require", key)
            if spec is None:
                yield loc, "needs a metric, and the recipe has no data.eval", "add data.eval with a metric"
            elif spec.metric == "sqnr" and key == "metric_drop":
                yield loc, "says nothing of 'sqnr', which is infinite before", "write sqnr_min in dB"
            elif key == "metric_min" and HIGHER_IS_BETTER.get(spec.metric) is False:
                yield loc, f"'{spec.metric}' is better when lower", "write metric_max"
            elif key == "metric_max" and HIGHER_IS_BETTER.get(spec.metric) is True:
                yield loc, f"'{spec.metric}' is better when higher", "write metric_min"
            elif spec.metric in ("auroc", "top1") and not 0 <= getattr(self.require, key) <= 1:
                yield loc, f"'{spec.metric}' lies between 0 and 1", "write 0.95 for 95 %"

    @property
    def file(self) -> str:
        """The recipe's name, as messages give it."""
        return self._document.file

    @property
    def sha256(self) -> str:
        """Of what was read, in hexadecimal."""
        return self._document.sha256

    @property
    def folder(self) -> Path:
        """The folder that the recipe's paths are relative to."""
        return self._folder

    def where(self, *loc: str | int) -> str:
        """How an error begins: ``where("targets", 1)`` is ``compress.yaml: line 9: targets[1]``."""
        return self._document.where(loc)

    def check_data(self) -> None:
        """See :func:`check_data`."""
        check_data(self)


def load_recipe(path: str | Path, *, data: bool = True) -> Recipe:
    """Reads a recipe and finds every mistake that can be found without the model.

    Args:
        path: the YAML file; its folder is what its paths are relative to.
        data: also look whether the files and folders that it names are there (:func:`check_data`).

    Raises:
        RecipeError: the recipe is wrong; one line for each mistake.
        UsageError: the file cannot be read or is not YAML.
        MissingDataError: the recipe is fine, and data that it names is not there.
    """
    path = Path(path)
    recipe = _recipe(read_document(path), path.parent)
    if data:
        check_data(recipe)
    return recipe


def parse_recipe(text: str, file: str = "recipe", folder: str | Path = ".") -> Recipe:
    """Reads a recipe's text; ``file`` is its name in messages, ``folder`` what its paths are relative to."""
    return _recipe(parse_document(text, file), Path(folder))


def recipe_of(value: Mapping[str, Any], folder: str | Path = ".") -> Recipe:
    """A recipe from a dictionary, as a YAML file has it.

    Args:
        value: the recipe; a data set may be an ``edgec.Dataset`` in the place of a mapping.
        folder: what its paths are relative to.

    Raises:
        RecipeError: the recipe is wrong; one line for each mistake.
    """
    data = value.get("data")
    if isinstance(data, Mapping):
        sets = {role: {"python": held} if isinstance(held, HeldSamples) else held for role, held in data.items()}
        value = {**value, "data": sets}
    return _recipe(document_of(value, "recipe"), Path(folder))


def parse_data(value: Mapping[str, object], where: str) -> DataSpec:
    """A data set that stands in no recipe; ``where`` begins its errors, and paths are relative to the current folder.

    Raises:
        RecipeError: it is none; one line for each mistake.
    """
    try:
        spec = DataSpec.model_validate(value, context={"folder": Path()})
    except ValidationError as error:
        found = [detail.get("ctx", {"what": detail["msg"]}) for detail in error.errors()]
        raise RecipeError([UsageError(where, each["what"], each.get("fix", "")) for each in found]) from None
    spec.located(where, Path())
    return spec


def _recipe(document: Document, folder: Path) -> Recipe:
    mistakes = list(document.mistakes)
    try:
        recipe = Recipe.model_validate(document.value, context={"folder": folder})
    except ValidationError as error:
        for detail in error.errors():
            context = detail.get("ctx", {})
            where = document.where(tuple(detail["loc"]))
            mistakes.append(UsageError(where, context.get("what", detail["msg"]), context.get("fix", "")))
        raise RecipeError(_in_order(mistakes)) from None
    if mistakes:
        raise RecipeError(_in_order(mistakes))
    steps = tuple(_located(step, index, document) for index, step in enumerate(recipe.passes))
    recipe = recipe.model_copy(update={"passes": steps})
    recipe._document, recipe._folder = document, folder
    for loc, spec in recipe.data.sets():
        spec.located(document.where(("data", *loc)), folder)
    if recipe.data.eval is not None:
        recipe.data.eval.located(document.where(("data", "eval")), folder)
    return recipe


def _in_order(mistakes: list[UsageError]) -> list[UsageError]:
    """As they stand in the file."""

    def line(mistake: UsageError) -> int:
        words = mistake.where.split(": line ")
        return int(words[1].split(":")[0]) if len(words) > 1 else 0

    return sorted(mistakes, key=line)


def _located(step: Step, index: int, document: Document) -> Step:
    loc: Loc = ("passes", index)
    where = document.where(loc, step.name)
    place = f"passes[{index}] '{step.name}'"
    places = {}
    for option in step.options:
        line = document.lines.get((*loc, step.name, option), document.lines[loc])
        file = document.file if line is None else f"{document.file}: line {line}"
        places[option] = f"{file}: {place}: {option}"
    return replace(step, place=place, where=where, places=places)


def check_data(recipe: Recipe) -> None:
    """Looks whether the files and folders that a recipe names are there, without reading one.

    Raises:
        MissingDataError: one line for each that is missing, is of the wrong kind, or holds no image.
    """
    mistakes = []
    for loc, spec in recipe.data.sets():
        for inner, what, fix in spec.missing():
            mistakes.append(InputError(recipe.where("data", *loc, *inner), what, fix))
    for inner, what, fix in recipe.results.missing():
        mistakes.append(InputError(recipe.where("results", *inner), what, fix))
    if mistakes:
        raise MissingDataError(mistakes)
