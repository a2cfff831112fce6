"""A pass that trains, with the options that ``finetune`` and ``distill`` share. Torch is imported when it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from edgec.ir.errors import UsageError, did_you_mean
from edgec.ir.graph import Graph
from edgec.passes.framework.base import Effect, Pass
from edgec.passes.framework.context import Context

_BUILT_IN = ("auto", "mse", "l1", "cross_entropy")
TRAIN = "train"


@contextmanager
def torch_wanted(where: str, fix: str = "") -> Iterator[None]:
    """Around an import that needs torch: where it is missing the user is told so, and by ``fix`` what else helps."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise UsageError(where, "needs torch, which is not installed", f"pip install 'edgec[torch]'{fix}") from None


@dataclass(frozen=True)
class Teaching:
    """A teacher, and what is learnt from it.

    Attributes:
        teacher: ``original``, or the path of a model.
        temperature: that softens scores of classes.
        labels: the part that the loss for labels has.
        inside: the weight of tensors inside; 0 matches none.
        match: which those are, by name, and the teacher's; found by name where it is empty.
    """

    teacher: str
    temperature: float
    labels: float
    inside: float = 0.0
    match: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingPass(Pass):
    """A pass that trains the weights of the graph as it is, float or quantized."""

    effect: ClassVar[Effect] = "lossy"
    uses: ClassVar[frozenset[str]] = frozenset({TRAIN})

    epochs: Annotated[int, Field(ge=1, description="how often all training samples are seen, at most")] = 20
    batch: Annotated[int, Field(ge=1, description="samples in one step")] = 16
    optimizer: Annotated[Literal["adamw", "sgd"], Field(description="sgd is with momentum 0.9")] = "adamw"
    rate: Annotated[
        float | None, Field(gt=0, description="the highest learning rate; without it one is found by short runs")
    ] = None
    schedule: Annotated[
        Literal["cosine", "linear", "constant"], Field(description="how the rate falls, behind a short rise")
    ] = "cosine"
    weight_decay: Annotated[float, Field(ge=0, description="decoupled, of kernels only")] = 0.0
    loss: Annotated[
        str,
        Field(description="auto, mse, l1, cross_entropy or python:module:function, of what the network should compute"),
    ] = "auto"
    freeze: Annotated[
        tuple[str, ...], Field(description="name patterns (* and ?) of nodes that keep their weights")
    ] = ()
    monitor: Annotated[
        Literal["auto", "metric", "loss"],
        Field(description="what chooses the best epoch: data.eval's metric, or the loss on held-out training samples"),
    ] = "auto"
    hold_out: Annotated[float, Field(gt=0, lt=1, description="part of the training samples that is held out")] = 0.1
    patience: Annotated[
        int | None, Field(ge=1, description="stop after so many epochs without a better one; without it never")
    ] = None
    clip: Annotated[
        float, Field(gt=0, description="a gradient longer than so many times what is usual is shortened to that")
    ] = 2.0
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"],
        Field(description="of what is computed; auto is bfloat16 on a GPU that has it"),
    ] = "auto"
    scales: Annotated[
        bool, Field(description="of a quantized network, learn the scales too, but for those that are prescribed")
    ] = True
    segments: Annotated[
        int, Field(ge=1, description="gradient checkpointing: run the network in so many parts, for less memory")
    ] = 1

    def __post_init__(self) -> None:
        if self.loss not in _BUILT_IN and not self.loss.startswith("python:"):
            near = did_you_mean(self.loss, list(_BUILT_IN))
            raise ValueError(
                f"no loss named '{self.loss}'{near}: write {', '.join(_BUILT_IN)} or python:module:function"
            )

    def chooses_by_metric(self, require: Mapping[str, float]) -> bool:
        return self.monitor != "loss"

    @property
    def teaching(self) -> Teaching | None:
        """What is learnt from a teacher; ``None`` without one."""
        return None

    def run(self, graph: Graph, ctx: Context) -> None:
        """Trains the weights of ``graph`` in place.

        Raises:
            UsageError: torch is missing, a pattern matches no node, or the options do not suit the data.
            InputError: an operator cannot be trained through, or the data cannot be used.
        """
        with torch_wanted(self.name):
            from edgec.passes.train.engine.run import train
        train(self, graph, ctx)

    def frozen(self, graph: Graph) -> list[str]:
        """The names of the nodes that keep their weights.

        Raises:
            UsageError: a pattern matches no node.
        """
        names = [node.name for node in graph.nodes if node.name]
        for pattern in self.freeze:
            if not any(fnmatchcase(name, pattern) for name in names):
                what = f"'{pattern}' matches no node{did_you_mean(pattern, names)}"
                raise UsageError(f"{self.name}: freeze", what, "'edgec inspect' lists the nodes")
        return [name for name in names if any(fnmatchcase(name, pattern) for pattern in self.freeze)]
