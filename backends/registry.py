"""Which backends and targets there are: edgec's own and those that installed packages bring.

A backend is found by entry point (group ``edgec.backends``); a target is a YAML file in the ``targets`` folder of the
package that registers its backend, or of edgec itself.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from typing import Any

import yaml

from edgec.backends.protocol import Backend
from edgec.ir.errors import UsageError, did_you_mean
from edgec.passes.plugins import imported, registered
from edgec.passes.target import Scheme, Target

GROUP, KIND = "edgec.backends", "backend"


@lru_cache(maxsize=1)
def _profiles() -> dict[str, dict[str, Any]]:
    """Every target's profile by name, read from the packages that have a ``targets`` folder."""
    found: dict[str, dict[str, Any]] = {}
    packages = {"edgec.backends"} | {entry.module.split(".")[0] for entry in registered(GROUP, KIND).values()} - {
        "edgec"
    }
    for package in sorted(packages):
        folder = files(package) / "targets"
        if not folder.is_dir():
            continue
        for item in sorted(folder.iterdir(), key=lambda entry: entry.name):
            if item.name.endswith(".yaml"):
                profile = yaml.safe_load(item.read_text(encoding="utf-8"))
                name = item.name.removesuffix(".yaml")
                if name in found:
                    raise UsageError(f"target '{name}'", "is defined twice", "uninstall one of the packages")
                found[name] = profile
    return found


def target_names() -> list[str]:
    """The names of all targets, sorted."""
    return sorted(_profiles())


def target(name: str, where: str = "the command line") -> Target:
    """The target of that name; an unknown one is a :class:`UsageError` that begins with ``where``."""
    if name not in _profiles():
        near = did_you_mean(name, target_names())
        what = f"no target named '{name}'" + near
        raise UsageError(where, what, "'edgec targets' lists them")
    profile = dict(_profiles()[name])
    scheme = profile.pop("scheme", None)
    if scheme is not None:
        if "like" in scheme:  # that of another target, but for what stands here
            scheme = _profiles()[scheme["like"]]["scheme"] | scheme
        scheme = Scheme(
            activations=scheme["activations"],
            symmetric=scheme["symmetric"],
            per_channel=frozenset(scheme["per_channel"]),
            bias=scheme["bias"],
            tied=frozenset(scheme["tied"]),
            fixed={op: (float(scale), int(zero)) for op, (scale, zero) in scheme["fixed"].items()},
            operators=frozenset(scheme["operators"]),
            rounds=scheme.get("rounds", "all"),
            fewest_channels=int(scheme.get("fewest_channels", 1)),
            channel_block=int(scheme.get("channel_block", 1)),
            float_results=frozenset(scheme.get("float_results", ())),
            reduce_range=scheme.get("reduce_range", False),
        )
    return Target(name=name, scheme=scheme, **profile)


def backend(name: str) -> Backend:
    """The backend registered under ``name``."""
    entries = registered(GROUP, KIND)
    if name not in entries:
        raise UsageError(f"backend '{name}'", "is not installed", f"installed are {', '.join(sorted(entries))}")
    made: Backend = imported(entries[name], KIND)()
    return made
