"""A table of colours, the simplest translation: a yardstick for networks that learn from pairs."""

import torch
from torch import Tensor

from i2i_lib.metrics.pairs import quantise

LEARNT_FROM = 2000  # training pictures that a translation by colour is fitted to, at most
BITS = 7  # of each channel at the finest level: 2 million colours


class ColourLookup:
    """The mean target colour of every source colour.

    Colours are binned at 1 to 7 bits a channel. A bin's mean is pulled towards that of the eight times larger bin
    around it by the weight of `prior` pixels, so that a colour never seen takes the colour of its nearest surroundings.
    """

    def __init__(self, source: Tensor, target: Tensor, prior: float = 1.0) -> None:
        """Fit to registered pictures [N, 3, H, W], uint8 or float in [-1, 1]."""
        bins = _bin(quantise(source).movedim(1, 0)).flatten()
        values = quantise(target).movedim(1, 0).flatten(1)
        count = bins.bincount(minlength=8**BITS).double()[:, None]
        total = torch.stack([bins.bincount(channel.double(), minlength=8**BITS) for channel in values], 1)
        levels = [(count, total)]
        for _ in range(BITS):
            count, total = (x.unflatten(0, (-1, 8)).sum(1) for x in (count, total))
            levels.append((count, total))
        count, total = levels.pop()
        mean = total / count  # [1, 3], of all colours
        for count, total in reversed(levels):
            mean = (total + prior * mean.repeat_interleave(8, 0)) / (count + prior)
        self._table = (mean / 127.5 - 1).float()

    def __call__(self, source: Tensor) -> Tensor:
        """Translate pictures [N, 3, H, W], uint8 or float in [-1, 1], to float in [-1, 1]."""
        return self._table[_bin(quantise(source).movedim(1, 0))].movedim(-1, 1)


def _bin(colours: Tensor) -> Tensor:
    """Number of the bin of each colour [3, ...], uint8, at the finest level, in Morton order: [...], int64.

    The bits of the three channels are interleaved, highest first, so that the eight parts of a coarser bin follow
    each other.
    """
    level = torch.arange(256)
    spread = torch.zeros_like(level)  # ...c00b00a for the bits cba
    for bit in range(BITS):
        spread |= (level >> (8 - BITS + bit) & 1) << 3 * bit
    red, green, blue = (spread[channel.int()] for channel in colours)
    return red << 2 | green << 1 | blue
