"""Questions asked before the recordings, as `notebooks/questions.yml` lists them, and their answers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from i2i_book.claims import counted, markdown
from i2i_book.recorded.check import read_manifest, recordings
from i2i_lib.files import root
from i2i_lib.metrics.intervals import (
    SEEDS_OF_A_CLAIM,
    Comparison,
    Part,
    compare_models,
    holm,
    over_seeds,
    power,
    two_one_sided,
)
from i2i_lib.results import MEASURES, load_evaluations

FORETOLD = (3, 5, 9, 12, 25)  # trainings for which the power is foretold


@dataclass(frozen=True, slots=True)
class Question:
    """Whether a model is better than another one or, with a margin, no worse by more than that."""

    claim: str  # its letter, a colon and its title
    task: str
    measure: str
    better: str
    worse: str
    margin: float | None  # share of the teacher's mean; None: is it better?
    matters: float  # the least difference worth finding, a share of the teacher's mean
    recording: str  # that answers it
    seeds: range  # those that the recording has of this task, before anyone looks

    @property
    def letter(self) -> str:
        """What the plan's page calls the claim: "A", "A, once more"."""
        return self.claim.partition(": ")[0]

    @property
    def title(self) -> str:
        """The claim in words, without its letter."""
        return self.claim.partition(": ")[2]

    @property
    def bound(self) -> str:
        """How much worse "as good as" may be, in words: "within 5 %"."""
        return f"within {100 * self.margin:.0f} %" if self.margin else ""

    @property
    def text(self) -> str:
        """`gcka` better than `uniform`."""
        return f"`{self.better}` {'as good as' if self.margin else 'better than'} `{self.worse}`"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the evaluations of a task say to one question of the family."""

    question: Question
    comparison: Comparison
    p: float  # of the question's own test; 1 where there are too few seeds for a claim
    adjusted: float  # by Holm, over the whole family
    level: float
    teacher: float  # its mean in the measure
    family: int
    by_training: tuple[float, ...]  # the mean difference in each training
    beyond_colour: bool | None  # of "as good as": whether the second model is shown to beat looked-up colours

    @property
    def shown(self) -> bool:
        """Whether the family's level allows a claim."""
        return self.adjusted <= self.level

    @property
    def verdict(self) -> str:
        """ "better", "worse", "as good as (within 5 %)" or "not shown", with the power that there was."""
        if self.comparison.seeds < SEEDS_OF_A_CLAIM:
            return f"not asked of fewer than {SEEDS_OF_A_CLAIM} seeds"
        if not self.shown:
            power = self.power()
            return f"not shown (power {'below 0.01' if power < 0.005 else f'{power:.2f}'})"
        if self.question.margin:
            return f"as good as ({self.question.bound})"
        less = MEASURES[self.question.measure].better == "less"
        return "better" if (self.comparison.difference < 0) == less else "worse"

    @property
    def sentence(self) -> str:
        """The verdict in words, with its corrected p-value."""
        q, measure, p = self.question, MEASURES[self.question.measure].label, f"corrected p {p_text(self.adjusted)}"
        if not self.shown:
            asked = "as good as" if q.margin else "better than"
            return f"In {measure}, it is {self.verdict} that {q.better} is {asked} {q.worse}."
        if q.margin:
            return f"In {measure}, {q.better} is as good as {q.worse} ({q.bound}; {p})."
        return f"In {measure}, {q.better} is {self.verdict} than {q.worse} ({p})."

    def power(self, trainings: int | None = None) -> float:
        """How often a difference that matters would be shown where Holm is strictest: at the level over the family.

        For "as good as", how often equal models would pass. `trainings`: for so many, instead of those there were.
        """
        return power(
            self.comparison.parts,
            self.question.matters * abs(self.teacher),
            level=self.level / self.family,
            one_sided=self.question.margin is not None,
            trainings=trainings,
        )


@cache
def _listed() -> dict[str, Any]:
    return yaml.safe_load((root() / "notebooks" / "questions.yml").read_text())


def level() -> float:
    """The share of families with a false claim that is accepted."""
    return _listed()["level"]


def pilot() -> str:
    """The recording that the plan was made from."""
    return _listed()["pilot"]


