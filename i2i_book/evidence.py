"""What the recordings answered, in words: the first part of chapter 6."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from i2i_book.claims import counted, in_levels, sentence
from i2i_book.pages.status import origin_of
from i2i_book.questions import Answer, p_text, questions
from i2i_book.recorded.check import read_manifest


def evidence(answers: Sequence[Answer]) -> str:
    """Each claim of the plan with its answers, and last what nothing was recorded for, in Markdown."""
    answered = {answer.question: answer for answer in answers}
    parts, open_ones = [], []
    for claim, of_claim in groupby(questions(), lambda question: question.claim):
        asked, title = list(of_claim), claim.partition(": ")[2]
        found = [answered[question] for question in asked if question in answered]
        if found:
            parts.append(f"**{title[0].upper()}{title[1:]}?**\n")
            parts += [f"- {_line(answer)}" for answer in found]
            parts.append("")
            open_ones += [f"{question.text} on `{question.task}`" for question in asked if question not in answered]
        else:
            open_ones.append(title)
    if open_ones:
        parts.append(f"Not recorded yet: {'; '.join(open_ones)}.")
    return "\n".join(parts)


def confirmed(answers: Sequence[Answer]) -> str:
    """The answers that were shown, a line each, in Markdown; a sentence if there is none."""
    lines = [f"- {_line(answer)}" for answer in answers if answer.shown]
    return "\n".join(lines or ["Nothing yet."]) + "\n"


def _line(answer: Answer) -> str:
    question = answer.question
    c = answer.comparison
    measured = in_levels(c) if c.measure == "l1" else sentence(c).removesuffix(".")
    corrected = f"(corrected p {p_text(answer.adjusted)})"
    if not answer.shown:
        said = f"{question.text} is {answer.verdict}"
    elif question.margin:
        said = f"`{question.better}` is **as good as `{question.worse}` ({question.bound})** {corrected}"
    else:
        said = f"**{answer.verdict}** {corrected}"
    line = f"`{question.task}`, {counted(c.seeds, 'seed')}: {said}. {measured[0].upper()}{measured[1:]}."
    if answer.beyond_colour is False:
        line += f" But `{question.worse}` itself is not shown to beat looked-up colours: to be as good is little."
    return line


def efforts(kept: Path, answers: Sequence[Answer]) -> str:
    """What the recordings in the folder `kept` that gave the answers took, and where they were made, in Markdown."""
    lines = []
    for name in dict.fromkeys(answer.question.recording for answer in answers):
        runs = list(read_manifest(kept / name)["runs"].values())
        hours = sum(run["seconds"] for run in runs) / 3600
        lines.append(f"- `{name}`: {hours:.1f} hours of notebooks, two at a time, on {origin_of(runs)}")
    return "\n".join(lines)
