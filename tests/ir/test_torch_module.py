"""A torch module of a graph: names, weights by identity, freezing, taps, segments, and what bad input gets."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from torch_modules import agrees, assert_agree, run, torch

from edgec.ir.errors import EdgecError, InputError, UsageError
from edgec.ir.execution import Session
from edgec.ir.graph import Constant, Graph, Variable
from edgec.ir.torch_module.module import TorchModule
from edgec.ir.torch_module.trained import weights
from edgec.testing import model

SIGNATURE = "(float[1,3,8,8] x) => (float[1,5] y)"
WEIGHTS = (
    "float[4,3,3,3] conv_weight, float[4] conv_bias, float[4] bn_scale, float[4] bn_bias, float[4] bn_mean, "
    "float[4] bn_var, float[4,5] fc_weight, float[5] fc_bias, float low = {0.0}, float high = {6.0}"
)
BODY = """
[conv] c = Conv<pads=[1,1,1,1]>(x, conv_weight, conv_bias)
[bn] b = BatchNormalization<momentum=0.75>(c, bn_scale, bn_bias, bn_mean, bn_var)
[act] a = Clip(b, low, high)
[mean] m = ReduceMean<axes=[2,3], keepdims=0>(a)
[fc] f = MatMul(m, fc_weight)
[bias] y = Add(f, fc_bias)
"""


def network() -> Graph:
    return model(BODY, SIGNATURE, WEIGHTS, bn_var=np.array([0.5, 1.0, 1.5, 2.0]))


def dotted() -> Graph:
    """The same with names as torch's exporter gives them."""
    graph = network()
    for constant in graph.constants():
        constant.name = constant.name.replace("_", ".")
    return graph


def image(batch: int = 1, seed: int = 0) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).standard_normal((batch, 3, 8, 8)).astype(np.float32)}


def trained(module: Any, steps: int = 1, **options: Any) -> None:
    """Steps of SGD towards zero outputs on seeded noise."""
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.1)
    for step in range(steps):
        feeds = {name: torch.from_numpy(values) for name, values in image(4, seed=step).items()}
        optimizer.zero_grad()
        sum(value.float().square().mean() for value in module(feeds, **options).values()).backward()
        optimizer.step()


def test_weights_are_parameters_and_the_rest_are_buffers_under_the_constants_names() -> None:
    module = TorchModule(dotted())
    assert [name for name, _ in module.named_parameters()] == [
        "conv.weight", "conv.bias", "bn.scale", "bn.bias", "fc.weight", "fc.bias",
    ]  # fmt: skip
    assert [name for name, _ in module.named_buffers()] == ["bn.mean", "bn.var"]
    assert all(p.requires_grad for p in module.parameters())


def test_names_that_torch_cannot_have_get_an_underscore() -> None:
    graph = network()
    names = ["forward.weight", "k..b", "k", "training", "v.", "_graph"]
    for constant, name in zip([c for c in graph.constants() if c in weights(graph)], names, strict=True):
        constant.name = name
    module = TorchModule(graph)
    assert {name for name, _ in module.named_parameters()} == {
        "forward_.weight", "k._.b", "k_", "training_", "v._", "_graph_",
    }  # fmt: skip
    feeds = image()
    assert_agree(run(module, feeds), Session(graph).run(feeds))


def test_it_computes_what_onnxruntime_does_until_a_weight_is_another() -> None:
    graph = dotted()
    feeds = image()
    wanted = Session(graph).run(feeds)
    assert_agree(run(TorchModule(graph), feeds), wanted)
    for constant in weights(graph):
        before = constant.values
        values = before.copy()
        values.reshape(-1)[0] += 0.5
        constant.values = values
        assert not agrees(run(TorchModule(graph), feeds)["y"], wanted["y"]), constant.name
        constant.values = before


def test_weights_come_back_by_identity() -> None:
    graph = dotted()
    before = {constant: constant.values for constant in graph.constants()}
    copies = {constant: values.copy() for constant, values in before.items()}
    module = TorchModule(graph)
    assert module.write_back() == []
    trained(module, steps=3)
    assert all(np.array_equal(before[c], copies[c]) for c in before), "an array was written into"
    changed = module.write_back()
    assert changed == list(weights(graph))
    assert {c for c in before if c.values is not before[c]} == set(changed)
    assert all(c.values.dtype == np.float32 and not c.values.flags.writeable for c in changed)
    feeds = image(seed=9)
    assert_agree(run(module, feeds), Session(graph).run(feeds))
    # What was written is no view of the parameters: further training does not reach the graph.
    held = {constant: constant.values.copy() for constant in changed}
    trained(module)
    assert all(np.array_equal(constant.values, held[constant]) for constant in changed)


