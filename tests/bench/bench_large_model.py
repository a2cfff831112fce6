"""Peak memory and time of loading a 3 GiB model with external data, editing one weight and saving it.

    python tests/bench/bench_large_model.py

Goal: under 1 GiB of peak resident memory in the process that does it. Takes about 7 GB of disk while it runs.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper

LAYERS, SIDE = 48, 4096  # 48 x 64 MiB
GOAL = 1 << 30

EDIT = """
import json, resource, sys, time
import numpy as np
from edgec.ir.files import load, save
start = time.perf_counter()
graph = load(sys.argv[1])
weight = graph.nodes[len(graph.nodes) // 2].inputs[1]
weight.values = weight.values * np.float32(2)
files = save(graph, sys.argv[2])
taken = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"seconds": taken, "peak": peak, "files": [path.stat().st_size for path in files]}))
"""


def write_model(folder: Path) -> Path:
    """A chain of matrix products whose weights, 3 GiB in all, lie in ``weights.bin``."""
    size = SIDE * SIDE * 4
    row = np.arange(SIDE, dtype=np.float32)
    with (folder / "weights.bin").open("wb") as file:
        for layer in range(LAYERS):
            block = np.broadcast_to(row + layer, (SIDE, SIDE))
            file.write(np.ascontiguousarray(block).data)
    nodes = [helper.make_node("MatMul", [f"t{i}", f"w{i}"], [f"t{i + 1}"], f"fc{i}") for i in range(LAYERS)]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, SIDE]) for name in ("t0", f"t{LAYERS}"))
    model: ModelProto = helper.make_model(helper.make_graph(nodes, "large", [x], [y]))
    for layer in range(LAYERS):
        weight = model.graph.initializer.add(name=f"w{layer}", dims=[SIDE, SIDE], data_type=TensorProto.FLOAT)
        weight.data_location = TensorProto.EXTERNAL
        for key, value in (("location", "weights.bin"), ("offset", layer * size), ("length", size)):
            weight.external_data.add(key=key, value=str(value))
    path = folder / "large.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def check(folder: Path) -> bool:
    """Whether the edited weight is twice what it was, and its neighbour what it was."""
    from edgec.ir.files import load

    graph = load(folder / "edited.onnx")
    first = [float(node.inputs[1].values[0, 1]) for node in graph.nodes]
    middle = LAYERS // 2
    return first == [(1.0 + layer) * (2 if layer == middle else 1) for layer in range(LAYERS)]


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = write_model(folder)
        command = [sys.executable, "-c", EDIT, str(path), str(folder / "edited.onnx")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        result = json.loads(done.stdout)
        right = check(folder)
    met = result["peak"] < GOAL and right
    print(f"{LAYERS * SIDE * SIDE * 4 / 2**30:.1f} GiB of weights: load, edit one, save: {result['seconds']:.1f} s")
    print(f"peak resident memory {result['peak'] / 2**30:.2f} GiB; goal under {GOAL / 2**30:.0f} GiB")
    sizes = ", ".join(f"{size:,} bytes" for size in result["files"])
    print(f"files written: {sizes}; contents {'right' if right else 'WRONG'}")
    print("goal met" if met else "goal MISSED")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
