"""Progress on stderr: bars on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Self

from edgec.ir.errors import printable


class Progress:
    """Tells the user what is being done.

    Args:
        quiet: say nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._bars: Any = None
        self._task: Any = None
        self._quiet = quiet
        self._told = 0.0
        if not quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bars

            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
            )
            self._bars = Bars(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True)

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def stage(self, what: str) -> None:
        """A new stage begins."""
        if self._bars is not None:
            if self._task is not None:
                self._bars.remove_task(self._task)
            self._task = self._bars.add_task(printable(what), total=None)
        elif not self._quiet:
            print(f"edgec: {printable(what)}", file=sys.stderr, flush=True)
        self._told = time.monotonic()

    def __call__(self, done: int, total: int, what: str = "") -> None:
        """The stage is at ``done`` of ``total``."""
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=done, total=total)
        elif not self._quiet and time.monotonic() - self._told > 10:
            self._told = time.monotonic()
            print(f"edgec:   {what or 'at'} {done} of {total}", file=sys.stderr, flush=True)
