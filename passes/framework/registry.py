"""Which passes there are: edgec's own and those that installed packages bring, all by entry point."""

from __future__ import annotations

import dataclasses

from edgec.ir.errors import UsageError
from edgec.passes.framework.base import Pass
from edgec.passes.framework.plugins import imported, owner, reason, registered, warn

GROUP, KIND = "edgec.passes", "pass"
_AGAIN = "install that package again"


def pass_names() -> list[str]:
    """The names of all passes, sorted; nothing is imported to tell them."""
    return sorted(registered(GROUP, KIND))


def pass_class(name: str) -> type[Pass]:
    """The class registered under ``name``.

    Raises:
        UsageError: what is registered cannot be imported or is no pass.
    """
    entry = registered(GROUP, KIND)[name]
    kind = imported(entry, KIND)
    where, of = f"pass '{name}'", f"of {owner(entry)}"
    if not (isinstance(kind, type) and issubclass(kind, Pass)):
        raise UsageError(where, f"{of} is no subclass of edgec.passes.framework.base.Pass")
    if not dataclasses.is_dataclass(kind):
        raise UsageError(where, f"{of} is no dataclass, whose fields would be its options", _AGAIN)
    if getattr(kind, "effect", None) not in ("exact", "lossy"):
        raise UsageError(where, f"{of} does not say whether it is exact or lossy", _AGAIN)
    return kind


def usable_passes() -> dict[str, type[Pass]]:
    """The passes that can be used, by name; of each other one a warning is given."""
    usable = {}
    for name in pass_names():
        try:
            usable[name] = pass_class(name)
        except UsageError as error:
            warn(error)
    return usable


def not_usable(name: str, error: Exception) -> UsageError:
    """What to say of a pass whose options cannot be told."""
    entry = registered(GROUP, KIND)[name]
    return UsageError(f"pass '{name}'", f"of {owner(entry)} has options of no known type ({reason(error)})", _AGAIN)
