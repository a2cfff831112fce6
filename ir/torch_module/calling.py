"""A network as users of torch call one: tensors in, a tensor or a tuple out."""

from __future__ import annotations

import torch

from edgec.ir.graph import Constant, Graph
from edgec.ir.torch_module.module import TorchModule


class Network(torch.nn.Module):
    """A graph that is called with its inputs in their order.

    Attributes:
        graph: the module by names, whose parameters these are; ``graph.write_back()`` gives them to the graph.

    Args:
        graph: what it runs, at any batch size where its samples stay apart.

    Raises:
        InputError: an operator cannot be lowered; the line names the node.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = TorchModule(graph)
        self._inputs = [tensor.name for tensor in graph.inputs if not isinstance(tensor, Constant)]
        self._outputs = [tensor.name for tensor in graph.outputs]

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """The output of a network that has one, else all outputs in their order.

        Raises:
            TypeError: there are more or fewer tensors than inputs.
        """
        if len(inputs) != len(self._inputs):
            raise TypeError(
                f"the network takes {len(self._inputs)} tensors ({', '.join(self._inputs)}), not {len(inputs)}"
            )
        made = self.graph(dict(zip(self._inputs, inputs, strict=True)))
        outputs = tuple(made[name] for name in self._outputs)
        return outputs[0] if len(outputs) == 1 else outputs
