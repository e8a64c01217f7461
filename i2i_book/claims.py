"""What may be said over several trainings: means, their spread, and a test for "better" whose words follow the data.

A comparison has two sources of chance: which places the test holds, and which seed the training had. An interval that
knows only the first says nothing about another training, so that one seed never makes a claim; nor do two, with
which the interval below holds the truth only 91 times in 100 where it says 95.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student_t

from i2i_lib.metrics.intervals import Comparison, compare, over_seeds
from i2i_lib.results import written

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
    "distillation from that start": ("inherited", "inherited-none"),
    "the teacher's pictures in place of the truth": ("pictures", "gcka"),
}


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
