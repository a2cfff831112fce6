"""What an engine computes, against the golden outputs."""

import array
import json
import math
import re
import struct
from pathlib import Path
from typing import Any, Dict, List, Sequence

from edgec.backends.tensorrt.driver.files import forget
from edgec.backends.tensorrt.driver.refusals import ACCURACY, Refusal
from edgec.backends.tensorrt.driver.shapes import sample_flags
from edgec.backends.tensorrt.driver.trtexec import LOGS, WHERE_LOGGED, Trtexec, why

TYPECODES = {"float32": "f", "int64": "q", "int32": "i", "int8": "b", "uint8": "B", "bool": "B"}


def samples_of(port: Dict[str, Any]) -> List[str]:
    """A port's golden files, one a sample."""
    return [port["golden"]] if isinstance(port["golden"], str) else list(port["golden"])


def numbers(path: Path, dtype: str) -> Sequence[float]:
    """The values of a golden file."""
    content = path.read_bytes()
    if dtype == "float16":
        return struct.unpack(f"<{len(content) // 2}e", content)
    values = array.array(TYPECODES[dtype])
    values.frombytes(content)
    return values


def exported(path: Path) -> Dict[str, List[float]]:
    """The outputs that trtexec wrote, by name. C++ writes nan and inf where JSON has NaN and Infinity."""
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"(?<=[\[,] )(-?)nan\b", "NaN", text)
    text = re.sub(r"(?<=[\[,] )(-?)inf\b", r"\1Infinity", text)
    return {entry["name"]: list(entry["values"]) for entry in json.loads(text)}


class Likeness:
    """Sums over all samples of one output, and what follows from them."""

    def __init__(self) -> None:
        self.xx = self.yy = self.xy = self.noise = 0.0

    def add(self, golden: Sequence[float], found: Sequence[float]) -> None:
        """Takes one sample in."""
        self.xx += sum(x * x for x in golden)
        self.yy += sum(y * y for y in found)
        self.xy += sum(x * y for x, y in zip(golden, found))
        self.noise += sum((x - y) * (x - y) for x, y in zip(golden, found))

    @property
    def cosine(self) -> float:
        """Of the angle between the two; 1 where both are zero."""
        if self.xx == 0.0 or self.yy == 0.0:
            return 1.0 if self.xx == self.yy else 0.0
        return self.xy / math.sqrt(self.xx * self.yy)


def sqnr_db(outputs: Sequence[Likeness]) -> float:
    """Signal to noise over all outputs, each weighed alike whatever its power; infinite where nothing differs."""
    noise = sum(output.noise / (output.xx or 1.0) for output in outputs)
    signal = sum(1.0 for output in outputs if output.xx)
    return math.inf if noise == 0.0 else 10 * math.log10(max(signal, 1e-300) / noise)


def outputs_of(tool: Trtexec, manifest: Dict[str, Any], model: Dict[str, Any], engine: Path, index: int) -> Any:
    """What the engine computes for one golden sample, by the outputs' names."""
    out = LOGS / "outputs.json"
    forget(out)
    fed = ",".join(f"{port['name']}:{samples_of(port)[index]}" for port in manifest["inputs"])
    flags = [f"--loadEngine={engine}", f"--loadInputs={fed}", f"--exportOutput={out}", *sample_flags(manifest, index)]
    status, text = tool.call(f"{engine.stem}-check", [*flags, "--iterations=1", "--warmUp=0", "--duration=0"])
    if status != 0:
        forget(Path(f"{engine}.json"))  # the next run builds it anew
        what, fix = why(status, text)
        raise Refusal(ACCURACY, model["file"], f"its engine does not run ({what})", fix)
    try:
        return exported(out)
    except (OSError, ValueError, KeyError, TypeError):
        raise Refusal(ACCURACY, model["file"], "trtexec left no readable outputs", WHERE_LOGGED) from None


def check(tool: Trtexec, manifest: Dict[str, Any], model: Dict[str, Any], engine: Path) -> Dict[str, Any]:
    """How near the engine comes to the golden outputs; refused where that is less than the manifest asks for."""
    likeness = {port["name"]: Likeness() for port in manifest["outputs"]}
    samples = len(samples_of(manifest["outputs"][0]))
    for index in range(samples):
        found = outputs_of(tool, manifest, model, engine, index)
        for port in manifest["outputs"]:
            golden, values = numbers(Path(samples_of(port)[index]), port["dtype"]), found.get(port["name"], [])
            where = f"{model['file']}: output '{port['name']}'"
            if len(values) != len(golden):
                raise Refusal(ACCURACY, where, f"has {len(values)} values and not {len(golden)}", WHERE_LOGGED)
            if not all(map(math.isfinite, values)):
                what = f"holds NaN or infinity in sample {index}"
                raise Refusal(ACCURACY, where, what, "something overflows: emit the bundle with a finer precision")
            likeness[port["name"]].add(golden, values)
    cosine, sqnr = min(one.cosine for one in likeness.values()), sqnr_db(list(likeness.values()))
    asked = model["tolerance"]
    if cosine < asked["cosine"] or sqnr < asked["sqnr_db"]:
        what = "is too far from the golden outputs: cosine {:.6f} (at least {:g}), SQNR {:.2f} dB (at least {:g})"
        what = what.format(cosine, asked["cosine"], sqnr, asked["sqnr_db"])
        raise Refusal(ACCURACY, model["file"], what, "emit the bundle with a finer precision")
    shown = None if sqnr == math.inf else round(sqnr, 2)
    return {"cosine": round(cosine, 7), "sqnr_db": shown, "samples": samples, "tolerance": asked}
