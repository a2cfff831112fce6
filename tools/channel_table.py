"""``edgec inspect --groups``: which channels of a network can only be removed together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from edgec.frontends.model import Pins, open_model
from edgec.frontends.sources import Source, opened
from edgec.ir.channels import Channels, Group
from edgec.ir.errors import printable
from edgec.passes.fold.constants import fold_constants
from edgec.passes.framework.context import Context
from edgec.passes.prune.sharing import unshare
from edgec.tools.console import print_table
from edgec.tools.options import print_notes


def inspect_groups(model: Source, pins: Pins, cuts: Sequence[str] = (), *, as_json: bool = False) -> None:
    """Prints the groups of coupled channels of a network, as a table or as JSON.

    Constants are folded first, as ``fold`` does it: shapes and paddings that an exporter left as arithmetic would hide
    what hangs together. Vectors that an exporter kept once because they are equal couple nothing.
    """
    with opened(model) as path:
        notes: list[str] = []
        graph = open_model(path, pins, cuts, notes=notes)
    print_notes(model.name, notes)
    ctx = Context(graph)
    fold_constants(graph, ctx)
    unshare(graph)
    ctx.changed()
    rows = [group_row(group) for group in ctx.get(Channels).groups]
    if as_json:
        print(json.dumps({"model": model.name, "groups": rows}, indent=2))
        return
    print_table(
        f"{printable(model.name)}: channels that are removed together",
        ("group", "computed also by", "read by", "fixed", "width", "params each"),
        [_cells(row) for row in rows],
        left=4,
    )
    free = [row for row in rows if row["fixed"] is None]
    print(f"{len(rows)} groups; {len(free)} can be cut, {sum(row['width'] for row in free):,} units in all")


def group_row(group: Group) -> dict[str, Any]:
    """A group as JSON: ``params_each`` is the least and the most weights that go with one of its units alone."""
    params = group.params()
    return {
        "name": group.name,
        "width": group.width,
        "channels_per_unit": group.channels_per_unit,
        "computed_by": [node.name for node in group.producers],
        "read_by": [node.name for node in group.consumers],
        "params_each": [int(params.min()), int(params.max())],
        "fixed": group.fixed,
    }


def _cells(row: Mapping[str, Any]) -> list[str]:
    least, most = row["params_each"]
    several = row["channels_per_unit"] > 1
    return [
        printable(row["name"]),
        _listed(row["computed_by"][1:]),
        _listed(row["read_by"]),
        printable(row["fixed"] or ""),
        f"{row['width']:,}" + (f" x {row['channels_per_unit']}" if several else ""),
        f"{least:,}" if least == most else f"{least:,} to {most:,}",
    ]


def _listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(printable(name) for name in names[:2])
    return f"{shown} and {len(names) - 2} more" if len(names) > 2 else shown
