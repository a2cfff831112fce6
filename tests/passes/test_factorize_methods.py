"""The chains of every method: the kernel they stand for, the nodes they become, what they cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from edgec.ir.cost import Cost
from edgec.ir.graph import Graph
from edgec.ir.shapes import Shapes
from edgec.passes.factorize.chains import write_chain
from edgec.passes.factorize.factorize import Factorize
from edgec.passes.factorize.layers import Layer, find_layers
from edgec.passes.factorize.methods import METHODS, SPATIAL, SVD, TUCKER, Method
from edgec.passes.factorize.reference_solver import solved_by
from edgec.passes.factorize.stages import Stage, chain_macs, chain_params, compose, sizes_of
from edgec.passes.framework.context import Context
from edgec.passes.framework.rewriter import Rewriter
from edgec.testing import assert_same, model, run_pass

Check = Callable[[Graph, str], None]
[TENSORLY_TUCKER] = solved_by("tensorly", [TUCKER])
LIMITS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def layer_of(graph: Graph) -> Layer:
    """The only layer of a graph."""
    [layer] = find_layers(graph, Shapes(graph), lambda node: None, lambda node, reason: pytest.fail(reason))
    return layer


def write(graph: Graph, method: str, stages: tuple[Stage, ...]) -> None:
    """Puts a chain in the place of the only layer."""
    rw = Rewriter(graph, Context(graph))
    write_chain(rw, layer_of(graph), method, stages)
    rw.finish()
    graph.sort()
    graph.remove_dead()


@dataclass(frozen=True)
class Drawn:
    """A network of one convolution and its text, for hypothesis to show."""

    text: str
    graph: Graph


@st.composite
def convolutions(draw: st.DrawFn) -> Drawn:
    """One Conv or ConvTranspose of any shape and any attributes, with one to three spatial axes."""
    axes = draw(st.sampled_from([1, 2, 2, 2, 3]))
    transposed = draw(st.booleans())
    group = draw(st.sampled_from([1, 1, 2, 3]))
    out, into = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    each = st.lists(st.integers(1, 3), min_size=axes, max_size=axes)
    taps, strides, dilations = draw(each), draw(each), draw(st.lists(st.integers(1, 2), min_size=axes, max_size=axes))
    sizes = draw(st.lists(st.integers(6, 8), min_size=axes, max_size=axes))
    padding = draw(st.sampled_from(["pads", "SAME_UPPER", "SAME_LOWER", "VALID", "none"]))
    if padding.startswith("SAME"):
        dilations = [1] * axes  # onnxruntime refuses the two together
    attrs = [f"strides={strides}", f"dilations={dilations}", f"group={group}"]
    if padding == "pads":
        reach = [d * (t - 1) for d, t in zip(dilations, taps, strict=True)]
        attrs.append(f"pads={[draw(st.integers(0, most)) for most in reach * 2]}")
    elif padding != "none":
        attrs.append(f'auto_pad="{padding}"')
    if transposed and padding in ("pads", "none"):
        more = draw(st.sampled_from(["output_padding", "output_shape", "nothing"]))
        if more == "output_padding":
            attrs.append(f"output_padding={[draw(st.integers(0, s - 1)) for s in strides]}")
        if more == "output_shape":
            assume(padding == "none")
            widest = [
                max(n, s * (n - 1) + d * (t - 1) + 1)
                for s, n, d, t in zip(strides, sizes, dilations, taps, strict=True)
            ]
            asked = [draw(st.integers(max(n, w - 2), w)) for w, n in zip(widest, sizes, strict=True)]
            attrs.append(f"output_shape={asked}")
    stored = (into * group, out) if transposed else (out * group, into)
    spatial = ",".join(map(str, sizes))
    bias = draw(st.booleans())
    weights = f"float[{','.join(map(str, (*stored, *taps)))}] w, float[{out * group}] b"
    op = "ConvTranspose" if transposed else "Conv"
    result = ",".join(["2", str(out * group), *(f"d{a}" for a in range(axes))])
    text = f"[conv] y = {op}<{', '.join(attrs)}>(x, w{', b' if bias else ''})"
    signature = f"(float[2,{into * group},{spatial}] x) => (float[{result}] y)"
    graph = model(text, signature, weights, seed=draw(st.integers(0, 99)))
    assume(all(size is not None and size > 0 for size in Shapes(graph).shape(graph.outputs[0]) or [None]))
    return Drawn(f"{text} {signature} {weights}", graph)


@LIMITS
@given(convolutions(), st.sampled_from([TUCKER, SVD, SPATIAL, TENSORLY_TUCKER]))
def test_a_chain_of_full_rank_is_the_layer(drawn: Drawn, method: Method) -> None:
    graph = drawn.graph
    before = graph.copy()
    layer = layer_of(graph)
    assume(method.unfit(layer) is None)
    chain = method.decompose(layer, layer.kernel(), method.full(layer))
    np.testing.assert_allclose(compose(chain.stages), layer.kernel(), atol=1e-5)
    assert chain.relative_error < 1e-5
    write(graph, method.name, chain.stages)
    assert_same(before, graph)


@LIMITS
@given(convolutions(), st.sampled_from([*METHODS.values(), TENSORLY_TUCKER]), st.data())
def test_a_chain_computes_its_kernel_and_costs_what_was_said(drawn: Drawn, method: Method, data: st.DataObject) -> None:
    graph = drawn.graph
    layer = layer_of(graph)
    assume(method.unfit(layer) is None)
    ranks = tuple(data.draw(st.integers(1, full)) for full in method.full(layer))
    kernel = layer.kernel()
    chain = method.decompose(layer, kernel, ranks)
    composed = compose(chain.stages)
    assert chain.relative_error == pytest.approx(np.linalg.norm(composed - kernel) / np.linalg.norm(kernel), abs=2e-4)
    table = np.array([ranks])
    params, macs = method.params(layer, table), method.macs(layer, table)
    assert macs is not None
    assert [params[0], macs[0]] == [chain_params(sizes_of(chain.stages))[0], chain_macs(layer, sizes_of(chain.stages))]
    other = with_kernel(graph, layer, composed)
    biases = sum(c.values.size for c in graph.constants() if c.name == "b")
    assert [layer.params + biases, layer.macs] == [Cost(graph).params, Cost(graph).macs]
    write(graph, method.name, chain.stages)
    assert_same(other, graph)
    cost = Cost(graph)
    assert [cost.params - biases, cost.macs] == [params[0], macs[0]]


def with_kernel(graph: Graph, layer: Layer, kernel: np.ndarray) -> Graph:
    """A copy of a graph of one convolution with another kernel."""
    copy = graph.copy()
    [weight] = [c for c in copy.constants() if c.name == layer.weight.name]
    stored = kernel.swapaxes(1, 2) if layer.transposed else kernel
    weight.values = np.ascontiguousarray(stored.reshape(weight.shape), np.float32)
    return copy


@pytest.mark.parametrize("method", ["tucker", "cp"])
def test_the_reference_solver_comes_near_ours(method: str) -> None:
    graph = model("[conv] y = Conv(x, w)", "(float[1,12,8,8] x) => (float[1,16,6,6] y)", "float[16,12,3,3] w")
    errors = {}
    for solver in ("edgec", "tensorly"):
        one = graph.copy()
        ctx = run_pass(Factorize(method=method, rank=0.25, solver=solver), one)
        errors[solver] = ctx.done[0].figures["relative_error"]
    assert errors["edgec"] != errors["tensorly"]  # each did its own work
    assert 0.9 * errors["tensorly"] < errors["edgec"] < 1.02 * errors["tensorly"]
