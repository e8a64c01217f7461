"""GauGAN's generators: label maps to images, pure functions of a config.

Labels do not enter at the front alone: SPADE, a spatially adaptive norm, reads them at every grid (Park et al. 2019).
"""

from collections.abc import Iterable
from itertools import pairwise, repeat
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from i2i_lib.config import SpadeBlockWidths, SpadeConfig, SpadeResnetConfig, check_image_size
from i2i_lib.generators import Branches
from i2i_lib.layers import norm_layer, sequence

TAPS = ("head_0", "G_middle_1", "up_1")  # the stages whose outputs are features for distillation


def _convolution(inputs: int, outputs: int, kernel: int, groups: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=bias)


def _modulate(x: Tensor, scale_shift: Tensor) -> Tensor:
    scale, shift = scale_shift.chunk(2, dim=1)
    return x * (1 + scale) + shift


class InceptionSpadeBlock(nn.Module):
    """SPADE, ReLU and a sum of branches, around a shortcut that is normed and projected where the width changes.

    One SPADE of the original block's three is left, its two convolutions replaced by branches as well (paper,
    supplement S1). Every branch is pruned by its hidden width alone.
    """

    def __init__(self, inputs: int, widths: SpadeBlockWidths, config: SpadeConfig) -> None:
        super().__init__()
        kernels, norm, outputs = config.kernel_sizes, config.norm, widths.outputs
        self.norm = self.spade = self.body = self.shortcut = None
        if widths.body.any_branch:
            self.norm = norm_layer(norm, inputs, affine=False)
            if widths.spade.any_branch:
                self.spade = Branches(config.label_channels, widths.spade, 2 * inputs, kernels, norm, _convolution)
            self.body = Branches(inputs, widths.body, outputs, kernels, norm, _convolution, spatial_affine=False)
        if inputs != outputs:
            self.shortcut = sequence(norm=norm_layer(norm, inputs), conv=_convolution(inputs, outputs, 1, bias=False))

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:  # [N, inputs, h, w] -> [N, outputs, h, w]
        skipped = x if self.shortcut is None else self.shortcut(x)
        if self.norm is None or self.body is None:
            return skipped
        x = self.norm(x)
        if self.spade is not None:
            x = _modulate(x, self.spade(labels))
        return skipped + self.body(F.relu(x))


class _SpadeConv(nn.Module):
    """The original SPADE, an activation where there is one, and a convolution with spectral norm."""

    def __init__(self, inputs: int, outputs: int, kernel: int, config: SpadeResnetConfig) -> None:
        super().__init__()
        self.spade = sequence(
            norm=norm_layer(config.norm, inputs, affine=False),
            shared=_convolution(config.label_channels, config.hidden, 3),
            scale_shift=_convolution(config.hidden, 2 * inputs, 3),
        )
        self.conv = spectral_norm(_convolution(inputs, outputs, kernel, bias=kernel > 1))

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        norm, shared, scale_shift = self.spade
        x = _modulate(norm(x), scale_shift(F.relu(shared(labels))))
        return self.conv(x if self.conv.kernel_size == (1, 1) else F.leaky_relu(x, 0.2))


class SpadeResnetBlock(nn.Module):
    """Two 3 x 3 convolutions around a shortcut, each after a SPADE; so is the shortcut's 1 x 1, if it has one."""

    def __init__(self, inputs: int, outputs: int, config: SpadeResnetConfig) -> None:
        super().__init__()
        middle = min(inputs, outputs)
        self.body = nn.ModuleList([_SpadeConv(inputs, middle, 3, config), _SpadeConv(middle, outputs, 3, config)])
        self.shortcut = None if inputs == outputs else _SpadeConv(inputs, outputs, 1, config)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:  # [N, inputs, h, w] -> [N, outputs, h, w]
        skipped = x if self.shortcut is None else self.shortcut(x, labels)
        for part in self.body:
            x = part(x, labels)
        return skipped + x


class _LabelGenerator(nn.Module):
    """Shared by both families: a stem on shrunken labels, and blocks that read labels on a grid that doubles."""

    def __init__(self, config: SpadeConfig | SpadeResnetConfig, stem: nn.Module, blocks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.config = config
        self.stem = stem
        self.blocks = nn.ModuleDict(dict(zip(config.stages, blocks, strict=True)))
        self.head = _convolution(config.widths[-1], config.out_channels, 3)

    def forward_features(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The image [N, out_channels, H, W] in [-1, 1], and three feature maps for distillation.

        `x` holds label channels as floats [N, label_channels, H, W]; height and width are multiples of 2^upsamplings,
        else ValueError. The maps are the outputs of head_0, G_middle_1 and up_1 (paper, supplement S1).
        """
        output, features = self._run(x, tuple(self.blocks)[-1])
        return torch.tanh(self.head(F.leaky_relu(output, 0.2))), features

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        """The feature maps of `forward_features` alone, which spares the stages behind the last."""
        return self._run(x, TAPS[-1])[1]

    def _run(self, x: Tensor, last: str) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The output of the stage `last`, and the feature maps up to it."""
        check_image_size((x.shape[2], x.shape[3]), self.config)
        labels, grid = x, 2**self.config.upsamplings
        x = self.stem(_shrink(labels, grid))
        features = []
        for (name, shrink), block in zip(self.config.stages.items(), self.blocks.values(), strict=True):
            if shrink < grid:
                x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            grid = shrink
            x = block(x, _shrink(labels, grid))
            if name in TAPS:
                features.append(x)
            if name == last:
                break
        return x, tuple(features)

    def forward(self, x: Tensor, *, features: bool = False) -> Any:
        """The image, or what `forward_features` returns: wrappers such as DDP only offer `forward`."""
        image, maps = self.forward_features(x)
        return (image, maps) if features else image


class InceptionSpadeGenerator(_LabelGenerator):
    """The paper's GauGAN generator, teacher or student: a pure function of its config."""

    config: SpadeConfig

    def __init__(self, config: SpadeConfig) -> None:
        # A norm that the original lacks: its scales are what lets the widths be pruned.
        conv = _convolution(config.label_channels, config.stem, 3)
        stem = sequence(conv=conv, norm=norm_layer(config.norm, config.stem))
        blocks = map(InceptionSpadeBlock, config.widths, config.blocks, repeat(config))
        super().__init__(config, stem, blocks)


class SpadeGenerator(_LabelGenerator):
    """The generator of Park et al. (2019), without its image encoder: a baseline, never pruned here."""

    config: SpadeResnetConfig

    def __init__(self, config: SpadeResnetConfig) -> None:
        stem = sequence(conv=_convolution(config.label_channels, config.widths[0], 3))
        blocks = (SpadeResnetBlock(inputs, outputs, config) for inputs, outputs in pairwise(config.widths))
        super().__init__(config, stem, blocks)


def _shrink(labels: Tensor, factor: int) -> Tensor:
    """The nearest label, as `F.interpolate` takes it: the upper left one. Labels have no mean."""
    return labels[:, :, ::factor, ::factor]
