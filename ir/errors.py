"""The errors that a user sees: one line that names the file, the place, what is wrong and the fix.

Every error edgec raises on purpose is an :class:`EdgecError`. Its class decides the exit status of the command
(the contract is in the README); anything else that escapes is a fault of edgec's own and exits with 70.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class EdgecError(Exception):
    """A mistake that can be named.

    Args:
        where: the file and the place in it, such as ``compress.yaml: passes[1]`` or ``model.onnx: node 'conv1'``.
        what: what is wrong there, as a clause without a full stop.
        fix: what the user can do about it; empty where nothing can be said.
    """

    exit_status: ClassVar[int] = 70

    def __init__(self, where: str, what: str, fix: str = "") -> None:
        self.where = where
        self.what = what
        self.fix = fix
        super().__init__(str(self))

    def __str__(self) -> str:
        return error_line(self.where, self.what, self.fix)


class UsageError(EdgecError):
    """The command line or the recipe is wrong (exit status 2)."""

    exit_status = 2


class InputError(EdgecError):
    """The model or the data cannot be used (exit status 3)."""

    exit_status = 3


class EmitError(EdgecError):
    """A backend cannot emit this graph (exit status 4)."""

    exit_status = 4


class InternalError(EdgecError):
    """A pass or edgec itself broke a promise; a reproducer is left behind (exit status 70)."""

    exit_status = 70


class _Several(EdgecError):
    """More than one mistake: a line for each, so that all can be fixed before the next run."""

    def __init__(self, mistakes: Sequence[EdgecError]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__(mistakes[0].where, mistakes[0].what, mistakes[0].fix)

    def __str__(self) -> str:
        return "\n".join(map(str, self.mistakes))


class UsageErrors(_Several, UsageError):
    """All that is wrong with the command line or the recipe (exit status 2)."""


class InputErrors(_Several, InputError):
    """All that is wrong with the model or the data (exit status 3)."""


class EmitErrors(_Several, EmitError):
    """Why no target can be emitted (exit status 4)."""


class InternalErrors(_Several, InternalError):
    """Why no target could be emitted, where a promise was broken for one at least (exit status 70)."""


def error_line(where: str, what: str, fix: str = "") -> str:
    """``file: place: what is wrong; the fix`` on one line, whatever characters the names in it hold."""
    line = f"{where}: {what}" if where else what
    if line.endswith("?") and fix:
        line = f"{line} {fix[0].upper()}{fix[1:]}"
    elif fix:
        line = f"{line}; {fix}"
    return printable(line)


def printable(text: str) -> str:
    """``text`` without what would break a line or steer the terminal: names in a model may hold any character."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def did_you_mean(word: str, known: list[str] | tuple[str, ...]) -> str:
    """``". Did you mean 'quantize'?"``, to go behind a clause; empty when nothing known is close to ``word``."""
    import difflib

    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f". Did you mean '{near[0]}'?" if near else ""
