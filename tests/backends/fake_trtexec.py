"""A stand-in for NVIDIA's trtexec that computes with onnxruntime: its options, log, files and exit codes by version.

Written from the sources of trtexec in NVIDIA/TensorRT (8.2.1, 8.5.3, 10.3.0). What it is to be and how it is to fail is
in the JSON file that the variable FAKE_TRTEXEC names:

    version      "8.2.1", "8.5.3" or "10.3.0"
    capability   of the GPU: "5.3"
    ms           how long an inference takes, by precision
    fail         by precision, or for all as "*": how it fails, one of those below
    calls        a file that takes a line of JSON for each call
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

COMMON = {
    "--onnx", "--saveEngine", "--loadEngine", "--fp16", "--int8", "--noTF32", "--timingCacheFile", "--loadInputs",
    "--exportOutput", "--exportTimes", "--iterations", "--duration", "--warmUp", "--useCudaGraph",
    "--noDataTransfers", "--useSpinWait", "--help", "--minShapes", "--optShapes", "--maxShapes", "--shapes",
}  # fmt: skip
OPTIONS = {
    "8.2": COMMON | {"--workspace", "--buildOnly", "--precisionConstraints"},
    "8.5": COMMON | {"--workspace", "--memPoolSize", "--buildOnly", "--precisionConstraints", "--layerPrecisions"},
    "10.3": COMMON
    | {"--memPoolSize", "--skipInference", "--stronglyTyped", "--precisionConstraints", "--layerPrecisions"},
}
NO_IMPORTER = {"8.2": {"HardSwish", "LayerNormalization"}, "8.5": {"LayerNormalization"}, "10.3": set()}
NO_INT8 = ("5.3",)
WARM_UPS, SLOW_MS = 7, 90.0
OUT_OF_MEMORY = (
    "Error[1]: [defaultAllocator.cpp::allocate::20] Error Code 1: Cuda Runtime (out of memory)",
    "Error[2]: [builder.cpp::buildSerializedNetwork::609] Error Code 2: Internal Error (Assertion enginePtr failed.)",
    "Engine could not be created from network",
)


class Fake:
    """One call."""

    def __init__(self, settings: Mapping[str, Any], arguments: list[str]) -> None:
        self.settings, self.command = settings, " ".join(["trtexec", *arguments])
        self.version: str = settings["version"]
        major, minor, patch = map(int, self.version.split("."))
        self.series = f"{major}.{minor}"
        self.number = major * 10000 + minor * 100 + patch if major >= 10 else major * 1000 + minor * 100 + patch
        self.options = dict(argument.partition("=")[::2] for argument in arguments)

    def run(self) -> int:
        self.mark("RUNNING")
        if "--help" in self.options:
            print(*(f"  {option}" for option in sorted(OPTIONS[self.series])), sep="\n")
            return 0
        for option in self.options.keys() - OPTIONS[self.series]:
            self.fail(f"Unknown option: {option} {self.options[option]}")
        self.info("=== Device Information ===")
        self.info(f"Compute Capability: {self.settings['capability']}")
        self.info(f"TensorRT version: {self.version}")
        if "--onnx" in self.options:
            self.build()
        else:
            self.infer()
        self.mark("PASSED")
        return 0

    # -- building ------------------------------------------------------------------------------------------------------

    def build(self) -> None:
        precision = "int8" if "--int8" in self.options else "fp16" if "--fp16" in self.options else "fp32"
        if "--stronglyTyped" in self.options:
            precision = "typed"
        content = Path(self.options["--onnx"]).read_bytes()
        self.parse(content)
        head = {"precision": precision, "version": self.version, "capability": self.settings["capability"]}
        head["profile"] = self.profile(content)
        engine, place = json.dumps(head).encode() + b"\n" + content, Path(self.options["--saveEngine"])
        kind = self.failure(precision)
        pools = (self.options.get("--workspace"), self.options.get("--memPoolSize", "").partition(":")[2])
        if kind == "out of memory" or (kind == "large workspace" and max(int(size or 0) for size in pools) > 32):
            self.fail(*OUT_OF_MEMORY, "Engine set up failed")
        if kind in ("killed", "slow"):
            place.write_bytes(engine[: len(engine) // 2])
            if kind == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(600)
        if kind == "disk full":
            try:
                with Path("/dev/full").open("wb") as full:
                    full.write(engine)
            except OSError as error:
                assert error.errno == errno.ENOSPC
                self.fail("Saving engine to file failed.", "Engine set up failed")
        if kind == "disk full, unnoticed":
            engine = engine[: len(engine) // 2]
        if kind != "nothing written":
            place.write_bytes(engine)
        if "--timingCacheFile" in self.options:
            Path(self.options["--timingCacheFile"]).write_bytes(b"timings")
        self.info("Engine built in 0.1 sec.")

    def parse(self, content: bytes) -> None:
        # An operator's name stands in the file as it is; loading the onnx package would take longest of all.
        for operator in sorted(NO_IMPORTER[self.series]):
            if operator.encode() in content:
                self.fail(
                    f'[TRT] ModelImporter.cpp:773: While parsing node number 1 [{operator} -> "y"]:',
                    "[TRT] ModelImporter.cpp:777: ERROR: builtin_op_importers.cpp:4951 In function "
                    f"importFallbackPluginImporter: No importer registered for op: {operator}",
                    "Failed to parse onnx file",
                    "Engine set up failed",
                )
        if b"QuantizeLinear" in content and self.settings["capability"] in NO_INT8:
            self.fail(
                "Error[9]: Networks with QuantizeLayer require hardware with Int8 support", "Engine set up failed"
            )

    def profile(self, content: bytes) -> dict[str, list[list[int]]]:
        """The least, usual and largest shape of each input that one was given for."""
        least, usual, most = (self.shapes(f"--{end}Shapes") for end in ("min", "opt", "max"))
        for name in {*least, *usual, *most}:
            if name.encode() not in content:
                self.fail(
                    f'Cannot find input tensor with name "{name}" in the network inputs! Please make sure the input '
                    "tensor names are correct.",
                    "Network And Config setup failed",
                )
        if not least.keys() == usual.keys() == most.keys():
            self.fail("Invalid combination of minShapes, optShapes and maxShapes")  # it would fill in what is missing
        for name in least:
            if not all(a <= b <= c for a, b, c in zip(least[name], usual[name], most[name], strict=True)):
                self.fail(f"Error in set optimization profile of {name}: kMIN <= kOPT <= kMAX is wanted")
        return {name: [least[name], usual[name], most[name]] for name in least}

    def shapes(self, option: str) -> dict[str, list[int]]:
        entries = [entry.rpartition(":") for entry in self.options.get(option, "").split(",") if entry]
        return {name: [int(size) for size in shape.split("x")] for name, _, shape in entries}

    # -- running -------------------------------------------------------------------------------------------------------

    def infer(self) -> None:
        head, _, content = Path(self.options["--loadEngine"]).read_bytes().partition(b"\n")
        loaded = json.loads(head)
        if (loaded["version"], loaded["capability"]) != (self.version, self.settings["capability"]):
            self.fail("Engine deserialization failed", "Engine set up failed")
        precision = loaded["precision"]
        kind = self.failure(precision)
        asked = self.asked_shapes(loaded["profile"])
        if "--exportOutput" in self.options:
            if kind == "crash":
                self.fail("Cuda failure: an illegal memory access was encountered")
            if kind != "no outputs":
                self.export_outputs(content, precision, kind, asked)
        if "--exportTimes" in self.options:
            if kind == "not timed":
                self.fail("Error occurred during inference")
            self.export_times(float(self.settings["ms"][precision]), kind)

    def asked_shapes(self, profile: Mapping[str, list[list[int]]]) -> dict[str, list[int]]:
        """The shapes of the inputs that the engine has a profile for: what was asked, or else a batch of 1."""
        given = self.shapes("--shapes")
        for name in given.keys() - profile.keys():
            self.fail(f'Cannot find input tensor with name "{name}" in the engine bindings!', "Inference set up failed")
        for name, (least, usual, most) in profile.items():
            if name not in given:
                given[name] = [1, *usual[1:]]
                self.info(f"Dynamic dimensions required for input: {name}, but no shapes were provided.")
            for place, size in enumerate(given[name]):
                if not least[place] <= size <= most[place]:
                    self.fail(
                        "[TRT] 3: [executionContext.cpp::setBindingDimensions::944] Error Code 3: API Usage Error "
                        f"(Supplied binding dimension {given[name]} for {name} exceed min ~ max range at index "
                        f"{place}, maximum dimension in profile is {most[place]}, minimum dimension in profile is "
                        f"{least[place]}, but supplied dimension is {size}.)",
                        "Inference set up failed",
                    )
        return given

    def export_outputs(self, content: bytes, precision: str, kind: str, asked: Mapping[str, list[int]]) -> None:
        import numpy as np
        import onnxruntime as ort

        session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
        files = dict(entry.rpartition(":")[::2] for entry in self.options["--loadInputs"].split(","))
        types = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(uint8)": np.uint8}
        feeds = {}
        for item in session.get_inputs():
            # Without a profile the engine was built for open dimensions of 1.
            shape = asked.get(item.name) or [size if isinstance(size, int) else 1 for size in item.shape]
            values = np.fromfile(files.pop(item.name), types[item.type])
            if values.size != int(np.prod(shape)):
                self.fail(f"Error: Unexpected file size for input {item.name}")
            feeds[item.name] = values.reshape(shape)
        assert not files, f"inputs that the model has not: {sorted(files)}"
        assert "--noDataTransfers" not in self.options, "nothing comes back then"
        entries = []
        for item, values in zip(session.get_outputs(), session.run(None, feeds), strict=True):
            if precision != "fp32" and values.dtype.kind == "f":
                values = values.astype(np.float16).astype(np.float32)
            if kind == "wrong":
                values = values[..., ::-1]
            flat = [f"{value:.6g}" for value in values.ravel().tolist()]
            if kind in ("nan", "-inf"):
                flat[-1] = kind
            shape = "x".join(map(str, values.shape))
            joined = ", ".join(flat[:-1] if kind == "short" else flat)
            entry = f'{{ "name" : "{item.name}"\n  , "dimensions" : "{shape}"\n  , "values" : [ {joined} ]\n  }}'
            entries.append(entry)
        Path(self.options["--exportOutput"]).write_text("[\n  " + "\n, ".join(entries) + "\n]\n")

    def export_times(self, ms: float, kind: str) -> None:
        count = int(self.options["--iterations"])
        times = [ms + 0.001 * (index % 3 - 1) for index in range(3 if kind == "few times" else count)]
        if self.series != "10.3" and int(self.options["--warmUp"]):  # these write the warm-up too
            times = [SLOW_MS] * WARM_UPS + times
        rows = [f'{{ "startComputeMs" : 1, "computeMs" : {value:.6g}, "latencyMs" : {value:.6g} }}' for value in times]
        Path(self.options["--exportTimes"]).write_text("[\n  " + "\n, ".join(rows) + "\n]\n")

    # -- saying --------------------------------------------------------------------------------------------------------

    def failure(self, precision: str) -> str:
        failures: Mapping[str, str] = self.settings.get("fail", {})
        return failures.get(precision, failures.get("*", ""))

    def mark(self, state: str) -> None:
        print(f"&&&& {state} TensorRT.trtexec [TensorRT v{self.number}] # {self.command}", flush=True)

    def info(self, text: str) -> None:
        print(f"[11/26/2026-12:00:00] [I] {text}", flush=True)

    def fail(self, *lines: str) -> NoReturn:
        for line in lines:
            print(f"[11/26/2026-12:00:00] [E] {line}", flush=True)
        self.mark("FAILED")
        raise SystemExit(1)


def main() -> int:
    settings = json.loads(Path(os.environ["FAKE_TRTEXEC"]).read_text())
    if settings.get("calls"):
        with Path(settings["calls"]).open("a") as file:
            file.write(json.dumps(sys.argv[1:]) + "\n")
    run: Callable[[], int] = Fake(settings, sys.argv[1:]).run
    return run()


if __name__ == "__main__":
    sys.exit(main())
