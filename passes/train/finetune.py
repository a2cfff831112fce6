"""``finetune``: the weights of a compressed network are trained until it does again what it did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from edgec.passes.train.training_pass import Teaching, TrainingPass


@dataclass(frozen=True)
class Finetune(TrainingPass):
    """Trains the weights of the network as it is on ``data.train``: for the labels, as an autoencoder, or by a teacher.

    The weights of the best epoch are kept. Behind ``quantize`` it trains through the rounding.
    """

    name: ClassVar[str] = "finetune"
    methods: ClassVar[tuple[str, ...]] = ("fine-tuning", "knowledge distillation", "QAT", "LSQ")

    teacher: Annotated[
        str | None,
        Field(
            description="'original', or the path of an ONNX model, whose outputs are to be met; labels are not needed"
        ),
    ] = None
    temperature: Annotated[float, Field(gt=0, description="softens a classifier's outputs and its teacher's")] = 2.0
    labels: Annotated[
        float, Field(ge=0, le=1, description="with a teacher, the part that the loss for the labels has")
    ] = 0.0

    @property
    def teaching(self) -> Teaching | None:
        return None if self.teacher is None else Teaching(self.teacher, self.temperature, self.labels)
