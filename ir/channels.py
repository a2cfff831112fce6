"""Which channels of a network must be kept or removed together.

Removing an output channel of a convolution takes an element of its bias with it, of the BatchNormalization behind it,
the same channel of every tensor that is added to the result, an input channel of each layer that reads it, and for a
Gemm behind a Flatten as many inputs as the channel has pixels. Every axis of every tensor, weights included, is
followed position by position (:mod:`edgec.ir.coupling`); what operators do to the axes stands in
:mod:`edgec.ir.channel_rules`. Positions that hang together are a *unit*: kept or removed whole. Units of which one
layer computes several are a *group*: they are of one kind and can be compared. So::

    channels = ctx.get(Channels)
    for group in channels.groups:
        if group.fixed is None:
            ...  # score its group.width units by group.slots and group.carriers

Groups that cannot be cut are listed too, with the reason. A unit is usually one channel; it is one place in all groups
of a grouped convolution or of a channel shuffle (see :mod:`edgec.ir.channel_layers`). Whatever units go, what is left
is a valid network, unless a tensor would be left with nothing (see :func:`edgec.passes.prune.cutting.spare`).

After the idea of dependency graphs in Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023; here the
groups come from positions rather than from layers, so that splits, shuffles and reshapes need no special case.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from edgec.ir.analyses import Analyses
from edgec.ir.channel_rules import wire
from edgec.ir.channel_wiring import LayerAxis, Role, Wiring
from edgec.ir.cost import is_weight
from edgec.ir.coupling import Units
from edgec.ir.garbage import uncollected
from edgec.ir.graph import Constant, Graph, Node, Tensor, Variable
from edgec.ir.order import dependencies
from edgec.ir.shapes import Shapes

__all__ = ["Carrier", "Channels", "Group", "Role", "Slot"]


@dataclass(frozen=True, eq=False)
class Slot:
    """An axis of a constant along which units of a group lie, as one node reads it.

    Attributes:
        constant: the weight. One that several nodes read has a slot for each of them, with the same index.
        axis: counted from the front.
        index: the unit at each position of the axis, -1 where the position is not the group's. Read-only.
        node: who reads it; for a weight that is dequantized, cast or reshaped first, the layer.
        place: at which of the node's inputs.
        role: ``produces`` (a layer's output channels), ``consumes`` (a layer's input channels) or ``rides`` (bias,
            normalization, slopes, scales and other constants that have an element a channel).
    """

    constant: Constant
    axis: int
    index: np.ndarray
    node: Node
    place: int
    role: Role


@dataclass(frozen=True, eq=False)
class Carrier:
    """An axis of an activation along which units of a group lie; ``index`` as for :class:`Slot`.

    A weight that is computed from constants when the network runs (dequantized, say) is a carrier too.
    """

    tensor: Variable
    axis: int
    index: np.ndarray


@dataclass(frozen=True, eq=False)
class Group:
    """Units that can be removed one by one, each with everything that hangs on it.

    Attributes:
        name: of the first node that computes it.
        width: how many units it has.
        slots, carriers: where its units lie.
        fixed: why nothing of it can be removed; ``None`` where it can.
        channels_per_unit: output channels of the first layer that one unit stands for: 1, or the number of groups of
            a grouped convolution or a channel shuffle that ties their places.
    """

    name: str
    width: int
    fixed: str | None
    channels_per_unit: int
    slots: list[Slot] = field(default_factory=list)
    carriers: list[Carrier] = field(default_factory=list)

    @property
    def producers(self) -> list[Node]:
        """The layers whose output channels are of it, in the graph's order."""
        return list(dict.fromkeys(slot.node for slot in self.slots if slot.role == "produces"))

    @property
    def consumers(self) -> list[Node]:
        """The layers whose weights have input channels of it, in the graph's order."""
        return list(dict.fromkeys(slot.node for slot in self.slots if slot.role == "consumes"))

    def params(self) -> np.ndarray:
        """How many weights go with each unit when it alone is removed, shared ones once; shape (width,)."""
        total = np.zeros(self.width)
        seen: dict[Constant, dict[int, np.ndarray]] = {}
        for slot in self.slots:
            if is_weight(slot.constant):
                seen.setdefault(slot.constant, {})[slot.axis] = slot.index
        for constant, axes in seen.items():
            for axis, index in axes.items():
                owned = np.bincount(index[index >= 0], minlength=self.width)
                total += owned * (math.prod(constant.shape) / max(constant.shape[axis], 1))
            if len(axes) == 2:  # what lies where both meet was counted twice
                first, second = axes.values()
                both = [np.bincount(index[index >= 0], minlength=self.width) for index in (first, second)]
                sides = [constant.shape[axis] for axis in axes]
                total -= both[0] * both[1] * (math.prod(constant.shape) / max(sides[0] * sides[1], 1))
        return total.round().astype(np.int64)

    def __repr__(self) -> str:
        return f"Group({self.name!r}, width {self.width}{f', fixed: {self.fixed}' if self.fixed else ''})"


