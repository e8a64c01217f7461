"""Tables of recorded runs for the book."""

from pathlib import Path
from typing import Any

from i2i_book.claims import answers, table_of
from i2i_book.recorded.check import MANIFEST
from i2i_lib.metrics.intervals import SEEDS_OF_A_CLAIM, over_seeds
from i2i_lib.results import headed, load_evaluations, load_table

YARDSTICKS = ("floor", "look-up", "original", "teacher")  # first in a table
MEASURES = {"l1": 3, "ssim": 3, "feature_distance": 3, "kd": 1, "fd": 1}  # and the digits to show


def recordings(recorded: Path) -> list[Path]:
    """The folders of `recorded` that hold a recording."""
    return sorted(path.parent for path in recorded.glob(f"*/{MANIFEST}"))


def tables(folder: Path) -> str:
    """What a recording measured, in Markdown: per task its models' quality and, from three seeds on, its claims."""
    table, evaluations = load_table(folder / "results.jsonl"), load_evaluations(folder / "results.jsonl")
    parts = []
    for task, found in sorted(evaluations.items()):
        rows: Any = table[table.task == task]
        lines = [["model", *map(headed, MEASURES), "n"], ["---"] * (len(MEASURES) + 2)]
        models = sorted(rows.model.unique(), key=lambda name: (name not in YARDSTICKS, name))
        for model in models:
            of_model: Any = rows[rows.model == model]
            cells = []
            for measure, digits in MEASURES.items():
                values = of_model[measure].dropna().tolist()
                cells.append(over_seeds(values).text(digits).split(" (n")[0] if values else "")
            lines.append([model, *cells, str(of_model.seed.nunique())])
        said = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        parts.append(f"**{task}**, mean ± standard deviation over n seeds\n\n{said}")
        if len(found) >= SEEDS_OF_A_CLAIM:
            parts += [
                "What each ingredient did: the difference, its 95 % interval over seeds and places and, in bold, the"
                " model that it speaks for; where nothing is bold, no difference is shown. Of twenty such intervals one"
                " excludes 0 by chance.",
                table_of(answers(found)),
            ]
        parts.append(rows.protocol.iloc[0])
    return "\n\n".join(parts)
