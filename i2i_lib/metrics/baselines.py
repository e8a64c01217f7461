"""A translation by colour alone for tasks without pairs, blind to a pixel's neighbours: a yardstick for networks."""

import torch
from torch import Tensor

from i2i_lib.metrics.pairs import quantise
from i2i_lib.metrics.sets import matrix_sqrt


class ColourTransfer:
    """The linear map of colours that gives the source domain the mean and covariance of the target's.

    Of all such maps, the one that moves colours least (Pitie and Kokaram 2007, the Monge-Kantorovich map). It needs no
    pairs.
    """

    def __init__(self, source: Tensor, target: Tensor) -> None:
        """Fit to two sets of pictures [N, 3, H, W] and [M, 3, H, W], uint8 or float in [-1, 1]."""
        (self._mean, a), (self._target_mean, b) = (_colour_moments(images) for images in (source, target))
        root = matrix_sqrt(a)
        inverse = torch.linalg.inv(root)
        self._matrix = inverse @ matrix_sqrt(root @ b @ root) @ inverse

    def __call__(self, source: Tensor) -> Tensor:
        """Translate pictures [N, 3, H, W], uint8 or float in [-1, 1], to float in [-1, 1]."""
        colours = quantise(source).movedim(1, -1).double() - self._mean
        moved = colours @ self._matrix + self._target_mean
        return (moved / 127.5 - 1).clamp(-1, 1).movedim(-1, 1).float()


def _colour_moments(images: Tensor) -> tuple[Tensor, Tensor]:
    colours = quantise(images).movedim(1, 0).flatten(1).double()
    # A quarter of a grey level keeps the covariance of grey pictures invertible.
    return colours.mean(1), colours.cov() + 0.25**2 * torch.eye(3, dtype=torch.float64)
