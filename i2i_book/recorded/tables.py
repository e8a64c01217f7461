"""Tables of recorded runs for the book."""

from collections.abc import Mapping, Sequence
from itertools import combinations, product
from pathlib import Path
from typing import Any

from i2i_book.claims import answers, answers_table, headline, markdown, part_of, quality_table
from i2i_book.questions import Answer, verdicts_table
from i2i_lib.checkpoint import load_info
from i2i_lib.config import GeneratorConfig
from i2i_lib.metrics.intervals import SEEDS_OF_A_CLAIM
from i2i_lib.results import load_evaluations, load_table, row_of


def tables(folder: Path, recorded: Sequence[Answer] = ()) -> str:
    """Results of a recording in Markdown: answers to planned questions, and per task its models and their differences.

    `recorded` are the answers by all recordings. Differences are those of three seeds or more.
    """
    table, evaluations = load_table(folder / "results.jsonl"), load_evaluations(folder / "results.jsonl")
    parts = []
    planned = [answer for answer in recorded if answer.question.recording == folder.name]
    if planned:
        parts.append("**Answers to the questions of {doc}`/plan`**, corrected for the number of all of them")
        parts.append(markdown(verdicts_table(planned), "question"))
    for task, found in sorted(evaluations.items()):
        rows: Any = table[table.task == task]
        parts.append(f"### {task}{part_of(rows.protocol.iloc[0])}")
        if {"gcka", "teacher"} <= set(rows.model[rows.macs_exact.notna()]):
            parts.append(headline(found, rows))
        parts.append("Mean ± standard deviation over n seeds")
        parts.append(markdown(quality_table(rows), "model"))
        if len(found) >= SEEDS_OF_A_CLAIM:
            parts.append(
                "What each ingredient did: the difference, its 95 % interval over seeds and images (of KD, over seeds"
                " alone) and, in bold, the model that it favours. These intervals describe and are not corrected for"
                " their number: by chance, one in twenty excludes 0."
            )
            parts.append(markdown(answers_table(answers(found)), "question"))
        parts += [_agreement(folder / task, found), rows.protocol.iloc[0]]
    return "\n\n".join(filter(None, parts))


def _agreement(folder: Path, evaluations: Sequence[Mapping[str, Any]]) -> str:
    """How alike the widths are that the scales of several teachers leave; empty without students of random channels.

    `folder` is that of the task, with those of its seeds. Inception students are compared, of each teacher one.
    """
    teachers = [row_of(evaluation, "teacher") for evaluation in evaluations]
    seeds = {row and row.weights: e["results"][0].seed for row, e in zip(teachers, evaluations, strict=True)}
    widths = {"gcka": [], "random": []}
    for arm, found in widths.items():
        paths = [folder / f"seed{seed}" / f"student-{arm}" for seed in seeds.values()]
        records = [load_info(path) for path in paths if path.with_suffix(".json").exists()]
        configs = [GeneratorConfig(**record["config"]) for record in records if record["kind"] == "inception"]
        found += [[*config.ranked_widths.values()] for config in configs]
    alike = [_shared(a, b) for a, b in combinations(widths["gcka"], 2)]
    chance = [_shared(a, b) for a, b in product(widths["gcka"], widths["random"])]
    if not alike or not chance:
        return ""
    return (
        "**Do two teachers rank alike?** Channels of two teachers have no name in common, but layers do. Of the widths"
        f" of two students `gcka` of two teachers, {_spread(alike)} are shared; of one's and those of a student"
        f" of random channels, {_spread(chance)}."
    )


def _shared(a: Sequence[int], b: Sequence[int]) -> float:
    """The share of the channels that two lists of widths have in common, layer by layer."""
    return sum(map(min, a, b)) / sum(map(max, a, b))


def _spread(shares: Sequence[float]) -> str:
    least, most = 100 * min(shares), 100 * max(shares)
    return f"{100 * sum(shares) / len(shares):.0f} % ({least:.0f} to {most:.0f} %, {len(shares)} pairs)"
