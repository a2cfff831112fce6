"""What installed packages register with edgec by entry point: a name may be taken only once."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from edgec.ir.errors import UsageError


@cache
def registered(group: str, kind: str) -> dict[str, EntryPoint]:
    """The entry points of a group by name; nothing is imported to tell them.

    Args:
        group: ``edgec.passes``, say.
        kind: what one of them is called in errors: ``pass``.

    Raises:
        UsageError: two packages register different things under one name.
    """
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
        UsageError: it cannot be imported.
    """
    try:
        return entry.load()
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"{kind} '{entry.name}'", f"of {owner(entry)} cannot be imported ({error})", "install that package again"
        ) from error


def owner(entry: EntryPoint) -> str:
    """The package that registered an entry point, as errors name it."""
    return f"'{entry.dist.name}'" if entry.dist is not None else "an installed package"
