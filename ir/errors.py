"""The errors that a user sees: one line that names the file, the place, what is wrong and the mend.

Every error edgec raises on purpose is an :class:`EdgecError`. Its class decides the exit status of the command
(the contract is in the README); anything else that escapes is a fault of edgec's own and exits with 70.
"""

from __future__ import annotations

from typing import ClassVar


class EdgecError(Exception):
    """A mistake that can be named.

    Args:
        where: the file and the place in it, such as ``compress.yaml: passes[1]`` or ``model.onnx: node 'conv1'``.
        what: what is wrong there, as a clause without a full stop.
        mend: what the user can do about it; empty where nothing can be said.
    """

    exit_status: ClassVar[int] = 70

    def __init__(self, where: str, what: str, mend: str = "") -> None:
        self.where = where
        self.what = what
        self.mend = mend
        super().__init__(str(self))

    def __str__(self) -> str:
        line = f"{self.where}: {self.what}" if self.where else self.what
        if line.endswith("?") and self.mend:
            return f"{line} {self.mend[0].upper()}{self.mend[1:]}"
        return f"{line}; {self.mend}" if self.mend else line


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


def did_you_mean(word: str, known: list[str] | tuple[str, ...]) -> str:
    """``". Did you mean 'quantize'?"``, to go behind a clause; empty when nothing known is close to ``word``."""
    import difflib

    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f". Did you mean '{near[0]}'?" if near else ""
