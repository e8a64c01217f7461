"""How fast students learn: the steps after which each is as near to the truth as an undistilled one at its end."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from i2i_lib.files import record_file
from i2i_lib.metrics.curves import steps_to_reach
from i2i_lib.metrics.intervals import over_seeds

END = 5  # the last fifth of a log is its end
REFERENCE = "none"  # learns nothing from its teacher: how soon are the others as near to the truth?


def steps_table(homes: Sequence[Path], students: Sequence[str]) -> pd.DataFrame:
    """Steps to the L1 on the training part that `REFERENCE` has over its last fifth: a row for each student.

    `homes` are the folders of one task's seeds. Empty where the logs or the reference are missing; a seed in which a
    student never gets there has no number and is counted.
    """
    found: dict[str, list[float | None]] = {}
    for home in homes:
        logs = {name: log for name in students if (log := _l1_log(home / "train" / f"student-{name}"))}
        if REFERENCE not in logs:
            continue
        end = [row["recon"] for row in logs[REFERENCE]][-max(len(logs[REFERENCE]) // END, 1) :]
        for name, log in logs.items():
            found.setdefault(name, []).append(steps_to_reach(log, sum(end) / len(end)))
    rows = {}
    for name, steps in found.items():
        reached = [step for step in steps if step is not None]
        rows[name] = {
            "steps": over_seeds(reached).text(0) if reached else "",
            "seeds that never get there": str(len(steps) - len(reached)),
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _l1_log(folder: Path) -> list[dict[str, float]]:
    """The loss log of a training with `recon` as the plain L1 distance to the truth; empty if it did not learn so."""
    paths = folder / "config.json", folder / "losses.jsonl"
    if not all(path.exists() for path in paths):
        return []
    config, lines = (record_file("read", path).read_text() for path in paths)
    training: Any = json.loads(config)["training"]
    rows = [json.loads(line) for line in lines.splitlines()]
    if training["imitate"] or not training["recon"] or not all("recon" in row for row in rows):
        return []
    return [row | {"recon": row["recon"] / training["recon"]} for row in rows]
