"""A pipeline as text, both ways: ``fold,factorize{params=0.1, skip=[head*]}``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from typing import Any

from edgec.ir.errors import UsageError, UsageErrors
from edgec.passes.framework.base import Pass
from edgec.passes.framework.planner import make


def parse_passes(text: str, where: str = "Pipeline") -> list[Pass]:
    """The passes that a text names, checked against their options.

    Raises:
        UsageError: a bracket or a quote is open, an option has no value, or a name is empty.
        UsageErrors: there is no such pass or option; all mistakes are in it.
    """
    passes, mistakes = [], []
    for name, options in parse_pipeline(text, where):
        try:
            passes.append(make(name, options, f"{where}: '{name}'", unknown=where))
        except UsageError as error:
            mistakes.append(error)
    if mistakes:
        raise UsageErrors(mistakes)
    return passes


def text_of(passes: Iterable[Pass]) -> str:
    """Passes with those of their options that are not the default; :func:`parse_passes` reads it."""
    return ",".join(_text(step) for step in passes)


def _text(step: Pass) -> str:
    options = []
    for field in dataclasses.fields(step):
        value = getattr(step, field.name)
        default = field.default_factory() if callable(field.default_factory) else field.default
        if value != default:
            options.append(f"{field.name}={json.dumps(value, default=list)}")
    return f"{step.name}{{{','.join(options)}}}" if options else step.name


def parse_pipeline(text: str, where: str = "-p") -> list[tuple[str, dict[str, Any]]]:
    """Passes and options from ``fold,factorize{params=0.1, skip=[head*]}``; values are JSON or YAML.

    Args:
        text: the passes.
        where: how an error begins, before the text in quotes.

    Raises:
        UsageError: a bracket or a quote is open, an option has no value, or a name is empty; the line says which.
    """
    steps: list[tuple[str, dict[str, Any]]] = []
    place = f"{where} '{text}'"
    for part in _split(text, place):
        name, brace, rest = (piece.strip() for piece in part.partition("{"))
        if not name:
            raise UsageError(place, "a pass has no name", "write fold,factorize{params=0.1}")
        if brace and not rest.endswith("}"):
            raise UsageError(place, f"'{part.strip()}' goes on behind '}}'", "put a comma between passes")
        options: dict[str, Any] = {}
        for item in _split(rest[:-1], place) if brace else ():
            key, equals, value = (piece.strip() for piece in item.partition("="))
            if not key or not equals or not value:
                raise UsageError(place, f"'{item.strip()}' of '{name}' is no option", "write option=value")
            if key in options:
                raise UsageError(place, f"'{key}' of '{name}' is given twice", "give each option once")
            options[key] = _value(value, key, name, place)
        steps.append((name, options))
    return steps


def _value(value: str, key: str, name: str, place: str) -> Any:
    import yaml

    try:
        return json.loads(value)
    except ValueError:
        pass  # most of YAML is no JSON: [head*] and 'text' among it
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        raise UsageError(place, f"'{key}' of '{name}' is no value: {value}", "write it as in a recipe") from None


def _split(part: str, place: str) -> list[str]:
    """``part`` at the commas that stand in no bracket and no quotes; nothing from nothing."""
    pieces, start, quote = [], 0, ""
    closing: list[str] = []
    letters = iter(enumerate(part))
    for at, letter in letters:
        if quote:
            if letter == "\\" and quote == '"':
                next(letters, None)
            elif letter == quote:
                quote = ""
        elif letter in "\"'":
            quote = letter
        elif letter in "{[":
            closing.append("}" if letter == "{" else "]")
        elif letter in "}]":
            if not closing or closing.pop() != letter:
                raise UsageError(place, f"'{letter}' closes nothing", "write fold,factorize{params=0.1}")
        elif letter == "," and not closing:
            pieces.append(part[start:at])
            start = at + 1
    if closing or quote:
        raise UsageError(place, f"{quote or closing[-1]} is missing", "close what was opened")
    return [*pieces, part[start:]] if part.strip() else []