def questions() -> list[Question]:
    """The whole family, in its order."""
    listed = _listed()
    found = []
    for claim, of_claim in listed["claims"].items():
        for task in of_claim["tasks"]:
            for asked in of_claim["questions"]:
                good = "as good" in asked
                models = (asked["as good"], asked["as"]) if good else (asked["better"], asked["worse"])
                margin = listed["margin"] if good else None
                matters = asked.get("matters", listed["margin"])
                measure, recording = listed["measures"][task], of_claim["recording"]
                first = of_claim.get("first", 0)
                seeds = range(first, first + of_claim["seeds"])
                found.append(Question(claim, task, measure, *models, margin, matters, recording, seeds))
    return found


def first_seed(recording: str) -> int:
    """The first seed that the plan asks of a recording; 0 where it asks nothing."""
    return min((question.seeds[0] for question in questions() if question.recording == recording), default=0)


def planned_answers(
    evaluations: Mapping[str, Sequence[Mapping[str, Any]]], family: Sequence[Question] | None = None
) -> list[Answer]:
    """Answers to those questions of the family whose models were evaluated: task -> evaluations, one per training.

    p-values are adjusted as if every other question of the family had been asked in vain, so that recordings to come
    take no claim back. Of questions that were asked of several recordings, only the first is answered. Raises
    ValueError as `compare_models` does.
    """
    whole = questions() if family is None else family
    first = {(q.task, q.text): q for q in reversed(whole)}
    return _answers(whole, lambda q: evaluations.get(q.task, ()) if first[q.task, q.text] == q else ())


def planned_recordings(kept: Path) -> dict[str, Path]:
    """The recordings in the folder `kept` that questions were asked of, by name, which is that of their preset.

    Raises ValueError naming a manifest that is damaged.
    """
    found = {folder.name: folder for folder in recordings(kept)}
    asked = dict.fromkeys(question.recording for question in questions())
    return {name: found[name] for name in asked if name in found and read_manifest(found[name])["preset"] == name}


def recorded_answers(kept: Path) -> list[Answer]:
    """Answers by the recordings in the folder `kept`, each to the questions that it was made for, as `planned_answers`.

    Questions whose recording is not there have none.
    """
    folders = planned_recordings(kept)
    evaluations = {name: load_evaluations(folder / "results.jsonl") for name, folder in folders.items()}
    return _answers(questions(), lambda question: evaluations.get(question.recording, {}).get(question.task, ()))


def _answers(family: Sequence[Question], evaluations_for: Callable[[Question], Sequence[Any]]) -> list[Answer]:
    asked = [(q, found) for q in family if (found := _with_models(evaluations_for(q), q))]
    compared = [compare_models(found, q.measure, q.better, q.worse) for q, found in asked]
    tests = [_p_value(q, c, found) for (q, found), c in zip(asked, compared, strict=True)]
    return [
        Answer(
            q,
            c,
            p,
            adjusted,
            level(),
            _mean_of_teacher(found, q.measure),
            len(family),
            _by_training(q, found),
            _beyond_colour(q, found),
        )
        for (q, found), c, p, adjusted in zip(asked, compared, tests, holm(tests, len(family)), strict=True)
    ]


def _by_training(question: Question, evaluations: Sequence[Mapping[str, Any]]) -> tuple[float, ...]:
    asked = (question.measure, question.better, question.worse)
    return tuple(compare_models([evaluation], *asked).difference for evaluation in evaluations)


def _beyond_colour(question: Question, evaluations: Sequence[Mapping[str, Any]]) -> bool | None:
    """Whether it is something to be as good as the second model; None where not asked, or without a look-up."""
    if question.margin is None or not all(
        "look-up" in evaluation["per_image"][question.measure] for evaluation in evaluations
    ):
        return None
    return compare_models(evaluations, question.measure, question.worse, "look-up").favours == question.worse


def _with_models(evaluations: Sequence[Mapping[str, Any]], question: Question) -> list[Mapping[str, Any]]:
    """The evaluations that hold both models, and the teacher by which margins are measured."""
    needed = {question.better, question.worse, "teacher"}
    return [e for e in evaluations if needed <= e["per_image"].get(question.measure, {}).keys()]


def _p_value(question: Question, comparison: Comparison, evaluations: Sequence[Mapping[str, Any]]) -> float:
    if comparison.seeds < SEEDS_OF_A_CLAIM:
        return 1.0
    if question.margin is None:
        return comparison.p
    pair = (question.measure, question.better, question.worse)
    not_worse, _ = two_one_sided(evaluations, *pair, margin=question.margin)
    return not_worse


