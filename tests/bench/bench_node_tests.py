"""onnx's own node tests through the coral backend, in float: how many match, what is refused, and why.

    python tests/bench/bench_node_tests.py [--only OPERATOR ...] [--markdown FILE] [--every N] [--peer PYTHON]

Each test of ``onnx.backend.test`` whose tensors are numbers or booleans, none of them empty, is opened as a
user's model would be, lowered to TFLite, run in LiteRT, and compared with the test's own outputs: to 1e-4 of what an
output can be, exactly where they are integers. Left out are tests of strings, sequences, optionals and complex numbers,
of random numbers, of training, of types that are no weights of a vision network (float8, int4, bfloat16), and of
operators on text, sound and lists. With ``--peer`` onnx2tf, of another
interpreter, converts the same files. Exit status 1 where a file computes
something else, or anything but a refusal stops it.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import traceback
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx.backend.test.case.node import collect_testcases

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edgec.backends.coral.backend import CoralBackend, lower
from edgec.backends.coral.interpreter import Interpreter
from edgec.backends.protocol import legalize
from edgec.backends.registry import target
from edgec.frontends.model import open_model
from edgec.ir.errors import EdgecError
from edgec.passes.fold.fold import Fold
from edgec.passes.framework.context import Context
from edgec.passes.framework.settling import settle

TOLERANCE = 1e-4
TYPES = {
    "float32",
    "float16",
    "float64",
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "bool",
}
OTHERS = re.compile(
    "Sequence|Optional|String|Regex|TfIdf|ImageDecoder|STFT|DFT|Window|MelWeight|Random|Bernoulli|Multinomial"
    "|Loss$|Adam|Adagrad|Momentum|Gradient|^Loop$|^Scan$|LabelEncoder|ArrayFeature|TreeEnsemble|Binarizer|BitCast"
    "|LinearAttention|CausalConv|RotaryEmbedding|TensorScatter|Unique|^Det$|NegativeLog"
)


@dataclass
class Case:
    """A node test.

    Attributes:
        name, operator: of the test, and what it tests.
        model: as the test has it.
        inputs, outputs: a set of each.
    """

    name: str
    operator: str
    model: onnx.ModelProto
    inputs: list[np.ndarray]
    outputs: list[np.ndarray]


@dataclass
class Tally:
    """What came of the tests.

    Attributes:
        matched, refused, wrong, crashed: names, by operator; with the reason where there is one.
        disputed: where onnxruntime computes what edgec does, and not what the test says.
    """

    matched: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    refused: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))
    wrong: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))
    crashed: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))
    disputed: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))


def cases(only: list[str]) -> list[Case]:
    """The tests that are about networks of numbers."""
    chosen = []
    for test in collect_testcases(None):
        if test.model is None or not test.data_sets or test.name.endswith("_expanded"):
            continue
        operators = {node.op_type for node in test.model.graph.node}
        domains = {node.domain for node in test.model.graph.node}
        operator = test.model.graph.node[0].op_type
        if domains - {"", "ai.onnx"} or any(OTHERS.search(op) for op in operators) or (only and operator not in only):
            continue
        inputs, outputs = test.data_sets[0]
        arrays = [*inputs, *outputs]
        if not all(isinstance(x, np.ndarray) and x.dtype.name in TYPES and x.size for x in arrays):
            continue
        if any(not value.type.HasField("tensor_type") for value in (*test.model.graph.input, *test.model.graph.output)):
            continue
        if "training" in test.name or "train_" in test.name:
            continue
        if "_expanded" in test.name:
            continue
        chosen.append(Case(test.name, operator, test.model, list(inputs), list(outputs)))
    return chosen


#: Operands that TFLite's operators take as numbers, and exporters write as constants.
CONSTANTS = {
    "AffineGrid": {1}, "BitShift": {1}, "CenterCropPad": {1}, "Clip": {1, 2}, "Col2Im": {1, 2}, "ConstantOfShape": {0},
    "Conv": {1, 2}, "ConvTranspose": {1, 2}, "CumSum": {1}, "CumProd": {1}, "DequantizeLinear": {1, 2},
    "Dropout": {1, 2}, "Expand": {1}, "GroupNormalization": {1, 2}, "GRU": {1, 2, 3, 4}, "LSTM": {1, 2, 3, 4, 7},
    "MaxUnpool": {2}, "NonMaxSuppression": {2, 3, 4}, "OneHot": {1, 2}, "Pad": {1, 2, 3},
    "QLinearConv": {1, 2, 3, 4, 5, 6, 7, 8}, "QLinearMatMul": {1, 2, 4, 5, 6, 7}, "QuantizeLinear": {1, 2},
    "Range": {0, 1, 2}, "Reshape": {1}, "Resize": {1, 2, 3}, "RNN": {1, 2, 3, 4}, "Slice": {1, 2, 3, 4},
    "Split": {1}, "Squeeze": {1}, "Tile": {1}, "TopK": {1}, "Trilu": {1}, "Unsqueeze": {1}, "Upsample": {1},
    "Attention": {6}, "Compress": {1}, "EyeLike": set(), "BatchNormalization": {1, 2, 3, 4},
    "InstanceNormalization": {1, 2}, "LayerNormalization": {1, 2}, "RMSNormalization": {1}, "PRelu": {1},
    "DeformConv": {1, 3}, "ConvInteger": {1, 2, 3}, "MatMulInteger": {2, 3}, "RoiAlign": {2}, "MaxRoiPool": set(),
}  # fmt: skip


def with_constants(case: Case) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """The model with :data:`CONSTANTS` and the axes of reductions inside, and the feeds that are left."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    graph = model.graph
    names = [value.name for value in graph.input]
    fixed: set[str] = set()
    for node in graph.node:
        places = CONSTANTS.get(node.op_type, {1} if node.op_type.startswith("Reduce") else set())
        fixed |= {name for place, name in enumerate(node.input) if place in places and name in names}
    feeds = {}
    for name, array in zip(names, case.inputs, strict=False):
        if name in fixed:
            graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        else:
            feeds[name] = array
    kept = [value for value in graph.input if value.name not in fixed]
    del graph.input[:]
    graph.input.extend(kept)
    return model, feeds


