"""Generators as pure functions of a config: images in [-1, 1] to images in [-1, 1]."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i_lib.config import BlockWidths, GeneratorConfig, Norm, ResnetConfig, Upsample, check_image_size
from i2i_lib.layers import ReflectConv, norm_layer, sequence, with_norm_relu


class Branches(nn.Module):
    """A sum of branches with different receptive fields (paper, section 3.1).

    For each kernel size k there is a plain branch (k x k, k x k) and a depthwise one (1 x 1, k x k depthwise, 1 x 1).
    `convolution` makes one from its inputs, outputs, kernel size and groups, and keeps the grid.
    """

    def __init__(
        self,
        inputs: int,
        hidden: BlockWidths,
        outputs: int,
        kernel_sizes: tuple[int, ...],
        norm: Norm,
        convolution: Callable[..., nn.Module],
        *,
        spatial_affine: bool = True,
    ) -> None:
        super().__init__()
        # Keyed by kernel size, so that a missing branch does not rename the others.
        self.conv = nn.ModuleDict()
        self.depthwise = nn.ModuleDict()
        for kind, kernel, c in hidden.branches(kernel_sizes):
            outer = kernel if kind == "conv" else 1
            parts: dict[str, nn.Module] = {"expand": with_norm_relu(convolution(inputs, c, outer), c, norm)}
            if kind == "depthwise":
                spatial = convolution(c, c, kernel, groups=c)
                parts["spatial"] = with_norm_relu(spatial, c, norm, affine=spatial_affine)
            parts["project"] = convolution(c, outputs, outer)
            getattr(self, kind)[f"k{kernel}"] = sequence(**parts)

    def forward(self, x: Tensor) -> Tensor:  # [N, inputs, H, W] -> [N, outputs, H, W]
        first, *others = (*self.conv.values(), *self.depthwise.values())
        total = first(x)
        for branch in others:
            total = total + branch(x)
        return total


class InceptionBlock(Branches):
    """Residual block whose body is a normed sum of branches (paper, figure 2).

    Only hidden widths can be pruned: every branch reads and writes the trunk, so one of width 0 simply drops out.
    """

    def __init__(self, width: int, hidden: BlockWidths, kernel_sizes: tuple[int, ...], norm: Norm) -> None:
        convolution = partial(ReflectConv, bias=norm == "instance")
        super().__init__(width, hidden, width, kernel_sizes, norm, convolution)
        self.norm = norm_layer(norm, width) if self.conv or self.depthwise else None

    def forward(self, x: Tensor) -> Tensor:  # [N, width, H, W] -> the same
        return x if self.norm is None else x + self.norm(super().forward(x))


class _SeparableConv(nn.Module):
    """3 x 3 depthwise, norm, 1 x 1: no activation between (Li et al. 2020)."""

    def __init__(self, width: int, norm: Norm) -> None:
        super().__init__()
        bias = norm == "instance"
        self.spatial = ReflectConv(width, width, 3, bias=bias, groups=width)
        self.norm = norm_layer(norm, width)
        self.project = ReflectConv(width, width, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.norm(self.spatial(x)))


class ResnetBlock(nn.Module):
    """Two 3 x 3 convolutions around a shortcut, plain or depthwise-separable."""

    def __init__(self, width: int, norm: Norm, *, separable: bool) -> None:
        super().__init__()

        def convolution() -> nn.Module:
            return _SeparableConv(width, norm) if separable else ReflectConv(width, width, 3, bias=norm == "instance")

        self.body = nn.Sequential(
            with_norm_relu(convolution(), width, norm),
            sequence(conv=convolution(), norm=norm_layer(norm, width)),
        )

    def forward(self, x: Tensor) -> Tensor:  # [N, width, H, W] -> the same
        return x + self.body(x)


class _Generator(nn.Module):
    """Shared by both families: a stem that quarters the grid, residual blocks, and the way back up."""

    def __init__(self, config: GeneratorConfig | ResnetConfig, blocks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.config = config
        norm, bias = config.norm, config.norm == "instance"
        first, second, width = config.stem
        self.stem = nn.Sequential(
            with_norm_relu(ReflectConv(config.in_channels, first, 7, bias=bias), first, norm),
            with_norm_relu(nn.Conv2d(first, second, 3, stride=2, padding=1, bias=bias), second, norm),
            with_norm_relu(nn.Conv2d(second, width, 3, stride=2, padding=1, bias=bias), width, norm),
        )
        self.blocks = nn.ModuleList(blocks)
        middle, last = config.up
        self.up = nn.Sequential(
            _upsample(width, middle, norm, config.upsample), _upsample(middle, last, norm, config.upsample)
        )
        self.head = ReflectConv(last, config.out_channels, 7, bias=True)

    def forward_features(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The image [N, out_channels, H, W] and four feature maps [N, width, H/4, W/4] for distillation.

        The maps are the stem's output and those of the blocks `config.taps` (paper, supplement S1). Height and width
        are those that `check_image_size` takes, else ValueError.
        """
        features = self.features(x)
        return torch.tanh(self.head(self.up(features[-1]))), features

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        """The feature maps of `forward_features` alone, which spares the way back up."""
        check_image_size((x.shape[2], x.shape[3]), self.config)
        return tapped(self.stem(x), self.blocks, self.config.taps)

    def forward(self, x: Tensor, *, features: bool = False) -> Any:
        """The image, or what `forward_features` returns: wrappers such as DDP only offer `forward`."""
        image, maps = self.forward_features(x)
        return (image, maps) if features else image


def tapped(x: Tensor, blocks: Iterable[nn.Module], taps: tuple[int, ...]) -> tuple[Tensor, ...]:
    """The map `x`, and those behind the blocks `taps` (1 is the first) on its way through all."""
    maps = [x]
    for i, block in enumerate(blocks, start=1):
        x = block(x)
        if i in taps:
            maps.append(x)
    return tuple(maps)


class InceptionGenerator(_Generator):
    """The paper's generator, teacher or student: a pure function of its config."""

    config: GeneratorConfig

    def __init__(self, config: GeneratorConfig) -> None:
        width = config.stem[-1]
        super().__init__(config, [InceptionBlock(width, b, config.kernel_sizes, config.norm) for b in config.blocks])


class ResnetGenerator(_Generator):
    """The ResNet generator of CycleGAN, or its depthwise-separable variant: baselines, never pruned here."""

    config: ResnetConfig

    def __init__(self, config: ResnetConfig) -> None:
        width = config.stem[-1]
        blocks = (ResnetBlock(width, config.norm, separable=config.separable) for _ in range(config.n_blocks))
        super().__init__(config, blocks)


class ResizeConv(ReflectConv):
    """Twice the grid by repeating pixels, then a convolution."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.interpolate(input, scale_factor=2.0, mode="nearest"))


def _upsample(inputs: int, outputs: int, norm: Norm, upsample: Upsample) -> nn.Sequential:
    """Twice the grid, either by the published transposed convolution or by one over the resized input.

    The second leaves no checkerboard (Odena et al. 2016), at four times the exact MACs of the first.
    """
    bias = norm == "instance"
    if upsample == "transpose":
        layer = nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1, bias=bias)
    else:
        layer = ResizeConv(inputs, outputs, 3, bias=bias)
    return with_norm_relu(layer, outputs, norm)
