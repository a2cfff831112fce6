"""Target files: how one is read, and what is wrong with one that a package brings.

A target is a YAML file; its keys are the fields of :class:`~edgec.passes.framework.target.Target` and, under
``scheme``, of :class:`~edgec.passes.framework.target.Scheme`, whose types and defaults are the only ones. What only a
backend reads stands under ``options``, and is checked by the backend with :func:`validated`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from typing import Any, TypeVar

import yaml

from edgec.ir.errors import UsageError, did_you_mean
from edgec.passes.framework.target import Target

T = TypeVar("T")

_LIKE = "like"
# What pydantic calls YAML's lists and mappings.
_PLAIN = {"frozenset": "list", "dictionary or an instance of Scheme": "mapping", "dictionary": "mapping"}


@dataclass(frozen=True)
class ProfileFile:
    """A target's file.

    Attributes:
        package: the package that brings it.
        where: how errors about it begin.
        text: of the file; ``None`` where it cannot be read.
    """

    package: str
    where: str
    text: str | None

    @classmethod
    def read(cls, package: str, file: Traversable) -> ProfileFile:
        """Reads a file; one that is no text is an error only where somebody wants its target."""
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            text = None
        return cls(package, f"package '{package}': targets/{file.name}", text)

    def keys(self) -> dict[str, Any]:
        """What stands in it.

        Raises:
            UsageError: it is no YAML, or no mapping.
        """
        if self.text is None:
            raise UsageError(self.where, "cannot be read as text", "save it in UTF-8")
        try:
            document = yaml.safe_load(self.text)
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            mark = getattr(error, "problem_mark", None)
            place = "" if mark is None else f" (line {mark.line + 1})"
            raise UsageError(self.where, f"is no YAML{place}", "correct it, or update that package") from None
        if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
            raise UsageError(self.where, "is no mapping of keys to values", "write 'title: ...' and 'backend: ...'")
        return document


def target_of(name: str, files: Mapping[str, ProfileFile]) -> Target:
    """The target of a name that is in ``files``.

    Raises:
        UsageError: its file has a wrong key or a value of a wrong type; the line names the file and the key.
    """
    file = files[name]
    keys = file.keys()
    scheme = keys.get("scheme")
    if isinstance(scheme, Mapping) and _LIKE in scheme:  # that of another target, but for what stands here
        other = scheme[_LIKE]
        if not isinstance(other, str) or other not in files:
            near = did_you_mean(str(other), sorted(files))
            raise UsageError(f"{file.where}: scheme: like", f"no target named '{other}'{near}", "name a target")
        base = files[other].keys().get("scheme")
        if not isinstance(base, Mapping) or _LIKE in base:
            what = f"target '{other}' has no scheme of its own"
            raise UsageError(f"{file.where}: scheme: like", what, "name one that has")
        keys["scheme"] = {**base, **{key: value for key, value in scheme.items() if key != _LIKE}}
    if "name" in keys:
        raise UsageError(f"{file.where}: name", "a target is named for its file", "take the key out")
    return validated(Target, {"name": name, **keys}, file.where)


def validated(kind: type[T], values: object, where: str) -> T:
    """A dataclass from what stands in a file, held to the types of its fields.

    Raises:
        UsageError: a key is unknown or missing, or a value is of a wrong type; the line begins with ``where``.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    path = [str(part) for part in first["loc"] if not isinstance(part, str) or not part.startswith("function-")]
    place = ": ".join([where, *path])
    if first["type"] == "unexpected_keyword_argument":
        owner = _owner(kind, path[:-1])
        known = [field.name for field in dataclasses.fields(owner) if field.name != "name"] if owner else []
        raise UsageError(
            place, f"is no key of a target{did_you_mean(path[-1], known)}", f"known are {', '.join(known)}"
        )
    if first["type"] in ("missing", "missing_argument"):
        raise UsageError(place, "is missing", "write it; docs/writing-a-pass.md lists the keys of a target")
    said = first["msg"].removeprefix("Value error, ")
    for word, plain in _PLAIN.items():
        said = said.replace(word, plain)
    got = f"{first['input']!r:.60}"
    raise UsageError(place, f"{said[:1].lower()}{said[1:]}, not {got}", "correct the value, or update that package")


def _owner(kind: type[Any], path: list[str]) -> type[Any] | None:
    """The dataclass that the keys below ``path`` are fields of."""
    import typing

    for part in path:
        hint = typing.get_type_hints(kind).get(part) if dataclasses.is_dataclass(kind) else None
        choices = [choice for choice in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(choice)]
        if not choices:
            return None
        kind = typing.cast("type[Any]", choices[0])
    return kind
