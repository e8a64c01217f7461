"""Distances between sets of pictures, from their features: Fréchet and kernel distance."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from i2i_lib.metrics.intervals import Estimate, number_blocks, percentile_interval, resample_blocks
from i2i_lib.metrics.pairs import NOT_FINITE


@dataclass(frozen=True, slots=True)
class FeatureStats:
    """Mean and covariance of a set of feature vectors."""

    mean: Tensor  # [D], float64
    cov: Tensor  # [D, D], float64, unbiased
    count: int

    @classmethod
    def from_batches(cls, batches: Iterable[Tensor]) -> "FeatureStats":
        """Gather batches [n, D] of any sizes, the last partial one too; memory does not grow with their number.

        Raises ValueError for features that are not finite and for fewer than two of them. Constant features give a
        covariance of 0; fewer vectors than dimensions give a singular one. Both are valid input to
        `frechet_distance`, which is then too large, because a covariance is badly known from few samples.
        """
        count, mean, scatter = 0, torch.zeros(()), torch.zeros(())
        for batch in batches:
            x = _finite(batch)
            if count == 0:
                mean, scatter = x.new_zeros(x.shape[1]), x.new_zeros(x.shape[1], x.shape[1])
            # Chan, Golub & LeVeque 1979: raw second moments would cancel where the mean is large.
            n, shift = len(x), x.mean(0) - mean
            centred = x - x.mean(0)
            scatter = scatter + centred.mT @ centred + torch.outer(shift, shift) * (count * n / (count + n))
            mean = mean + shift * (n / (count + n))
            count += n
        if count < 2:
            raise ValueError(f"a covariance needs at least 2 feature vectors, got {count}")
        return cls(mean, scatter / (count - 1), count)


def frechet_distance(a: FeatureStats, b: FeatureStats) -> float:
    """Fréchet distance between the Gaussians of two feature sets: 0 if mean and covariance agree.

    |m_a - m_b|^2 + tr(A + B - 2 (A B)^(1/2)), of means m and covariances A and B

    is the formula of FID (Heusel et al. 2017, section 3); the name FID is kept for the features of Inception-v3. The
    distance falls as the number of images rises, so that only values from the same number compare.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"statistics differ in dimension: {len(a.mean)} and {len(b.mean)}")
    values, vectors = torch.linalg.eigh(a.cov)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.mT
    # tr sqrt(A B) = tr sqrt(A^1/2 B A^1/2), whose eigenvalues are real and at least 0 up to rounding.
    cross = torch.linalg.eigvalsh(root @ b.cov @ root).clamp(min=0).sqrt().sum()
    distance = (a.mean - b.mean).square().sum() + a.cov.trace() + b.cov.trace() - 2 * cross
    return max(0.0, distance.item())


def kernel_distance(features: Tensor, target: Tensor, *, paired: bool = False) -> float:
    """Squared maximum mean discrepancy of two feature sets [N, D], [M, D]: 0 on average if they are alike.

    Unbiased at every number of images (so it can be slightly negative), exact over all pairs, with the kernel
    (x.y / D + 1)^3 of KID (Binkowski et al. 2018); the name KID is kept for the features of Inception-v3. `paired`
    is for a picture and its target in the same row: such pairs are left out of the comparison, because they are not
    independent; equal sets then have distance exactly 0.
    """
    one_block = (torch.zeros(len(features), dtype=torch.int64), torch.zeros(len(target), dtype=torch.int64))
    once = torch.ones(1, 1, dtype=torch.float64)
    return _KernelSums.of(features, target, *one_block, paired).distance(once, once).item()


def kernel_distance_interval(
    features: Tensor,
    target: Tensor,
    blocks: Tensor,
    *,
    paired: bool = False,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """`kernel_distance` with a bootstrap interval over geographic blocks.

    `blocks` [N] names the independent unit of each image; units are drawn with replacement. With `paired` the target
    is drawn with its image, else it is kept as it is. Two copies of one unit are not compared with each other, since no
    image is its own second sample.
    """
    units, blocks = number_blocks(blocks, len(features))
    weights = resample_blocks(units, resamples, seed)
    if paired:
        target_blocks, target_weights = blocks, weights
    else:
        target_blocks = torch.zeros(len(target), dtype=torch.int64)
        target_weights = torch.ones(1, 1, dtype=torch.float64)
    sums = _KernelSums.of(features, target, blocks, target_blocks, paired)
    value = sums.distance(torch.ones_like(weights[:1]), torch.ones_like(target_weights[:1])).item()
    low, high = percentile_interval(value, sums.distance(weights, target_weights), units, confidence)
    return Estimate(value, low, high, len(features), units)


@dataclass(frozen=True, slots=True)
class _KernelSums:
    """Kernel sums over pairs of blocks: all that a resample of blocks needs, so that images are compared once.

    Each entry is (sum of the kernel, number of pairs), float64 [blocks, blocks].
    """

    x: tuple[Tensor, Tensor]
    y: tuple[Tensor, Tensor]
    xy: tuple[Tensor, Tensor]
    paired: bool

    @classmethod
    def of(cls, x: Tensor, y: Tensor, x_blocks: Tensor, y_blocks: Tensor, paired: bool) -> "_KernelSums":
        x, y = _finite(x), _finite(y)
        if x.shape[1] != y.shape[1] or (paired and len(x) != len(y)) or min(len(x), len(y)) < 2:
            rule = "equally many images" if paired else "at least 2 images each"
            raise ValueError(f"need features of one dimension and {rule}, got {tuple(x.shape)} and {tuple(y.shape)}")

        def sums(a: Tensor, b: Tensor, rows: Tensor, columns: Tensor, skip_diagonal: bool) -> tuple[Tensor, Tensor]:
            member = F.one_hot(columns).double()
            pairs = torch.outer(rows.bincount().double(), member.sum(0))
            total = torch.zeros_like(pairs)
            for start in range(0, len(a), 1024):  # the kernel of all pairs at once may not fit
                kernel = ((a[start : start + 1024] @ b.mT) / a.shape[1] + 1).pow(3).cpu()
                if skip_diagonal:
                    kernel.diagonal(start).zero_()
                total.index_add_(0, rows[start : start + 1024], kernel @ member)
            return total, pairs - rows.bincount().double().diag() if skip_diagonal else pairs

        return cls(
            sums(x, x, x_blocks, x_blocks, True),
            sums(y, y, y_blocks, y_blocks, True),
            sums(x, y, x_blocks, y_blocks, paired),
            paired,
        )

    def distance(self, w: Tensor, v: Tensor) -> Tensor:
        """[R], if the blocks of x are drawn `w` [R, A] times and those of y `v` [R, B] times."""

        def within(total: Tensor, u: Tensor) -> Tensor:
            # Copies of two blocks meet u_a u_b times; a block meets itself u_a times, its other copies never.
            return ((u @ total) * u).sum(1) + ((u - u**2) * total.diagonal()).sum(1)

        def across(total: Tensor) -> Tensor:
            return within(total, w) if self.paired else ((w @ total) * v).sum(1)

        (x, x_pairs), (y, y_pairs), (xy, xy_pairs) = self.x, self.y, self.xy
        return within(x, w) / within(x_pairs, w) + within(y, v) / within(y_pairs, v) - 2 * across(xy) / across(xy_pairs)


def _finite(features: Tensor) -> Tensor:
    if features.ndim != 2 or len(features) == 0:
        raise ValueError(f"need feature vectors [N, D], got a tensor of shape {tuple(features.shape)}")
    if not features.isfinite().all():
        raise ValueError(NOT_FINITE)
    return features.double()
