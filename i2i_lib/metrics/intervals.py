"""How sure a number is: intervals over blocks and seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import torch
from scipy.stats import t as student_t
from torch import Tensor

from i2i_lib.results import written


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


Verdict = Literal[
    "better",
    "worse",
    "no difference shown",
    "one seed: no claim about another training",
    "two seeds: no claim about another training",
]
MORE_IS_BETTER = ("ssim", "miou")
SEEDS_OF_A_CLAIM = 3


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and standard deviation over seeds."""

    mean: float
    sd: float | None  # of the seeds, not of their mean; None for one seed
    n: int

    def text(self, digits: int = 3) -> str:
        """`0.123 ± 0.004 (n = 3)`; without a deviation where one seed has none."""
        deviation = "" if self.sd is None else f" ± {self.sd:.{digits}f}"
        return f"{self.mean:.{digits}f}{deviation} (n = {self.n})"


def over_seeds(values: Sequence[float]) -> Spread:
    """Mean, standard deviation (n - 1 in the denominator) and number of one value per seed."""
    if len(values) == 0 or not np.isfinite(values).all():
        raise ValueError(f"expected at least one finite value, one per seed, got {list(values)}")
    return Spread(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None, len(values))


@dataclass(frozen=True, slots=True)
class Comparison:
    """One model against another in one measure, over seeds and places."""

    measure: str
    model: str
    against: str
    difference: float  # model - against, mean over seeds and images
    low: float  # its 95 % interval; for one seed it is about places only
    high: float
    seeds: int
    images: int
    blocks: int  # 0: the interval is over seeds alone

    @property
    def favours(self) -> str | None:
        """The model for which the interval speaks, None if it holds 0."""
        if self.low <= 0 <= self.high:
            return None
        return self.model if (self.difference > 0) == (self.measure in MORE_IS_BETTER) else self.against

    @property
    def verdict(self) -> Verdict:
        """In words: better or worse only if the interval over seeds and places, of at least 3 seeds, excludes 0."""
        if self.seeds < SEEDS_OF_A_CLAIM:
            one, two = "one seed: no claim about another training", "two seeds: no claim about another training"
            return one if self.seeds == 1 else two
        if self.favours is None:
            return "no difference shown"
        return "better" if self.favours == self.model else "worse"

    def sentence(self, digits: int = 3) -> str:
        """A whole sentence with the numbers behind it, for prose."""
        where = f"In {written(self.measure)}"
        numbers = f"{self.difference:+.{digits}f}, 95 % interval {self.low:+.{digits}f} to {self.high:+.{digits}f}"
        if self.seeds < SEEDS_OF_A_CLAIM:
            reach = " over the places of one training; one seed supports" if self.seeds == 1 else "; two seeds support"
            text = f"{where}, {self.model} differs from {self.against} by {numbers}{reach}"
            return f"{text} no claim about another training."
        said = {
            "better": f"{self.model} is better than {self.against}",
            "worse": f"{self.model} is worse than {self.against}",
            "no difference shown": f"no difference between {self.model} and {self.against} is shown",
        }[self.verdict]
        places = f"{self.blocks} blocks" if self.blocks else "on these test pictures"
        return f"{where}, {said} ({numbers}; {self.seeds} seeds, {places})."


def compare(
    differences: Any,
    blocks: Any,
    *,
    measure: str = "difference",
    model: str = "model",
    against: str = "the other",
    confidence: float = 0.95,
) -> Comparison:
    """Test a paired difference [seeds, images] (model - against, on the same images for every seed).

    `blocks` [images] names the independent geographic unit of each image. The variance of the overall mean has two
    parts, estimated apart:

    - places: the variance that drawing whole blocks with replacement gives to the mean over images of the
      seed-averaged difference, in its closed form with B - 1 in the denominator (B blocks, B - 1 degrees of freedom);
    - trainings: the variance of the S seeds' means, divided by S (S - 1 degrees of freedom).

    Both contain the interaction of seed and place, so that their sum errs on the side of caution. The interval is
    Student's around the mean; its degrees of freedom are those of Welch (1947) and Satterthwaite (1946). One seed
    leaves the second part unknown: the interval is then about places only, and the verdict says so.

    Raises ValueError for shapes that do not fit, fewer than 2 blocks, and values that are not finite.
    """
    d, names = np.asarray(differences, dtype=np.float64), np.asarray(blocks)
    if d.ndim != 2 or names.shape != d.shape[1:] or d.size == 0:
        raise ValueError(f"expected differences [seeds, images] and blocks [images], got {d.shape} and {names.shape}")
    if not np.isfinite(d).all():
        raise ValueError(f"the differences in {measure} between {model} and {against} hold NaN or infinity")
    units, index = np.unique(names, return_inverse=True)
    if len(units) < 2:
        raise ValueError("an interval needs images from at least 2 blocks")
    seeds, images = d.shape
    mean = d.mean()
    residual = np.bincount(index, d.mean(0) - mean)  # of a block's total: 0 on average, whatever the block's size
    parts = [(len(units) / (len(units) - 1) * (residual**2).sum() / images**2, len(units) - 1)]
    if seeds > 1:
        parts.append((d.mean(1).var(ddof=1) / seeds, seeds - 1))
    variance = sum(part for part, _ in parts)
    half = 0.0
    if variance > 0:
        freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
        half = float(student_t.ppf((1 + confidence) / 2, freedom)) * variance**0.5
    return Comparison(measure, model, against, float(mean), mean - half, mean + half, seeds, images, len(units))
