"""Which backends and targets there are: edgec's own and those that installed packages bring.

A backend is found by entry point (group ``edgec.backends``); a target is a YAML file in the ``targets`` folder of edgec
itself, of a package that registers a backend, or of one that an entry point of the group ``edgec.targets`` names. A
package that cannot be imported, and a target's file that cannot be used, are named in a warning and left out.
"""

from __future__ import annotations

from functools import cache, lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from edgec.backends.profiles import ProfileFile, target_of
from edgec.backends.protocol import Backend
from edgec.ir.errors import UsageError, did_you_mean
from edgec.passes.framework.plugins import folder_of, imported, owner, reason, registered, warn
from edgec.passes.framework.target import Target

GROUP, KIND = "edgec.backends", "backend"
TARGETS_GROUP, TARGETS_KIND = "edgec.targets", "target"
_METHODS = ("missing", "legalization", "emit", "runner", "invoker")


@lru_cache(maxsize=1)
def _profiles() -> dict[str, ProfileFile]:
    """Every target's file by name, from the packages that have a ``targets`` folder."""
    known: dict[str, ProfileFile] = {}
    for package, folder in _folders().items():
        for item in sorted(folder.iterdir(), key=lambda entry: entry.name):
            if item.name.endswith(".yaml"):
                name = item.name.removesuffix(".yaml")
                if name in known:
                    raise UsageError(f"target '{name}'", "is defined twice", "uninstall one of the packages")
                known[name] = ProfileFile.read(package, item)
    return known


def _folders() -> dict[str, Traversable]:
    """The ``targets`` folders, by package; a package that cannot be imported has none."""
    folders = {"edgec.backends": files("edgec.backends") / "targets"}
    brought = [(entry, KIND) for entry in registered(GROUP, KIND).values()]
    brought += [(entry, TARGETS_KIND) for entry in registered(TARGETS_GROUP, TARGETS_KIND).values()]
    for entry, kind in brought:
        package = entry.module.split(".")[0]
        if package == "edgec" or package in folders:
            continue
        try:
            root = folder_of(entry, kind)
        except UsageError as error:
            warn(error)
            continue
        if root is not None and (root / "targets").is_dir():
            folders[package] = root / "targets"
    return dict(sorted(folders.items()))


def target_names() -> list[str]:
    """The names of all targets, sorted; no file is read as YAML to tell them."""
    return sorted(_profiles())


def usable_targets() -> dict[str, Target]:
    """The targets whose files are right, by name; of each other one a warning is given."""
    usable = {}
    for name in target_names():
        try:
            usable[name] = target(name)
        except UsageError as error:
            warn(error)
    return usable


@cache
def _target(name: str) -> Target:
    return target_of(name, _profiles())


def target(name: str, where: str = "the command line") -> Target:
    """The target of that name; an unknown one is a :class:`UsageError` that begins with ``where``.

    Raises:
        UsageError: there is no such target, or its file has a wrong key or value.
    """
    if name not in _profiles():
        near = did_you_mean(name, target_names())
        what = f"no target named '{name}'" + near
        raise UsageError(where, what, "'edgec targets' lists them")
    return _target(name)


def backend(name: str) -> Backend:
    """The backend registered under ``name``.

    Raises:
        UsageError: there is none, it cannot be imported, or it is no backend.
    """
    entries = registered(GROUP, KIND)
    if name not in entries:
        raise UsageError(f"backend '{name}'", "is not installed", f"installed are {', '.join(sorted(entries))}")
    kind = imported(entries[name], KIND)
    where = f"backend '{name}'"
    try:
        made: Backend = kind()
    except Exception as error:  # a third party's constructor
        what = f"of {owner(entries[name])} cannot be made ({reason(error)})"
        raise UsageError(where, what, "install that package again") from error
    lacking = next((method for method in _METHODS if not callable(getattr(made, method, None))), None)
    if lacking is not None:
        what = f"of {owner(entries[name])} has no method '{lacking}', which every backend has"
        raise UsageError(where, what, "install that package again")
    return made
