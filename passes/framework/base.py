"""What a pass is, and what it may ask for.

A pass is a frozen dataclass: its fields are its options, and their types and :func:`pydantic.Field` bounds are the
schema that recipes are checked against. Here is a whole one::

    @dataclass(frozen=True)
    class Relu6(Pass):
        \"\"\"Bounds every Relu at ``bound``.\"\"\"

        name: ClassVar[str] = "relu6"
        effect: ClassVar[Effect] = "lossy"
        needs: ClassVar[frozenset[str]] = frozenset({"float"})
        bound: Annotated[float, Field(gt=0, description="the upper bound")] = 6.0

        def run(self, graph: Graph, ctx: Context) -> None:
            for node in [n for n in graph.nodes if n.op == "Relu"]:
                ...
                ctx.did(node, f"bounded at {self.bound}")

It is found under its entry point of the group ``edgec.passes``; edgec's own are registered the same way.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from edgec.ir.graph import Graph
from edgec.passes.framework.context import Context

Effect = Literal["exact", "lossy"]


@dataclass(frozen=True)
class Pass(abc.ABC):
    """A rewrite of the graph, with its options as fields.

    Class attributes:
        name: what recipes call it.
        effect: ``exact`` passes keep the outputs within the rounding of the element type; ``lossy`` ones are measured.
        needs: facts that must hold before it (``float``, ``quantized``, ``trainable``).
        gives, breaks: facts that hold, or no longer hold, after it.
        uses: data roles that it cannot do without.
        per_target: whether it depends on the target; it and all that follows then run once for each.
        methods: what the literature calls what it does, for ``edgec passes``.
        shares: options that say what part of the network stays; ``repeat`` in a recipe reaches them in steps.
    """

    name: ClassVar[str]
    effect: ClassVar[Effect]
    needs: ClassVar[frozenset[str]] = frozenset()
    gives: ClassVar[frozenset[str]] = frozenset()
    breaks: ClassVar[frozenset[str]] = frozenset()
    uses: ClassVar[frozenset[str]] = frozenset()
    per_target: ClassVar[bool] = False
    methods: ClassVar[tuple[str, ...]] = ()
    shares: ClassVar[frozenset[str]] = frozenset()

    @abc.abstractmethod
    def run(self, graph: Graph, ctx: Context) -> None:
        """Changes ``graph`` in place. Order and dead code are the pipeline's business.

        A mistake of the user's is raised as :class:`~edgec.ir.errors.UsageError` or ``InputError`` whose ``where``
        begins with the pass's name (``factorize: skip``); the pipeline puts the recipe's file and line in its place.
        """

    def missing_data(self, roles: frozenset[str]) -> str | None:
        """Which data role is wanted and absent, by this pass's options; ``None`` when all are there."""
        return next(iter(sorted(self.uses - roles)), None)

    def changes_inputs(self) -> bool:
        """Whether the network takes other inputs behind it: what it computes then is what later passes are held to."""
        return False

    def chooses_by_metric(self, require: Mapping[str, float]) -> bool:
        """Whether it chooses by ``data.eval``'s metric where there is one; the report then uses other samples of it.

        Args:
            require: what the recipe requires, by name.
        """
        return False

    def budget_db(self) -> float | None:
        """The least SQNR against the original model that this pass may leave, in dB."""
        return None
