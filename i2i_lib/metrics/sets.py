"""Distances between sets of pictures, from their features: Fréchet and kernel distance."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from i2i_lib.metrics.intervals import Estimate, number_blocks, percentile_interval, resample_blocks
from i2i_lib.metrics.pairs import NOT_FINITE

# Four blocks can be drawn in 35 ways, too few for a tail of 2.5 %, and of two pictures only one draw has a distance.
LEAST_BLOCKS = 5


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
    root = matrix_sqrt(a.cov)
    # tr sqrt(A B) = tr sqrt(A^1/2 B A^1/2), whose eigenvalues are real and at least 0 up to rounding.
    cross = torch.linalg.eigvalsh(root @ b.cov @ root).clamp(min=0).sqrt().sum()
    distance = (a.mean - b.mean).square().sum() + a.cov.trace() + b.cov.trace() - 2 * cross
    return max(0.0, distance.item())


def matrix_sqrt(matrix: Tensor) -> Tensor:
    """Square root of a symmetric matrix whose eigenvalues are at least 0, up to rounding."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp(min=0).sqrt() @ vectors.mT


def kernel_distance(features: Tensor, target: Tensor, *, paired: bool = False) -> float:
    """Squared maximum mean discrepancy of two feature sets [N, D], [M, D]: 0 on average if they are alike.

    Unbiased at every number of images (so it can be slightly negative), exact over all pairs, with the kernel
    (x.y / D + 1)^3 of KID (Binkowski et al. 2018); the name KID is kept for the features of Inception-v3. `paired`
    is for a picture and its target in the same row: such pairs are left out of the comparison, because they are not
    independent; equal sets then have distance exactly 0.
    """
    one, other = (torch.zeros(len(x), dtype=torch.int64) for x in (features, target))
    once = torch.ones(1, 1, dtype=torch.float64)
    return _distance_by_blocks(features, target, one, other, paired)(once, once).item()


def kernel_distance_interval(
    features: Tensor,
    target: Tensor,
    blocks: Tensor,
    *,
    target_blocks: Tensor | None = None,
    paired: bool = False,
    resamples: int = 1000,
) -> Estimate:
    """`kernel_distance` with a bootstrap interval over blocks, without one for fewer than 5 blocks.

    `blocks` [N] names the independent unit of each image; units are drawn with replacement. With `paired` the target
    is drawn with its image. Otherwise it is a second sample, drawn by itself, in the units `target_blocks` [M] (each
    image one, if not given). Two copies of one unit are not compared with each other, since no image is its own second
    sample.
    """
    units, blocks = number_blocks(blocks, len(features))
    if paired:
        target_units, target_blocks = units, blocks
    else:
        own = torch.arange(len(target)) if target_blocks is None else target_blocks
        target_units, target_blocks = number_blocks(own, len(target))
    fewest = min(units, target_units)
    if fewest < LEAST_BLOCKS:
        return Estimate(kernel_distance(features, target, paired=paired), None, None)
    weights = resample_blocks(units, resamples)
    target_weights = weights if paired else resample_blocks(target_units, resamples, seed=1)
    distance = _distance_by_blocks(features, target, blocks, target_blocks, paired)
    value = distance(torch.ones_like(weights[:1]), torch.ones_like(target_weights[:1])).item()
    return percentile_interval(value, distance(weights, target_weights), fewest)


def _distance_by_blocks(
    x: Tensor, y: Tensor, x_blocks: Tensor, y_blocks: Tensor, paired: bool
) -> Callable[[Tensor, Tensor], Tensor]:
    """The kernel distance as a function of how often the blocks of x are drawn, [R, A], and those of y, [R, B].

    All that a resample needs are the kernel's sums over pairs of blocks, so that images are compared once.
    """
    x, y = _finite(x), _finite(y)
    if x.shape[1] != y.shape[1] or (paired and len(x) != len(y)) or min(len(x), len(y)) < 2:
        rule = "equally many images" if paired else "at least 2 images each"
        raise ValueError(f"need features of one dimension and {rule}, got {tuple(x.shape)} and {tuple(y.shape)}")
    x_sums, x_pairs = _kernel_sums(x, x, x_blocks, x_blocks, skip_diagonal=True)
    y_sums, y_pairs = _kernel_sums(y, y, y_blocks, y_blocks, skip_diagonal=True)
    xy_sums, xy_pairs = _kernel_sums(x, y, x_blocks, y_blocks, skip_diagonal=paired)

    def within(total: Tensor, drawn: Tensor) -> Tensor:
        # Copies of blocks a and b meet d_a d_b times; a block meets itself d_a times, its other copies never.
        return ((drawn @ total) * drawn).sum(1) + ((drawn - drawn**2) * total.diagonal()).sum(1)

    def across(total: Tensor, x_drawn: Tensor, y_drawn: Tensor) -> Tensor:
        return within(total, x_drawn) if paired else ((x_drawn @ total) * y_drawn).sum(1)

    def distance(x_drawn: Tensor, y_drawn: Tensor) -> Tensor:
        between = across(xy_sums, x_drawn, y_drawn) / across(xy_pairs, x_drawn, y_drawn)
        own = within(x_sums, x_drawn) / within(x_pairs, x_drawn)
        return own + within(y_sums, y_drawn) / within(y_pairs, y_drawn) - 2 * between

    return distance


def _kernel_sums(a: Tensor, b: Tensor, rows: Tensor, columns: Tensor, *, skip_diagonal: bool) -> tuple[Tensor, Tensor]:
    """Sum of the kernel and number of pairs, for each block of a and block of b; float64 [A, B]."""
    member = F.one_hot(columns).double()
    pairs = torch.outer(rows.bincount().double(), member.sum(0))
    total = torch.zeros_like(pairs)
    for start in range(0, len(a), 1024):  # the kernel of all pairs at once may not fit
        kernel = ((a[start : start + 1024] @ b.mT) / a.shape[1] + 1).pow(3).cpu()
        if skip_diagonal:
            kernel.diagonal(start).zero_()
        total.index_add_(0, rows[start : start + 1024], kernel @ member)
    if skip_diagonal:
        pairs = pairs - rows.bincount().double().diag()
    return total, pairs


def _finite(features: Tensor) -> Tensor:
    if features.ndim != 2 or len(features) == 0:
        raise ValueError(f"need feature vectors [N, D], got a tensor of shape {tuple(features.shape)}")
    if not features.isfinite().all():
        raise ValueError(NOT_FINITE)
    return features.double()
