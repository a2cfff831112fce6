"""Graphs exported at one batch size, at others: what follows the samples, and what has no meaning then."""

from __future__ import annotations

import numpy as np
import pytest
from torch_modules import agrees, assert_agree, run

from edgec.ir.errors import InputError
from edgec.ir.execution import Session
from edgec.ir.graph import Graph
from edgec.ir.torch_module.module import TorchModule
from edgec.testing import model


def samples(graph: Graph, count: int) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(3)
    return [
        {t.name: random.standard_normal([int(d) for d in t.shape]).astype(np.float32) for t in graph.inputs}
        for _ in range(count)
    ]


def assert_samples_stay_apart(graph: Graph, count: int = 3, **axes: int) -> None:
    """The module at a batch of ``count`` gives what onnxruntime gives for each sample of the exported graph."""
    module = TorchModule(graph)
    for name, axis in axes.items():
        assert module.batch_axes[name] == axis
    feeds = samples(graph, count)
    together = run(module, {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]})
    session = Session(graph)
    alone = [session.run(feed) for feed in feeds]
    wanted = {n: np.concatenate([one[n] for one in alone], axis=module.batch_axes[n] or 0) for n in alone[0]}
    assert_agree(together, wanted)
    feeds[1] = {name: -2 * values for name, values in feeds[1].items()}
    other = run(module, {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]})
    assert not all(agrees(other[name], wanted[name]) for name in wanted), "the samples do not matter"


FOLLOWED = {
    "a constant target": ("y = Reshape(x, t)", "(float[1,4,6] x) => (float[1,24] y)", "int64[2] t = {1, -1}"),
    "a target without -1": ("y = Reshape(x, t)", "(float[1,4,6] x) => (float[1,2,12] y)", "int64[3] t = {1, 2, 12}"),
    "a target with 0": ("y = Reshape(x, t)", "(float[1,4,6] x) => (float[1,3,8] y)", "int64[3] t = {0, 3, 8}"),
    "a new axis in front": ("y = Reshape(x, t)", "(float[1,6] x) => (float[1,1,6] y)", "int64[3] t = {1, 1, 6}"),
    "rows of windows and back": (
        "a = Reshape(x, t)\nb = Relu(a)\nc = MatMul(b, w)\ny = Reshape(c, u)",
        "(float[1,4,4] x) => (float[1,8,3] y)",
        "int64[3] t = {4, 2, 2}, float[2,3] w, int64[3] u = {1, 8, 3}",
    ),
    "samples behind a Transpose": (
        "a = Transpose<perm=[1,0,2]>(x)\nb = Reshape(a, t)\nc = Softmax<axis=-1>(b)\ny = Transpose<perm=[1,0,2,3]>(c)",
        "(float[1,5,8] x) => (float[1,5,2,4] y)",
        "int64[4] t = {5, 1, 2, 4}",
    ),
    "Flatten": ("y = Flatten(x)", "(float[1,4,2,3] x) => (float[1,24] y)", ""),
    "Flatten from axis 0": ("a = Flatten<axis=0>(x)\ny = Relu(a)", "(float[1,4] x) => (float[1,4] y)", ""),
    "a class token": (
        "y = Concat<axis=1>(token, x)",
        "(float[1,4,6] x) => (float[1,5,6] y)",
        "float[1,1,6] token",
    ),
    "Expand that keeps the batch": (
        "y = Expand(x, t)",
        "(float[1,1,6] x) => (float[1,4,6] y)",
        "int64[3] t = {1, 4, 6}",
    ),
    "Expand to a shorter shape": ("y = Expand(x, t)", "(float[1,4,1] x) => (float[1,4,6] y)", "int64[2] t = {4, 6}"),
    "Expand to a longer shape": ("y = Expand(x, t)", "(float[1,6] x) => (float[2,1,6] y)", "int64[3] t = {2, 1, 6}"),
    "a Slice of all the batch": (
        "y = Slice(x, s, e, a)",
        "(float[1,6] x) => (float[1,3] y)",
        "int64[2] s = {0, 1}, int64[2] e = {1, 4}, int64[2] a = {0, 1}",
    ),
    "Shape, Gather, Concat": (
        "s = Shape(x)\ng = Gather(s, i)\nc = Concat<axis=0>(g, m)\ny = Reshape(x, c)",
        "(float[1,4,6] x) => (float[1,24] y)",
        "int64[1] i = {0}, int64[1] m = {-1}",
    ),
    "attention": (
        """
        q0 = MatMul(x, wq)
        q1 = Reshape(q0, t)
        q = Transpose<perm=[0,2,1,3]>(q1)
        k = Transpose<perm=[0,2,3,1]>(q1)
        s = MatMul(q, k)
        n = Add(s, mask)
        p = Softmax<axis=-1>(n)
        o = MatMul(p, q)
        r = Transpose<perm=[0,2,1,3]>(o)
        y = Reshape(r, u)
        """,
        "(float[1,5,8] x) => (float[1,5,8] y)",
        "float[8,8] wq, int64[4] t = {1, 5, 2, 4}, float[1,1,5,5] mask, int64[3] u = {1, 5, 8}",
    ),
    "two inputs": ("a = Add(x, z)\ny = Relu(a)", "(float[1,4] x, float[1,4] z) => (float[1,4] y)", ""),
    "a contraction that names the batch": (
        'y = Einsum<equation="bij,jk->bik">(x, w)',
        "(float[1,3,4] x) => (float[1,3,5] y)",
        "float[4,5] w",
    ),
    "Gemm": (
        "y = Gemm<transB=1, alpha=0.5>(x, w, b)",
        "(float[1,4] x) => (float[1,3] y)",
        "float[3,4] w, float[1,3] b",
    ),
    "rows and columns": (
        "a = Transpose(x)\ny = MatMul(w, a)",
        "(float[1,4] x) => (float[3,1] y)",
        "float[3,4] w",
    ),
    "lookups": (
        "i = ArgMax<axis=1, keepdims=0>(x)\ny = Gather(w, i)",
        "(float[1,4] x) => (float[1,3] y)",
        "float[4,3] w",
    ),
    "shuffled channels": (
        "a = Reshape(x, t)\nb = Transpose<perm=[0,2,1,3,4]>(a)\ny = Reshape(b, u)",
        "(float[1,6,2,2] x) => (float[1,6,2,2] y)",
        "int64[5] t = {1, 2, 3, 2, 2}, int64[4] u = {1, 6, 2, 2}",
    ),
    "old Softmax": ("y = Softmax<axis=1>(x)", "(float[1,4,3] x) => (float[1,4,3] y)", ""),
    "Squeeze of all that is 1 but the batch": (
        "y = Squeeze(x, a)",
        "(float[1,4,1,1] x) => (float[1,4] y)",
        "int64[2] a = {2, 3}",
    ),
    "Resize by sizes": (
        'y = Resize<mode="nearest">(x, , , z)',
        "(float[1,2,4,4] x) => (float[1,2,8,8] y)",
        "int64[4] z = {1, 2, 8, 8}",
    ),
}