def test_a_corrupted_weight_shows_after_writing_back() -> None:
    graph = dotted()
    module = TorchModule(graph)
    trained(module)
    module.write_back()
    weight = graph.tensor("conv.weight")
    assert isinstance(weight, Constant)
    values = weight.values.copy()
    values[1, 1, 1, 1] += 1
    weight.values = values
    feeds = image()
    assert not agrees(run(module, feeds)["y"], Session(graph).run(feeds)["y"])


def test_a_shared_weight_is_one_parameter_with_the_gradients_of_both_uses() -> None:
    graph = model(
        "[one] a = Conv<pads=[1,1,1,1]>(x, w)\n[two] y = Conv<pads=[1,1,1,1]>(a, w)",
        "(float[1,3,8,8] x) => (float[1,3,8,8] y)",
        "float[3,3,3,3] w",
    )
    module = TorchModule(graph)
    assert [name for name, _ in module.named_parameters()] == ["w"]
    trained(module)
    [weight] = module.write_back()
    assert [node.inputs[1] for node in graph.nodes] == [weight, weight]
    feeds = image()
    assert_agree(run(module, feeds), Session(graph).run(feeds))


def test_frozen_nodes_keep_their_weights() -> None:
    graph = dotted()
    module = TorchModule(graph, frozen=["conv", "bn"], batch_statistics=True)
    assert [n for n, p in module.named_parameters() if p.requires_grad] == ["fc.weight", "fc.bias"]
    trained(module)
    assert [constant.name for constant in module.write_back()] == ["fc.weight", "fc.bias"]


def test_a_weight_that_a_frozen_node_shares_is_frozen() -> None:
    graph = model(
        "[one] a = Conv<pads=[1,1,1,1]>(x, w)\n[two] y = Conv<pads=[1,1,1,1]>(a, w)",
        "(float[1,3,8,8] x) => (float[1,3,8,8] y)",
        "float[3,3,3,3] w",
    )
    assert [p.requires_grad for p in TorchModule(graph, frozen=["two"]).parameters()] == [False]


def test_what_is_a_weight() -> None:
    graph = model(
        """
        s = Mul(x, scale)
        t = Transpose<perm=[1,0]>(w1)
        h = MatMul(s, t)
        b = Add(h, b1)
        p = PRelu(b, slope)
        o = Add(p, offset)
        i = Identity(w2)
        y = Gemm(o, i, b2)
        """,
        "(float[1,6] x) => (float[1,2] y)",
        "float scale = {0.5}, float[4,6] w1, float[4] b1, float[1,4] slope, float[4] offset, "
        "float[4,2] w2, float[2] b2",
    )
    assert [constant.name for constant in weights(graph)] == ["w1", "b1", "slope", "w2", "b2"]
    module = TorchModule(graph)
    trained_names = [name for name, _ in module.named_parameters()]
    assert trained_names == ["w1", "b1", "slope", "w2", "b2"]
    assert [name for name, _ in module.named_buffers()] == ["scale", "offset"]
    assert module.parameter_of(graph.tensor("w1")) is module.get_parameter("w1")
    assert module.parameter_of(graph.tensor("scale")) is None


def test_an_addend_of_computed_factors_is_no_weight() -> None:
    graph = model(
        "s = MatMul(q, k)\ny = Add(s, mask)", "(float[1,4,4] q, float[1,4,4] k) => (float[1,4,4] y)", "float[4,4] mask"
    )
    assert weights(graph) == {}


def test_taps_give_what_is_inside() -> None:
    graph = dotted()
    inside = [graph.tensor(name) for name in ("c", "a")]
    feeds = image()
    wanted = Session(graph, taps=inside).run(feeds)
    got = run(TorchModule(graph), feeds, taps=["c", "a"])
    assert list(got) == ["y", "c", "a"]
    assert_agree(got, wanted)


def test_batch_statistics_train_as_torch_does_and_come_back() -> None:
    graph = dotted()
    module = TorchModule(graph, batch_statistics=True)
    norm = torch.nn.BatchNorm2d(4, momentum=0.25)  # ONNX's 0.75 is the share of the old
    convolution = torch.nn.Conv2d(3, 4, 3, padding=1)
    with torch.no_grad():
        convolution.weight.copy_(module.get_parameter("conv.weight"))
        convolution.bias.copy_(module.get_parameter("conv.bias"))
        norm.load_state_dict(
            {
                "weight": module.get_parameter("bn.scale"),
                "bias": module.get_parameter("bn.bias"),
                "running_mean": module.get_buffer("bn.mean"),
                "running_var": module.get_buffer("bn.var"),
                "num_batches_tracked": torch.tensor(0),
            }
        )
    feeds = {name: torch.from_numpy(values) for name, values in image(4).items()}
    module.train()
    torch.testing.assert_close(module(feeds, taps=["b"])["b"], norm(convolution(feeds["x"])))
    assert torch.equal(module.get_buffer("bn.mean"), norm.running_mean)
    changed = {constant.name: constant.values for constant in module.write_back()}
    assert list(changed) == ["bn.mean", "bn.var"]
    np.testing.assert_array_equal(changed["bn.var"], norm.running_var.numpy())
    module.eval()
    feeds = image()
    assert_agree(run(module, feeds), Session(graph).run(feeds))