class Channels:
    """The groups of coupled channels of a graph.

    Attributes:
        groups: in the order of the layers that compute them. A layer whose channels are partly fixed is in two.
    """

    def __init__(self, graph: Graph, analyses: Analyses | None = None) -> None:
        with uncollected():
            self._find(graph, analyses.get(Shapes) if analyses is not None else Shapes(graph))

    def of(self, tensor: Tensor) -> list[tuple[Group, int, np.ndarray]]:
        """The groups that a tensor carries: group, axis, and the unit at each position of the axis (-1: none of the
        group's)."""
        found = []
        for axis, dimension in enumerate(self._wiring.dimensions.get(tensor) or ()):
            found += [(self.groups[number], axis, index) for number, index in self._indices(dimension)]
        return found

    def _find(self, graph: Graph, shapes: Shapes) -> None:
        wiring = self._wiring = Wiring(graph, shapes)
        for tensors, reason in ((graph.outputs, "a model's output"), (graph.inputs, "a model's input")):
            for tensor in tensors:
                wiring.fix(wiring.maybe(tensor) or (), reason)
        for node in graph.nodes:
            for tensor in dependencies(node):
                if tensor.name:
                    wiring.maybe(tensor)
            wire(wiring, node)
            if any(True for _ in node.subgraphs()):
                for tensor in dependencies(node):
                    wiring.fix(wiring.maybe(tensor) or (), f"'{node.name}' ({node.op}) reads it inside")
        self._units = wiring.coupling.settle()
        self._number = np.full(self._units.count, -1)
        self._unit = np.full(self._units.count, -1)
        self._known: dict[int, list[tuple[int, np.ndarray]]] = {}
        derived = _derived(graph)
        layers = [layer for layer in wiring.layers if isinstance(layer.weight, Constant) or layer.weight in derived]
        self.groups: list[Group] = []
        for found in _connected(wiring, self._units, layers):
            self._add(found)
        roles = _roles(wiring, self._units, layers, derived)
        for node in graph.nodes:
            for place, tensor in enumerate(node.inputs):
                if isinstance(tensor, Constant):
                    for group, axis, index in self.of(tensor):
                        readers = roles.get((node, tensor, axis), [(node, place, "rides")])
                        group.slots.extend(Slot(tensor, axis, index, *reader) for reader in readers)
        for variable in graph.variables():
            for group, axis, index in self.of(variable):
                group.carriers.append(Carrier(variable, axis, index))

    def _add(self, layers: list[tuple[LayerAxis, np.ndarray]]) -> None:
        """Makes a group of what some layers compute; with each layer, its units of the group in order."""
        units = np.concatenate([units for _, units in layers])
        first, places = np.unique(units, return_index=True)
        ordered = first[np.argsort(places)]
        self._number[ordered] = len(self.groups)
        self._unit[ordered] = np.arange(len(ordered))
        layer, own = layers[0]
        # A grouped ConvTranspose has the channels of all groups on one position of its weight: its result has them all.
        axes = self._wiring.of(layer.node.outputs[0])
        per_unit = max([1, *(int((self._units.of(axis) == own[0]).sum()) for axis in axes)])
        fixed = self._units.reason(int(ordered[0]))
        if fixed is None and len(ordered) == 1:
            fixed = "it is one channel" if per_unit == 1 else "its channels can only go all at once"
        self.groups.append(Group(layer.node.name or layer.node.outputs[0].name, len(ordered), fixed, per_unit))

    def _indices(self, dimension: int) -> list[tuple[int, np.ndarray]]:
        """The groups along a dimension, by number, with the unit at each position."""
        root = self._units.root(dimension)
        if root not in self._known:
            units = self._units.of(dimension)
            numbers = self._number[units]
            found: list[tuple[int, np.ndarray]] = []
            for number in np.unique(numbers[numbers >= 0]):
                index = np.where(numbers == number, self._unit[units], -1)
                index.flags.writeable = False
                found.append((int(number), index))
            self._known[root] = found
        return self._known[root]


