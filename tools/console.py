"""Tables on stdout: as wide as the terminal, and never wrapped where stdout is a file or a pipe."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence

_GAP = "  "
_NARROWEST = 8


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> None:
    """Prints a table whose first ``left`` columns hold text, the others figures.

    On a narrow terminal the text is folded within its column, and figures stay whole.
    """
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    if sys.stdout.isatty():
        _shrink(widths, left, shutil.get_terminal_size().columns)
    lines = [title, ""]
    for row in (columns, ["-" * width for width in widths], *rows):
        parts = [[cell[i : i + w] for i in range(0, len(cell), w)] for cell, w in zip(row, widths, strict=True)]
        for index in range(max(1, *map(len, parts))):
            cells = [part[index] if index < len(part) else "" for part in parts]
            aligned = [
                cell.ljust(width) if place < left else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
            ]
            lines.append(_GAP.join(aligned).rstrip())
    print(*lines, "", sep="\n")


def _shrink(widths: list[int], left: int, room: int) -> None:
    """Takes from the widest column of text until the table fits, or no text can be narrower."""
    while sum(widths) + len(_GAP) * (len(widths) - 1) > room:
        widest = max(range(left), key=lambda column: widths[column])
        if widths[widest] <= _NARROWEST:
            return
        widths[widest] -= 1
