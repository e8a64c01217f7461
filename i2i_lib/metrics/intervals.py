"""Intervals over blocks and seeds.

A difference between two models has two sources of chance: which places the test holds, and which seed the training
had. An interval over places alone says nothing about another training, so one seed supports no claim; nor do two, with
which the interval of `compare` holds the truth 91 times in 100 where it should 95.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import norm
from scipy.stats import t as student_t
from torch import Tensor

from i2i_lib.results import MEASURES

SEEDS_OF_A_CLAIM = 3
UPPER = 0.975  # quantile at the upper end of a 95 % interval


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and standard deviation over seeds."""

    mean: float
    sd: float | None  # of the seeds, not of their mean; None for one seed
    n: int

    def short(self, digits: int = 3) -> str:
        """`0.123 ± 0.004`; without a deviation where one seed has none."""
        deviation = "" if self.sd is None else f" ± {self.sd:.{digits}f}"
        return f"{self.mean:.{digits}f}{deviation}"

    def text(self, digits: int = 3) -> str:
        """`0.123 ± 0.004 (n = 3)`."""
        return f"{self.short(digits)} (n = {self.n})"


def over_seeds(values: Sequence[float]) -> Spread:
    """Mean, standard deviation (n - 1 in the denominator) and number of one value per seed."""
    if len(values) == 0 or not np.isfinite(values).all():
        raise ValueError(f"expected at least one finite value, one per seed, got {list(values)}")
    return Spread(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None, len(values))


@dataclass(frozen=True, slots=True)
class Comparison:
    """One model against another in one measure, over seeds and places."""

    measure: str  # a name in `results.MEASURES`
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
        more = MEASURES[self.measure].better == "more"
        return self.model if (self.difference > 0) == more else self.against

    @property
    def direction(self) -> str:
        """ "better" or "worse" where the interval excludes 0; for one seed, on these places for this one training."""
        if self.favours is None:
            return "no difference shown"
        return "better" if self.favours == self.model else "worse"

    @property
    def verdict(self) -> str:
        """The `direction` if there are at least 3 seeds, the number that a claim about other trainings needs."""
        if self.seeds < SEEDS_OF_A_CLAIM:
            return f"{'one seed' if self.seeds == 1 else 'two seeds'}: no claim about another training"
        return self.direction


def compare(
    differences: Any, blocks: Any, *, measure: str = "l1", model: str = "model", against: str = "the other"
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
        half = float(student_t.ppf(UPPER, freedom)) * variance**0.5
    return Comparison(measure, model, against, float(mean), mean - half, mean + half, seeds, images, len(units))


def compare_models(evaluations: Sequence[Mapping[str, Any]], measure: str, model: str, against: str) -> Comparison:
    """`compare` two models of one task in a paired measure, from its evaluations: one per seed, as loaded.

    Raises ValueError if the evaluations are not of one task, one protocol and the same places, or lack a model.
    """
    _check_seeds(evaluations)
    if any(e["blocks"] != evaluations[0]["blocks"] for e in evaluations):
        raise ValueError("the seeds were measured on different places: they have no images in common to pair")
    try:
        values = [[e["per_image"][measure][name] for name in (model, against)] for e in evaluations]
    except KeyError as error:
        known = {name: sorted(models) for name, models in evaluations[0]["per_image"].items()}
        raise ValueError(f"no per-image values of {error} for every seed: the first has {known}") from error
    pair = np.asarray(values, dtype=np.float64)  # [seeds, 2, images]
    return compare(pair[:, 0] - pair[:, 1], evaluations[0]["blocks"], measure=measure, model=model, against=against)


def compare_sets(evaluations: Sequence[Mapping[str, Any]], measure: str, model: str, against: str) -> Comparison:
    """Compare two models in a measure of whole sets ("kd", "fd" or "miou"), which no single place has a value of.

    The interval is Student's over the seeds' differences: it is about other trainings, on the same test pictures.
    Raises ValueError for fewer than 2 seeds, and as `compare_models` does.
    """
    _check_seeds(evaluations)
    if len(evaluations) < 2:
        raise ValueError(f"an interval over seeds needs at least 2, got {len(evaluations)}")
    by_name = [{row.model: getattr(row, measure) for row in e["results"]} for e in evaluations]
    if any(found.get(name) is None for found in by_name for name in (model, against)):
        raise ValueError(f"no {measure} of both {model} and {against} for every seed")
    d = np.asarray([found[model] - found[against] for found in by_name], dtype=np.float64)
    half = float(student_t.ppf(UPPER, len(d) - 1) * d.std(ddof=1) / len(d) ** 0.5)
    mean, images = float(d.mean()), evaluations[0]["results"][0].images
    return Comparison(measure, model, against, mean, mean - half, mean + half, len(d), images, blocks=0)


def _check_seeds(evaluations: Sequence[Mapping[str, Any]]) -> None:
    for what in ("task", "protocol"):
        if len(found := {getattr(row, what) for e in evaluations for row in e["results"]}) != 1:
            raise ValueError(f"seeds compare only within one {what}, got {', '.join(map(repr, sorted(found)))}")
    if len({row.seed for e in evaluations for row in e["results"]}) != len(evaluations):
        raise ValueError("expected one evaluation per seed: a seed that is counted twice is no second training")


# --- the bootstrap, for measures that are not a mean over images ----------------------------------------------------


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % bootstrap interval; None where there are too few blocks for one."""

    value: float
    low: float | None
    high: float | None

    def scaled(self, factor: float) -> "Estimate":
        """The same in other units."""
        low, high = (None if end is None else factor * end for end in (self.low, self.high))
        return Estimate(factor * self.value, low, high)


def number_blocks(blocks: Tensor, images: int) -> tuple[int, Tensor]:
    """The number of blocks, and the block of each image numbered from 0. Raises ValueError for fewer than 2 blocks."""
    if blocks.shape != (images,):
        raise ValueError(f"need one block per image, got {tuple(blocks.shape)} for {images} images")
    names, numbers = blocks.cpu().unique(return_inverse=True)
    if len(names) < 2:
        raise ValueError("an interval needs images from at least 2 blocks")
    return len(names), numbers


def resample_blocks(blocks: int, resamples: int, seed: int = 0) -> Tensor:
    """How often each block is drawn, [resamples, blocks], float64."""
    drawn = torch.randint(blocks, (resamples, blocks), generator=torch.Generator().manual_seed(seed))
    return torch.zeros(resamples, blocks, dtype=torch.float64).scatter_add_(1, drawn, torch.ones_like(drawn).double())


def percentile_interval(value: float, replicates: Tensor, blocks: int) -> Estimate:
    """`value` with its 95 % percentile interval from bootstrap replicates [R], widened as few blocks require.

    Drawing from B blocks understates the variance by (B - 1) / B, and its percentiles are the normal distribution's
    instead of Student's, so that a plain percentile interval of 10 blocks holds the truth 90 % of the time instead of
    95 (Hesterberg 2015). Its distances from `value` are stretched by both factors; for 50 blocks that is 4 %.
    Replicates that are not finite are left out.
    """
    stretch = float(student_t.ppf(UPPER, blocks - 1) / norm.ppf(UPPER)) * (blocks / (blocks - 1)) ** 0.5
    finite = replicates[replicates.isfinite()]
    low, high = finite.quantile(torch.tensor([1 - UPPER, UPPER], dtype=torch.float64)).tolist()
    return Estimate(value, value + (low - value) * stretch, value + (high - value) * stretch)
