"""What the Edge TPU would run, by the published limits, and what its compiler said, where it is installed."""

from __future__ import annotations

import stat

import numpy as np
import pytest

from edgec.backends.coral import compiler
from edgec.backends.coral.backend import CoralBackend, lower
from edgec.backends.coral.verdict import verdict
from edgec.backends.registry import target
from edgec.ir.errors import EmitError

IMAGE = (1, 4, 6, 6)


def _pool_with_negatives(b, x):
    """A padded pool whose input has no negative number, though it shares its scale with a tensor that has."""
    pooled = b(
        "MaxPool", b("Relu", b("Conv", x, b.weight(4, 4, 1, 1))), kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2]
    )
    other = b("Conv", x, b.weight(4, 4, 2, 2), strides=[2, 2])
    return b("Concat", pooled, other, axis=1)


#: node, input shapes, the reason that the first operator not mapped has.
LIMITS = {
    "leaky relu is a PRELU": (lambda b, x: b("LeakyRelu", x), [IMAGE], ""),
    "dilation": (
        lambda b, x: b("Conv", x, b.weight(4, 4, 3, 3), dilations=[1, 2]),
        [IMAGE],
        "its dilations differ by axis",
    ),
    "batch": (lambda b, x: b("Relu", x), [(2, 4, 6, 6)], "a dimension before the last three is larger than 1"),
    "mean": (lambda b, x: b("ReduceMean", x, axes=[1]), [(1, 6, 3, 3)], "it reduces 6 channels, not a multiple of 4"),
    "mean of 4": (lambda b, x: b("ReduceMean", x, axes=[1]), [IMAGE], ""),
    "slice": (
        lambda b, x: b("Slice", x, b.ints(0), b.ints(4), b.ints(1), b.ints(2)),
        [IMAGE],
        "its strides are not 1",
    ),
    "subsampling": (lambda b, x: b("Slice", x, b.ints(1, 0), b.ints(6, 6), b.ints(2, 3), b.ints(2, 2)), [IMAGE], ""),
    "dilated sequence": (lambda b, x: b("Conv", x, b.weight(4, 4, 3), dilations=[2]), [(1, 4, 9)], ""),
    "pool behind a relu": (_pool_with_negatives, [IMAGE], ""),
    "softmax": (lambda b, x: b("Softmax", x, axis=1), [IMAGE], "it has more than one row"),
    "softmax, long": (lambda b, x: b("Softmax", x), [(1, 16_004)], "it has more than 16,000 elements"),
    "rows": (lambda b, x: b("MatMul", x, b.weight(4, 3)), [(5, 4)], ""),
    "mirror": (
        lambda b, x: b("Pad", x, b.ints(0, 0, 1, 1, 0, 0, 1, 1), mode="reflect"),
        [IMAGE],
        "the Edge TPU has no such operator",
    ),
    "constant": (
        lambda b, x: b("Concat", x, b.weight(1, 2, 6, 6), axis=1),
        [IMAGE],
        "it joins a constant that is not zero, or more than two tensors with one",
    ),
    "float": (lambda b, x: b("Exp", x), [IMAGE], "the Edge TPU has no such operator"),
}


@pytest.mark.parametrize("case", list(LIMITS))
def test_limits(lab, case):
    make, shapes, reason = LIMITS[case]
    graph = lab.build(make, shapes)
    file = lower(lab.quantized(graph, lab.noise(graph))).file
    judged = verdict(file)
    reasons = [entry["reason"] for entry in judged.operators if entry["reason"]]
    if reason == "":
        assert reasons == []
        assert judged.mapped == len(judged.operators)
        assert judged.notes() == []
    else:
        assert reason in reasons
        assert judged.mapped < len(judged.operators)


def test_what_follows_an_unmapped_operator_is_on_the_cpu(lab):
    graph = lab.build(
        lambda b, x: b("Sigmoid", b("Pad", b("Relu", x), b.ints(0, 0, 1, 1, 0, 0, 1, 1), mode="reflect")), [IMAGE]
    )
    judged = verdict(lower(lab.quantized(graph, lab.noise(graph))).file)
    assert judged.mapped == 1
    assert [entry["kind"] for entry in judged.as_dict()["on_cpu"]] == ["MIRROR_PAD", "LOGISTIC"]
    assert judged.notes() == [
        "estimate: the Edge TPU runs 1 of 3 operators; MIRROR_PAD (node 'pad') and what follows run on the CPU: "
        "the Edge TPU has no such operator"
    ]


