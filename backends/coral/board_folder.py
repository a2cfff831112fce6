"""What goes with a TFLite file to a board: golden samples, and the program that checks and times it there."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np

from edgec.backends.coral import interpreter, ports
from edgec.backends.coral.lowering import Lowered
from edgec.backends.protocol import Feeds

RUN, GOLDEN = "run.py", "golden.npz"
_SOURCE = "run_on_board.py"
# Golden samples, at most, and what they may take; one there is always.
_MOST_SAMPLES, _MOST_BYTES = 4, 8 << 20


def write_board_files(folder: Path, lowered: Lowered, contents: bytes, feeds: Sequence[Feeds]) -> list[str]:
    """Writes ``run.py`` and ``golden.npz`` into ``folder``; returns their names.

    Args:
        folder: of the file.
        lowered: what is in the file.
        contents: of the file.
        feeds: as the graph takes them.
    """
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
    source = files("edgec.backends.coral").joinpath(_SOURCE).read_text(encoding="utf-8")
    (folder / RUN).write_text(source, encoding="utf-8")
    return [RUN, GOLDEN]
