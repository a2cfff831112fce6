"""Runs the network beside this file on a board: on golden samples, which it checks and times, or on pictures.

    python3 run.py                       # check and time it, on the CPU
    python3 run.py --delegate edgetpu    # model_edgetpu.tflite, by libedgetpu.so.1
    python3 run.py --delegate FILE       # by another delegate's library
    python3 run.py --images PLACE        # what it says of each picture in a folder, or of one
    ffmpeg -f v4l2 -i /dev/video0 -pix_fmt rgb24 -f rawvideo - | python3 run.py --frames 640x480

It needs Python 3.6 or later, numpy, and one of tflite_runtime, ai_edge_litert and tensorflow. Golden samples are inputs
as the file takes them, and what LiteRT computed of them where the file was made. Each is run and compared; then one
sample is run 1,000 times, of which the first does not count. What came of it is printed and left in run.json. How a
picture becomes an input and what the outputs mean is in results.json, if the recipe said so; ``--csv FILE`` writes what
is said of pictures as a table.

Exit status: 0 done; 1 the outputs are not those of the golden samples; 2 usage; 3 a file is missing, cannot be read or
was changed; 4 there is no runtime, or the delegate cannot be loaded.
"""

import argparse
import csv
import hashlib
import importlib.util
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

import numpy as np

HERE = Path(__file__).resolve().parent
GOLDEN = "golden.npz"
COMPILED = ("model_edgetpu.tflite", "model_vela.tflite")
# Integers that round differently stay above this; a wrong network falls far below it.
LEAST_DB = 25.0
# Short for the library that drives an Edge TPU.
EDGE_TPU = "libedgetpu.so.1"


class Stop(Exception):
    """What ends the program: a line for stderr, and the exit status."""

    def __init__(self, status: int, line: str) -> None:
        super().__init__(line)
        self.status = status


def main(arguments: Optional[List[str]] = None) -> int:
    """Runs the program; returns its exit status."""
    parser = argparse.ArgumentParser(description="Checks and times the network in this folder.")
    parser.add_argument("--delegate", metavar="FILE", help="a delegate's library, or 'edgetpu'")
    parser.add_argument("--model", metavar="FILE", help="the file to run (default: the one for the delegate)")
    parser.add_argument("--images", type=Path, metavar="PLACE", help="a picture, or a folder of them, to look at")
    parser.add_argument("--frames", metavar="WxH", help="look at raw RGB frames of that size from standard input")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write what is said of pictures there, too")
    parser.add_argument("--runs", type=int, default=1000, metavar="N", help="how often it is timed (default: 1000)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads of the CPU (default: 1)")
    options = parser.parse_args(arguments)
    if options.runs < 2:
        parser.error("argument --runs: at least 2, of which the first does not count")
    if options.csv and not (options.images or options.frames):
        parser.error("argument --csv: goes with --images or --frames")
    try:
        return look(options) if options.images or options.frames else run(options)
    except Stop as stop:
        sys.stderr.write(f"run.py: {stop}\n")
        return stop.status


def run(options: argparse.Namespace) -> int:
    """Checks and times; returns the exit status."""
    _, path = checked(options)
    name = path.name
    golden = np.load(str(found(GOLDEN)))
    interpreter, runtime = loaded(path, options)
    apart = [difference(interpreter, golden, sample) for sample in range(int(golden["samples"]))]
    least = min(one["sqnr_db"] for one in apart)
    report = {
        "model": name,
        "sha256": digest(path),
        "delegate": options.delegate,
        "runtime": runtime,
        "board": board(),
        "python": platform.python_version(),
        "golden": {"samples": len(apart), "least_sqnr_db": least, "equal": all(one["equal"] for one in apart)},
        "passed": least >= LEAST_DB,
    }
    equal = "equal to" if report["golden"]["equal"] else f"{least:.1f} dB from"
    print(f"{name}: {len(apart)} golden samples, {equal} what was computed where it was made")
    if report["passed"]:
        report["latency_ms"] = timed(interpreter, golden, options.runs)
        report["peak_memory_bytes"] = peak_memory()
        print(
            "{mean:.3f} ms on the mean of {runs} runs, median {median:.3f}, 99 % within {p99:.3f}".format(
                **report["latency_ms"]
            )
        )
    with (HERE / "run.json").open("w") as stream:
        json.dump(report, stream, indent=2, sort_keys=True)
        stream.write("\n")
    if not report["passed"]:
        what = f"{name} is {least:.1f} dB from the golden outputs, less than {LEAST_DB:.0f}"
        raise Stop(1, f"{what}: another network computes")
    return 0


