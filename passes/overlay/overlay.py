"""``overlay``: a frequency analysis of luminance laid over the image made small, as the network's input."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from edgec.ir import frequency_bank
from edgec.ir.cost import Cost
from edgec.ir.errors import InputError, UsageError
from edgec.ir.frequency_bank import Magnitude, Transform
from edgec.ir.graph import Graph, Variable, static_shape
from edgec.passes.framework import input_domain
from edgec.passes.framework.base import Effect, Pass
from edgec.passes.framework.context import Context
from edgec.passes.overlay.absorbing import absorb
from edgec.passes.overlay.conversion import convert, first_convolution
from edgec.passes.overlay.selection import select_bands
from edgec.passes.overlay.stage import Light, light_of, write_stage


@dataclass(frozen=True)
class Overlay(Pass):
    """Lets the network read blocks of the image: their mean, and what spatial frequencies they hold."""

    name: ClassVar[str] = "overlay"
    effect: ClassVar[Effect] = "lossy"
    methods: ClassVar[tuple[str, ...]] = ("frequency analysis", "DCT")
    needs: ClassVar[frozenset[str]] = frozenset({"float"})
    uses: ClassVar[frozenset[str]] = frozenset({"calibration"})

    mode: Annotated[
        Literal["convert", "prepend"],
        Field(
            description="convert: a network of plain images runs on the blocks; prepend: one that was trained on the "
            "overlay's channels takes plain images"
        ),
    ] = "convert"
    block: Annotated[Literal[2, 4, 8], Field(description="side of a block, in pixels")] = 4
    transform: Annotated[Transform, Field(description="whose frequency bands")] = "dct"
    bands: Annotated[
        list[str] | int | None,
        Field(description="names of bands (* and ? match), or how many to choose from the data; all by default"),
    ] = None
    magnitude: Annotated[
        Magnitude, Field(description="of a band: its kernels as they are, or their absolute values or squares summed")
    ] = "abs"
    log: Annotated[bool, Field(description="compress bands by a logarithm in straight pieces")] = False
    center: Annotated[
        bool, Field(description="take from each band its mean over the image; with log, against fog and darkness")
    ] = False
    low: Annotated[float, Field(ge=0, description="what the reduced luminance is multiplied by; 0 leaves it out")] = 1.0
    chroma: Annotated[
        bool, Field(description="keep the reduced colour too, in two channels: for networks that look at colour")
    ] = False
    color: Annotated[
        Literal["gray", "rgb"], Field(description="with prepend: what images the compiled network takes")
    ] = "rgb"
    pad: Annotated[bool, Field(description="fill sides that the block does not divide with zeros")] = False
    strides: Annotated[
        Literal["keep", "absorb"],
        Field(
            description="with convert: keep all strides, on a coarser grid, or absorb those that multiply to the "
            "block, with their layers, in one convolution: the rest runs on its own grid"
        ),
    ] = "keep"
    reach: Annotated[
        int | None,
        Field(ge=0, description="with absorb: to how many blocks on each side a convolution sees; all that are needed"),
    ] = None
    input: Annotated[str | None, Field(description="the input that images feed, where there are several")] = None

    def __post_init__(self) -> None:
        if isinstance(self.bands, int) and self.bands < 1:
            raise ValueError("bands is a number of bands, at least 1, or a list of names")
        if self.strides == "absorb" and self.mode == "prepend":
            raise ValueError("strides: absorb is for mode: convert")
        if self.reach is not None and self.strides == "keep":
            raise ValueError("reach is for strides: absorb")
        self._overlay(self.bands if isinstance(self.bands, list) else None)

    def missing_data(self, roles: frozenset[str]) -> str | None:
        return None if self.mode == "prepend" else super().missing_data(roles)

    def changes_inputs(self) -> bool:
        return self.mode == "prepend"

    def run(self, graph: Graph, ctx: Context) -> None:
        """Puts the stage in front of ``graph``, in place.

        Raises:
            UsageError: several inputs and none is named; ``prepend`` and a number of bands.
            InputError: the network has no input or first layer that this is for, or depends on the image's size.
        """
        x = self._input(graph)
        if self.mode == "prepend":
            self._prepend(graph, x, ctx)
        else:
            self._convert(graph, x, ctx)

    # -- a network of overlay channels --------------------------------------------------------------------------------

    def _prepend(self, graph: Graph, x: Variable, ctx: Context) -> None:
        if isinstance(self.bands, int):
            what = "is a number, and the network was trained on certain bands"
            raise UsageError("overlay: bands", what, "name them, in the order of the transform")
        overlay = self._overlay(self.bands)
        batch, channels, high, wide = static_shape(x)
        if self.chroma and self.color == "gray":
            raise UsageError("overlay: chroma", "a gray image has none", "leave it out, or color: rgb")
        if channels != len(overlay.names):
            what = f"takes {channels} channels, and this overlay has {len(overlay.names)}: {', '.join(overlay.names)}"
            raise InputError(f"overlay: input '{x.name}'", what, "give the options that it was trained with")
        colors = 1 if self.color == "gray" else 3
        name = x.name
        x.name = graph.fresh(f"{name}.channels")
        image = Variable(name, np.float32, [batch, colors, high * self.block, wide * self.block])
        graph.inputs[graph.inputs.index(x)] = image
        light = light_of(f"input '{name}'", colors, input_domain.pixels(graph, name, ctx.config.affine.get(name)))
        graph.replace_uses(x, write_stage(graph, image, overlay, light, f"{name}.overlay"))
        size = f"{high * self.block}x{wide * self.block}"
        ctx.did("the network", f"takes {self.color} images of {size}: {self._words(overlay)}")

    # -- a network of images ------------------------------------------------------------------------------------------

    def _convert(self, graph: Graph, x: Variable, ctx: Context) -> None:
        graph.sort()
        first = first_convolution(graph, x)
        sides = list(static_shape(x)[2:])
        fits = [side + -side % self.block for side in sides]
        if fits != sides and not self.pad:
            what = f"is {sides[0]}x{sides[1]}, which blocks of {self.block} do not divide"
            raise InputError(f"overlay: input '{x.name}'", what, f"use {fits[0]}x{fits[1]}, or pad: true")
        channels = static_shape(x)[1]
        where = f"overlay: input '{x.name}'"
        light = light_of(where, channels, input_domain.pixels(graph, x.name, ctx.config.affine.get(x.name)))
        if self.chroma and channels != 3:
            raise InputError(where, "is gray and has no chroma", "leave chroma out")
        cost = Cost(graph)
        overlay = self._chosen(graph, x, light, ctx)
        if self.strides == "absorb":
            made = absorb(graph, first, x, overlay, light, self.reach, ctx)
        else:
            made = convert(graph, first, x, overlay, light, ctx)
        left = Cost(graph).macs / max(cost.macs, 1)
        what = f"{self._words(overlay)}; {made.words}"
        figures = {"explained": round(made.explained, 4), "macs_left": round(left, 4)}
        ctx.did(first, what, channels=len(overlay.names), **figures)
        for words in made.changed:
            ctx.did("the network", words)
        if made.composed:
            ctx.did("the network", "the analysis and the first convolution are one, which is cheaper")

    def _chosen(self, graph: Graph, x: Variable, light: Light, ctx: Context) -> frequency_bank.Overlay:
        """The overlay with its bands, chosen from the data where their number is given."""
        if not isinstance(self.bands, int):
            return self._overlay(self.bands)
        selected = select_bands(self.bands, self._overlay(None), graph, x, light, ctx)
        scores = {name: round(score, 6) for name, score in selected.scores.items()}
        ctx.did("the network", f"bands {', '.join(selected.bands)}: each {selected.why}", **scores)
        return replace(self._overlay(None), bands=selected.bands)

    def _overlay(self, bands: list[str] | None) -> frequency_bank.Overlay:
        chosen, kinds = None if bands is None else tuple(bands), (self.magnitude, self.log)
        return frequency_bank.Overlay(self.block, self.transform, chosen, *kinds, self.low, self.chroma, self.center)

    def _words(self, overlay: frequency_bank.Overlay) -> str:
        kinds = {"none": "", "abs": " (absolute)", "square": " (squared)"}
        small = [word for word, there in (("luminance", overlay.low), ("colour", overlay.chroma)) if there]
        reduced = f"the {' and '.join(small)} of each block, and " if small else ""
        return f"{reduced}{overlay.transform} bands {', '.join(overlay.chosen)}{kinds[overlay.magnitude]}"

    def _input(self, graph: Graph) -> Variable:
        inputs = [tensor for tensor in graph.inputs if isinstance(tensor, Variable)]
        if self.input is not None:
            found = next((tensor for tensor in inputs if tensor.name == self.input), None)
            if found is None:
                names = ", ".join(tensor.name for tensor in inputs)
                raise UsageError("overlay: input", f"the network has no input '{self.input}'", f"it has {names}")
        elif len(inputs) > 1:
            names = ", ".join(tensor.name for tensor in inputs)
            raise UsageError("overlay", f"the network has several inputs: {names}", "name the images' with 'input'")
        else:
            found = inputs[0]
        shape = found.shape
        if shape is None or len(shape) != 4 or not all(isinstance(size, int) for size in shape):
            what = "is no image of static size (n, channels, height, width)"
            raise InputError(f"overlay: input '{found.name}'", what, "pin it with --input, or name another one")
        return found
