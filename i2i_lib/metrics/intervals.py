"""Intervals, tests and power over blocks, students and teachers.

A difference between two models has several sources of chance: which places the test holds, which seed a student's
training had, and which teacher it had. An interval over places alone says nothing about another training, so one seed
supports no claim; nor do two, whose spread is hardly known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, log
from typing import Any

import numpy as np
import torch
from scipy.optimize import root_scalar
from scipy.stats import norm
from scipy.stats import t as student_t
from torch import Tensor

from i2i_lib.results import MEASURES, row_of

SEEDS_OF_A_CLAIM = 3
LEVEL = 0.05  # share of false claims that is accepted; an interval holds the truth in 1 - LEVEL of all cases
UPPER = 1 - LEVEL / 2  # quantile at the upper end of a 95 % interval
LEAST, GREATEST = -300.0, 1 - 1e-9  # logarithm of the least p-value that is told from 0, and the greatest from 1


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and standard deviation over seeds."""

    mean: float
    sd: float | None  # of the seeds, not of their mean; None for one seed
    n: int

    def short(self, digits: int = 3) -> str:
        """`0.123 ± 0.004`; without a deviation where one seed has none."""
        deviation = "" if self.sd is None else f" ± {self.sd:,.{digits}f}"
        return f"{self.mean:,.{digits}f}{deviation}"

    def text(self, digits: int = 3) -> str:
        """`0.123 ± 0.004 (n = 3)`."""
        return f"{self.short(digits)} (n = {self.n})"


def over_seeds(values: Sequence[float]) -> Spread:
    """Mean, standard deviation (n - 1 in the denominator) and number of one value per seed."""
    if len(values) == 0 or not np.isfinite(values).all():
        raise ValueError(f"expected at least one finite value, one per seed, got {list(values)}")
    return Spread(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None, len(values))


# --- the variance of a mean difference, by its sources --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Part:
    """The variance that one source of chance gives to a mean difference."""

    source: str  # "places", "students", "teachers", or "trainings": students and teachers together
    variance: float
    freedom: int  # degrees of freedom, one less than the units that it was estimated from


def half_width(parts: Sequence[Part], level: float = LEVEL) -> float:
    """Half the interval that leaves out the truth in `level` of all cases, at most.

    The half-widths of all parts, each with Student's quantile for its own degrees of freedom, are added in quadrature.
    With one part it is the textbook interval. With several it errs on the side of caution, where the degrees of freedom
    of Satterthwaite (1946) err on the other one: with 5 seeds on 2 blocks, or 2 seeds on 30, their interval of 95 %
    holds the truth in as few as 87 to 90 cases of 100.
    """
    return sum(part.variance * float(student_t.isf(level / 2, part.freedom)) ** 2 for part in parts) ** 0.5


def p_value(difference: float, parts: Sequence[Part]) -> float:
    """Two-sided p-value of a mean difference: the level at which the end of its interval reaches 0."""

    def beyond(logarithm: float) -> float:  # on logarithmic scales, where it is almost a straight line
        return log(half_width(parts, exp(logarithm)) / abs(difference))

    if difference == 0:
        return 1.0
    if half_width(parts, exp(LEAST)) <= abs(difference):  # also where nothing varies
        return 0.0
    if half_width(parts, GREATEST) >= abs(difference):
        return 1.0
    return exp(root_scalar(beyond, bracket=(LEAST, log(GREATEST)), method="brentq").root)


def one_sided_p_value(difference: float, parts: Sequence[Part]) -> float:
    """p-value of a mean difference against the hypothesis that it is 0 or more."""
    p = p_value(difference, parts)
    return p / 2 if difference < 0 else 1 - p / 2