def _connected(wiring: Wiring, units: Units, layers: list[LayerAxis]) -> Iterator[list[tuple[LayerAxis, np.ndarray]]]:
    """The layers that compute each group, in the graph's order, with their units; groups in that order too.

    Layers are of one group when they compute a unit in common. What of a layer is fixed stands apart from the rest.
    """
    import networkx as nx

    sets: list[tuple[LayerAxis, np.ndarray]] = []
    seen: set[int] = set()
    for layer in layers:
        dimension = wiring.of(layer.weight)[layer.axis]
        if layer.role != "produces" or units.root(dimension) in seen:
            continue
        seen.add(units.root(dimension))
        computed = units.of(dimension)
        for fixed in (False, True):
            part = computed[units.fixed[computed] == fixed]
            if len(part):
                sets.append((layer, part))
    together: nx.Graph[int] = nx.Graph()
    together.add_nodes_from(range(len(sets)))
    if sets:
        owners = np.repeat(np.arange(len(sets)), [len(part) for _, part in sets])
        members = np.concatenate([part for _, part in sets])
        order = np.lexsort((owners, members))
        owners, members = owners[order], members[order]
        meet = (members[1:] == members[:-1]) & (owners[1:] != owners[:-1])
        together.add_edges_from(zip(owners[:-1][meet].tolist(), owners[1:][meet].tolist(), strict=True))
    for component in sorted(sorted(c) for c in nx.connected_components(together)):
        yield [sets[place] for place in component]


def _derived(graph: Graph) -> set[Tensor]:
    """The variables that are computed from constants alone."""
    found: set[Tensor] = set()
    for node in graph.nodes:
        named = [tensor for tensor in node.inputs if tensor.name]
        if named and all(isinstance(t, Constant) or t in found for t in named):
            found.update(node.outputs)
    return found


def _roles(
    wiring: Wiring, units: Units, layers: list[LayerAxis], derived: set[Tensor]
) -> dict[tuple[Node, Tensor, int], list[tuple[Node, int, Role]]]:
    """By reader, constant and axis: the layers whose weight it is or becomes, at which input, in which role."""
    roles: dict[tuple[Node, Tensor, int], list[tuple[Node, int, Role]]] = {}
    for layer in layers:
        place = next(i for i, tensor in enumerate(layer.node.inputs) if tensor is layer.weight)
        reader = (layer.node, place, layer.role)
        if isinstance(layer.weight, Constant):
            roles[layer.node, layer.weight, layer.axis] = [reader]
            continue
        there = units.of(wiring.of(layer.weight)[layer.axis])
        pending = list(layer.weight.inputs)
        while pending:
            node = pending.pop()
            data = node.inputs[0] if node.inputs else None
            if isinstance(data, Constant):
                for axis, dimension in enumerate(wiring.maybe(data) or ()):
                    if np.isin(units.of(dimension), there).any():
                        roles.setdefault((node, data, axis), []).append(reader)
            elif data is not None and data in derived:
                pending.extend(data.inputs)
    return roles
