"""What installed packages register with edgec by entry point: a name may be taken only once.

A package that cannot be imported is no reason to stop what does not need it: :func:`warn` names it, once.
"""

from __future__ import annotations

import warnings
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from edgec.ir.errors import EdgecError, UsageError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint
    from importlib.resources.abc import Traversable


class LeftOut(UserWarning):
    """Something that an installed package brings cannot be used, and edgec goes on without it."""


@cache
def registered(group: str, kind: str) -> dict[str, EntryPoint]:
    """The entry points of a group by name; nothing is imported to tell them.

    Args:
        group: ``edgec.passes``, say.
        kind: what one of them is called in errors: ``pass``.

    Raises:
        UsageError: two packages register different things under one name.
    """
    from importlib.metadata import entry_points  # 10 ms, which commands that ask for no plug-in need not wait

    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=group):
        known = found.get(entry.name)
        if known is not None and known.value != entry.value:
            raise UsageError(
                f"{kind} '{entry.name}'",
                f"is registered twice, by {owner(known)} ({known.value}) and {owner(entry)} ({entry.value})",
                "uninstall one of them",
            )
        found[entry.name] = entry
    return found


def imported(entry: EntryPoint, kind: str) -> Any:
    """What an entry point names.

    Raises:
        UsageError: it cannot be imported, for whatever its package does while it is.
    """
    try:
        return entry.load()
    except (Exception, SystemExit) as error:
        raise _not_imported(entry, kind, error) from error


def folder_of(entry: EntryPoint, kind: str) -> Traversable | None:
    """The folder of the package that an entry point's module is in; ``None`` where it is a single file.

    Raises:
        UsageError: the package cannot be imported.
    """
    from importlib.resources import files

    package = entry.module.split(".")[0]
    try:
        return files(package) if hasattr(import_module(package), "__path__") else None
    except (Exception, SystemExit) as error:
        raise _not_imported(entry, kind, error) from error


def _not_imported(entry: EntryPoint, kind: str, error: BaseException) -> UsageError:
    what = f"of {owner(entry)} cannot be imported ({reason(error)})"
    return UsageError(f"{kind} '{entry.name}'", what, "install that package again")


def reason(error: BaseException) -> str:
    """Why something could not be imported, on one line."""
    text = next(iter(str(error).splitlines()), "")
    if isinstance(error, ImportError | AttributeError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def warn(error: EdgecError) -> None:
    """Says that what an error is about is left out; the commands show it as a line on stderr, once."""
    warnings.warn(f"{error}; it is left out", LeftOut, stacklevel=2)


def owner(entry: EntryPoint) -> str:
    """The package that registered an entry point, as errors name it."""
    return f"'{entry.dist.name}'" if entry.dist is not None else "an installed package"
