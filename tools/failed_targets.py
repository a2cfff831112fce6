"""Targets that cannot be emitted: the others are emitted all the same, and the report says which failed, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgec.ir.errors import EdgecError, EmitError, EmitErrors, InternalError, InternalErrors
from edgec.passes.framework.target import Target

#: What stops one target only. A mistake in the recipe, the model or the data stops the run: it is the same for all.
FAILURES = (EmitError, InternalError)


def failed_entry(target: Target, error: EdgecError) -> dict[str, Any]:
    """The report's entry of a target that was not emitted."""
    return {"title": target.title, "error": str(error), "exit_status": error.exit_status}


def emitted(targets: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The entries of a report's ``targets`` that were emitted."""
    return {name: entry for name, entry in targets.items() if "error" not in entry}


def failed(targets: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The entries of a report's ``targets`` that were not."""
    return {name: entry for name, entry in targets.items() if "error" in entry}


def all_failed(errors: Mapping[str, EdgecError]) -> EdgecError:
    """What a run ends with that emitted nothing, by target: a line for each; a fault of edgec's own decides."""
    if len(errors) == 1:
        return next(iter(errors.values()))
    named = [_named(name, error) for name, error in errors.items()]
    faults = any(isinstance(error, InternalError) for error in named)
    return InternalErrors(named) if faults else EmitErrors(named)


def failure_lines(targets: Mapping[str, Mapping[str, Any]]) -> Sequence[str]:
    """A line for each target that was not emitted, which it begins with."""
    return [f"{_prefix(name, entry['error'])}{entry['error']}" for name, entry in failed(targets).items()]


def exit_status(report: Mapping[str, Any]) -> int:
    """Of a run that left ``report``: 70 or 4 where a target failed, 1 where a requirement is not met, else 0."""
    failures = [entry["exit_status"] for entry in failed(report["targets"]).values()]
    if failures:
        return max(failures)
    return 0 if all(entry["met"] for entry in report["require"].values()) else 1


def _named(name: str, error: EdgecError) -> EdgecError:
    return type(error)(f"{_prefix(name, error.where)}{error.where}".removesuffix(": "), error.what, error.fix)


def _prefix(name: str, text: str) -> str:
    return "" if text == name or text.startswith(f"{name}: ") else f"{name}: "
