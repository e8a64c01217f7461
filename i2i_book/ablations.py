"""Every student of one task against the main one: comparisons, tables and sentences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from i2i_book.claims import numbers, part_of, sentence
from i2i_book.recorded.check import recordings
from i2i_lib.files import record_file
from i2i_lib.metrics.intervals import SEEDS_OF_A_CLAIM, Comparison, compare_models, over_seeds
from i2i_lib.results import MEASURES, PAIRED, load_evaluation, load_evaluations, row_of

MAIN = "gcka"
DIGITS = 4  # ablations differ by little


@dataclass(frozen=True, slots=True)
class Ablations:
    """The evaluations of one task, one per seed, with the students that only `make ablations` trains."""

    task: str
    evaluations: list[dict[str, Any]]

    @property
    def part(self) -> str:
        """What a title has to say of the pictures: nothing of those of the test."""
        return part_of(self.evaluations[0]["results"][0].protocol)

    def seeds(self, model: str) -> int:
        """In how many seeds the model was evaluated."""
        return sum(model in e["per_image"]["l1"] for e in self.evaluations)

    def mean(self, model: str, column: str) -> float | None:
        """Mean of a column of the results over seeds, None if the model was not evaluated."""
        rows = [row for e in self.evaluations for row in e["results"] if row.model == model]
        return over_seeds([getattr(row, column) for row in rows]).mean if rows else None

    def compare(self, measure: str, model: str, against: str = MAIN) -> Comparison | None:
        """The comparison over the seeds that have both models, None if there are none."""
        both = [e for e in self.evaluations if {model, against} <= e["per_image"]["l1"].keys()]
        return compare_models(both, measure, model, against) if both else None

    def compare_pairs(self, pairs: Sequence[tuple[str, str]]) -> list[Comparison]:
        """Comparisons of pairs of models in every paired measure, as far as they were evaluated."""
        found = [self.compare(measure, *pair) for pair in pairs for measure in PAIRED]
        return [c for c in found if c is not None]


def load_ablations(table: Path, students: Sequence[str]) -> tuple[dict[str, Ablations], list[str]]:
    """Ablations of every task of a run whose test has pairs, from the table of its results.

    Returns them by task, and a sentence for each `ablations.json` that was left out because it is of another teacher.
    """
    found: dict[str, Ablations] = {}
    left_out = []
    for task, evaluations in load_evaluations(table).items():
        with_main = [e for e in evaluations if MAIN in e["per_image"].get("l1", {})]
        if not with_main:
            continue
        joined = []
        for evaluation in with_main:
            path = table.parent / task / f"seed{evaluation['results'][0].seed}" / "ablations.json"
            more = load_evaluation(record_file("read", path)) if path.exists() else evaluation
            if _teacher(more) == _teacher(evaluation):
                joined.append(_join(evaluation, more, students))
            else:
                joined.append(evaluation)
                left_out.append(f"`{path.name}` of {task} is of another teacher: run `make ablations`.")
        found[task] = Ablations(task, joined)
    return found, left_out


def recorded_ablations(kept: Path, students: Sequence[str]) -> dict[str, Ablations]:
    """Ablations of every task of which a recording in the folder `kept` has seeds enough, by task and recording.

    Raises ValueError naming a manifest that is damaged.
    """
    found: dict[str, Ablations] = {}
    for folder in recordings(kept):
        for task, ablations in load_ablations(folder / "results.jsonl", students)[0].items():
            if len(ablations.evaluations) >= SEEDS_OF_A_CLAIM:
                found[f"{task}{ablations.part}, recorded as {folder.name}"] = ablations
    return found


def _teacher(evaluation: Mapping[str, Any]) -> tuple[str | None, str | None]:
    row = row_of(evaluation, "teacher")
    return (row.weights, row.data) if row else (None, None)


def _join(evaluation: dict[str, Any], more: Mapping[str, Any], students: Sequence[str]) -> dict[str, Any]:
    """An evaluation with the rows and values of those `students` that only `more` holds."""
    present = {row.model for row in evaluation["results"]}
    added = [row for row in more["results"] if row.model in students and row.model not in present]
    values = {
        measure: of_model | {row.model: more["per_image"][measure][row.model] for row in added}
        for measure, of_model in evaluation["per_image"].items()
    }
    return evaluation | {"results": evaluation["results"] + added, "per_image": values}


def _same_network(c: Comparison) -> bool:
    """Whether two models never differ: what sets them apart made no difference to their training."""
    return c.low == c.high == 0


def starred(c: Comparison) -> str:
    """A difference with its interval, and a star where the interval excludes 0."""
    if _same_network(c):
        return "the same network"
    return numbers(c, DIGITS) + (" *" if c.favours else "")


def student_table(ablations: Ablations, students: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """A row for each student: what it differs in, and its difference from the main one in each paired measure.

    `students`: name -> the parameters that set it apart. Those that were not evaluated are left out.
    """
    rows: dict[str, dict[str, Any]] = {}
    for name, parameters in students.items():
        row = {"differs in": ", ".join(f"{key} = {value}" for key, value in parameters.items())}
        found = ablations.compare_pairs([(name, MAIN)])
        if found:
            row[MEASURES["l1"].heading] = f"{ablations.mean(name, 'l1'):.{DIGITS}f}"
            row |= {f"{MEASURES[c.measure].heading}, minus {MAIN}": starred(c) for c in found}
            row[MEASURES["kd"].heading] = f"{ablations.mean(name, 'kd'):.0f}"
            rows[name] = row | {"seeds": str(found[0].seeds)}
    return pd.DataFrame.from_dict(rows, orient="index").fillna("")


def pair_table(found: Sequence[Comparison]) -> pd.DataFrame:
    """A row for each comparison of any two models."""
    names = [f"{c.model} \N{MINUS SIGN} {c.against}, {MEASURES[c.measure].label}" for c in found]
    return pd.DataFrame({"difference": [starred(c) for c in found]}, index=names)


def findings(ablations: Ablations, students: Sequence[str]) -> str:
    """Which students are worse in L1 than the main one over at least three seeds, which better, which neither."""
    found = [c for name in students if name != MAIN and (c := ablations.compare("l1", name))]
    enough = [c for c in found if c.seeds >= SEEDS_OF_A_CLAIM]
    if not enough:
        return f"too few seeds for a claim ({max((c.seeds for c in found), default=0)} of {SEEDS_OF_A_CLAIM})."
    groups = {
        f"worse than `{MAIN}`": [c.model for c in enough if c.verdict == "worse"],
        f"better than `{MAIN}`": [c.model for c in enough if c.verdict == "better"],
        f"no significant difference from `{MAIN}`": [c.model for c in enough if c.verdict not in ("better", "worse")],
    }
    named = {group: ", ".join(f"`{model}`" for model in models) for group, models in groups.items()}
    return "; ".join(f"{group}: {models or 'no student'}" for group, models in named.items()) + "."


def in_words(found: Sequence[Comparison]) -> str:
    """A sentence for each claim, as a list; where seeds are too few for one, a line that counts them."""
    told = [c for c in found if c.seeds >= SEEDS_OF_A_CLAIM and not _same_network(c)]
    lines = [f"- {sentence(c, DIGITS)}" for c in told]
    few = [c.seeds for c in found if c.seeds < SEEDS_OF_A_CLAIM]
    if few:
        lines.append(f"- Seeds: {few[0]} of the {SEEDS_OF_A_CLAIM} that a claim needs.")
    return "\n".join(lines)
