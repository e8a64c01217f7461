"""Measures of a picture against its target, and the protocol that goes with a number."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

_AT_ONCE = 16  # pictures whose similarity is computed together: 0.3 GB of float64 for pictures of 256 x 256
NOT_FINITE = "the features contain NaN or infinity: look at the images that they come from"


@dataclass(frozen=True, slots=True)
class Protocol:
    """All that must agree before two numbers may be compared."""

    extractor: str  # network, its training data and the start of its weights' checksum
    stage: str  # which features the distances between sets use, and how many of them
    resize: str  # from the picture to the extractor's input
    quantisation: str
    split: str  # the reference pictures
    count: int  # pictures measured
    pairs: str = ""  # how pictures are compared with their targets one by one

    @property
    def id(self) -> str:
        """One line that is equal for equal protocols."""
        parts = (self.extractor, self.stage, self.resize, self.quantisation, self.pairs, self.split, f"n={self.count}")
        return "; ".join(filter(None, parts))


def quantise(images: Tensor, rounding: Literal["nearest", "down"] = "nearest") -> Tensor:
    """Float images in [-1, 1] as 8-bit pictures, clipped; uint8 passes.

    The CAT code rounds down before FID; every other protocol rounds to the nearest. Raises ValueError on NaN.
    """
    if images.dtype == torch.uint8:
        return images
    if images.isnan().any():
        raise ValueError("the images contain NaN: the network that made them has diverged")
    if rounding == "down":
        return ((images.float() + 1) / 2 * 255).clamp(0, 255).to(torch.uint8)
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def l1(images: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of each pair, [N], float64: from 0 to 2, since images are on the scale [-1, 1]."""
    a, b = _paired(images, target)
    return (a - b).abs().mean((1, 2, 3))


SSIM = "SSIM per colour channel in Gaussian windows of 11 x 11, sigma 1.5, that fit whole, with population covariances"


def ssim(images: Tensor, target: Tensor) -> Tensor:
    """Structural similarity of each pair, [N], float64: at most 1, which equal pictures reach.

    Wang et al. 2004: Gaussian window of 11 x 11 and sigma 1.5, K = (0.01, 0.03), only where the window fits whole,
    variances and covariance divided by the whole weight; computed per colour channel and averaged. Other libraries
    differ: torchmetrics also averages over windows that reach beyond the picture. Memory is that of a few pictures,
    however many there are.
    """
    _check_paired(images, target)
    if min(images.shape[2:]) < 11:
        raise ValueError(f"SSIM needs images of at least 11 x 11 pixels, got {images.shape[2]} x {images.shape[3]}")
    # Parts of equal size: one picture alone would be summed in another order.
    parts = max(math.ceil(len(images) / _AT_ONCE), 1)
    pairs = zip(images.tensor_split(parts), target.tensor_split(parts), strict=True)
    return torch.cat([_ssim(*_paired(a, b)) for a, b in pairs])


def _ssim(a: Tensor, b: Tensor) -> Tensor:
    window = torch.exp(-((torch.arange(11, dtype=a.dtype, device=a.device) - 5) ** 2) / (2 * 1.5**2))
    window = window / window.sum()
    # The window is separable: two products with banded matrices [size - 10, size].
    down, along = (torch.stack([F.pad(window, (i, n - 11 - i)) for i in range(n - 10)]) for n in a.shape[2:])

    def blur(x: Tensor) -> Tensor:
        return down @ x @ along.mT

    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2  # the data range of [-1, 1] is 2
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b, cov = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2, blur(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return (luminance * (2 * cov + c2) / (var_a + var_b + c2)).mean((1, 2, 3))


def feature_distance(features: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
    """Perceptual distance of each pair, [N], float64: 0 for equal features, at most 4.

    `features` and `target` hold one map [N, C, h, w] per stage of the same network. As in LPIPS (Zhang et al. 2018),
    feature vectors are scaled to unit length at each position and their squared differences averaged over positions,
    then stages. Unlike there, channels are unweighted: no weights fitted to human judgements exist for our network.
    """
    distances = []
    for a, b in zip(features, target, strict=True):
        if a.shape != b.shape:
            raise ValueError(f"feature maps differ: {tuple(a.shape)} and {tuple(b.shape)}")
        if not (a.isfinite().all() and b.isfinite().all()):
            raise ValueError(NOT_FINITE)
        difference = F.normalize(a.float(), dim=1) - F.normalize(b.float(), dim=1)
        distances.append(difference.square().sum(1).mean((1, 2)).double())
    return torch.stack(distances).mean(0)


def _check_paired(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape or a.ndim != 4:
        raise ValueError(f"need two batches of the same shape [N, C, H, W], got {tuple(a.shape)} and {tuple(b.shape)}")


def _paired(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    _check_paired(a, b)
    return quantise(a).double() / 127.5 - 1, quantise(b).double() / 127.5 - 1
