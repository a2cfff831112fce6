"""``edgec simplify`` beside other simplifiers: nodes left, latency in onnxruntime, CPU time of the command.

    python tests/bench/bench_simplify.py --peers PYTHON [--old-onnxsim PYTHON] [--zoo WHEELS] [--only NAME ...]
                                         [--latency] [--markdown FILE]

PYTHON is an interpreter with onnxslim, onnxsim, onnxscript and onnxruntime installed, the second one with onnxsim 0.4;
nothing of them is imported here. The networks are torch's own exports of the families in tests/networks, by TorchScript
(torch's newer exporter runs onnxscript's optimizer itself), and with ``--zoo`` trained ones out of packages, as
bench_zoo.py reads them. Nodes are counted in all graphs of a file, ``Constant`` left out. A result counts only where
onnxruntime computes the same with it, to 1e-3 of the largest value or to 1e-6, on noise.

Exit status 1 where a network keeps more nodes than the best of the peers leaves, or edgec's result is not the same.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

SCRIPTS = {
    "onnxslim": "import onnxslim, sys; onnxslim.slim(sys.argv[1], sys.argv[2])",
    "onnxsim": "import onnx, onnxsim, sys; m, ok = onnxsim.simplify(onnx.load(sys.argv[1])); onnx.save(m, sys.argv[2])",
    "onnxruntime basic": (
        "import onnxruntime as o, sys; s = o.SessionOptions(); s.optimized_model_filepath = sys.argv[2];"
        "s.graph_optimization_level = o.GraphOptimizationLevel.ORT_ENABLE_BASIC; s.log_severity_level = 3;"
        "o.InferenceSession(sys.argv[1], s, providers=['CPUExecutionProvider'])"
    ),
    "onnxscript": (
        "import onnx, onnxscript.optimizer as o, sys; onnx.save(o.optimize(onnx.load(sys.argv[1])), sys.argv[2])"
    ),
}
TOLERANCE, LEAST = 1e-3, 1e-6
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
    except Exception as error:  # noqa: BLE001 - onnxruntime's own exceptions have no common base
        print(f"    {path.name}: {str(error).splitlines()[0][:140]}")
        return False
    if len(results) != len(expected):
        return False
    for one, other in zip(expected, results, strict=True):
        if one.shape != other.shape:
            return False
        scale = float(np.abs(one).max(initial=0)) or 1.0
        if not np.allclose(one, other, rtol=0, atol=max(TOLERANCE * scale, LEAST), equal_nan=True):
            return False
    return True


def simplified(command: list[str], output: Path, feeds: dict[str, np.ndarray], expected: list[np.ndarray]) -> Result:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if run.returncode or not output.exists():
        print(f"    {output.stem}: {(run.stderr.strip().splitlines() or ['no file'])[-1][:160]}")
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


def measured(
    model: Path, scripts: dict[str, list[str]], folder: Path, *, latency: bool
) -> tuple[int, dict[str, Result]]:
    """The nodes of a model, and what edgec and each peer make of it."""
    feeds = noise(model)
    expected = session(model).run(None, feeds)
    results = {}
    for key, command in {"edgec": [sys.executable, "-m", "edgec.tools.cli", "simplify"], **scripts}.items():
        output = folder / f"{key.replace(' ', '_')}.onnx"
        last = ["-o", str(output)] if key == "edgec" else [str(output)]
        results[key] = simplified([*command, str(model), *last], output, feeds, expected)
    if latency:
        measure_latency(results, feeds)
    return nodes_of(onnx.load(model, load_external_data=False).graph), results


def sources(options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, Path]]:
    """Name and file of each network, one at a time."""
    from bench_architectures import exported
    from bench_zoo import ZOO, unpacked
    from networks.architectures import ARCHITECTURES

    for name in ARCHITECTURES:
        if not options.only or name in options.only:
            exported(name, "torchscript", folder / "model.onnx")
            yield name, folder / "model.onnx"
    for network in ZOO if options.zoo else ():
        if not options.only or network.name in options.only:
            source = unpacked(network, options.zoo, folder)
            if source is not None:
                yield network.name, pinned(source, network.inputs, folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", required=True, metavar="PYTHON")
    parser.add_argument("--old-onnxsim", metavar="PYTHON")
    parser.add_argument("--zoo", type=Path, metavar="WHEELS")
    parser.add_argument("--only", nargs="*", metavar="NAME")
    parser.add_argument("--latency", action="store_true", help="measure the latency, too")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there too")
    options = parser.parse_args()
    scripts = {name: [options.peers, "-c", script] for name, script in SCRIPTS.items()}
    if options.old_onnxsim:
        scripts["onnxsim 0.4"] = [options.old_onnxsim, "-c", SCRIPTS["onnxsim"]]
    columns = ["network", "before", "edgec", *scripts, "CPU s edgec : onnxslim"]
    columns += ["latency, edgec's : best peer's"] if options.latency else []
    table = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    print(*table, sep="\n", flush=True)
    worse, fewer, cpu, ratios = list[str](), 0, np.zeros(2), list[float]()
    with tempfile.TemporaryDirectory() as scratch:
        for name, model in sources(options, Path(scratch)):
            try:
                before, results = measured(model, scripts, Path(scratch), latency=options.latency)
            except onnxruntime.capi.onnxruntime_pybind11_state.Fail as error:
                print(f"    {name}: onnxruntime does not take it: {str(error).splitlines()[0][:120]}", flush=True)
                continue
            own, others = results["edgec"], [result for key, result in results.items() if key != "edgec"]
            best = min((r.nodes for r in others if r.counts and r.nodes is not None), default=before)
            if not own.counts or own.nodes is None or own.nodes > best:
                worse.append(name)
            fewer += own.counts and own.nodes is not None and own.nodes < best
            cpu += (own.cpu, results["onnxslim"].cpu)
            cells = [name, str(before), *map(cell, results.values()), f"{own.cpu:.1f} : {results['onnxslim'].cpu:.1f}"]
            if options.latency and own.latency:
                ratios.append(float(np.median(own.latency) / min(np.median(r.latency) for r in others if r.latency)))
                cells.append(f"{ratios[-1]:.2f}")
            table.append(f"| {' | '.join(cells)} |")
            print(table[-1], flush=True)
    said = f"{len(table) - 2} networks: fewer nodes than the best peer on {fewer}, more, or no right result, on "
    said += f"{len(worse)} ({', '.join(worse) or 'none'}); CPU time {cpu[0]:.1f} s, of onnxslim {cpu[1]:.1f} s"
    if ratios:
        said += f"; latency {np.exp(np.mean(np.log(ratios))):.2f} of the best peer's (geometric mean)"
    print(said)
    if options.markdown is not None:
        options.markdown.write_text("\n".join([*table, "", said]) + "\n")
    return int(bool(worse))


def cell(result: Result) -> str:
    """What the table shows of a result."""
    if result.nodes is None:
        return "fails"
    return str(result.nodes) if result.same else f"{result.nodes}, differs"


if __name__ == "__main__":
    sys.exit(main())