def test_parameters_that_do_not_fit(lab):
    graph = lab.build(lambda b, x: b("Gemm", x, b.weight(40, 50), transB=1), [(1, 50)])
    file = lower(lab.quantized(graph, lab.noise(graph), False)).file
    assert file.parameter_bytes == 40 * 50 + 40 * 4
    assert verdict(file, 2160).fits
    judged = verdict(file, 2159)
    assert not judged.fits
    assert judged.notes() == [
        "estimate: 2,160 bytes of parameters, of which the Edge TPU keeps 2,159; the rest streams at every inference"
    ]


def test_a_transposed_convolution_needs_runtime_13(lab):
    graph = lab.build(lambda b, x: b("ConvTranspose", x, b.weight(4, 2, 2, 2), strides=[2, 2]), [IMAGE])
    assert verdict(lower(lab.quantized(graph, lab.noise(graph))).file).runtime == 13


LOG = """Edge TPU Compiler version 16.0.384591198
Input: model.tflite
Input size: 5.10MiB
Output: model_edgetpu.tflite
Output size: 5.73MiB
On-chip memory used for caching model parameters: 5.25MiB
On-chip memory remaining for caching model parameters: 2.25MiB
Off-chip memory used for streaming uncached model parameters: 64.00KiB
Number of Edge TPU subgraphs: 1
Total number of operations: 63
Number of operations that will run on Edge TPU: 62
Number of operations that will run on CPU: 1

Operator                       Count      Status

CONV_2D                        34         Mapped to Edge TPU
LEAKY_RELU                     1          Operation not supported
"""


def test_the_compilers_log():
    assert compiler.parse_log(LOG) == {
        "on_chip_used_bytes": 5505024,
        "on_chip_remaining_bytes": 2359296,
        "off_chip_bytes": 65536,
        "subgraphs": 1,
        "operators": 63,
        "mapped": 62,
        "on_cpu": 1,
        "rows": [
            {"operator": "CONV_2D", "count": 34, "status": "Mapped to Edge TPU"},
            {"operator": "LEAKY_RELU", "count": 1, "status": "Operation not supported"},
        ],
    }


def _program(folder, script):
    program = folder / "bin" / compiler.PROGRAM
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n" + script)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(program.parent)


@pytest.fixture
def graph(lab):
    graph = lab.build(lambda b, x: b("Relu", x), [IMAGE])
    return lab.quantized(graph, lab.noise(graph))


def test_without_the_compiler(graph, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert CoralBackend().missing() == [
        "edgetpu_compiler is not on PATH: model.tflite is emitted and checked, and what the Edge TPU would run is "
        "estimated; see coral.ai/docs/edgetpu/compiler"
    ]
    emitted = CoralBackend().emit(graph, target("coral-dev-board"), tmp_path / "out", [])
    assert emitted.files == ["model.tflite", "check.json", "run.py", "golden.npz"]
    assert "edgetpu_compiler" not in emitted.check


def test_with_the_compiler(graph, tmp_path, monkeypatch):
    """A stand-in that prints a log: what is tested is how it is called and read, not what the real one says."""
    script = f"""cat <<'END'
{LOG}END
while [ $# -gt 1 ]; do [ "$1" = --out_dir ] && out=$2; shift; done
echo copied > "$out/model_edgetpu.tflite"
echo log > "$out/model_edgetpu.log"
"""
    monkeypatch.setenv("PATH", _program(tmp_path, script), prepend=":")
    assert CoralBackend().missing() == []
    emitted = CoralBackend().emit(graph, target("coral-dev-board"), tmp_path / "out", [])
    assert emitted.files == [
        "model.tflite",
        "check.json",
        "run.py",
        "golden.npz",
        "edgetpu.log",
        "model_edgetpu.tflite",
    ]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(emitted.files)
    assert emitted.check["edgetpu_compiler"]["mapped"] == 62
    assert emitted.fits is False, "the log says that parameters stream"


def test_a_compiler_that_fails(graph, tmp_path, monkeypatch):
    monkeypatch.setenv(
        "PATH", _program(tmp_path, "echo 'Internal compiler error. Aborting!' >&2\nexit 1\n"), prepend=":"
    )
    with pytest.raises(EmitError) as caught:
        CoralBackend().emit(graph, target("coral-dev-board"), tmp_path / "out", [])
    assert str(caught.value) == (
        "edgetpu_compiler: it refused model.tflite (Internal compiler error. Aborting!); take it off PATH to go without"
    )


def test_a_compiler_that_cannot_run(graph, tmp_path, monkeypatch):
    folder = _program(tmp_path, "")
    (tmp_path / "bin" / compiler.PROGRAM).write_bytes(np.arange(64, dtype=np.uint8).tobytes())
    monkeypatch.setenv("PATH", folder, prepend=":")
    with pytest.raises(EmitError) as caught:
        CoralBackend().emit(graph, target("coral-dev-board"), tmp_path / "out", [])
    assert str(caught.value) == "edgetpu_compiler: it cannot be run (Exec format error); take it off PATH to go without"
