"""What there is to choose from: passes and their options, targets and their profiles, the recipe's schema."""

from __future__ import annotations

import dataclasses
import inspect
import json
from typing import Any

from edgec.backends.registry import backend, target, target_names, usable_targets
from edgec.ir.errors import UsageError
from edgec.passes.framework.base import Pass
from edgec.passes.framework.plugins import warn
from edgec.passes.framework.registry import not_usable, pass_class, pass_names, usable_passes
from edgec.passes.framework.repeat import NAME, SCHEMA
from edgec.tools.options import unknown_pass


def first_sentence(kind: type[Any]) -> str:
    """The first paragraph of a class's docstring, on one line."""
    return " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split())


def option_rows(kind: type[Pass]) -> list[tuple[str, str, str, str]]:
    """The options of a pass: name, type, default and description."""
    schema = options_schema(kind)
    rows = []
    for item in dataclasses.fields(kind):
        entry = schema["properties"][item.name]
        rows.append((item.name, _type(entry), _default(item), entry.get("description", "")))
    return rows


def options_schema(kind: type[Pass]) -> dict[str, Any]:
    """JSON Schema of a pass's options.

    Raises:
        UsageError: the fields of a third party's pass are of no type that has a schema.
    """
    from pydantic import PydanticUserError, TypeAdapter

    try:
        schema: dict[str, Any] = TypeAdapter(kind).json_schema()
    except PydanticUserError as error:
        raise not_usable(kind.name, error) from error
    schema.setdefault("properties", {})
    schema["additionalProperties"] = False
    schema["description"] = first_sentence(kind)
    return schema


def print_passes() -> None:
    """A line a pass; of one that cannot be used, why."""
    for name in pass_names():
        try:
            kind = pass_class(name)
        except UsageError as error:
            print(f"{name:13} {'?':6} {error.what}")
            continue
        print(f"{name:13} {kind.effect:6} {first_sentence(kind)}")
        if kind.methods:
            print(f"{'':20} {', '.join(kind.methods)}")


def print_pass(name: str) -> None:
    """What one pass does, wants and takes."""
    if name not in pass_names():
        raise unknown_pass(name, "passes")
    kind = pass_class(name)
    print(f"{name} ({kind.effect})\n\n{inspect.getdoc(kind) or ''}\n")
    labelled = (("needs", kind.needs), ("gives", kind.gives), ("ends", kind.breaks), ("data", kind.uses))
    if kind.methods:
        print(f"methods: {', '.join(kind.methods)}\n")
    facts = [f"{label}: {', '.join(sorted(names))}" for label, names in labelled if names]
    if facts:
        print(*facts, "", sep="\n")
    rows = option_rows(kind)
    print("options:" if rows else "no options")
    for option, kind_of, default, description in rows:
        given = default if default == "required" else f"default {default}"
        print(f"  {option} ({kind_of}, {given})\n      {description}")


def print_targets() -> None:
    """A line a target, and what this machine lacks for it."""
    for name in target_names():
        try:
            found = target(name)
            lacking = backend(found.backend).missing()
        except UsageError as error:
            print(f"{name:18} ? {error}")
            continue
        print(f"{name:18} {found.title} (backend {found.backend})")
        for sentence in lacking:
            print(f"{'':18} here: {sentence}")


def print_target(name: str) -> None:
    """One target's profile."""
    found = target(name, "targets")
    print(f"{found.name}: {found.title}, backend {found.backend}")
    for label, value in (
        ("memory", found.memory_bytes),
        ("on-chip memory for weights", found.parameter_bytes),
    ):
        if value is not None:
            print(f"  {label}: {value:,} bytes")
    least = f", at least {found.least_channels}" if found.least_channels > 1 else ""
    print(f"  channels in multiples of {found.channel_multiple}{least}")
    if found.scheme is None:
        print("  no 8-bit arithmetic")
    else:
        scheme = found.scheme
        kind = "symmetric" if scheme.symmetric else "asymmetric"
        print(f"  activations {scheme.activations}, {kind}; bias {scheme.bias}")
        bits = "  weights of 7 bits, " if scheme.reduce_range else "  weights "
        print(f"{bits}per channel: {', '.join(sorted(scheme.per_channel)) or 'none'}")
        print(f"  one scale across: {', '.join(sorted(scheme.tied)) or 'none'}")
        fixed = (f"{op} ({scale:g}, {zero})" for op, (scale, zero) in sorted(scheme.fixed.items()))
        print(f"  fixed output scales: {', '.join(fixed) or 'none'}")
        print(f"  integer operators: {', '.join(sorted(scheme.operators))}")
    print(f"  source: {found.source}")


def print_schema() -> None:
    """The recipe's JSON Schema with every installed pass's options and every target's name."""
    print(json.dumps(schema(), indent=2))


def schema() -> dict[str, Any]:
    """The recipe's JSON Schema with every installed pass's options and every target's name.

    What an installed package brings and cannot be used is left out, with a warning.
    """
    from edgec.frontends.recipe_schema import recipe_schema

    options = {}
    for name, kind in usable_passes().items():
        try:
            options[name] = options_schema(kind)
        except UsageError as error:
            warn(error)
    found: dict[str, Any] = recipe_schema({**options, NAME: SCHEMA}, list(usable_targets()))
    return found


def _default(item: dataclasses.Field[Any]) -> str:
    if item.default is item.default_factory is dataclasses.MISSING:
        return "required"
    value = item.default_factory() if item.default_factory is not dataclasses.MISSING else item.default
    if value is None:
        return "none"
    return json.dumps(sorted(value) if isinstance(value, frozenset) else value)


_BOUNDS = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}


def _type(entry: dict[str, Any]) -> str:
    """An option's type in words, with its bounds; that it may be none goes without saying."""
    if "anyOf" in entry:
        return " or ".join(_type(choice) for choice in entry["anyOf"] if choice.get("type") != "null")
    if "enum" in entry:
        return " | ".join(str(value) for value in entry["enum"])
    if "const" in entry:
        return str(entry["const"])
    kind = str(entry.get("type", "any"))
    if kind == "array" and "items" in entry:
        return f"list of {_type(entry['items'])}"
    bounds = ", ".join(f"{sign} {entry[key]:g}" for key, sign in _BOUNDS.items() if key in entry)
    return f"{kind} {bounds}".rstrip()