@pytest.mark.parametrize("case", FOLLOWED)
def test_samples_are_followed(case: str) -> None:
    body, signature, weights = FOLLOWED[case]
    graph = model(body, signature, weights, opset=12 if case == "old Softmax" else 17)
    assert_samples_stay_apart(graph)
    assert_samples_stay_apart(graph, 2)


def test_a_graph_exported_at_a_larger_batch_runs_at_any() -> None:
    graph = model("a = Relu(x)\ny = Reshape(a, t)", "(float[4,2,3] x) => (float[4,6] y)", "int64[2] t = {4, 6}")
    module = TorchModule(graph)
    for batch in (1, 4, 7):
        x = np.random.default_rng(0).standard_normal((batch, 2, 3)).astype(np.float32)
        np.testing.assert_array_equal(run(module, {"x": x})["y"], np.maximum(x, 0).reshape(batch, 6))


def test_samples_that_lie_along_another_axis_are_told() -> None:
    graph = model("y = Transpose<perm=[1,0]>(x)", "(float[1,4] x) => (float[4,1] y)")
    assert TorchModule(graph).batch_axes == {"y": 1}
    assert TorchModule(graph, any_batch=False).batch_axes == {"y": None}


def test_a_symbolic_batch_is_the_graphs_own_business() -> None:
    graph = model(
        "s = Shape(x)\ng = Gather(s, i)\nc = Concat<axis=0>(g, m)\ny = Reshape(x, c)",
        "(float[N,4,6] x) => (float[N,24] y)",
        "int64[1] i = {0}, int64[1] m = {-1}",
    )
    module = TorchModule(graph)
    assert module.batch_axes == {"y": None}
    assert run(module, {"x": np.zeros((5, 4, 6), np.float32)})["y"].shape == (5, 24)