def computed(case: Case, folder: Path) -> list[np.ndarray] | None:
    """What LiteRT computes; ``None`` where nothing is left to compute."""
    model, feeds = with_constants(case)
    path = folder / "model.onnx"
    onnx.save(model, path)
    board = target("coral-dev-board")
    graph = open_model(path, {}, ())
    Fold().run(graph, Context(graph))
    settle(graph, "fold")
    legalize(graph, CoralBackend(), board)
    lowered = lower(graph, board.name)
    outputs = Interpreter(lowered.file.to_bytes(), lowered.inputs, lowered.outputs).run(feeds)
    return [outputs[value.name] for value in case.model.graph.output]


def difference(case: Case, got: list[np.ndarray]) -> str | None:
    """What is wrong with outputs; ``None`` where nothing is."""
    for wanted, values in zip(case.outputs, got, strict=True):
        if wanted.shape != values.shape:
            return f"shape {values.shape} instead of {wanted.shape}"
        if wanted.dtype.kind in "biu":
            if not np.array_equal(wanted.astype(np.int64), values.astype(np.int64)):
                return f"{int((wanted.astype(np.int64) != values.astype(np.int64)).sum())} integers differ"
            continue
        if not wanted.size:
            continue
        scale = max(1.0, float(np.nanmax(np.abs(np.where(np.isfinite(wanted), wanted, 0)).astype(np.float64))))
        half = 10 if wanted.dtype == np.float16 else 1
        if not np.allclose(wanted.astype(np.float64), values.astype(np.float64), rtol=0, equal_nan=True,
                           atol=half * TOLERANCE * scale):  # fmt: skip
            apart = float(np.nanmax(np.abs(wanted.astype(np.float64) - values.astype(np.float64))))
            return f"differs by {apart:.3g} of {scale:.3g}"
    return None


def tried(chosen: list[Case]) -> Tally:
    """Each test through edgec."""
    tally = Tally()
    for case in chosen:
        with tempfile.TemporaryDirectory() as folder:
            try:
                got = computed(case, Path(folder))
            except EdgecError as error:
                tally.refused[case.operator].append((case.name, str(error).replace(folder, ".")))
            except Exception:  # noqa: BLE001
                tally.crashed[case.operator].append((case.name, traceback.format_exc().strip().splitlines()[-1]))
            else:
                wrong = difference(case, got or [])
                if wrong is None:
                    tally.matched[case.operator].append(case.name)
                elif difference(replace(case, outputs=by_runtime(case)), got or []) is None:
                    tally.disputed[case.operator].append((case.name, wrong))
                else:
                    tally.wrong[case.operator].append((case.name, wrong))
    return tally


def by_runtime(case: Case) -> list[np.ndarray]:
    """What onnxruntime computes."""
    import onnxruntime as ort

    session = ort.InferenceSession(case.model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in case.model.graph.input]
    return session.run(None, dict(zip(names, case.inputs, strict=False)))


#: Converts model.onnx in each folder named on standard input; it loads once, and forks for each file.
PEER = """
import os, signal, sys
import onnx2tf
for line in sys.stdin:
    folder = line.strip()
    child = os.fork()
    if not child:
        os.setsid()
        signal.alarm(120)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        os.chdir(folder)
        try:
            onnx2tf.convert(
                input_onnx_file_path="model.onnx", output_folder_path="out", non_verbose=True,
                keep_shape_absolutely_input_names=NAMES(folder),
            )
            os._exit(0)
        except BaseException:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    print(int(status == 0), flush=True)
""".replace("NAMES(folder)", "open('names').read().split()")


