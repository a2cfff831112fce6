"""Which passes there are: edgec's own and those that installed packages bring, all by entry point."""

from __future__ import annotations

from edgec.ir.errors import UsageError
from edgec.passes.plugins import imported, owner, registered
from edgec.passes.protocol import Pass

GROUP, KIND = "edgec.passes", "pass"


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
    if not (isinstance(kind, type) and issubclass(kind, Pass)):
        raise UsageError(f"pass '{name}'", f"of {owner(entry)} is no subclass of edgec.passes.protocol.Pass")
    return kind
