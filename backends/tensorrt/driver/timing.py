"""How long one inference takes."""

import json
import math
from pathlib import Path
from typing import Any, Dict

from edgec.backends.tensorrt.driver.files import forget
from edgec.backends.tensorrt.driver.refusals import LATENCY, Refusal
from edgec.backends.tensorrt.driver.shapes import usual_batch, usual_flags
from edgec.backends.tensorrt.driver.trtexec import LOGS, WHERE_LOGGED, Trtexec, why

WARM_UP_MS, SPARE_RUNS = 500, 10


def measure(tool: Trtexec, manifest: Dict[str, Any], model: Dict[str, Any], engine: Path, runs: int) -> Dict[str, Any]:
    """The GPU's time for one inference, in milliseconds, over ``runs`` runs behind a warm-up.

    Where the batch may vary it is that of the usual one, ``batch`` samples at once.
    """
    out = LOGS / "times.json"
    forget(out)
    flags = [f"--loadEngine={engine}", f"--exportTimes={out}", f"--warmUp={WARM_UP_MS}", "--duration=0"]
    flags += usual_flags(manifest)
    flags += [f"--iterations={runs + SPARE_RUNS}", *tool.only("--useCudaGraph", "--noDataTransfers", "--useSpinWait")]
    status, text = tool.call(f"{engine.stem}-time", flags)
    if status != 0:
        what, fix = why(status, text)
        raise Refusal(LATENCY, model["file"], f"its engine cannot be timed ({what})", fix)
    try:
        times = [float(row["computeMs"]) for row in json.loads(out.read_text(encoding="utf-8"))]
    except (OSError, ValueError, KeyError, TypeError):
        times = []
    if len(times) <= runs:
        what = f"trtexec wrote {len(times)} times, and more than {runs} were asked for"
        raise Refusal(LATENCY, model["file"], what, WHERE_LOGGED)
    # Some versions write the warm-up too: it stands first. At least the first run is dropped with it.
    times = sorted(times[-runs:])
    batch = usual_batch(manifest)
    return {
        "runs": runs,
        **({} if batch is None else {"batch": batch}),
        "median_ms": (times[(runs - 1) // 2] + times[runs // 2]) / 2,
        "mean_ms": math.fsum(times) / runs,
        "p95_ms": times[math.ceil(0.95 * runs) - 1],
        "p99_ms": times[math.ceil(0.99 * runs) - 1],
        "least_ms": times[0],
        "most_ms": times[-1],
    }
