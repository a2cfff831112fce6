"""Tables on stdout: as wide as the terminal, and never wrapped where stdout is a file or a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# Wider than any table: what reads a pipe looks for lines, not for columns.
_UNBOUNDED = 10_000


def console() -> Console:
    """A console on stdout that prints text as it is: no markup in names, no colour for figures."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else _UNBOUNDED
    return Console(width=width, markup=False, emoji=False, highlight=False, soft_wrap=False)


def table(title: str, columns: Sequence[str], left: int = 1) -> Table:
    """An empty table; the first ``left`` columns hold text, the others figures.

    On a narrow terminal the text is folded within its column, and figures stay whole.
    """
    from rich import box
    from rich.table import Table

    look: dict[str, Any] = {"box": box.SIMPLE_HEAD, "padding": (0, 1, 0, 0), "pad_edge": False}
    made = Table(title=title, title_justify="left", title_style="bold", **look)
    for index, name in enumerate(columns):
        if index < left:
            made.add_column(name, overflow="fold", justify="left")
        else:
            made.add_column(name, no_wrap=True, justify="right")
    return made


def printable(text: str) -> str:
    """``text`` without what would steer the terminal: names in a model may hold any character."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