def _mean_of_teacher(evaluations: Sequence[Mapping[str, Any]], measure: str) -> float:
    return over_seeds(
        [sum(values) / len(values) for e in evaluations for values in [e["per_image"][measure]["teacher"]]]
    ).mean


def labels(answers: Sequence[Answer]) -> list[str]:
    """A name for each answer, such as openmoji: `gcka` better than `uniform`, and the recording where two share one."""
    named = [f"{a.question.task}: {a.question.text}" for a in answers]
    return [
        f"{label} ({a.question.recording})" if named.count(label) > 1 else label
        for label, a in zip(named, answers, strict=True)
    ]


# --- tables ---------------------------------------------------------------------------------------------------------


def questions_table() -> pd.DataFrame:
    """The family as a table: a row for each question, numbered."""
    rows = [
        {
            "claim": q.letter,  # the page has it in words
            "task": q.task,
            "measure": MEASURES[q.measure].label,
            "question": q.text,
            "seeds": f"{len(q.seeds)}" + (f" ({q.seeds[0]} to {q.seeds[-1]})" if q.seeds.start else ""),
            "test": f"not worse by {100 * q.margin:.0f} %" if q.margin else "two-sided",
            "power is for a difference of": _difference(q),
        }
        for q in questions()
    ]
    return pd.DataFrame(rows, index=[str(number + 1) for number in range(len(rows))])


def verdicts_table(answers: Sequence[Answer]) -> pd.DataFrame:
    """A row for each answer: the difference with its interval, p-values and the verdict."""
    rows = {}
    for label, a in zip(labels(answers), answers, strict=True):
        c, digits = a.comparison, MEASURES[a.question.measure].digits + 1
        share = f"{100 * c.difference / abs(a.teacher):+.1f} % of the teacher's"
        rows[label] = {
            "verdict": f"**{a.verdict}**" if a.shown else a.verdict,
            "p (by Holm)": f"{p_text(a.p)} ({p_text(a.adjusted)})",
            "difference": f"{MEASURES[c.measure].label} {c.difference:+.{digits}f}"
            f" ({c.low:+.{digits}f} to {c.high:+.{digits}f}; {share})",
            "by seed": _by_seed(a, digits),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _by_seed(answer: Answer, digits: int) -> str:
    """From which difference to which the trainings go, and in how many of them it is negative."""
    each, c = answer.by_training, answer.comparison
    below = f"{sum(difference < 0 for difference in each)} of {counted(len(each), 'seed')} below 0"
    shared = "" if c.teachers == c.seeds else f", on {counted(c.teachers, 'teacher')}"
    return f"{min(each):+.{digits}f} to {max(each):+.{digits}f}; {below}{shared}"


def power_table(answers: Sequence[Answer]) -> pd.DataFrame:
    """The power of each question with more trainings: a row for each answer with enough seeds to know their spread."""
    rows = {
        label: {"for a difference of": _difference(a.question)}
        | {f"{count} seeds": f"{a.power(count):.2f}" for count in FORETOLD}
        | {"share of the variance from images": f"{100 * _share(a.comparison.parts):.0f} %"}
        for label, a in zip(labels(answers), answers, strict=True)
        if a.comparison.seeds >= SEEDS_OF_A_CLAIM
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def _difference(question: Question) -> str:
    """That for which the power is given."""
    return "none: the two are equal" if question.margin else f"{100 * question.matters:.0f} % of the teacher's mean"


def pilot_text(evaluations: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """What the pilot's evaluations foretell of the power, in Markdown; empty if they have no model of a question."""
    table = power_table(planned_answers(evaluations))
    if table.empty:
        return ""
    return (
        f"## The power to expect\n\nFrom the spread in the recording `{pilot()}`, on which this plan was made and that "
        "answers none of its questions: how often so many seeds would show the difference that matters.\n\n"
        f"{markdown(table, 'question')}\n"
    )


def _share(parts: Sequence[Part]) -> float:
    whole = sum(part.variance for part in parts)
    return sum(part.variance for part in parts if part.source == "places") / whole if whole else 0.0


def p_text(p: float) -> str:
    """A p-value with two digits that say something."""
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"