def look(options: argparse.Namespace) -> int:
    """Says what the network makes of pictures; returns the exit status."""
    pictures, results = beside("pictures"), beside("results")
    described, path = checked(options)
    if not (HERE / "results.json").is_file():
        raise Stop(3, "the folder does not say what the outputs mean; compile with 'results' in the recipe")
    with (HERE / "results.json").open() as stream:
        how = json.load(stream)
    if how["preprocess"] is None:
        raise Stop(3, "the folder does not say how pictures become inputs; compile with data.preprocess in the recipe")
    interpreter, _ = loaded(path, options)
    behind = beside("tail").Tail.load(HERE) if (HERE / "tail.json").is_file() else None
    table, seen, spent = [], 0, 0.0
    try:
        for name, picture in shown(options, pictures):
            entered, back = pictures.entered(picture, how["preprocess"])
            start = time.perf_counter()
            outputs = inferred(interpreter, described, how["preprocess"]["input"], entered[np.newaxis])
            spent += time.perf_counter() - start
            outputs = outputs if behind is None else behind(outputs)
            seen += 1
            said = results.decoded(outputs, how, back, entered)
            table += results.rows(name, said, how["kind"])
            print(f"{name}: {results.line(said, how['kind'])}", flush=True)
    except pictures.PictureError as error:
        raise Stop(3, str(error)) from None
    if not seen:
        raise Stop(3, f"{options.images or 'standard input'} holds no picture")
    print(f"{seen} pictures, {spent / seen * 1e3:.2f} ms each in the network")
    if options.csv:
        with options.csv.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(results.columns(how["kind"]))
            writer.writerows(table)
    return 0


def beside(name: str) -> Any:
    """A module in the folder."""
    spec = importlib.util.spec_from_file_location(name, str(found(f"{name}.py")))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shown(options: argparse.Namespace, pictures: Any) -> Iterator[Tuple[str, np.ndarray]]:
    """Name and pixels of each picture."""
    if options.images:
        if not options.images.exists():
            raise Stop(3, f"{options.images} is not there")
        for path in pictures.find(options.images):
            yield path.name, pictures.read(path)
        return
    sides = options.frames.lower().split("x")
    if len(sides) != 2 or not all(side.isdigit() and int(side) for side in sides):
        raise Stop(2, f"--frames {options.frames} is no size; write WIDTHxHEIGHT")
    for number, frame in enumerate(pictures.frames(sys.stdin.buffer, int(sides[0]), int(sides[1]))):
        yield f"frame {number}", frame


def inferred(interpreter: Any, described: Dict[str, Any], name: str, x: np.ndarray) -> Dict[str, np.ndarray]:
    """One inference on real numbers in the original network's layout; so are the outputs."""
    places = {entry["name"]: place for place, entry in enumerate(described["inputs"])}
    if len(places) != 1 or name not in places:
        raise Stop(3, f"the network takes {len(places)} inputs, and pictures make one, '{name}'")
    entry, detail = described["inputs"][0], interpreter.get_input_details()[0]
    if list(x.shape) != entry["onnx_shape"]:
        raise Stop(3, f"the network takes {entry['onnx_shape']}, and pictures become {list(x.shape)}")
    folded = entry.get("folded")
    if folded is not None:
        wide = (1, -1) + (1,) * (x.ndim - 2)
        x = (x - np.reshape(folded["offset"], wide)) / np.reshape(folded["scale"], wide)
    x = x.transpose(entry["permutation"])
    if entry["scale"] is None:
        x = x.astype(detail["dtype"])
    elif entry["onnx_dtype"] == "uint8":
        x = (np.rint(x) - 128).astype(np.int8)
    else:
        limits = np.iinfo(detail["dtype"])
        x = np.clip(np.rint(x / entry["scale"]) + entry["zero_point"], limits.min, limits.max).astype(detail["dtype"])
    interpreter.set_tensor(detail["index"], x)
    interpreter.invoke()
    outputs = {}
    for entry, detail in zip(described["outputs"], interpreter.get_output_details()):
        values = interpreter.get_tensor(detail["index"])
        if entry["scale"] is not None:
            values = (values.astype(np.float32) - entry["zero_point"]) * entry["scale"]
        outputs[entry["name"]] = values.transpose(np.argsort(entry["permutation"]))
    return outputs


def checked(options: argparse.Namespace) -> Tuple[Dict[str, Any], Path]:
    """What check.json says, and the file to run, if it is the one that it names."""
    with found("check.json").open() as stream:
        described = json.load(stream)  # type: Dict[str, Any]
    name = options.model or chosen(options.delegate)
    path = found(name)
    wanted = described.get("files", {}).get(name)
    if wanted is not None and digest(path) != wanted:
        raise Stop(3, f"{name} is not the file that check.json names; copy the folder again")
    return described, path


