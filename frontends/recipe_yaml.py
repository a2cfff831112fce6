"""The recipe's text: YAML read with the line of every key, duplicate keys refused, nothing executed.

Scalars follow the core schema of YAML 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema), not PyYAML's 1.1:
``1e-3`` is a number, ``no``, ``on`` and ``12:30`` are text, ``010`` is ten. Tags are refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from edgec.ir.errors import InputErrors, UsageError, UsageErrors

Loc = tuple[str | int, ...]
"""The way from the root of the recipe to a value: keys and list positions."""

MAX_BYTES = 1 << 20
MAX_VALUES = 50_000
MAX_DEPTH = 40

# What an escape can write, and no text can hold.
_SURROGATE = re.compile("[\ud800-\udfff]")


class RecipeError(UsageErrors):
    """All that is wrong with a recipe."""


class MissingDataError(InputErrors):
    """The files and folders that a recipe names and that are not there."""


def dotted(loc: Loc) -> str:
    """``data.preprocess.size``, ``passes[1]``."""
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


@dataclass
class Document:
    """A recipe's values with the line that each was written on.

    Attributes:
        file: the recipe's name, as messages give it.
        value: what the text says: dicts, lists, text, numbers, booleans, None.
        lines: the line, counted from 1, of each place; ``None`` where it was written in Python.
        sha256: of what was read, in hexadecimal.
        mistakes: what was wrong with the text itself and did not stop the reading: a key written twice.
    """

    file: str
    value: Any = None
    lines: dict[Loc, int | None] = field(default_factory=dict)
    sha256: str = ""
    mistakes: list[UsageError] = field(default_factory=list)

    def where(self, loc: Loc, name: str = "") -> str:
        """``compress.yaml: line 7: data.preprocess.size``, cut to the part of ``loc`` that was written.

        ``name`` is put behind the place in quotes: ``passes[1] 'quantize'``.
        """
        while loc not in self.lines and loc:
            loc = loc[:-1]
        if not loc:
            return self.file
        line = self.lines[loc]
        place = dotted(loc) + (f" '{name}'" if name else "")
        return f"{self.file}: {place}" if line is None else f"{self.file}: line {line}: {place}"


class _CoreLoader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars of YAML 1.2; only its composer is used, no constructor runs."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - the base class declares it so


_SCALARS: dict[str, tuple[str, list[str], Callable[[str], Any]]] = {
    "tag:yaml.org,2002:null": (r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""], lambda text: None),
    "tag:yaml.org,2002:bool": (
        r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF"), lambda text: text.lower() == "true",
    ),
    "tag:yaml.org,2002:int": (r"^[-+]?[0-9]+$", list("-+0123456789"), int),
    "tag:yaml.org,2002:float": (
        r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", list("-+.0123456789"), float,
    ),
    "tag:yaml.org,2002:str": (r"$^", [], str),
}  # fmt: skip
for _tag, (_pattern, _first, _) in _SCALARS.items():
    if _first:
        _CoreLoader.add_implicit_resolver(_tag, re.compile(_pattern), _first)


class _Reader:
    """Turns composed nodes into values, noting lines and duplicate keys."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.count = 0

    def value(self, node: yaml.Node, loc: Loc) -> Any:
        self.count += 1
        line = node.start_mark.line + 1
        if self.count > MAX_VALUES or len(loc) > MAX_DEPTH:
            # An alias that refers to itself, or aliases of aliases, end here.
            raise UsageError(
                f"{self.document.file}: line {line}",
                f"the recipe holds more than {MAX_VALUES} values or is nested deeper than {MAX_DEPTH}",
                "write it without aliases that repeat one another",
            )
        self.document.lines.setdefault(loc, line)
        if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return self.mapping(node, loc)
        if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return [self.value(item, (*loc, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and node.tag in _SCALARS:
            if not node.value.isascii() and _SURROGATE.search(node.value):
                self.mistake(line, loc, "holds half a character", "write the character itself, not \\ud... escapes")
            return self.scalar(node)
        raise UsageError(
            self.document.where(loc),
            f"the tag '{node.tag}' is not read in a recipe",
            "write the value without a tag",
        )

    def scalar(self, node: yaml.ScalarNode) -> Any:
        pattern, _, convert = _SCALARS[node.tag]
        # A tag written by hand ('!!int x') may not fit its text; thousands of digits are no number.
        fits = convert is str or (re.match(pattern, node.value) is not None and len(node.value) < 400)
        return convert(node.value) if fits else node.value

    def mapping(self, node: yaml.MappingNode, loc: Loc) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self.mistake(line, loc, "a key must be a word, not a list or a mapping", "write 'key: value'")
                continue
            key = key_node.value
            if key in values:
                first = self.document.lines[(*loc, key)]
                self.mistake(
                    line,
                    (*loc, key),
                    f"the key is written twice, on line {first} and here",
                    "keep one of them",
                )
                continue
            self.document.lines[(*loc, key)] = line
            values[key] = self.value(value_node, (*loc, key))
        return values

    def mistake(self, line: int, loc: Loc, what: str, fix: str) -> None:
        place = f": {dotted(loc)}" if loc else ""
        self.document.mistakes.append(UsageError(f"{self.document.file}: line {line}{place}", what, fix))


def read_document(path: Path) -> Document:
    """Reads a recipe's text.

    Raises:
        UsageError: the file cannot be read, is not UTF-8, is not YAML, or is larger than a recipe can be.
    """
    file = str(path)
    try:
        if path.is_fifo():  # opening one would wait for a writer, and the manifest reads the recipe again
            raise UsageError(file, "this is a pipe, not a recipe", "write the recipe to a file")
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UsageError(file, "there is no such recipe", "check the path after -O") from None
    except IsADirectoryError:
        raise UsageError(file, "this is a folder, not a recipe", "name the YAML file in it") from None
    except OSError as error:
        raise UsageError(
            file, f"the recipe cannot be read ({error.strerror})", "check the file and its permissions"
        ) from None
    if len(content) > MAX_BYTES:
        raise UsageError(file, "the file is larger than 1 MiB and no recipe", "name the recipe after -O, not the model")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UsageError(f"{file}: line {line}", "the recipe is not UTF-8 text", "save it as UTF-8") from None
    document = parse_document(text, file)
    document.sha256 = hashlib.sha256(content).hexdigest()
    return document


def document_of(value: object, file: str) -> Document:
    """A recipe that was written in Python: dictionaries, lists, text, numbers, and paths.

    Raises:
        UsageError: it holds something that no recipe holds, or is nested too deep.
    """
    document = Document(file)
    document.value = _plain(value, (), document)
    text = json.dumps(document.value, sort_keys=True, default=lambda held: getattr(held, "name", type(held).__name__))
    document.sha256 = hashlib.sha256(text.encode()).hexdigest()
    return document


def _plain(value: object, loc: Loc, document: Document) -> Any:
    if len(loc) > MAX_DEPTH or len(document.lines) > MAX_VALUES:
        raise UsageError(document.file, f"holds more than {MAX_VALUES} values or is nested deeper than {MAX_DEPTH}")
    document.lines[loc] = None
    if isinstance(value, Mapping):
        return {str(key): _plain(held, (*loc, str(key)), document) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(held, (*loc, index), document) for index, held in enumerate(value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return value.item()  # a number of numpy's
    return value


def parse_document(text: str, file: str) -> Document:
    """Reads YAML text; ``file`` is its name in messages. Raises UsageError where it is not YAML."""
    document = Document(file)
    try:
        loader = _CoreLoader(text)
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        problem = error.problem or error.context or "cannot be parsed"
        raise UsageError(
            f"{file}: line {line}",
            f"not YAML ({problem})",
            f"look at the indentation and brackets before column {column}",
        ) from None
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise UsageError(
            f"{file}: line {line}", "the recipe holds a control character", "save it as plain UTF-8 text"
        ) from None
    except RecursionError:
        raise UsageError(file, f"the recipe is nested deeper than {MAX_DEPTH}", "write it flatter") from None
    if node is not None:
        document.value = _Reader(document).value(node, ())
    return document
