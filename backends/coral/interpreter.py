"""Running a TFLite file in LiteRT, on feeds in ONNX's layout and float."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgec.backends.coral import ports
from edgec.backends.coral.lowering import Port
from edgec.ir.errors import EmitError, InputError


class Interpreter:
    """A file made ready to run.

    Args:
        contents: the file.
        inputs, outputs: its signature against the graph's.
        reference: run LiteRT's reference kernels, without XNNPACK.
        threads: how many threads an operator may use.

    Raises:
        EmitError: LiteRT does not take the file.
    """

    def __init__(
        self,
        contents: bytes,
        inputs: Sequence[Port],
        outputs: Sequence[Port],
        reference: bool = False,
        threads: int = 1,
    ) -> None:
        self.inputs, self.outputs = list(inputs), list(outputs)
        self._runtime = _runtime(contents, reference, threads)
        self._input_places = [detail["index"] for detail in self._runtime.get_input_details()]
        self._output_places = [detail["index"] for detail in self._runtime.get_output_details()]

    def check_ports(self) -> None:
        """Holds what was said of the file's signature to the file.

        Raises:
            ValueError: an input or an output is another one.
        """
        runtime = self._runtime
        for said, details in ((self.inputs, runtime.get_input_details()), (self.outputs, runtime.get_output_details())):
            for port, detail in zip(said, details, strict=True):
                if sorted(port.permutation) != list(range(len(port.shape))):
                    raise ValueError(f"'{port.name}' has no permutation of its axes")
                if not isinstance(port.name, str):
                    raise ValueError("a name is no text")
                steps = np.ones(1) if port.quantization is None else port.quantization.scale
                if steps.size != 1 or not (np.isfinite(steps) & (steps > 0)).all():
                    raise ValueError(f"'{port.name}' has no scale")
                stored = tuple(port.shape[axis] for axis in port.permutation)
                if stored != tuple(detail["shape"]) or port.dtype != detail["dtype"]:
                    raise ValueError(f"'{port.name}' is another tensor")

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name, for feeds of the file's batch or of whole multiples of it.

        Raises:
            InputError: an input is missing or of another shape.
        """
        for port in self.inputs:
            if port.name not in feeds:
                raise InputError(
                    "the data", f"has no values for the model's input '{port.name}'", "name the array for it"
                )
        if not self.inputs or not self.inputs[0].shape:
            return self._once(feeds)
        batch = self.inputs[0].shape[0]
        samples = feeds[self.inputs[0].name].shape[0]
        if samples == batch or samples % batch:
            return self._once(feeds)
        parts = [
            self._once({port.name: feeds[port.name][start : start + batch] for port in self.inputs})
            for start in range(0, samples, batch)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _once(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        for port, place in zip(self.inputs, self._input_places, strict=True):
            self._runtime.set_tensor(place, ports.entered(port, feeds[port.name]))
        _invoke(self._runtime)
        return {
            port.name: ports.left(port, self._runtime.get_tensor(place))
            for port, place in zip(self.outputs, self._output_places, strict=True)
        }


def run_stored(contents: bytes, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs of a file for inputs as it stores them, both in the file's order."""
    runtime = _runtime(contents)
    for detail, values in zip(runtime.get_input_details(), inputs, strict=True):
        runtime.set_tensor(detail["index"], values)
    _invoke(runtime)
    return [runtime.get_tensor(detail["index"]) for detail in runtime.get_output_details()]


def _runtime(contents: bytes, reference: bool = False, threads: int = 1) -> Any:
    from ai_edge_litert.interpreter import Interpreter as LiteRT
    from ai_edge_litert.interpreter import OpResolverType

    kernels = OpResolverType.BUILTIN_REF if reference else OpResolverType.AUTO
    try:
        with _quiet():
            runtime = LiteRT(model_content=contents, num_threads=threads, experimental_op_resolver_type=kernels)
            runtime.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise EmitError(
            "model.tflite",
            f"LiteRT does not take it ({_first_line(error)})",
            "cut the network before the operator named, and report it",
        ) from None
    return runtime


def _invoke(runtime: Any) -> None:
    """One inference.

    Raises:
        EmitError: a kernel refuses what it is given.
    """
    try:
        runtime.invoke()
    except (RuntimeError, ValueError) as error:
        raise EmitError(
            "model.tflite",
            f"LiteRT cannot run it ({_first_line(error)})",
            "cut the network before the operator named; where it names an index, look at the data",
        ) from None


def invoker(model: Path) -> Callable[[], None]:
    """One inference of a TFLite file on fixed noise, on one thread, for timing; the file is mapped, not read."""
    from ai_edge_litert.interpreter import Interpreter as LiteRT

    with _quiet():
        runtime: Any = LiteRT(model_path=str(model), num_threads=1)
        runtime.allocate_tensors()
    random = np.random.Generator(np.random.PCG64(0))
    for detail in runtime.get_input_details():
        runtime.set_tensor(detail["index"], _noise(random, detail["shape"], np.dtype(detail["dtype"])))
    invoke: Callable[[], None] = runtime.invoke
    return invoke


def _noise(random: np.random.Generator, shape: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Numbers of the whole range of bytes, between 0 and 1 of floats; zeros of what may be places in a table."""
    if dtype in (np.int8, np.uint8):
        limits = np.iinfo(dtype)
        return random.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    return random.random(shape, np.float32) if dtype == np.float32 else np.zeros(shape, dtype)


@contextmanager
def _quiet() -> Iterator[None]:
    """LiteRT tells stderr about its delegates, below Python: while it starts, that goes nowhere."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
