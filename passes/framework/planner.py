"""The static check of a whole recipe: names, options, order, data. Nothing of the model is read for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgec.ir.errors import UsageError, UsageErrors, did_you_mean
from edgec.ir.graph import Graph
from edgec.passes.framework.base import Pass
from edgec.passes.framework.registry import not_usable, pass_class, pass_names, usable_passes
from edgec.passes.framework.repeat import NAME, turns

# What holds for a float model as it is loaded.
INITIAL_FACTS = frozenset({"float", "trainable"})
_QUANTIZED_FACTS = frozenset({"quantized"})


@dataclass(frozen=True)
class Planned:
    """A pass of a recipe, ready to run.

    Attributes:
        step: the pass with its options.
        place: where it stands, such as ``passes[1]``.
        file: the recipe, with the line: ``compress.yaml: line 9``.
    """

    step: Pass
    place: str
    file: str = "the pipeline"

    @property
    def where(self) -> str:
        """How an error about it begins: ``compress.yaml: line 9: passes[1] 'quantize'``."""
        return f"{self.file}: {self.place} '{self.step.name}'"


@dataclass(frozen=True)
class Plan:
    """A checked recipe: what all targets share, and what runs once for each.

    Attributes:
        shared, per_target: the passes.
        entry: how many of ``shared`` come first and change what the network takes: data are for what is behind them.
    """

    shared: tuple[Planned, ...]
    per_target: tuple[Planned, ...]

    @property
    def entry(self) -> int:
        return sum(item.step.changes_inputs() for item in self.shared)

    def __iter__(self) -> Any:
        return iter((*self.shared, *self.per_target))


def facts_of(graph: Graph) -> frozenset[str]:
    """What holds of a model before any pass."""
    quantized = any(node.op in ("QuantizeLinear", "DequantizeLinear") for node in graph.nodes)
    return _QUANTIZED_FACTS if quantized else INITIAL_FACTS


def plan(
    steps: Sequence[tuple[str, Mapping[str, Any]]],
    *,
    source: str = "the pipeline",
    where: Callable[[int], str] | None = None,
    roles: Iterable[str] = (),
    facts: frozenset[str] = INITIAL_FACTS,
) -> Plan:
    """Checks a list of (pass name, options).

    Args:
        steps: in order.
        source: the recipe's name, for errors.
        where: for the index of a step, how an error begins there: ``compress.yaml: line 9: passes[1]``.
        roles: the data roles that the recipe has.
        facts: what holds at the start (:func:`facts_of`).

    Raises:
        UsageErrors: a name, an option or a value is wrong, a pass stands where it cannot, or its data are missing. All
            mistakes are in it, one line each.
    """
    mistakes: list[UsageError] = []
    order = _Order(frozenset(roles), set(facts), mistakes, _not_in_recipe)
    at = where or (lambda index: f"{source}: passes[{index}]")
    for file, place, name, options in _in_turn(steps, at, mistakes):
        try:
            step = make(name, options, f"{file}: {place} '{name}'", unknown=f"{file}: {place}")
        except UsageError as error:
            mistakes.append(error)
        else:
            order.add(Planned(step, place, file))
    return order.plan()


def plan_passes(
    steps: Sequence[Pass],
    *,
    source: str = "the pipeline",
    roles: Iterable[str] = (),
    facts: frozenset[str] = INITIAL_FACTS,
) -> Plan:
    """Checks passes that are made already; see :func:`plan`."""
    order = _Order(frozenset(roles), set(facts), [], _not_given)
    for index, step in enumerate(steps):
        order.add(Planned(step, f"passes[{index}]", source))
    return order.plan()


def _not_in_recipe(role: str) -> tuple[str, str]:
    return f"needs 'data.{role}', which the recipe does not have", f"add data.{role}"


def _not_given(role: str) -> tuple[str, str]:
    return f"needs {role} data, and there are none", f"make the pipeline with data={{'{role}': ...}}"


@dataclass
class _Order:
    """Passes one after the other, each checked against those before it; mistakes are kept."""

    roles: frozenset[str]
    held: set[str]
    mistakes: list[UsageError]
    without: Callable[[str], tuple[str, str]]
    planned: list[Planned] = field(default_factory=list)
    ended: dict[str, str] = field(default_factory=dict)

    def add(self, item: Planned) -> None:
        step, place, file = item.step, item.place, item.file
        for fact in sorted(step.needs - self.held):
            self.mistakes.append(_out_of_order(step, fact, place, self.ended, file))
            return
        role = step.missing_data(self.roles)
        if role is not None:
            self.mistakes.append(UsageError(item.where, *self.without(role)))
            return
        if step.changes_inputs() and self.planned and not self.planned[-1].step.changes_inputs():
            before = self.planned[-1].step.name
            what = f"{place} '{step.name}' changes what the network takes, and '{before}' stands before it"
            self.mistakes.append(UsageError(file, what, f"put '{step.name}' first"))
        for fact in step.breaks:
            self.held.discard(fact)
            self.ended[fact] = f"{place} '{step.name}'"
        self.held |= step.gives
        self.planned.append(item)

    def plan(self) -> Plan:
        """Raises UsageErrors with all mistakes."""
        if self.mistakes:
            once = {str(mistake): mistake for mistake in self.mistakes}  # of a pass that is repeated, the first round's
            raise UsageErrors(list(once.values()))
        cut = next((i for i, item in enumerate(self.planned) if item.step.per_target), len(self.planned))
        return Plan(tuple(self.planned[:cut]), tuple(self.planned[cut:]))


def _in_turn(
    steps: Sequence[tuple[str, Mapping[str, Any]]], at: Callable[[int], str], mistakes: list[UsageError]
) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    """Each pass with the recipe's file and line and its place; those of a ``repeat`` as often as they run.

    What is wrong with a ``repeat`` is added to ``mistakes``.
    """
    for index, (name, options) in enumerate(steps):
        file, place = at(index).rsplit(": ", 1)
        if name != NAME:
            yield file, place, name, options
            continue
        try:
            for turn in turns(options, f"{file}: {place} '{name}'"):
                yield f"{file}: {place} '{name}'", turn.place, turn.name, turn.options
        except UsageError as error:
            mistakes.append(error)


def make(name: str, options: Mapping[str, Any], where: str, *, unknown: str | None = None) -> Pass:
    """The pass of that name with these options, checked against its fields; errors begin with ``where``."""
    from pydantic import PydanticUserError, TypeAdapter, ValidationError

    if name not in pass_names():
        near = did_you_mean(name, pass_names())
        what = f"no pass named '{name}'" + near
        raise UsageError(unknown or where, what, "'edgec passes' lists them")
    try:
        kind = pass_class(name)
    except UsageError as error:
        raise UsageError(where, error.what, error.fix) from error
    fields = [item.name for item in dataclasses.fields(kind)]
    for key in options:
        if key not in fields:
            known = f"it takes {', '.join(fields)}" if fields else "it takes no options"
            near = did_you_mean(str(key), fields)
            raise UsageError(where, f"has no option '{key}'" + near, known)
    try:
        made: Pass = TypeAdapter(kind).validate_python(dict(options))
    except PydanticUserError as error:  # a third party's fields
        fault = not_usable(name, error)
        raise UsageError(where, fault.what, fault.fix) from error
    except ValidationError as error:
        first = error.errors()[0]
        option = ".".join(str(part) for part in first["loc"])
        said = first["msg"].removeprefix("Value error, ")
        said = said[:1].lower() + said[1:]
        raise UsageError(f"{where}: {option}" if option else where, said, f"'edgec passes {name}' explains") from None
    return made


def _out_of_order(step: Pass, fact: str, place: str, ended: Mapping[str, str], file: str) -> UsageError:
    if fact in ended:
        return UsageError(
            file,
            f"{place} '{step.name}' needs a '{fact}' graph, but {ended[fact]} ended that",
            f"move '{step.name}' above it",
        )
    givers = [name for name, kind in usable_passes().items() if fact in kind.gives]
    fix = f"put {' or '.join(repr(g) for g in givers)} before it" if givers else "give a model that is"
    return UsageError(file, f"{place} '{step.name}' needs a '{fact}' graph, which this is not", fix)
