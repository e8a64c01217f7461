"""How good generated pictures are: paired measures, feature statistics, and how sure one can be of either.

Every measure reads pictures as files hold them: float images in [-1, 1] are rounded to 8 bits first.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Protocol:
    """All that must agree before two numbers may be compared."""

    extractor: str  # network, its training data and the start of its weights' checksum
    stage: str  # which features the distances between sets use, and how many of them
    resize: str  # from the picture to the extractor's input
    quantisation: str
    split: str  # the reference pictures
    count: int  # pictures measured

    @property
    def id(self) -> str:
        """One line that is equal for equal protocols."""
        return f"{self.extractor}; {self.stage}; {self.resize}; {self.quantisation}; {self.split}; n={self.count}"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its bootstrap interval."""

    value: float
    low: float
    high: float
    count: int  # images
    blocks: int  # independent units among them

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0; of a paired difference: whether one of the two is better."""
        return self.low > 0 or self.high < 0


def quantise(images: Tensor) -> Tensor:
    """Float images in [-1, 1] as 8-bit pictures, rounded and clipped; uint8 passes. Raises ValueError on NaN."""
    if images.dtype == torch.uint8:
        return images
    if images.isnan().any():
        raise ValueError("the images contain NaN: the network that made them has diverged")
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


# --- one value per picture -------------------------------------------------------------------------------------------


def l1(images: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute difference of each pair, [N], float64: from 0 to 2, since images are on the scale [-1, 1]."""
    a, b = _paired(images, truth)
    return (a - b).abs().mean((1, 2, 3))


def ssim(images: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity of each pair, [N], float64: at most 1, which equal pictures reach.

    Wang et al. 2004: Gaussian window of 11 x 11 and sigma 1.5, K = (0.01, 0.03), only where the window fits whole;
    computed per colour channel and averaged.
    """
    a, b = _paired(images, truth)
    if min(a.shape[2:]) < 11:
        raise ValueError(f"SSIM needs images of at least 11 x 11 pixels, got {a.shape[2]} x {a.shape[3]}")
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


def feature_distance(features: Sequence[Tensor], truth: Sequence[Tensor]) -> Tensor:
    """Perceptual distance of each pair, [N], float64: 0 for equal features, at most 4.

    `features` and `truth` hold one map [N, C, h, w] per stage of the same network. As in LPIPS (Zhang et al. 2018),
    feature vectors are scaled to unit length at each position and their squared differences averaged over positions,
    then stages. Unlike there, channels are unweighted: no weights fitted to human judgements exist for our network.
    """
    distances = []
    for a, b in zip(features, truth, strict=True):
        if a.shape != b.shape:
            raise ValueError(f"feature maps differ: {tuple(a.shape)} and {tuple(b.shape)}")
        if not (a.isfinite().all() and b.isfinite().all()):
            raise ValueError(_NOT_FINITE)
        difference = F.normalize(a.float(), dim=1) - F.normalize(b.float(), dim=1)
        distances.append(difference.square().sum(1).mean((1, 2)).double())
    return torch.stack(distances).mean(0)


def _paired(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    if a.shape != b.shape or a.ndim != 4:
        raise ValueError(f"need two batches of the same shape [N, C, H, W], got {tuple(a.shape)} and {tuple(b.shape)}")
    return quantise(a).double() / 127.5 - 1, quantise(b).double() / 127.5 - 1


# --- one value per set of pictures -----------------------------------------------------------------------------------


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
    """Distance between the Gaussians of two feature sets: 0 if mean and covariance agree.

    This is the formula of FID (Heusel et al. 2017), which it is called only on the features of Inception-v3. It falls
    as the number of images rises, so that only values from the same number compare.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"statistics differ in dimension: {len(a.mean)} and {len(b.mean)}")
    values, vectors = torch.linalg.eigh(a.cov)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.mT
    # tr sqrt(A B) = tr sqrt(A^1/2 B A^1/2), whose eigenvalues are real and at least 0 up to rounding.
    cross = torch.linalg.eigvalsh(root @ b.cov @ root).clamp(min=0).sqrt().sum()
    distance = (a.mean - b.mean).square().sum() + a.cov.trace() + b.cov.trace() - 2 * cross
    return max(0.0, distance.item())