@dataclass(frozen=True, slots=True)
class Comparison:
    """One model against another in one measure, over seeds and places."""

    measure: str  # a name in `results.MEASURES`
    model: str
    against: str
    difference: float  # model - against, mean over seeds and images
    low: float  # its 95 % interval; for one seed it is about places only
    high: float
    seeds: int  # trainings
    images: int
    blocks: int  # 0: the interval is over seeds alone
    teachers: int  # different teachers among the trainings: with one, it is about students of this teacher
    parts: tuple[Part, ...]  # of the difference's variance

    @property
    def p(self) -> float:
        """Two-sided p-value: below .05 where the interval excludes 0."""
        return p_value(self.difference, self.parts)

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
            return "no significant difference"
        return "better" if self.favours == self.model else "worse"

    @property
    def verdict(self) -> str:
        """The `direction` if there are at least 3 seeds, the number that a claim about other trainings needs."""
        if self.seeds < SEEDS_OF_A_CLAIM:
            return f"{'one seed' if self.seeds == 1 else 'two seeds'}: no claim about another training"
        return self.direction


def compare(
    differences: Any,
    blocks: Any,
    *,
    students: Sequence[Any] | None = None,
    teachers: Sequence[Any] | None = None,
    measure: str = "l1",
    model: str = "model",
    against: str = "the other",
) -> Comparison:
    """Test a paired difference [trainings, images] (model - against, on the same images in every training).

    `blocks` [images] names the independent unit of each image, `students` and `teachers` [trainings] the seed or the
    weights of each; by default every training has its own. The variance of the overall mean has up to three parts,
    estimated apart:

    - places: the variance that drawing whole blocks with replacement gives to the mean over images of the
      training-averaged difference, in its closed form with B - 1 in the denominator (B blocks, B - 1 degrees of
      freedom);
    - students and teachers: the variance of the means of the trainings that share one, divided by the number of
      students or teachers, with one degree of freedom less than that.

    If each training has its own student and teacher, the two are one part, "trainings". If each student seed has but
    one teacher, the teachers' part holds that of their students, and stands alone. Of one teacher there is no such
    part: the interval is then about its students. All parts contain their interactions, so that their sum errs on the
    side of caution. The interval is that of `half_width`; of one training it is about places only, and the verdict says
    so.

    Raises ValueError for shapes that do not fit, fewer than 2 blocks, values that are not finite, and students that
    meet several teachers, but not each of them once.
    """
    d, names = np.asarray(differences, dtype=np.float64), np.asarray(blocks)
    if d.ndim != 2 or names.shape != d.shape[1:] or d.size == 0:
        raise ValueError(f"expected differences [seeds, images] and blocks [images], got {d.shape} and {names.shape}")
    if not np.isfinite(d).all():
        raise ValueError(f"the differences in {measure} between {model} and {against} hold NaN or infinity")
    if (units := len(np.unique(names))) < 2:
        raise ValueError("an interval needs images from at least 2 blocks")
    training_parts, of_teachers = _training_parts(d.mean(1), students, teachers)
    parts = [_clustered("places", d.mean(0), names), *training_parts]
    mean, half = float(d.mean()), half_width(parts)
    ends = (mean - half, mean + half)
    return Comparison(measure, model, against, mean, *ends, len(d), len(names), units, of_teachers, tuple(parts))


def _clustered(source: str, values: Any, units: Any) -> Part:
    """The variance of the mean of `values` if whole units are drawn with replacement, with N - 1 in the denominator."""
    names, index = np.unique(units, return_inverse=True)
    residual = np.bincount(index, values - values.mean())  # of a unit's total: 0 on average, whatever its size
    count = len(names)
    return Part(source, float(count / (count - 1) * (residual**2).sum() / len(values) ** 2), count - 1)


