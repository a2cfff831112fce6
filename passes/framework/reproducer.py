"""What a failed pass leaves behind: the model before it, the rest of the recipe, the probes, the traceback."""

from __future__ import annotations

import dataclasses
import json
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgec.ir.files import save
from edgec.ir.graph import Graph
from edgec.passes.framework.legalization import Legalization
from edgec.passes.framework.planner import Planned
from edgec.passes.framework.target import Target


def write_reproducer(
    root: Path,
    graph: Graph,
    rest: Sequence[Planned],
    feeds: Sequence[Mapping[str, np.ndarray]],
    error: BaseException,
    target: Target | None,
) -> Path:
    """Writes a folder below ``root`` that makes a failure happen again without the rest of the run.

    It holds ``model.onnx``, ``compress.yaml`` (the failing pass and those after it, calibrated on the probes; none
    where a backend failed behind the last of them), ``probes.npz`` and ``traceback.txt``. Returns the folder.
    """
    import yaml

    root.mkdir(parents=True, exist_ok=True)
    own = not rest or isinstance(rest[0].step, Legalization)  # the backend's, not the recipe's
    failing = rest[0].step.name if not own else "emit" if target is None else target.name
    folder = root / Path(tempfile.mkdtemp(prefix=f"{failing}-", dir=root)).name
    save(graph, folder / "model.onnx")
    stacked = {name: np.concatenate([sample[name] for sample in feeds]) for name in feeds[0]}
    np.savez(folder / "probes.npz", allow_pickle=False, **stacked)
    # A backend's own passes are no recipe's: the target says what they are.
    steps = [_as_step(item) for item in rest if not isinstance(item.step, Legalization)]
    recipe: dict[str, Any] = {
        "data": {role: {"arrays": "probes.npz"} for role in ("calibration", "train")},
        **({"passes": steps} if steps else {}),
        "targets": [target.name] if target is not None else ["cpu"],
    }
    (folder / "compress.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    (folder / "traceback.txt").write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    return folder


def _as_step(item: Planned) -> Any:
    options = {
        field.name: getattr(item.step, field.name)
        for field in dataclasses.fields(item.step)
        if getattr(item.step, field.name) != field.default
    }
    # Through JSON, so that tuples and enumerations become what YAML can hold.
    return {item.step.name: json.loads(json.dumps(options, default=str))} if options else item.step.name
