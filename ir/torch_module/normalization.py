"""Normalizations."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from edgec.ir.torch_module.lowering import MODE, Call, Mode, Site, lowers


@lowers("BatchNormalization")
def batch_normalization(at: Site) -> Call:
    """By the running statistics, or the batch's where the run's mode says so.

    ONNX keeps ``momentum`` of the old statistics, torch takes ``momentum`` of the new.
    """
    if at.attr("training_mode", 0) or any(at.wanted(place) for place in range(1, len(at.node.outputs))):
        raise at.refusal("it gives out its batch's statistics", "export the network in evaluation mode")
    if at.opset < 9 and not at.attr("spatial", 1):
        raise at.refusal("it has statistics for each position", "export the network at a newer opset")
    epsilon, momentum = float(at.attr("epsilon", 1e-5)), 1 - float(at.attr("momentum", 0.9))
    if at.frozen or any(at.known(place) is None for place in (3, 4)):
        return lambda x, scale, bias, mean, variance: functional.batch_norm(
            x, mean, variance, scale, bias, False, 0.0, epsilon
        )
    at.reads.append(MODE)

    def call(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, mode: Mode) -> Tensor:
        if mode.batch_statistics:
            rate = momentum if mode.updating else 0.0
            return functional.batch_norm(x, mean, variance, scale, bias, True, rate, epsilon)
        return functional.batch_norm(x, mean, variance, scale, bias, False, 0.0, epsilon)

    return call


@lowers("InstanceNormalization")
def instance_normalization(at: Site) -> Call:
    epsilon = float(at.attr("epsilon", 1e-5))

    def call(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        # By groups of one channel: torch's own refuses images of one pixel.
        return functional.group_norm(x, x.shape[1], scale, bias, epsilon)

    return call


@lowers("GroupNormalization")
def group_normalization(at: Site) -> Call:
    """Scale and bias are by group before opset 21, by channel from then on."""
    groups, epsilon = int(at.attr("num_groups")), float(at.attr("epsilon", 1e-5))
    if at.opset >= 21:
        return lambda x, scale, bias: functional.group_norm(x, groups, scale, bias, epsilon)

    def call(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        each = x.shape[1] // groups
        return functional.group_norm(x, groups, scale.repeat_interleave(each), bias.repeat_interleave(each), epsilon)

    return call


@lowers("LayerNormalization")
def layer_normalization(at: Site) -> Call:
    rank, epsilon = at.rank(0), float(at.attr("epsilon", 1e-5))
    axis = int(at.attr("axis", -1)) % rank
    axes = list(range(axis, rank))
    shape = at.shape(0)
    whole = shape is not None and all(at.shape(place) == shape[axis:] for place in (1, 2) if at.has(place))

    def fitted(x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
        return functional.layer_norm(x, x.shape[axis:], scale, bias, epsilon)

    def broadcast(x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
        normal = functional.layer_norm(x, x.shape[axis:], None, None, epsilon) * scale
        return normal if bias is None else normal + bias

    call = fitted if whole else broadcast
    if not any(at.wanted(place) for place in (1, 2)):
        return call

    def with_statistics(x: Tensor, scale: Tensor, bias: Tensor | None = None) -> tuple[Tensor, ...]:
        mean = x.mean(axes, keepdim=True)
        inverse = torch.rsqrt((x - mean).square().mean(axes, keepdim=True) + epsilon)
        return call(x, scale, bias), mean, inverse

    return with_statistics


@lowers("RMSNormalization")
def rms_normalization(at: Site) -> Call:
    rank, epsilon = at.rank(0), float(at.attr("epsilon", 1e-5))
    axes = list(range(int(at.attr("axis", -1)) % rank, rank))
    return lambda x, scale: x * torch.rsqrt(x.square().mean(axes, keepdim=True) + epsilon) * scale


@lowers("LpNormalization")
def lp_normalization(at: Site) -> Call:
    """A vector of zeros stays as it is."""
    axis, order = int(at.attr("axis", -1)), int(at.attr("p", 2))

    def call(x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, order, axis, True)
        return x / torch.where(norm == 0, torch.ones_like(norm), norm)

    return call


@lowers("MeanVarianceNormalization")
def mean_variance(at: Site) -> Call:
    axes = [int(a) for a in at.attr("axes", [0, 2, 3])]

    def call(x: Tensor) -> Tensor:
        centred = x - x.mean(axes, keepdim=True)
        return centred / (centred.square().mean(axes, keepdim=True).sqrt() + 1e-9)

    return call


@lowers("LRN")
def local_response(at: Site) -> Call:
    """By the squares of ``size`` channels around each; where that is even, one more follows than precedes."""
    size, bias = int(at.attr("size")), float(at.attr("bias", 1.0))
    alpha, beta = float(at.attr("alpha", 1e-4)) / size, float(at.attr("beta", 0.75))
    before = (size - 1) // 2

    def call(x: Tensor) -> Tensor:
        rows = x.square().reshape(x.shape[0], 1, x.shape[1], -1)
        around = functional.pad(rows, (0, 0, before, size - 1 - before))
        total = functional.avg_pool2d(around, (size, 1), stride=1) * size
        return x / (bias + alpha * total.reshape(x.shape)) ** beta

    return call
