"""What networks say of pictures, in words: for ``edgec run`` on images, by what results.json says of the outputs."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgec.backends.on_board import pictures
from edgec.backends.on_board import results as meaning
from edgec.backends.on_board.tail import Tail
from edgec.backends.tail_program import PROGRAM
from edgec.frontends.datasets import DataSet
from edgec.frontends.heads import RESULTS
from edgec.frontends.metrics import samples_of
from edgec.frontends.preprocess import picture_size
from edgec.frontends.recipe_data import PreprocessSpec
from edgec.ir.errors import InputError, UsageError
from edgec.ir.json_files import read_object
from edgec.tools.console import print_table
from edgec.tools.emitted_networks import Network
from edgec.tools.integrity import AGAIN
from edgec.tools.output import writing

# A table's cell is no longer than this.
_WIDEST = 60


def results_in(place: Path) -> dict[str, Any] | None:
    """What an output folder, or a target's, says of the outputs; ``None`` where it says nothing."""
    path, whole = place / RESULTS, place.resolve().parent
    if not path.is_file() and (whole / "report.json").is_file():
        path = whole / RESULTS
    if not place.is_dir() or not path.is_file():
        return None
    known = read_object(path, AGAIN)
    if not isinstance(known.get("kind"), str) or not isinstance(known.get("output"), str):
        raise InputError(str(path), "does not say what the outputs mean: edgec did not write it", AGAIN)
    return known


def tail_in(place: Path) -> Tail | None:
    """What follows the networks of an output folder, or of a target's; ``None`` where they are whole."""
    whole = place.resolve().parent
    for folder in (place, *([whole] if (whole / "report.json").is_file() else ())):
        if (folder / PROGRAM).is_file():
            try:
                return Tail.load(folder)
            except (OSError, ValueError, KeyError) as error:
                raise InputError(str(folder / PROGRAM), f"cannot be read ({error})", AGAIN) from None
    return None


def preprocess_of(known: Mapping[str, Any] | None) -> PreprocessSpec | None:
    """How pictures become inputs, as results.json says it."""
    how = None if known is None else known.get("preprocess")
    if how is None:
        return None
    own = {key: how[key] for key in ("color", "scale", "layout", "input")}
    sized = {key: how[key] for key in ("size", "resize", "fit")} if how["size"] is not None else {}
    return PreprocessSpec.model_validate({**own, **sized, "mean": [-value for value in how["offset"]]})


def said_of(
    networks: Sequence[Network], data: DataSet, known: Mapping[str, Any], behind: Tail | None = None
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """By file and network what the network says of the picture.

    Args:
        networks: that were emitted.
        data: the pictures.
        known: the content of results.json.
        behind: what follows the network, where it was cut.

    Raises:
        InputError: a network has no such output, or a picture cannot be read.
    """
    how, said = dict(known), dict[str, dict[str, list[dict[str, Any]]]]()
    for network in networks:
        for sample in samples_of(network.run, data, None, network.batch, network.whole):
            if behind is None and how["output"] not in sample.outputs:
                what = f"has no output '{how['output']}', which {RESULTS} speaks of"
                raise InputError(network.name, what, AGAIN)
            height, width = picture_size(Path(sample.name))
            back = pictures.placed(height, width, how["preprocess"])[-1]
            outputs = {name: values[np.newaxis] for name, values in sample.outputs.items()}
            outputs = outputs if behind is None else behind(outputs)
            entered = next(iter(sample.feeds.values()))
            said.setdefault(sample.name, {})[network.name] = meaning.decoded(outputs, how, back, entered)
    return said


def print_said(said: Mapping[str, Mapping[str, list[dict[str, Any]]]], kind: str) -> None:
    """A row a picture, a column a network."""
    networks = list(next(iter(said.values()), {}))
    rows = [
        [Path(name).name, *(_short(meaning.line(by_network[network], kind)) for network in networks)]
        for name, by_network in said.items()
    ]
    print_table("results", ["", *networks], rows, left=1 + len(networks))


def write_csv(place: Path, said: Mapping[str, Mapping[str, list[dict[str, Any]]]], kind: str) -> None:
    """A line for each result of each network on each picture."""
    with writing(place, fix="give another file with --csv"), place.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["network", *meaning.columns(kind)])
        for name, by_network in said.items():
            for network, results in by_network.items():
                writer.writerows([network, *row] for row in meaning.rows(name, results, kind))


def nothing_said() -> UsageError:
    """The error where there is nothing to write as a table."""
    what = "--csv goes with --images and with a folder that says what the outputs mean"
    return UsageError("run", what, "write 'results' and data.preprocess into the recipe, and compile again")


def _short(text: str) -> str:
    return text if len(text) <= _WIDEST else text[: _WIDEST - 3] + "..."