def kernel_distance(features: Tensor, truth: Tensor, *, paired: bool = False) -> float:
    """Squared maximum mean discrepancy of two feature sets [N, D], [M, D]: 0 on average if they are alike.

    Unbiased at every number of images (so it can be slightly negative), exact over all pairs, with the kernel
    (x.y / D + 1)^3 of KID (Binkowski et al. 2018), which it is called only on the features of Inception-v3. `paired`
    is for a picture and its truth in the same row: such pairs are left out of the comparison, because they are not
    independent; equal sets then have distance exactly 0.
    """
    one_block = (torch.zeros(len(features), dtype=torch.int64), torch.zeros(len(truth), dtype=torch.int64))
    once = torch.ones(1, 1, dtype=torch.float64)
    return _KernelSums.of(features, truth, *one_block, paired).distance(once, once).item()


def kernel_distance_interval(
    features: Tensor,
    truth: Tensor,
    blocks: Tensor,
    *,
    truth_blocks: Tensor | None = None,
    paired: bool = False,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """`kernel_distance` with a bootstrap interval over geographic blocks.

    `blocks` [N] says which independent unit an image belongs to; units are drawn with replacement. With `paired` the
    truth is drawn with its image. Otherwise it is drawn by its own `truth_blocks` [M], or kept as it is if that is
    None. Two copies of one unit are not compared with each other, since no image is its own second sample.
    """
    unit, blocks = _units(blocks, len(features))
    weights = _resample(unit, resamples, seed)
    if paired:
        truth_blocks, truth_weights = blocks, weights
    elif truth_blocks is None:
        truth_blocks, truth_weights = torch.zeros(len(truth), dtype=torch.int64), torch.ones(1, 1, dtype=torch.float64)
    else:
        truth_unit, truth_blocks = _units(truth_blocks, len(truth))
        truth_weights = _resample(truth_unit, resamples, seed + 1)
    sums = _KernelSums.of(features, truth, blocks, truth_blocks, paired)
    value = sums.distance(torch.ones_like(weights[:1]), torch.ones_like(truth_weights[:1])).item()
    replicates = sums.distance(weights, truth_weights)
    low, high = _interval(value, replicates[replicates.isfinite()], unit, confidence)
    return Estimate(value, low, high, len(features), unit)


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
        raise ValueError(_NOT_FINITE)
    return features.double()


_NOT_FINITE = "the features contain NaN or infinity: look at the images that they come from"


# --- how sure --------------------------------------------------------------------------------------------------------


def paired_bootstrap(
    difference: Tensor, blocks: Tensor, *, resamples: int = 10_000, confidence: float = 0.95, seed: int = 0
) -> Estimate:
    """The mean of a per-image value [N], usually the difference of two models, with its bootstrap interval.

    Neighbouring images are not independent, so whole geographic blocks [N] are drawn with replacement. One model is
    called better than another only if the interval of their difference excludes 0.
    """
    values = difference.detach().double().cpu()
    if values.ndim != 1 or not values.isfinite().all():
        raise ValueError(f"need one finite number per image, got {tuple(values.shape)} or NaN among them")
    units, blocks = _units(blocks, len(values))
    total, size = blocks.bincount(values, minlength=units), blocks.bincount(minlength=units).double()
    weights = _resample(units, resamples, seed)
    value = values.mean().item()
    low, high = _interval(value, weights @ total / (weights @ size), units, confidence)
    return Estimate(value, low, high, len(values), units)


def iou_bootstrap(
    confusion: Tensor,
    blocks: Tensor,
    *,
    versus: Tensor | None = None,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """`mean_iou` of per-image confusion matrices [N, C, C] with its bootstrap interval, or `versus` a second model's.

    The mean IoU is no mean over images: whole blocks [N] are drawn with replacement, and each draw's matrices are
    summed before anything is divided. With `versus` both models are drawn alike and the value is `confusion`'s minus
    `versus`'s. A class that a draw holds nowhere is left out of that draw's mean.
    """
    units, numbers = _units(blocks, len(confusion))
    weights = _resample(units, resamples, seed)

    def scores(counts: Tensor) -> tuple[float, Tensor]:
        if counts.shape != confusion.shape or counts.ndim != 3:
            raise ValueError(f"need one confusion matrix per image, got {[*counts.shape]} and {[*confusion.shape]}")
        counts = counts.cpu()
        total = torch.zeros(units, *counts.shape[1:], dtype=torch.float64).index_add_(0, numbers, counts.double())
        return mean_iou(counts.sum(0)), class_iou((weights @ total.flatten(1)).unflatten(1, counts.shape[1:])).nanmean(
            1
        )

    value, replicates = scores(confusion)
    if versus is not None:
        other, others = scores(versus)
        value, replicates = value - other, replicates - others
    low, high = _interval(value, replicates[replicates.isfinite()], units, confidence)
    return Estimate(value, low, high, len(confusion), units)


def _units(blocks: Tensor, images: int) -> tuple[int, Tensor]:
    """The number of blocks, and the blocks numbered from 0."""
    if blocks.shape != (images,):
        raise ValueError(f"need one block per image, got {tuple(blocks.shape)} for {images} images")
    names, numbers = blocks.cpu().unique(return_inverse=True)
    if len(names) < 2:
        raise ValueError("an interval needs images from at least 2 blocks")
    return len(names), numbers


def _resample(blocks: int, resamples: int, seed: int) -> Tensor:
    """How often each block is drawn, [resamples, blocks], float64."""
    drawn = torch.randint(blocks, (resamples, blocks), generator=torch.Generator().manual_seed(seed))
    return torch.zeros(resamples, blocks, dtype=torch.float64).scatter_add_(1, drawn, torch.ones_like(drawn).double())


def _interval(value: float, replicates: Tensor, blocks: int, confidence: float) -> tuple[float, float]:
    """Percentile interval, widened as few blocks require.

    Drawing from B blocks understates the variance by (B - 1) / B and knows nothing of Student's t, so that a plain
    percentile interval of 10 blocks holds the truth 90 % of the time instead of 95 (Hesterberg 2015). Its distances
    from `value` are stretched by both factors; for 50 blocks that is 4 %.
    """
    tail = (1 - confidence) / 2
    z, nu = NormalDist().inv_cdf(1 - tail), blocks - 1
    # Student's quantile, expanded in 1 / nu (Abramowitz & Stegun 26.7.5).
    t = z + (z**3 + z) / (4 * nu) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * nu**2)
    stretch = t / z * (blocks / nu) ** 0.5
    low, high = replicates.quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return value + (low - value) * stretch, value + (high - value) * stretch


# --- labels ----------------------------------------------------------------------------------------------------------


def confusion_matrix(labels: Tensor, predicted: Tensor, classes: int, *, ignore: int = 255) -> Tensor:
    """Pixel counts [true class, predicted class] of each image, int64 [N, classes, classes]; they add up over images.

    Both maps are integer [N, H, W]; pixels labelled `ignore` are not counted. Raises ValueError for any other value
    outside 0 to `classes` - 1.
    """
    if labels.shape != predicted.shape or labels.ndim != 3:
        raise ValueError(f"need two label maps [N, H, W], got {[*labels.shape]} and {[*predicted.shape]}")
    if labels.is_floating_point() or predicted.is_floating_point():
        raise ValueError(f"label maps are integers, got {labels.dtype} and {predicted.dtype}")
    labels, predicted = labels.long(), predicted.to(labels.device).long()
    image = torch.arange(len(labels), device=labels.device)[:, None, None].expand_as(labels)
    counted = labels != ignore
    truth, guess = labels[counted], predicted[counted]
    for what, found in (("label", truth), ("predicted label", guess)):
        if found.numel() and not 0 <= found.min() <= found.max() < classes:
            wrong = found[(found < 0) | (found >= classes)][0]
            raise ValueError(f"a {what} is {wrong}: expected 0 to {classes - 1}, or {ignore} for pixels to ignore")
    places = (image[counted] * classes + truth) * classes + guess
    return places.bincount(minlength=len(labels) * classes**2).reshape(-1, classes, classes)


def class_iou(confusion: Tensor) -> Tensor:
    """Intersection over union of each class, float64 [..., C], from counts [..., true class, predicted class].

    A class that is neither true nor predicted anywhere has NaN.
    """
    counts = confusion.double()
    if counts.ndim < 2 or counts.shape[-1] != counts.shape[-2]:
        raise ValueError(f"a confusion matrix is square, got {tuple(counts.shape)}")
    hit = counts.diagonal(dim1=-2, dim2=-1)
    return hit / (counts.sum(-1) + counts.sum(-2) - hit)


def mean_iou(confusion: Tensor) -> float:
    """Mean over classes of `class_iou`, from one confusion matrix: the sum over all images, where there are several.

    A class that is neither true nor predicted anywhere is left out. Raises ValueError if that leaves none.
    """
    if (found := class_iou(confusion)).ndim != 1:
        raise ValueError(f"the mean IoU is of one confusion matrix, got {tuple(confusion.shape)}: add them up first")
    if found.isnan().all():
        raise ValueError("the confusion matrix is empty: no pixel was compared")
    return found.nanmean().item()
