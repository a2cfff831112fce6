"""``fold``: what can be computed now is computed now, and what changes nothing goes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar

from pydantic import Field

from edgec.ir.branches import inline_taken_branches
from edgec.ir.graph import Graph, Node
from edgec.passes.fold.activations import (
    fold_gelu,
    fold_hard_sigmoid,
    fold_hard_swish,
    fold_mish,
    fold_softmax,
    fold_softplus,
    fold_tanh_gelu,
)
from edgec.passes.fold.affine import fold_affine, matmul_to_gemm
from edgec.passes.fold.affine_regions import fold_affine_region
from edgec.passes.fold.channel_order import fold_channel_shuffle
from edgec.passes.fold.constants import fold_constants
from edgec.passes.fold.duplicates import share_duplicates
from edgec.passes.fold.factors import fold_factors, fold_product_factors
from edgec.passes.fold.identities import OPERATORS, fold_expand, fold_identity, fold_relu, fold_views
from edgec.passes.fold.joined_layers import fold_branches, fold_layers_in_a_row
from edgec.passes.fold.normalizations import fold_normalization
from edgec.passes.fold.open_shapes import fold_open_shapes
from edgec.passes.fold.pad import fold_pad
from edgec.passes.fold.resize import fold_resize
from edgec.passes.fold.sequences import (
    REDUCTIONS,
    fold_bounds,
    fold_casts,
    fold_concats,
    fold_pads,
    fold_pooled_mean,
    fold_reductions,
    fold_reshapes_around,
    fold_slices,
)
from edgec.passes.fold.space_to_depth import fold_space_to_depth
from edgec.passes.fold.transposes import fold_transpose
from edgec.passes.fold.unstacking import fold_unstacking, fold_views_of_parts
from edgec.passes.fold.view_chains import VIEWS, fold_view_chain
from edgec.passes.framework.base import Effect, Pass
from edgec.passes.framework.context import Context
from edgec.passes.framework.rewriter import Rewriter

Rule = Callable[[Rewriter, Node], bool]


def _rules() -> dict[str, Sequence[Rule]]:
    rules: dict[str, list[Rule]] = {op: [fold_identity] for op in OPERATORS}
    for rule, operators in (
        (fold_views, ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose")),
        (fold_transpose, ("Transpose",)),
        (fold_reshapes_around, ("Reshape",)),
        (fold_slices, ("Slice",)),
        (fold_concats, ("Concat",)),
        (fold_casts, ("Cast",)),
        (fold_bounds, ("Min", "Max")),
        (fold_reductions, REDUCTIONS),
        (fold_pooled_mean, ("GlobalAveragePool", "ReduceMean")),
        (fold_expand, ("Expand",)),
        (fold_unstacking, ("Split",)),
        (fold_views_of_parts, ("Gather",)),
        (fold_product_factors, ("MatMul",)),
        (fold_relu, ("Relu", "Clip")),
        (fold_pads, ("Pad",)),
        (fold_pad, ("Pad",)),
        (fold_resize, ("Resize",)),
        (fold_gelu, ("Erf",)),
        (fold_tanh_gelu, ("Tanh",)),
        (fold_hard_sigmoid, ("Clip",)),
        (fold_hard_swish, ("HardSigmoid",)),
        (fold_softplus, ("Exp",)),
        (fold_softmax, ("Exp",)),
        (fold_mish, ("Softplus",)),
        (fold_normalization, ("Sqrt",)),
        (matmul_to_gemm, ("Add",)),
        (fold_affine, ("BatchNormalization", "Add", "Sub", "Mul", "Div")),
        (fold_branches, ("Add",)),
        (fold_layers_in_a_row, ("Conv",)),
        (fold_space_to_depth, ("Concat", "SpaceToDepth", "Reshape")),
        (fold_affine_region, ("Concat",)),
        (fold_channel_shuffle, ("Reshape",)),
        (fold_factors, ("Add", "Sub", "Mul", "Div")),
    ):
        for op in operators:
            rules.setdefault(op, []).append(rule)
    return dict(rules)


RULES = _rules()
# The order of sets differs from run to run.
_VIEWS = sorted(VIEWS)


@dataclass(frozen=True)
class Fold(Pass):
    """Folds constants, BatchNormalization, arithmetic with constants and Pad into the layers; drops identities.

    The outputs stay equal to within rounding. A second run does nothing. Where the condition of an If is a constant,
    the branch that is taken stands in its place; the bodies of Loop and Scan and of other Ifs are left alone.
    """

    name: ClassVar[str] = "fold"
    effect: ClassVar[Effect] = "exact"
    methods: ClassVar[tuple[str, ...]] = ("constant folding", "BatchNormalization folding", "operator fusion")

    share_weights: Annotated[
        bool, Field(description="keep weights that are equal once; layers that are trained or pruned share them then")
    ] = False
    keep_batch: Annotated[
        bool, Field(description="keep what lets several samples be run together, such as Transposes of an axis of 1")
    ] = True

    def run(self, graph: Graph, ctx: Context) -> None:
        """Folds ``graph`` in place, in time that grows with its number of nodes."""
        graph.sort()
        if graph.remove_dead():
            ctx.changed()
        fold_constants(graph, ctx)
        while gone := inline_taken_branches(graph):
            for name, branch in gone:
                ctx.did(name, f"its condition is a constant: became its {branch}")
            ctx.changed()
            fold_constants(graph, ctx)
        while fold_open_shapes(graph, ctx):
            ctx.changed()
            fold_constants(graph, ctx)
        rw = Rewriter(graph, ctx)
        chains = partial(fold_view_chain, keep_batch=self.keep_batch)
        rw.run({**RULES, **{op: [*RULES[op], chains] for op in _VIEWS}})
        rw.finish()
        graph.sort()
        if share_duplicates(graph, ctx, weights=self.share_weights):
            ctx.changed()