def test_running_statistics_stay_unless_asked_for() -> None:
    graph = dotted()
    module = TorchModule(graph).train()
    trained(module)
    assert {"bn.mean", "bn.var"}.isdisjoint(constant.name for constant in module.write_back())
    assert_agree(run(module, image()), Session(graph).run(image()))


@pytest.mark.parametrize("segments", [2, 3, 6, 100])
def test_segments_give_the_same_gradients_and_statistics(segments: int) -> None:
    whole, parts = (TorchModule(dotted(), batch_statistics=True).train() for _ in range(2))
    feeds = {name: torch.from_numpy(values) for name, values in image(4).items()}
    first = whole(feeds, taps=["c"])
    second = parts(feeds, taps=["c"], segments=segments)
    assert {n: v.detach().numpy().tolist() for n, v in first.items()} == {
        n: v.detach().numpy().tolist() for n, v in second.items()
    }
    for given in (first, second):
        (given["y"].square().sum() + given["c"].sum()).backward()
    for (name, one), (_, other) in zip(whole.named_parameters(), parts.named_parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=name)
    for (name, one), (_, other) in zip(whole.named_buffers(), parts.named_buffers(), strict=True):
        assert torch.equal(one, other), name


def test_segments_keep_fewer_tensors_for_backward() -> None:
    def kept(segments: int) -> int:
        held: dict[int, int] = {}

        def pack(tensor: Any) -> Any:
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        body = "\n".join(f"[r{i}] t{i + 1} = Sigmoid(t{i})" for i in range(16)).replace("(t0)", "(x)")
        graph = model(body.replace("t16", "y"), "(float[1,4,32] x) => (float[1,4,32] y)")
        feeds = {"x": torch.rand(1, 4, 32, requires_grad=True)}
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            TorchModule(graph)(feeds, segments=segments)
        return sum(held.values())

    assert kept(4) < 0.5 * kept(1)


def test_values_are_let_go_when_nobody_reads_them() -> None:
    module = TorchModule(dotted())
    rows = module._graph.program.timetable([module._graph.program.slots[t] for t in module._graph.outputs])
    live: set[int] = set()
    most = 0
    for _, _, writes, dead in rows:
        live |= set(writes)
        most = max(most, len(live))
        live -= set(dead)
    assert most == 2
    assert len(live) == 1


def test_a_copy_is_of_the_same_graph_with_weights_of_its_own() -> None:
    graph = dotted()
    module = TorchModule(graph)
    teacher = copy.deepcopy(module).requires_grad_(False)
    before = run(teacher, image())
    trained(module)
    assert_agree(run(teacher, image()), before, tolerance=0)
    assert not agrees(run(module, image())["y"], before["y"])
    module.write_back()
    assert_agree(run(module, image()), Session(graph).run(image()))
    assert teacher.write_back() == list(weights(graph)), "the copy's weights are other than the graph's now"
    assert_agree(Session(graph).run(image()), before)


def test_state_goes_through_a_file_and_functional_calls_take_other_weights(tmp_path: Any) -> None:
    module = TorchModule(dotted())
    trained(module)
    torch.save(module.state_dict(), tmp_path / "state.pt")
    other = TorchModule(dotted())
    other.load_state_dict(torch.load(tmp_path / "state.pt"))
    assert_agree(run(other, image()), run(module, image()), tolerance=0)
    feeds = {name: torch.from_numpy(values) for name, values in image().items()}
    zeros = {name: torch.zeros_like(p) for name, p in module.named_parameters()}
    assert torch.func.functional_call(module, zeros, (feeds,))["y"].abs().max() == 0


def test_bfloat16_autocast_trains_float32_weights() -> None:
    graph = dotted()
    module = TorchModule(graph)
    before = run(module, image())
    with torch.autocast("cpu", torch.bfloat16):
        narrow = module({"x": torch.from_numpy(image()["x"])}, taps=["c"])
        trained(module)
    assert narrow["c"].dtype == torch.bfloat16
    assert agrees(narrow["y"].detach().float().numpy(), before["y"], tolerance=0.05)
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in module.parameters())
    module.write_back()
    assert_agree(run(module, image()), Session(graph).run(image()))


def test_later_changes_of_the_graph_are_not_seen() -> None:
    graph = dotted()
    module = TorchModule(graph)
    before = run(module, image())
    graph.nodes[0].attrs["pads"] = [0, 0, 0, 0]
    assert_agree(run(module, image()), before, tolerance=0)


