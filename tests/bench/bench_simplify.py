"""``edgec simplify`` beside other simplifiers: nodes left, latency in onnxruntime, CPU time of the command.

    python tests/bench/bench_simplify.py --peers PYTHON [--old-onnxsim PYTHON] [--zoo WHEELS] [--only NAME ...]
                                         [--latency] [--markdown FILE]

PYTHON is an interpreter with onnxslim, onnxsim, onnxscript and onnxruntime installed, the second one with onnxsim 0.4;
nothing of them is imported here. The networks are torch's own exports of the families in tests/networks, by TorchScript
(torch's newer exporter runs onnxscript's optimizer itself), and with ``--zoo`` trained ones out of packages, as
bench_zoo.py reads them. Nodes are counted in all graphs of a file, ``Constant`` left out. A result counts only where
onnxruntime computes the same with it, to 1e-3 of the largest value, on noise.

Exit status 1 where a network keeps more nodes than the best of the peers leaves, or edgec's result is not the same.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from bench_architectures import exported
from bench_zoo import ZOO, unpacked
from networks.architectures import ARCHITECTURES

SCRIPTS = {
    "onnxslim": "import onnxslim, sys; onnxslim.slim(sys.argv[1], sys.argv[2])",
    "onnxsim": "import onnx, onnxsim, sys; m, ok = onnxsim.simplify(onnx.load(sys.argv[1])); onnx.save(m, sys.argv[2])",
    "onnxruntime basic": (
        "import onnxruntime as o, sys; s = o.SessionOptions(); s.optimized_model_filepath = sys.argv[2];"
        "s.graph_optimization_level = o.GraphOptimizationLevel.ORT_ENABLE_BASIC; s.log_severity_level = 3;"
        "o.InferenceSession(sys.argv[1], s, providers=['CPUExecutionProvider'])"
    ),
    "onnxscript": "import onnx, onnxscript.optimizer as o, sys; onnx.save(o.optimize(onnx.load(sys.argv[1])), sys.argv[2])",
}
TOLERANCE = 1e-3
LATENCY_ROUNDS, LATENCY_SECONDS = 15, 0.02


@dataclass
class Result:
    """What one simplifier makes of one network.

    Attributes:
        nodes: in all graphs of the file, or ``None`` where it fails.
        cpu: seconds of CPU time of the whole command.
        same: whether onnxruntime computes the same with it.
        path: the file.
    """

    nodes: int | None
    cpu: float
    same: bool
    path: Path
    latency: list[float] = field(default_factory=list)

    @property
    def counts(self) -> bool:
        return self.nodes is not None and self.same


def nodes_of(graph: onnx.GraphProto) -> int:
    """Nodes but Constants, those in subgraphs too."""
    inside = [a.g for node in graph.node for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
    return sum(node.op_type != "Constant" for node in graph.node) + sum(map(nodes_of, inside))


def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def noise(path: Path) -> dict[str, np.ndarray]:
    """Noise for a model's inputs; an open dimension is 1, or what its pins say is in the file by then."""
    random = np.random.default_rng(0)
    kinds = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32}
    feeds = {}
    for tensor in session(path).get_inputs():
        shape = [size if isinstance(size, int) else 1 for size in tensor.shape]
        kind = kinds[tensor.type]
        feeds[tensor.name] = (random.random(shape) if kind is np.float32 else np.ones(shape)).astype(kind)
    return feeds


def agrees(path: Path, feeds: dict[str, np.ndarray], expected: list[np.ndarray]) -> bool:
    try:
        running = session(path)
        wanted = {tensor.name for tensor in running.get_inputs()}
        results = running.run(None, {name: values for name, values in feeds.items() if name in wanted})
    except Exception as error:  # onnxruntime's own exceptions have no common base
        print(f"    {path.name}: {str(error).splitlines()[0][:140]}")
        return False
    if len(results) != len(expected):
        return False
    for one, other in zip(expected, results, strict=True):
        if one.shape != other.shape:
            return False
        scale = float(np.abs(one).max(initial=0)) or 1.0
        if not np.allclose(one, other, rtol=0, atol=TOLERANCE * scale, equal_nan=True):
            return False
    return True


def simplified(command: list[str], output: Path, feeds: dict[str, np.ndarray], expected: list[np.ndarray]) -> Result:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if run.returncode or not output.exists():
        print(
            f"    {' '.join(command[:1])} ... {output.name}: {(run.stderr.strip().splitlines() or ['no file'])[-1][:160]}"
        )
        return Result(None, cpu, False, output)
    return Result(
        nodes_of(onnx.load(output, load_external_data=False).graph), cpu, agrees(output, feeds, expected), output
    )