def by_peer(chosen: list[Case], python: str) -> Counter[str]:
    """Each test through onnx2tf, in the interpreter that has it; what came of it, counted.

    It turns tensors to channels-last: inputs are kept as they are, outputs taken in any order of axes.
    """
    came: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as root:
        peer = subprocess.Popen(
            [python, "-c", PEER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert peer.stdin is not None and peer.stdout is not None
        for number, case in enumerate(chosen):
            folder = Path(root, str(number))
            folder.mkdir()
            model, feeds = with_constants(case)
            onnx.save(model, folder / "model.onnx")
            (folder / "names").write_text("\n".join(feeds))
            peer.stdin.write(f"{folder}\n")
            peer.stdin.flush()
            while (word := peer.stdout.readline().strip()) not in ("0", "1"):
                assert peer.poll() is None, "the peer's process has ended"
            files = sorted(folder.glob("out/*_float32.tflite"))
            if word == "0" or not files:
                came["refused, or converter failed"] += 1
                continue
            came[_verdict(case, files[0], feeds)] += 1
        peer.stdin.close()
        peer.wait()
    return came


def _verdict(case: Case, file: Path, feeds: dict[str, np.ndarray]) -> str:
    """Whether a file runs and computes what the test says; in a process of its own, since LiteRT may end it."""
    import multiprocessing

    with multiprocessing.get_context("fork").Pool(1) as pool:
        try:
            return pool.apply_async(_judged, (case, file, feeds)).get(60)
        except multiprocessing.TimeoutError:
            return "does not run"


def _judged(case: Case, file: Path, feeds: dict[str, np.ndarray]) -> str:
    try:
        outputs = run_file(file, feeds, len(case.outputs))
    except Exception:  # noqa: BLE001 - LiteRT's errors are of any kind
        return "does not run"
    if len(outputs) != len(case.outputs):
        return "wrong"
    for wanted, values in zip(case.outputs, outputs, strict=True):
        one = replace(case, outputs=[wanted])
        orders = permutations(range(values.ndim)) if 2 < values.ndim < 6 else [tuple(range(values.ndim))]
        if all(difference(one, [values.transpose(order)]) for order in orders):
            return "wrong"
    return "matched"


def run_file(file: Path, feeds: dict[str, np.ndarray], outputs: int) -> list[np.ndarray]:
    """A TFLite file of onnx2tf's on feeds by name, in its order of outputs."""
    from ai_edge_litert.interpreter import Interpreter as LiteRT

    runtime: Any = LiteRT(str(file))
    runtime.allocate_tensors()
    for detail in runtime.get_input_details():
        values = feeds[detail["name"].removeprefix("serving_default_").removesuffix(":0")]
        runtime.set_tensor(detail["index"], values.astype(detail["dtype"]).reshape(detail["shape"]))
    runtime.invoke()
    return [runtime.get_tensor(detail["index"]) for detail in runtime.get_output_details()][:outputs]


def table(tally: Tally) -> str:
    """The tests by operator, those that do not all match first, and every refusal."""
    operators = sorted({*tally.matched, *tally.refused, *tally.wrong, *tally.crashed, *tally.disputed})
    came = ("matched", "refused", "disputed", "wrong", "crashed")
    counts = {name: sum(map(len, getattr(tally, name).values())) for name in came}
    lines = [
        f"{sum(counts.values())} tests of {len(operators)} operators: {counts['matched']} match,"
        f" {counts['refused']} are refused, {counts['disputed']} match onnxruntime and not the test,"
        f" {counts['wrong']} compute something else, {counts['crashed']} end otherwise.",
        "",
        "| operator | match | refused | why |",
        "|---|---|---|---|",
    ]
    for operator in sorted(operators, key=lambda op: (-len(tally.refused[op]), op)):
        if tally.refused[operator]:
            reasons = Counter(reason(said) for _, said in tally.refused[operator])
            why = "; ".join(f"{text} ({count})" for text, count in reasons.most_common(4))
            lines.append(f"| {operator} | {len(tally.matched[operator])} | {len(tally.refused[operator])} | {why} |")
    parts = (tally.refused, tally.disputed, tally.wrong, tally.crashed)
    whole = [op for op in operators if not any(part[op] for part in parts)]
    lines += ["", f"All tests match of {len(whole)} operators: {', '.join(whole)}."]
    for title, found in (
        ("As onnxruntime", tally.disputed),
        ("Wrong", tally.wrong),
        ("Ended otherwise", tally.crashed),
    ):
        lines += [f"- {title}: {name}: {said}" for op in operators for name, said in found[op]]
    return "\n".join(lines)


def reason(said: str) -> str:
    """A refusal without the node's name and the fix."""
    text = re.sub(r"node '[^']*' \(\w+\): |coral-dev-board: |\./model\.onnx: ", "", said).split("; ")[0]
    return re.sub(r"'[^']*'", "'...'", re.sub(r"\d+", "N", text)).replace("|", "/")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], metavar="OPERATOR")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there too")
    parser.add_argument("--peer", metavar="PYTHON", help="convert the same files by onnx2tf, which that one has")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take every n-th test only")
    arguments = parser.parse_args()
    chosen = cases(arguments.only)[:: arguments.every]
    tally = tried(chosen)
    text = table(tally)
    if arguments.peer:
        text += f"\n\nonnx2tf on the same {len(chosen)} files: {dict(by_peer(chosen, arguments.peer))}."
    print(text)
    if arguments.markdown:
        arguments.markdown.write_text(text + "\n", encoding="utf-8")
    return 1 if any(tally.wrong.values()) or any(tally.crashed.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
