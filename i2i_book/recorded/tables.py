"""Tables of recorded runs for the book."""

from pathlib import Path
from typing import Any

from i2i_book.claims import answers, answers_table, headline, markdown, quality_table
from i2i_book.questions import recorded_answers, verdicts_table
from i2i_book.recorded.check import MANIFEST
from i2i_lib.metrics.intervals import SEEDS_OF_A_CLAIM
from i2i_lib.results import load_evaluations, load_table


def recordings(recorded: Path) -> list[Path]:
    """The folders of `recorded` that hold a recording."""
    return sorted(path.parent for path in recorded.glob(f"*/{MANIFEST}"))


def tables(folder: Path) -> str:
    """Results of a recording in Markdown: answers to planned questions, and per task its models and their differences.

    Differences are those of three seeds or more.
    """
    table, evaluations = load_table(folder / "results.jsonl"), load_evaluations(folder / "results.jsonl")
    parts = []
    planned = [answer for answer in recorded_answers(folder.parent) if answer.question.recording == folder.name]
    if planned:
        parts.append("**Answers to the questions of {doc}`/plan`**, corrected for the number of all of them")
        parts.append(markdown(verdicts_table(planned), "question"))
    for task, found in sorted(evaluations.items()):
        rows: Any = table[table.task == task]
        parts.append(f"### {task}")
        if {"gcka", "teacher"} <= set(rows.model[rows.macs_exact.notna()]):
            parts.append(headline(found, rows))
        parts.append("Mean ± standard deviation over n seeds")
        parts.append(markdown(quality_table(rows), "model"))
        if len(found) >= SEEDS_OF_A_CLAIM:
            parts.append(
                "What each ingredient did: the difference, its 95 % interval over seeds and images and, in bold, the"
                " model that it favours. These intervals describe and are not corrected for their number: of twenty"
                " one excludes 0 by chance."
            )
            parts.append(markdown(answers_table(answers(found)), "question"))
        parts.append(rows.protocol.iloc[0])
    return "\n\n".join(parts)
