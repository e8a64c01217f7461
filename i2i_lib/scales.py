"""Norm scales during a teacher's training: noted a few times, kept as `scales.json`."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

from i2i_lib.artifacts import artifact_file
from i2i_lib.files import write_json
from i2i_lib.prune import Prunable, norm_scales

SHARES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75)  # of the training, after which the scales are noted


@dataclass(frozen=True, slots=True)
class ScaleNote:
    """A teacher's norm scales, by prunable layer, after so many steps of its training."""

    step: int
    scales: dict[str, list[float]]


class ScaleNotes:
    """Notes of one training, each in a file of its own in `folder`, so that they outlive a kill."""

    def __init__(self, folder: Path, steps: int) -> None:
        self.folder, self.steps = folder, steps
        self.due = sorted({max(1, round(share * steps)) for share in SHARES})

    def take(self, step: int, generator: Prunable) -> None:
        """Note the generator's scales, unless they are no longer finite: the next line of the log tells of that."""
        scales = norm_scales(generator)
        if all(math.isfinite(value) for values in scales.values() for value in values):
            write_json(self.folder / f"{step}.json", scales)

    def history(self, result: Prunable) -> list[ScaleNote]:
        """All notes of the training, and last the scales of its result."""
        notes = [ScaleNote(step, json.loads((self.folder / f"{step}.json").read_text())) for step in self.due]
        return [*notes, ScaleNote(self.steps, norm_scales(result))]


def save_scales(history: list[ScaleNote], path: Path) -> None:
    """Write `path`.json."""
    write_json(artifact_file(path, "json"), [asdict(note) for note in history])


def load_scales(path: Path) -> list[ScaleNote]:
    """Read what `save_scales` wrote at `path` (no suffix); ValueError where the file holds something else."""
    file = artifact_file(path, "json")
    try:
        return [ScaleNote(**note) for note in json.loads(file.read_text())]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file} does not hold norm scales: {error}") from error


def scales_after(history: list[ScaleNote], share: float) -> dict[str, list[float]]:
    """The scales noted nearest to a share of the training, from 0 to 1."""
    wanted = share * history[-1].step
    return min(history, key=lambda note: abs(note.step - wanted)).scales
