"""What the recordings answered, in words: the first part of chapter 6."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from i2i_book.claims import counted, in_levels, sentence
from i2i_book.pages.status import origin_of
from i2i_book.questions import Answer, Question, p_text, questions
from i2i_book.recorded.check import read_manifest
from i2i_lib.results import MEASURES


def in_short(answers: Sequence[Answer]) -> str:
    """Which claims of the plan were shown, in part, or not, and what nothing was recorded for, in Markdown.

    Each with how many of its questions were shown on each task, the seeds, and whether the yardstick is a weak one.
    """
    names = ["Shown", "Shown in part", "Not shown", "The opposite is shown", "Not recorded yet"]
    groups: dict[str, list[str]] = {name: [] for name in names}
    for title, found, missing in _by_claim(answers):
        if not found:
            groups["Not recorded yet"].append(f"whether {title}")
            continue
        against = sum(answer.verdict == "worse" for answer in found)
        shown = sum(answer.shown for answer in found) - against
        part = "Shown in part" if shown else "The opposite is shown" if against else "Not shown"
        told = f"{title} ({_counts(found)})"
        groups["Shown" if shown == len(found) else part].append(told)
        if missing:
            groups["Not recorded yet"].append(f"whether {title} ({_tasks(missing)})")
    lines = []
    for group, named in groups.items():
        if named:
            lines += [f"- **{group}**", *(f"  - {told}" for told in named)]
    return "\n".join(lines)


def evidence(answers: Sequence[Answer]) -> str:
    """Each claim of the plan that recordings answered, with its answers, in Markdown."""
    parts = []
    for title, found, _ in _by_claim(answers):
        if found:
            parts += [f"**Asked: whether {title}**\n", *(f"- {answer_line(answer)}" for answer in found), ""]
    return "\n".join(parts)


def _by_claim(answers: Sequence[Answer]) -> list[tuple[str, list[Answer], list[Question]]]:
    """The title of each claim, its answers, and its questions that have none."""
    answered = {answer.question: answer for answer in answers}
    claims = []
    for _, of_claim in groupby(questions(), lambda question: question.claim):
        asked = list(of_claim)
        found = [answered[question] for question in asked if question in answered]
        claims.append((asked[0].title, found, [question for question in asked if question not in answered]))
    return claims


def _counts(found: Sequence[Answer]) -> str:
    """How many questions of a claim each task has shown: "on `fluent` 1 of 2 questions, on `earth` 0 of 2; 5 seeds"."""
    by_task: dict[str, list[str]] = {}
    for answer in found:
        by_task.setdefault(answer.question.task, []).append(answer.verdict if answer.shown else "")
    parts = []
    for task, verdicts in by_task.items():
        against = verdicts.count("worse")
        turned = f", the opposite in {against}" if against else ""
        kind = "" if parts else f" question{'s' * (len(verdicts) > 1)}"
        parts.append(f"on `{task}` {sum(map(bool, verdicts)) - against} of {len(verdicts)}{kind}{turned}")
    seeds = counted(min(answer.comparison.seeds for answer in found), "seed")
    weak = sorted({f"`{a.question.worse}`" for a in found if a.shown and a.beyond_colour is False})
    doubt = f"; but {', '.join(weak)} is not shown to beat looked-up colours" if weak else ""
    return f"{', '.join(parts)}; {seeds}{_on_one_teacher(found)}{doubt}"


def _tasks(asked: Iterable[Question]) -> str:
    return "on " + " and ".join(dict.fromkeys(f"`{question.task}`" for question in asked))


def _on_one_teacher(found: Sequence[Answer]) -> str:
    """Where all students have one teacher, the answers are about its students alone."""
    asked = [answer.question for answer in found if answer.comparison.teachers == 1 < answer.comparison.seeds]
    if not asked:
        return ""
    return " on one teacher" if len(asked) == len(found) else f", {_tasks(asked)} on one teacher"


def answer_line(answer: Answer) -> str:
    """An answer with its verdict, its p-value or power, and the difference, in Markdown."""
    question = answer.question
    c = answer.comparison
    measured = in_levels(c) if c.measure == "l1" else sentence(c).removesuffix(".")
    corrected = f"(corrected p {p_text(answer.adjusted)})"
    if not answer.shown:
        said = f"{question.text} is {answer.verdict}"
        if c.favours and not question.margin:
            measured = f"without the correction, {measured}"
    elif question.margin:
        said = f"`{question.better}` is **as good as `{question.worse}` ({question.bound})** {corrected}"
    else:
        said = f"`{question.better}` is **{answer.verdict}** than `{question.worse}` {corrected}"
    asked = f"`{question.task}`, {counted(c.seeds, 'seed')}{_on_one_teacher([answer])}"
    line = f"{asked}: {said}. {measured[0].upper()}{measured[1:]}."
    if question.margin and not answer.shown and _beyond_margin(answer):
        line += f" The whole interval lies beyond {100 * question.margin:.0f} %."
    if answer.beyond_colour is False:
        line += f" But `{question.worse}` itself is not shown to beat looked-up colours, so matching it means little."
    return line


def _beyond_margin(answer: Answer) -> bool:
    """Whether "as good as" is not only not shown, but the interval is all on the side of more than the margin worse."""
    c, margin = answer.comparison, (answer.question.margin or 0) * abs(answer.teacher)
    return c.low > margin if MEASURES[c.measure].better == "less" else c.high < -margin


def efforts(kept: Path, answers: Sequence[Answer]) -> str:
    """What the recordings in the folder `kept` that gave the answers took, and where they were made, in Markdown."""
    lines = []
    for name in dict.fromkeys(answer.question.recording for answer in answers):
        runs = list(read_manifest(kept / name)["runs"].values())
        hours = sum(run["seconds"] for run in runs) / 3600
        lines.append(f"- `{name}`: {hours:.1f} hours of notebooks on {origin_of(runs)}")
    return "\n".join(lines)