def test_constants_alone_are_computed_once() -> None:
    graph = model(
        """
        h = Shape(x)
        k = Constant<value_ints=[1]>()
        z = Constant<value_int=0>()
        n = Gather(h, z)
        u = Unsqueeze(n, k0)
        m = Constant<value_ints=[-1]>()
        s = Concat<axis=0>(u, m)
        y = Reshape(x, s)
        """,
        "(float[1,3,8,8] x) => (float[1,192] y)",
        "int64[1] k0 = {0}",
    )
    module = TorchModule(graph)
    assert len(module._graph.program.steps) == 1
    assert run(module, image(3))["y"].shape == (3, 192)


def test_an_output_that_is_a_constant_is_given_out() -> None:
    graph = model("[a] y = Identity(w)\n[b] z = Relu(x)", "(float[1,4] x) => (float[4] y, float[1,4] z)", "float[4] w")
    graph.nodes[0].inputs[0].name = "z.w"
    got = run(TorchModule(graph), {"x": np.ones((2, 4), np.float32)})
    np.testing.assert_array_equal(got["y"], graph.nodes[0].inputs[0].values)
    assert got["z"].shape == (2, 4)


@pytest.mark.parametrize(
    ("body", "domain", "line"),
    [
        (
            "[roi] y = NonZero(x)",
            "",
            "node 'roi' (NonZero): operator 'NonZero' cannot be trained; end the network before it with --cut",
        ),
        (
            "[own] y = Thing(x)",
            "com.example",
            "node 'own' (Thing): operator 'Thing' of domain 'com.example' cannot be trained; "
            "end the network before it with --cut",
        ),
    ],
)
def test_an_operator_without_a_lowering_is_named_before_anything_runs(body: str, domain: str, line: str) -> None:
    graph = Graph(opset=17)
    x, y = Variable("x", np.float32, [1, 4]), Variable("y")
    graph.inputs, graph.outputs = [x], [y]
    name, op = body[1:].split("] y = ")[0], body.split(" = ")[1].split("(")[0]
    graph.op(op, [x], name=name, outputs=[y], domain=domain)
    with pytest.raises(InputError) as caught:
        TorchModule(graph)
    assert str(caught.value) == line


def test_every_operator_without_a_lowering_is_named_once() -> None:
    graph = model(
        "[one] a = NonZero(x)\n[two] b = NonZero(x)\n[three] y = Det(x)", "(float[4,4] x) => (float y, int64[2,n] a)"
    )
    with pytest.raises(InputError) as caught:
        TorchModule(graph)
    assert str(caught.value).splitlines() == [
        "node 'one' (NonZero): operator 'NonZero' cannot be trained; end the network before it with --cut",
        "node 'three' (Det): operator 'Det' cannot be trained; end the network before it with --cut",
    ]


@pytest.mark.parametrize(
    ("options", "call", "kind", "line"),
    [
        ({"frozen": ["con"]}, {}, UsageError, "frozen: no node is named 'con'. Did you mean 'conv'?"),
        ({}, {"feeds": {}}, UsageError, "the feeds: have no values for the model's input 'x'"),
        ({}, {"taps": ["cc"]}, UsageError, "taps: no tensor is named 'cc'. Did you mean 'c'?"),
    ],
)
def test_wrong_use_is_told_in_one_line(
    options: dict[str, Any], call: dict[str, Any], kind: type[EdgecError], line: str
) -> None:
    with pytest.raises(kind) as caught:
        TorchModule(dotted(), **options)(**{"feeds": {"x": torch.zeros(1, 3, 8, 8)}, **call})
    assert str(caught.value) == line


def test_channels_side_by_side_compute_and_come_back_the_same() -> None:
    body = "a = Conv<pads=[1,1,1,1], group=4>(x, w)\nb = Clip(a, low, high)\ny = Conv(b, v)"
    constants = "float[4,1,3,3] w, float[6,4,1,1] v, float low = {0.0}, float high = {6.0}"
    graphs = [model(body, "(float[1,4,5,5] x) => (float[1,6,5,5] y)", constants) for _ in range(2)]
    feeds = {"x": torch.randn(3, 4, 5, 5, generator=torch.Generator().manual_seed(0))}
    made = []
    for graph, layout in zip(graphs, (torch.contiguous_format, torch.channels_last), strict=True):
        module = TorchModule(graph).to(memory_format=layout)
        output = module(feeds)["y"]
        output.square().sum().backward()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter -= 0.01 * parameter.grad
        changed = module.write_back()
        assert {constant.name for constant in changed} == {"w", "v"}
        assert all(constant.values.flags.c_contiguous for constant in changed)
        made.append([output.detach().numpy(), *(constant.values for constant in changed)])
    for one, other in zip(*made, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