END = ", so the model runs at batch size 1 only; export the network with a dynamic batch, so that samples stay apart"
REFUSED = {
    "[n] y = ReduceMean<axes=[0]>(x)": (
        "node 'n' (ReduceMean): it works along axis 0, which is the batch's",
        "float[1,4]",
    ),
    "[n] y = ReduceMean(x)": ("node 'n' (ReduceMean): it works along axis 0, which is the batch's", "float[1,1]"),
    "[n] y = Softmax<axis=0>(x)": ("node 'n' (Softmax): it works along axis 0, which is the batch's", "float[1,4]"),
    "[n] y = Concat<axis=0>(x, x)": ("node 'n' (Concat): it works along axis 0, which is the batch's", "float[2,4]"),
    "[n] y = Gather<axis=0>(x, i0)": ("node 'n' (Gather): it works along axis 0, which is the batch's", "float[4]"),
    "[n] y = Squeeze(x, i1)": ("node 'n' (Squeeze): it works along axis 0, which is the batch's", "float[4]"),
    "[n] y = Tile(x, two)": ("node 'n' (Tile): it works along axis 0, which is the batch's", "float[2,4]"),
    "[n] y = Expand(x, wide)": ("node 'n' (Expand): it works along axis 0, which is the batch's", "float[3,4]"),
    "[n] y = Add(x, rows)": ("node 'n' (Add): 'rows' has 3 rows along the batch's axis", "float[3,4]"),
    "t = Transpose(x)\n[n] y = Add(x, t)": (
        "node 'n' (Add): its operands have their samples along different axes",
        "float[4,4]",
    ),
    "t = Transpose(x)\n[n] y = MatMul(x, t)": ("node 'n' (MatMul): both its factors differ by sample", "float[1,1]"),
    "t = Transpose(x)\n[n] y = MatMul(t, x)": (
        "node 'n' (MatMul): it works along axis 1, which is the batch's",
        "float[4,4]",
    ),
    "t = Transpose<perm=[1,0]>(x)\n[n] y = Reshape(t, two)": (
        "node 'n' (Reshape): it gives [4, 1] the shape [2, 2], which tears samples apart",
        "float[2,2]",
    ),
    "h = ReduceMax<keepdims=0, axes=[1]>(x)\n[n] y = EyeLike(x)\nz = Relu(h)": (
        "node 'n' (EyeLike): how samples of a batch run through it is not known",
        "float[1,4]",
    ),
}


@pytest.mark.parametrize("body", REFUSED)
def test_what_has_no_meaning_at_another_batch_is_refused_and_runs_as_declared(body: str) -> None:
    line, result = REFUSED[body]
    constants = "int64 i0 = {0}, int64[1] i1 = {0}, int64[2] two = {2, 2}, int64[2] wide = {3, 4}, float[3,4] rows"
    if "tears" not in line:
        constants = constants.replace("two = {2, 2}", "two = {2, 1}")
    graph = model(body, f"(float[1,4] x) => ({result} y)", constants)
    with pytest.raises(InputError) as caught:
        TorchModule(graph)
    assert str(caught.value) == line + END
    [feeds] = samples(graph, 1)
    assert_agree(run(TorchModule(graph, any_batch=False), feeds), Session(graph).run(feeds))


def test_inputs_that_disagree_on_the_batch_are_refused() -> None:
    graph = model("y = Mul(x, z)", "(float[1,4] x, float[4] z) => (float[1,4] y)")
    with pytest.raises(InputError) as caught:
        TorchModule(graph)
    assert str(caught.value) == (
        "input 'z': its first axis has 4 elements and other inputs' 1, so neither is the batch's; "
        "export the network with the samples on the first axis of every input"
    )


def test_a_batch_size_that_is_read_is_refused_unless_it_is_one() -> None:
    graph = model("[s] s = Shape(x)\nf = Cast<to=1>(s)\ny = ReduceSum(f)", "(float[2,4] x) => (float[1] y)")
    with pytest.raises(InputError) as caught:
        TorchModule(graph)
    assert str(caught.value).startswith(
        "node 's' (Shape): it reads the batch size, so the model runs at batch size 2 only"
    )
