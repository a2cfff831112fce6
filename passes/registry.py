"""Which passes there are: edgec's own and those that installed packages bring, all by entry point."""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points

from edgec.ir.errors import UsageError
from edgec.passes.protocol import Pass

GROUP = "edgec.passes"


@lru_cache(maxsize=1)
def _entries() -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for entry in entry_points(group=GROUP):
        known = found.get(entry.name)
        if known is not None and known.value != entry.value:
            raise UsageError(
                f"pass '{entry.name}'",
                f"is registered twice, by {_owner(known)} ({known.value}) and {_owner(entry)} ({entry.value})",
                "uninstall one of them",
            )
        found[entry.name] = entry
    return found


def pass_names() -> list[str]:
    """The names of all passes, sorted; nothing is imported to tell them."""
    return sorted(_entries())


def pass_class(name: str) -> type[Pass]:
    """The class registered under ``name``.

    Raises:
        UsageError: what is registered cannot be imported or is no pass.
    """
    entry = _entries()[name]
    try:
        kind = entry.load()
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"pass '{name}'", f"of {_owner(entry)} cannot be imported ({error})", "install that package again"
        ) from error
    if not (isinstance(kind, type) and issubclass(kind, Pass)):
        raise UsageError(f"pass '{name}'", f"of {_owner(entry)} is no subclass of edgec.passes.protocol.Pass")
    return kind


def _owner(entry: EntryPoint) -> str:
    return f"'{entry.dist.name}'" if entry.dist is not None else "an installed package"