def _training_parts(
    means: Any, students: Sequence[Any] | None, teachers: Sequence[Any] | None
) -> tuple[list[Part], int]:
    """Parts of the variance of the mean over trainings, from the trainings' `means`; and the number of teachers."""
    own = list(range(len(means)))
    labels = {"students": students or own, "teachers": teachers or own}
    if any(len(found) != len(means) for found in labels.values()):
        raise ValueError(f"expected a student and a teacher for each of {len(means)} trainings, got {labels}")
    numbers = {source: np.unique(found, return_inverse=True)[1] for source, found in labels.items()}
    counts = {source: len(set(found.tolist())) for source, found in numbers.items()}
    pairs = len(set(zip(*(found.tolist() for found in numbers.values()), strict=True)))
    varying = [source for source, count in counts.items() if count > 1]
    if len(varying) == 2 and pairs == max(counts.values()):  # each unit of the one has a single unit of the other
        same = counts["students"] == counts["teachers"]
        varying = [min(varying, key=counts.__getitem__)]
        if same:
            return [_clustered("trainings", means, numbers[varying[0]])], counts["teachers"]
    elif len(varying) == 2 and not pairs == len(means) == counts["students"] * counts["teachers"]:
        raise ValueError(
            f"{counts['students']} students and {counts['teachers']} teachers met in {len(means)} trainings: "
            "expected each pair once, or one teacher for each student"
        )
    return [_clustered(source, means, numbers[source]) for source in varying], counts["teachers"]


# --- models of one task, from their evaluations ---------------------------------------------------------------------


def compare_models(evaluations: Sequence[Mapping[str, Any]], measure: str, model: str, against: str) -> Comparison:
    """`compare` two models of one task in a paired measure, from its evaluations: one per training, as loaded.

    A student is told by its evaluation's seed, a teacher by its weights. Raises ValueError if the evaluations are not
    of one task, one protocol and the same places, or lack a model.
    """
    values = _paired_values(evaluations, measure, (model, against))
    return compare(
        values[0] - values[1],
        evaluations[0]["blocks"],
        **_trainings(evaluations),
        measure=measure,
        model=model,
        against=against,
    )


def two_one_sided(
    evaluations: Sequence[Mapping[str, Any]],
    measure: str,
    model: str,
    against: str,
    *,
    margin: float,
    of: str = "teacher",
) -> tuple[float, float]:
    """p-values of two one-sided tests (Schuirmann 1987): that `model` is not worse, and not better, by a margin.

    The margin is a share of the mean of the model `of` in that measure. It is taken off picture by picture, so that the
    uncertainty of that mean counts. A small first value shows non-inferiority, two small ones equivalence. Raises
    ValueError as `compare_models` does.
    """
    ours, other, whole = _paired_values(evaluations, measure, (model, against, of))
    worse = (other - ours) if MEASURES[measure].better == "more" else (ours - other)
    found = []
    for shifted in (worse - margin * whole, -worse - margin * whole):
        c = compare(shifted, evaluations[0]["blocks"], **_trainings(evaluations), measure=measure)
        found.append(one_sided_p_value(c.difference, c.parts))
    return found[0], found[1]


def compare_sets(evaluations: Sequence[Mapping[str, Any]], measure: str, model: str, against: str) -> Comparison:
    """Compare two models in a measure of whole sets ("kd", "fd" or "miou"), which no single place has a value of.

    The interval is Student's over the trainings' differences: it is about other trainings, on the same test pictures.
    Raises ValueError for fewer than 2 seeds, and as `compare_models` does.
    """
    _check_seeds(evaluations)
    if len(evaluations) < 2:
        raise ValueError(f"an interval over seeds needs at least 2, got {len(evaluations)}")
    by_name = [{row.model: getattr(row, measure) for row in e["results"]} for e in evaluations]
    if any(found.get(name) is None for found in by_name for name in (model, against)):
        raise ValueError(f"no {measure} of both {model} and {against} for every seed")
    d = np.asarray([found[model] - found[against] for found in by_name], dtype=np.float64)
    parts, teachers = _training_parts(d, **_trainings(evaluations))
    mean, half, images = float(d.mean()), half_width(parts), evaluations[0]["results"][0].images
    return Comparison(
        measure, model, against, mean, mean - half, mean + half, len(d), images, 0, teachers, tuple(parts)
    )


