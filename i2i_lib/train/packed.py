"""A generator that trains in fewer and larger kernels: the same sums in another order.

A CPU's kernels fill their vectors poorly with a pruned branch's few channels, or with a picture's three. `fuse`
merges more, for inference: there norms have become constants.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional as F

from i2i_lib.generators import InceptionBlock, InceptionGenerator, ResizeConv, ResnetGenerator
from i2i_lib.kernels import doubling, four_at_once, side_by_side
from i2i_lib.layers import ReflectConv, pad


def on_cpu(network: nn.Module) -> bool:
    """Whether a CPU computes the network. Tensors without numbers stand for a GPU's (see `memory`)."""
    first = next(network.parameters())
    return first.device.type == "cpu" and not isinstance(first, FakeTensor)


def packed(generator: nn.Module) -> nn.Module:
    """A view of the generator that computes the same, up to rounding, faster on a CPU.

    The view shares all parameters and buffers with the generator, which keeps their names. Families other than
    inception and ResNet are returned as they are.
    """
    if not isinstance(generator, InceptionGenerator | ResnetGenerator):
        return generator
    up = [nn.Sequential(_doubling(layer.conv), layer.norm, layer.relu) for layer in generator.up]  # pyright: ignore
    parts: dict[str, nn.Module | None] = {
        "blocks": nn.ModuleList(map(_block, generator.blocks)),
        "up": nn.Sequential(*up),
        "head": FourAtOnce(generator.head),
    }
    view = copy.copy(generator)
    view._modules = generator._modules | parts
    return view


def _doubling(conv: nn.Module) -> nn.Module:
    return Doubling(conv) if isinstance(conv, ResizeConv) else conv


class Doubling(nn.Module):
    """A convolution of the doubled grid, computed on the grid itself."""

    def __init__(self, conv: ResizeConv) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:  # [N, C, H, W] -> [N, outputs, 2 H, 2 W]
        weight = doubling(self.conv.weight).transpose(0, 1)  # a transposed convolution has its inputs first
        return F.conv_transpose2d(pad(x, 1, "replicate"), weight, self.conv.bias, stride=2, padding=3)


class FourAtOnce(nn.Module):
    """A convolution that paints 2 x 2 pixels at once; height and width are even."""

    def __init__(self, conv: ReflectConv) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = four_at_once(self.conv.weight, self.conv.bias)
        return F.pixel_shuffle(F.conv2d(pad(x, self.conv.border), weight, bias, stride=2), 2)


def _block(block: Any) -> nn.Module:
    if not isinstance(block, InceptionBlock):
        return block
    points = len(block.depthwise) + ("k1" in block.conv)
    return PackedBlock(block) if points > 1 and type(block.norm) is nn.BatchNorm2d else block


class PackedBlock(nn.Module):
    """A block whose branches that begin with a 1 x 1 convolution take one pass; the others are left as they are.

    The 1 x 1 convolutions that read the trunk are one, so are the depthwise ones, and the 1 x 1 ones that write the
    trunk; their batch norms see the same values as before.
    """

    def __init__(self, block: InceptionBlock) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:  # [N, width, H, W] -> the same
        block: Any = self.block
        wide = dict(block.conv.items())
        point = wide.pop("k1", None)  # 1 x 1 twice: it has no depthwise part, and goes past it
        deep = list(block.depthwise.values())
        points = deep if point is None else [point, *deep]

        hidden = _convolution(x, [branch.expand.conv for branch in points])
        hidden = _batch_norm(hidden, [branch.expand.norm for branch in points]).relu_()
        if deep:
            width = sum(branch.spatial.conv.out_channels for branch in deep)
            past, through = hidden.split([hidden.shape[1] - width, width], 1)
            made = _convolution(through, [branch.spatial.conv for branch in deep], groups=width)
            made = _batch_norm(made, [branch.spatial.norm for branch in deep]).relu_()
            hidden = made if point is None else torch.cat([past, made], 1)
        total = F.conv2d(hidden, torch.cat([branch.project.weight for branch in points], 1))  # no bias: a norm follows
        for branch in wide.values():
            total = total + branch(x)
        return x + block.norm(total)


def _convolution(x: Tensor, convolutions: list[Any], groups: int = 1) -> Tensor:
    """Convolutions of the same map, or with groups each of its own channels, side by side."""
    weight = side_by_side([conv.weight for conv in convolutions])
    border = weight.shape[-1] // 2
    return F.conv2d(pad(x, border) if border else x, weight, groups=groups)


def _batch_norm(x: Tensor, norms: list[Any]) -> Tensor:
    """Batch norms of neighbouring channels; each gets the running statistics that it would have alone."""
    first = norms[0]
    scale, shift, mean, var = (
        torch.cat([getattr(norm, name) for norm in norms]) for name in ("weight", "bias", "running_mean", "running_var")
    )
    y = F.batch_norm(x, mean, var, scale, shift, first.training, first.momentum, first.eps)
    if first.training:
        sizes = [norm.num_features for norm in norms]
        for norm, new_mean, new_var in zip(norms, mean.split(sizes), var.split(sizes), strict=True):
            norm.running_mean.copy_(new_mean)
            norm.running_var.copy_(new_var)
            norm.num_batches_tracked.add_(1)
    return y
