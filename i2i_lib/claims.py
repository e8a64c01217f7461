"""What may be said over several trainings: means, their spread, and a test for "better" whose words follow the data.

A comparison has two sources of chance: which places the test holds, and which seed the training had. An interval that
knows only the first says nothing about another training, so that one seed never makes a claim; nor do two, with
which the interval below holds the truth only 91 times in 100 where it says 95.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy.stats import t as student_t

from i2i_lib.results import written

Verdict = Literal[
    "better",
    "worse",
    "no difference shown",
    "one seed: no claim about another training",
    "two seeds: no claim about another training",
]
MORE_IS_BETTER = ("ssim", "miou")
SEEDS_OF_A_CLAIM = 3
PAIRED_MEASURES = ("l1", "ssim", "feature distance")

# What is asked of a task's evaluations: each pair of models shares everything but one ingredient.
QUESTIONS = {
    "is the network worth having": ("teacher", "look-up"),
    "is the student worth having": ("gcka", "look-up"),
    "what compression costs": ("gcka", "teacher"),
    "distillation": ("gcka", "none"),
    "kernel alignment against squared error": ("gcka", "mse"),
    "one threshold against uniform narrowing": ("gcka", "uniform"),
    "one threshold against random channels": ("gcka", "random"),
    "the teacher's discriminator against a fresh one": ("gcka", "fresh"),
    "the teacher's weights as a start": ("inherited", "gcka"),
    "what compression costs from that start": ("inherited", "teacher"),
    "distillation from that start": ("inherited", "inheritednone"),
    "the teacher's pictures in place of the truth": ("pictures", "gcka"),
}


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


def distance_tables(evaluations: Sequence[Mapping[str, Any]], digits: int = 2) -> dict[str, pd.DataFrame]:
    """Distances between sets, such as FID, over seeds: protocol -> a table of models by measures, `mean ± sd (n = n)`.

    One table for each protocol, since numbers of two protocols do not compare. Empty if nothing was measured: the
    evaluations hold `literature` where the extractors' weights were at hand (`features.set_distances`).
    """
    rows = [row for e in evaluations for row in e.get("literature", [])]
    tables: dict[str, pd.DataFrame] = {}
    for protocol in dict.fromkeys(row["protocol"] for row in rows):
        own = [row for row in rows if row["protocol"] == protocol]
        models, measures = (list(dict.fromkeys(row[key] for row in own)) for key in ("model", "measure"))
        values = {
            (m, k): [row["value"] for row in own if (row["model"], row["measure"]) == (m, k)]
            for m in models
            for k in measures
        }
        cells = {
            k: [over_seeds(found).text(digits) if (found := values[m, k]) else "" for m in models] for k in measures
        }
        tables[protocol] = pd.DataFrame(cells, index=models)
    return tables


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


def compare_models(evaluations: Sequence[Mapping[str, Any]], measure: str, model: str, against: str) -> Comparison:
    """`compare` two models of one task in one measure, from its evaluations: one per seed, as `load_evaluation` reads.

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
    half = float(student_t.ppf(0.975, len(d) - 1) * d.std(ddof=1) / len(d) ** 0.5)
    mean, images = float(d.mean()), evaluations[0]["results"][0].images
    return Comparison(measure, model, against, mean, mean - half, mean + half, len(d), images, blocks=0)


def answers(evaluations: Sequence[Mapping[str, Any]]) -> list[tuple[str, Comparison]]:
    """Each of `QUESTIONS` with the comparisons that answer it, from one task's evaluations: one per seed.

    Paired measures first, place by place, then KD over seeds if there are two. A question one of whose models was not
    evaluated for every seed is left out. Raises ValueError as `compare_models` does.
    """
    models = set.intersection(*({row.model for row in e["results"]} for e in evaluations))
    asked = [(question, pair) for question, pair in QUESTIONS.items() if models.issuperset(pair)]
    measures = [measure for measure in PAIRED_MEASURES if measure in evaluations[0]["per_image"]]
    found = [(q, compare_models(evaluations, measure, *pair)) for q, pair in asked for measure in measures]
    if len(evaluations) > 1:
        found += [(q, compare_sets(evaluations, "kd", *pair)) for q, pair in asked]
    return found


def table_of(found: Sequence[tuple[str, Comparison]]) -> str:
    """`answers` as a Markdown table: a line for each question, a column for each measure.

    A cell is the difference, its interval and, in bold, the model for which the interval speaks, if it speaks for one.
    """
    measures = list(dict.fromkeys(c.measure for _, c in found))
    lines = [["question", *map(written, measures)], ["---"] * (len(measures) + 1)]
    for question in dict.fromkeys(question for question, _ in found):
        own = {c.measure: c for q, c in found if q == question}
        first = next(iter(own.values()))
        cells = [_cell(own[measure]) for measure in measures]
        lines.append([f"{question}: {first.model} - {first.against}", *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(c: Comparison) -> str:
    digits = 1 if c.measure == "kd" else 3
    favours = f" **{c.favours}**" if c.favours else ""
    return f"{c.difference:+.{digits}f} ({c.low:+.{digits}f} to {c.high:+.{digits}f}){favours}"


def _check_seeds(evaluations: Sequence[Mapping[str, Any]]) -> None:
    for what in ("task", "protocol"):
        if len(found := {getattr(row, what) for e in evaluations for row in e["results"]}) != 1:
            raise ValueError(f"seeds compare only within one {what}, got {', '.join(map(repr, sorted(found)))}")
    if len({row.seed for e in evaluations for row in e["results"]}) != len(evaluations):
        raise ValueError("expected one evaluation per seed: a seed that is counted twice is no second training")