def _paired_values(evaluations: Sequence[Mapping[str, Any]], measure: str, models: Sequence[str]) -> Any:
    """Values of a paired measure, [models, trainings, images]."""
    _check_seeds(evaluations)
    if any(e["blocks"] != evaluations[0]["blocks"] for e in evaluations):
        raise ValueError("the seeds were measured on different places: they have no images in common to pair")
    try:
        values = [[e["per_image"][measure][name] for e in evaluations] for name in models]
    except KeyError as error:
        known = {name: sorted(models) for name, models in evaluations[0]["per_image"].items()}
        raise ValueError(f"no per-image values of {error} for every seed: the first has {known}") from error
    return np.asarray(values, dtype=np.float64)


def _trainings(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The student's seed and the teacher of each evaluation: its weights or, where they are not noted, the seed."""
    seeds = [e["results"][0].seed for e in evaluations]
    teachers = [row_of(e, "teacher") for e in evaluations]
    named = [(row and row.weights) or f"of seed {seed}" for row, seed in zip(teachers, seeds, strict=True)]
    return {"students": seeds, "teachers": named}


def _check_seeds(evaluations: Sequence[Mapping[str, Any]]) -> None:
    for what in ("task", "protocol"):
        if len(found := {getattr(row, what) for e in evaluations for row in e["results"]}) != 1:
            raise ValueError(f"seeds compare only within one {what}, got {', '.join(map(repr, sorted(found)))}")
    if any(len({row.seed for row in e["results"]}) != 1 for e in evaluations):
        raise ValueError("expected the rows of an evaluation to be of one seed")
    trainings = list(zip(*_trainings(evaluations).values(), strict=True))
    if len(set(trainings)) != len(trainings):
        raise ValueError("expected one evaluation per seed: a seed that is counted twice is no second training")


# --- families of questions, and power -------------------------------------------------------------------------------


def holm(p_values: Sequence[float], family: int | None = None) -> list[float]:
    """p-values adjusted by Holm (1979): those below a level are false claims in no more than that share of families.

    A `family` of more questions than have a p-value yet counts those left as not shown (p = 1), so that the answers to
    come take no claim back. Raises ValueError for a family of fewer.
    """
    count = len(p_values) if family is None else family
    if count < len(p_values):
        raise ValueError(f"{len(p_values)} p-values are more than the family's {count} questions")
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, least = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        least = max(least, min(1.0, (count - rank) * p_values[index]))
        adjusted[index] = least
    return adjusted


def power(
    parts: Sequence[Part],
    effect: float,
    *,
    level: float = LEVEL,
    one_sided: bool = False,
    trainings: int | None = None,
    draws: int = 20_000,
) -> float:
    """How often a true difference of `effect` would be shown at `level`, by drawing means and variances at random.

    The variances observed in `parts` stand for the true ones. `trainings` foretells it for another number of trainings,
    each with its own student or teacher: of the parts, that of places stays.

    `one_sided` is for tests in the direction of the effect. With one part this is the noncentral t distribution.
    """
    foretold = [_of_trainings(part, trainings) for part in parts] if trainings else list(parts)
    random = np.random.default_rng(0)
    mean = effect + sum(part.variance for part in foretold) ** 0.5 * random.standard_normal(draws)
    tail = level if one_sided else level / 2
    half = np.zeros(draws)
    for part in foretold:
        observed = part.variance * random.chisquare(part.freedom, draws) / part.freedom
        half += observed * float(student_t.isf(tail, part.freedom)) ** 2
    beyond = mean * (1 if effect >= 0 else -1) if one_sided else np.abs(mean)
    return float((beyond > half**0.5).mean())


def _of_trainings(part: Part, count: int) -> Part:
    """A part as `count` trainings would give it."""
    if part.source == "places":
        return part
    return Part(part.source, part.variance * (part.freedom + 1) / count, count - 1)


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
