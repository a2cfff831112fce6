"""What goes with a TFLite file to a board: golden samples, and the programs that check, time and use it there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np

from edgec.backends import tail_program
from edgec.backends.coral import interpreter, ports
from edgec.backends.coral.lowering import Lowered
from edgec.backends.protocol import ALONE, Beside, Feeds

RUN, GOLDEN, RESULTS = "run.py", "golden.npz", "results.json"
# What a board needs besides, where it is known what the outputs mean.
_SHOWING = ("pictures.py", "results.py")
LABELS = "labels.txt"
# Golden samples, at most, and what they may take; one there is always.
_MOST_SAMPLES, _MOST_BYTES = 4, 8 << 20


def write_board_files(
    folder: Path,
    lowered: Lowered,
    contents: bytes,
    feeds: Sequence[Feeds],
    beside: Beside = ALONE,
) -> list[str]:
    """Writes ``run.py`` and ``golden.npz`` into ``folder``, and what shows results there; returns the files' names.

    Args:
        folder: of the file.
        lowered: what is in the file.
        contents: of the file.
        feeds: as the graph takes them.
        beside: what the outputs mean, and what computes them behind a cut, where that is known.
    """
    results = beside.results
    golden: dict[str, np.ndarray] = {}
    count = size = 0
    for sample in feeds[:_MOST_SAMPLES]:
        inputs = [ports.entered(port, np.asarray(sample[port.name])) for port in lowered.inputs]
        outputs = interpreter.run_stored(contents, inputs)
        size += sum(array.nbytes for array in (*inputs, *outputs))
        if count and size > _MOST_BYTES:
            break
        golden |= {f"input{place}.{count}": values for place, values in enumerate(inputs)}
        golden |= {f"output{place}.{count}": values for place, values in enumerate(outputs)}
        count += 1
    np.savez(folder / GOLDEN, allow_pickle=False, samples=np.array(count), **golden)
    programs = files("edgec.backends.on_board")
    written = [RUN, *(_SHOWING if results is not None else ()), *([tail_program.SOURCE] if beside.tail else ())]
    for name in written:
        (folder / name).write_text(programs.joinpath(name).read_text(encoding="utf-8"), encoding="utf-8")
    if beside.tail is not None:
        written += beside.tail.write(folder)
    if results is not None:
        (folder / RESULTS).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        written.append(RESULTS)
        if results["labels"] is not None:
            (folder / LABELS).write_text("".join(f"{name}\n" for name in results["labels"]), encoding="utf-8")
            written.append(LABELS)
    return [*written, GOLDEN]
