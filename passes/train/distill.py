"""``distill``: a network is trained to compute what a teacher computes, inside as well."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from pydantic import Field

from edgec.passes.train.training_pass import Teaching, TrainingPass


@dataclass(frozen=True)
class Distill(TrainingPass):
    """Distills a teacher's knowledge into the network: its outputs, and tensors inside it, on ``data.train``.

    Labels are not needed. The weights of the best epoch are kept.
    """

    name: ClassVar[str] = "distill"
    methods: ClassVar[tuple[str, ...]] = ("knowledge distillation", "feature distillation", "QAT", "LSQ")

    teacher: Annotated[str, Field(description="'original', or the path of an ONNX model")] = "original"
    temperature: Annotated[float, Field(gt=0, description="softens a classifier's outputs and its teacher's")] = 2.0
    labels: Annotated[
        float, Field(ge=0, le=1, description="the part that the loss for the labels has, where there are labels")
    ] = 0.0
    match: Annotated[
        dict[str, str],
        Field(description="tensors inside the network, by name, and those of the teacher that they are to meet"),
    ] = field(default_factory=dict)
    inside: Annotated[
        float, Field(ge=0, description="weight of the tensors inside, each by its teacher's own power; 0 matches none")
    ] = 1.0

    @property
    def teaching(self) -> Teaching:
        return Teaching(self.teacher, self.temperature, self.labels, self.inside, self.match)