def found(name: str) -> Path:
    """The path of a file in the folder."""
    path = HERE / name
    if not path.is_file():
        raise Stop(3, f"{name} is not in {HERE}; copy the folder again")
    return path


def chosen(delegate: Optional[str]) -> str:
    """The file to run: the one that a compiler made for the device, where there is a delegate for it."""
    made = [name for name in COMPILED if (HERE / name).is_file()]
    return made[0] if delegate and made else "model.tflite"


def digest(path: Path) -> str:
    """A file's sha256 in hex."""
    total = hashlib.sha256()
    with path.open("rb") as stream:
        for part in iter(lambda: stream.read(1 << 20), b""):
            total.update(part)
    return total.hexdigest()


def loaded(path: Path, options: argparse.Namespace) -> Tuple[Any, str]:
    """An interpreter with its tensors, and which runtime it is of."""
    for module in ("tflite_runtime.interpreter", "ai_edge_litert.interpreter", "tensorflow.lite.python.interpreter"):
        try:
            runtime = __import__(module, fromlist=["Interpreter"])
        except ImportError:
            continue
        break
    else:
        raise Stop(4, "there is no TFLite runtime; pip install tflite-runtime, or ai-edge-litert")
    delegates = []
    if options.delegate:
        library = EDGE_TPU if options.delegate == "edgetpu" else options.delegate
        try:
            delegates = [runtime.load_delegate(library)]
        except (ValueError, OSError, AttributeError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            what = f"the delegate {library} cannot be loaded ({reason})"
            raise Stop(4, f"{what}; install it, or leave out --delegate") from None
    interpreter = runtime.Interpreter(
        model_path=str(path), experimental_delegates=delegates or None, num_threads=options.threads
    )
    interpreter.allocate_tensors()
    return interpreter, module.split(".")[0]


def enter(interpreter: Any, golden: Any, sample: int) -> None:
    """Sets the inputs of a golden sample, by name where names agree."""
    details = interpreter.get_input_details()
    for place, detail in enumerate(details):
        interpreter.set_tensor(detail["index"], golden[f"input{place}.{sample}"])


def difference(interpreter: Any, golden: Any, sample: int) -> Dict[str, Any]:
    """How far a golden sample's outputs are from those that were kept."""
    enter(interpreter, golden, sample)
    interpreter.invoke()
    equal, signal, noise = True, 0.0, 0.0
    for place, detail in enumerate(interpreter.get_output_details()):
        kept = golden[f"output{place}.{sample}"]
        got = interpreter.get_tensor(detail["index"])
        equal = equal and np.array_equal(kept, got)
        zero = detail["quantization"][1] if detail["quantization"][0] else 0
        real = kept.astype(np.float64) - zero
        signal += float((real**2).sum())
        noise += float(((got.astype(np.float64) - zero - real) ** 2).sum())
    level = 300.0 if noise == 0 else 10 * float(np.log10(max(signal, 1e-30) / noise))
    return {"equal": equal, "sqnr_db": round(level, 2)}


def timed(interpreter: Any, golden: Any, runs: int) -> Dict[str, Any]:
    """Milliseconds of an inference: the first of the runs does not count."""
    enter(interpreter, golden, 0)
    taken = []
    for _ in range(runs):
        start = time.perf_counter()
        interpreter.invoke()
        taken.append((time.perf_counter() - start) * 1e3)
    kept = np.array(taken[1:])
    figures = {"mean": kept.mean(), "median": np.median(kept), "least": kept.min(), "deviation": kept.std()}
    figures.update({f"p{p}": np.percentile(kept, p) for p in (90, 95, 99)})
    rounded = {name: round(float(value), 4) for name, value in figures.items()}
    rounded["runs"] = len(kept)
    return rounded


def peak_memory() -> Optional[int]:
    """The most memory that this process has held, in bytes; None where the system does not say."""
    try:
        with Path("/proc/self/status").open() as stream:
            lines = [line for line in stream if line.startswith("VmHWM:")]
    except OSError:
        return None
    return int(lines[0].split()[1]) * 1024 if lines else None


def board() -> str:
    """What the machine calls itself."""
    try:
        with Path("/proc/device-tree/model").open() as stream:
            return stream.read().strip("\0\n ")
    except OSError:
        return platform.machine()


if __name__ == "__main__":
    sys.exit(main())