def measure_latency(results: dict[str, Result], feeds: dict[str, np.ndarray]) -> None:
    """Mean time of a run in each of some rounds, the simplifiers by turns."""
    running = {name: session(result.path) for name, result in results.items() if result.counts}
    for _ in range(LATENCY_ROUNDS):
        for name, one in running.items():
            wanted = {tensor.name for tensor in one.get_inputs()}
            own = {key: values for key, values in feeds.items() if key in wanted}
            one.run(None, own)
            runs, start = 0, time.perf_counter()
            while runs == 0 or time.perf_counter() - start < LATENCY_SECONDS:
                one.run(None, own)
                runs += 1
            results[name].latency.append((time.perf_counter() - start) / runs)


def pinned(path: Path, inputs: tuple[str, ...], folder: Path) -> Path:
    """A copy of the file with the input shapes that are given, so that every simplifier sees the same."""
    shapes = dict(text.split(":") for text in inputs if ":" in text)
    if not shapes:
        return path
    model = onnx.load(path)
    for tensor in model.graph.input:
        sizes = shapes.get(tensor.name, "").split("x")
        for dim, size in zip(tensor.type.tensor_type.shape.dim, sizes, strict=False):
            dim.ClearField("dim_param")
            dim.dim_value = int(size)
    copy = folder / "pinned.onnx"
    onnx.save(model, copy)
    return copy


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", required=True, metavar="PYTHON")
    parser.add_argument("--old-onnxsim", metavar="PYTHON")
    parser.add_argument("--zoo", type=Path, metavar="WHEELS")
    parser.add_argument("--only", nargs="*", metavar="NAME")
    parser.add_argument("--latency", action="store_true", help="measure the latency, too")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there too")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep what is written there")
    options = parser.parse_args()
    scripts = {name: [options.peers, "-c", script] for name, script in SCRIPTS.items()}
    if options.old_onnxsim:
        scripts["onnxsim 0.4"] = [options.old_onnxsim, "-c", SCRIPTS["onnxsim"]]
    columns = ["before", "edgec", *scripts]
    latency_columns = ["latency of edgec's : best peer's"] if options.latency else []
    table = [f"| network | {' | '.join([*columns, 'CPU s edgec : onnxslim', *latency_columns])} |"]
    table.append("|---" * (table[0].count("|") - 1) + "|")
    print(*table, sep="\n", flush=True)
    jobs = [(name, None) for name in ARCHITECTURES] + [(one.name, one) for one in ZOO if options.zoo]
    worse, fewer, cpu = list[str](), 0, np.zeros(2)
    shown = 0
    for name, network in jobs:
        if options.only and name not in options.only:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            folder = options.keep / name.replace(" ", "_").replace(",", "") if options.keep else Path(scratch)
            folder.mkdir(parents=True, exist_ok=True)
            model = folder / "model.onnx"
            if network is None:
                exported(name, "torchscript", model)
            else:
                source = unpacked(network, options.zoo, folder)
                if source is None:
                    continue
                model = pinned(source, network.inputs, folder)
            feeds = noise(model)
            expected = session(model).run(None, feeds)
            commands = {"edgec": [sys.executable, "-m", "edgec.tools.cli", "simplify", str(model), "-o"]}
            results = {}
            for key, command in (commands | scripts).items():
                output = folder / f"{key.replace(' ', '_')}.onnx"
                whole = [*command, str(output)] if key == "edgec" else [*command, str(model), str(output)]
                results[key] = simplified(whole, output, feeds, expected)
            if options.latency:
                measure_latency(results, feeds)
        before = nodes_of(onnx.load(model, load_external_data=False).graph) if model.exists() else 0
        table.append(row(name, before, results))
        print(table[-1], flush=True)
        shown += 1
        cpu += (results["edgec"].cpu, results["onnxslim"].cpu)
        best = min(
            (r.nodes for key, r in results.items() if key != "edgec" and r.counts and r.nodes is not None), default=0
        )
        own = results["edgec"]
        if not own.counts or own.nodes is None or own.nodes > best:
            worse.append(name)
        elif own.nodes < best:
            fewer += 1
    said = f"{shown} networks: fewer nodes than the best peer on {fewer}, more on {len(worse)} ({', '.join(worse) or 'none'})"
    said += f"; CPU time {cpu[0]:.1f} s : {cpu[1]:.1f} s of onnxslim"
    print(said)
    if options.markdown is not None:
        options.markdown.write_text("\n".join([*table, "", said]) + "\n")
    return int(bool(worse))


def row(name: str, before: int, results: dict[str, Result]) -> str:
    cells = [
        str(r.nodes) if r.counts else ("fails" if r.nodes is None else f"{r.nodes}, differs") for r in results.values()
    ]
    times = f"{results['edgec'].cpu:.1f} : {results['onnxslim'].cpu:.1f}"
    peers = [np.median(r.latency) for key, r in results.items() if key != "edgec" and r.latency]
    own = results["edgec"].latency
    latency = (
        [f"{np.median(own) / min(peers):.2f}" if own and peers else "-"]
        if any(r.latency for r in results.values())
        else []
    )
    return f"| {name} | {' | '.join([str(before), *cells, times, *latency])} |"


if __name__ == "__main__":
    sys.exit(main())
