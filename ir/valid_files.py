"""ONNX files as they lie on the disk: held against onnx's checker, and run from their very bytes.

A graph that was run in the place of its file would say nothing of the file: of its opset, its types and its order.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx

from edgec.ir.errors import EdgecError, EmitError
from edgec.ir.execution import first_line, runtime_errors, started
from edgec.ir.files import load

Feeds = Mapping[str, np.ndarray]


_ADVICE = "hold the model that you compile against onnx.checker, and export it again where that refuses it"


class NotValidError(Exception):
    """What onnx or onnxruntime has against a file, as a clause without a full stop."""


def as_written(
    path: Path, feeds: Sequence[Feeds], where: str, *, optimize: bool = False, error: type[EdgecError] = EmitError
) -> list[dict[str, np.ndarray]] | None:
    """What a file that was just written gives: :func:`check_valid` and :func:`run_file`.

    Args:
        where: what a failure is put down to.
        error: as what it is raised.

    Raises:
        EdgecError: the file is not valid ONNX, or onnxruntime does not run it.
    """
    try:
        check_valid(path)
        return run_file(path, feeds, optimize=optimize)
    except NotValidError as fault:
        raise error(where, str(fault), _ADVICE) from None


def check_valid(path: Path) -> None:
    """Holds a file against ``onnx.checker``, its types and shapes included.

    Raises:
        NotValidError: the checker refuses it.
    """
    try:
        with _named_in_text(path) as name:
            onnx.checker.check_model(name, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, RuntimeError) as error:
        said = " ".join(str(error).split())[:200]
        raise NotValidError(f"is not valid ONNX (onnx.checker says: {said})") from None


@contextmanager
def _named_in_text(path: Path) -> Iterator[str]:
    """A name of a file that onnx takes: folders may be called by bytes that are no text."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory(prefix="edgec-") as scratch:
            beside = Path(scratch) / "folder"
            beside.symlink_to(path.parent.resolve())
            yield str(beside / path.name)
    else:
        yield str(path)


def run_file(path: Path, feeds: Sequence[Feeds], *, optimize: bool = False) -> list[dict[str, np.ndarray]] | None:
    """What onnxruntime gives for a file.

    Args:
        path: the file; its external data lie beside it.
        feeds: values of its inputs, one mapping a run.
        optimize: let onnxruntime fuse and rewrite, as its users do.

    Returns:
        The outputs by name, one mapping a run; ``None`` where the file is sound and onnxruntime's CPU has no kernel
        for one of its operators in that type, as is so of some in float16.

    Raises:
        NotValidError: onnxruntime refuses the file, or fails to run it.
    """
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    settings.log_severity_level = 4
    settings.use_deterministic_compute = True
    level = ort.GraphOptimizationLevel
    settings.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
    try:
        with _named_in_text(path) as name:
            session = started(Path(name), settings, load(path))
        names = [item.name for item in session.get_outputs()]
        wanted = [item.name for item in session.get_inputs()]
        return [dict(zip(names, session.run(None, {name: one[name] for name in wanted}), strict=True)) for one in feeds]
    except runtime_errors() as error:
        if type(error).__name__ == "NotImplemented":
            return None
        raise NotValidError(f"does not run in onnxruntime ({first_line(error)[:200]})") from None
