"""What of a bundle differs where its engines take batches of several sizes: the files, and the golden samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgec.backends.tensorrt.bundle import Port
from edgec.backends.tensorrt.dynamic_batch import Batches, check_batches, opened
from edgec.backends.tensorrt.golden_samples import write_golden
from edgec.backends.tensorrt.models import Model
from edgec.backends.tensorrt.shape_profiles import ShapeProfile
from edgec.ir.execution import batch_size, seeded_feeds
from edgec.ir.graph import Graph

Values = Mapping[str, np.ndarray]
Profiles = Mapping[str, ShapeProfile]


def open_model(model: Model, feeds: Sequence[Values], profiles: Profiles, where: str) -> Model:
    """A model whose file takes batches of any size, run here at the sizes of the profile.

    Args:
        model: of one batch size.
        feeds: samples that it takes; noise is run beside them, which differs from sample to sample.
        profiles: of its inputs.
        where: how an error begins.

    Raises:
        EmitError: samples of a batch do not stay apart.
    """
    graph, axes = opened(model.graph, where)
    mixed = [one for both in zip(feeds, seeded_feeds(model.graph, samples=len(feeds)), strict=True) for one in both]
    check_batches(graph, Batches(model.graph, mixed, axes), _sizes(profiles), f"{where}: {model.file}")
    return replace(model, opened=graph)


def open_golden(
    folder: Path,
    exact: Graph,
    feeds: Sequence[Values],
    inputs: Sequence[Port],
    outputs: Sequence[Port],
    profiles: Profiles,
) -> tuple[list[Port], list[Port]]:
    """Golden samples that are batches, one of each size of the profile, in the place of those that are there.

    Args:
        folder: of the bundle.
        exact: the float network, of one batch size.
        feeds: samples that it takes.
        inputs, outputs: as they were written for one batch size.
        profiles: of the inputs.
    """
    for file in (file for port in (*inputs, *outputs) for file in port.golden):
        (folder / file).unlink()
    batches = Batches(exact, feeds, opened(exact, folder.name)[1])
    sizes = _sizes(profiles)
    written = write_golden(folder, [batches.inputs(size) for size in sizes], [batches.outputs(size) for size in sizes])
    found = [
        [
            replace(port, shape=old.shape, shapes=port.shapes or (port.shape,) * len(port.golden))
            for port, old in zip(ports, before, strict=True)
        ]
        for ports, before in zip(written, (inputs, outputs), strict=True)
    ]
    entered = [
        replace(port, profile=profiles[port.name].as_dict()) if port.name in profiles else port for port in found[0]
    ]
    return entered, found[1]


def largest_share(graph: Graph, profiles: Profiles) -> float:
    """How many times the batch size of ``graph`` the largest batch is."""
    return max((profile.batches[2] for profile in profiles.values()), default=batch_size(graph)) / batch_size(graph)


def _sizes(profiles: Profiles) -> list[int]:
    """The batch sizes of the profiles, which are the same for all inputs, each once."""
    return list(dict.fromkeys(next(iter(profiles.values())).batches))
