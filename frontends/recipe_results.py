"""The recipe's ``results``: what a network's outputs mean to a person, and the names of its classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from edgec.frontends.recipe_values import Count, Fault, FilePath, Fraction, Section, Text, one_of

KINDS = ("auto", "classes", "boxes", "mask", "score", "none")
FORMS = ("auto", "centres", "objects", "grid", "corners", "map")


class ResultsSpec(Section):
    """What the programs in the boards' folders, and ``edgec run``, make of the outputs."""

    kind: Annotated[Literal["auto", "classes", "boxes", "mask", "score", "none"], one_of(*KINDS)] = Field(
        default="auto", description="what the network gives; auto recognizes it by its outputs"
    )
    form: Annotated[Literal["auto", "centres", "objects", "grid", "corners", "map"], one_of(*FORMS)] = Field(
        default="auto",
        description="how a detector writes its boxes: YOLO v8 centres, v5 objects, YOLOX grid, v10 corners",
    )
    output: Text | None = Field(default=None, description="the output that is meant; by default the one that fits")
    labels: FilePath | None = Field(default=None, description="a text file with the name of a class on each line")
    top: Count = Field(default=5, description="how many classes are told, best first")
    confidence: Fraction = Field(default=0.25, description="the least score of a box")
    overlap: Fraction = Field(default=0.45, description="the most that two boxes of one class may overlap, as IoU")

    def faults_of_values(self) -> Iterator[Fault]:
        if self.form != "auto" and self.kind not in ("auto", "boxes"):
            yield ("form",), f"goes with boxes, not with kind '{self.kind}'", "leave it out"

    def missing(self) -> Iterator[Fault]:
        """What it names and is not there."""
        if self.labels is not None and not self.labels.is_file():
            what = "is a folder" if self.labels.is_dir() else "there is no such file"
            yield ("labels",), f"'{self.labels}': {what}", "correct the path; it is relative to the recipe"
