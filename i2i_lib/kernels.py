"""Convolutions rewritten as others that compute the same, because a CPU computes them faster."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def side_by_side(weights: Sequence[Tensor]) -> Tensor:
    """The weight of one convolution with the outputs of all, its kernel the largest: smaller ones in a border of zeros.

    Each weight is [outputs, inputs per group, k, k] with an odd k.
    """
    kernel = max(weight.shape[-1] for weight in weights)
    return torch.cat([F.pad(weight, ((kernel - weight.shape[-1]) // 2,) * 4) for weight in weights])


def doubling(weight: Tensor) -> Tensor:
    """The transposed convolution that doubles the grid as repeating its pixels and then convolving 3 x 3 does.

    [outputs, inputs, 3, 3] to [outputs, inputs, 4, 4], for stride 2, padding 3 and a replicated border of 1: every new
    pixel sees 2 x 2 old ones, which takes 16 / 36 of the products, and the reflected border of the large map is the
    replicated one of the small.
    """
    turned = weight.flip(-1, -2)  # as a transposed convolution reads it
    wide = F.pad(turned, (0, 1)) + F.pad(turned, (1, 0))
    return F.pad(wide, (0, 0, 0, 1)) + F.pad(wide, (0, 0, 1, 0))  # no product, which autocast would round


def four_at_once(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a convolution that paints 2 x 2 pixels at once, for stride 2 and `F.pixel_shuffle` behind it.

    [outputs, inputs, k, k] to [4 * outputs, inputs, k + 1, k + 1]: 3 output channels leave most of a vector idle.
    """
    shifted = [F.pad(weight, (b, 1 - b, a, 1 - a)) for a in (0, 1) for b in (0, 1)]
    return torch.stack(shifted, 1).flatten(0, 1), None if bias is None else bias.repeat_interleave(4)
