"""Trainings on record in `book/recorded/<task>/`: networks, settings, losses, norm scales and pictures.

A chapter shows a recorded training as it shows one of its own.
"""

from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from i2i_book.runs import root
from i2i_lib.checkpoint import load_discriminator, load_generator, load_info, load_plan
from i2i_lib.files import read_json, record_file, shorten_path
from i2i_lib.scales import ScaleNote, load_scales
from i2i_lib.train.adversarial import TrainConfig
from i2i_lib.train.recipe import Recipe
from i2i_lib.train.snapshots import read_frames

# Of a recipe, what tells no two trainings apart: places, seeds, and how the same numbers are computed.
_FREE = ("task", "seed", "threads", "log_every", "result")
_FREE_TRAINING = ("precision", "compiled")


@dataclass(frozen=True, slots=True)
class RecordedTraining:
    """A generator and its discriminator, and what was noted while they were trained."""

    generator: Any
    discriminator: Any | None
    losses: list[dict[str, float]]
    scales: list[ScaleNote]
    frames: dict[int, bytes]  # step -> WebP file
    packed_from: str  # SHA-256 of the generator's file before it was rounded, by which its students name it
    made: dict[str, Any]  # `started`, `seconds` of training, `device`, `torch`, `git`


def recorded_training(task: str, name: str, recipe: Path, data: Path) -> RecordedTraining:
    """The recorded training of a task's "teacher" or "original", or of a student, as "student-mse".

    `recipe` is the file of the settings that the run has for it, `data` the saved task (no suffix): both must be those
    of the record, and so must a student's teacher and widths, which `recipe` names. Raises FileNotFoundError where the
    task has no record, ValueError where the record is another's.
    """
    folder = root() / "book" / "recorded" / task
    file = record_file("read", folder / f"{name}-training.json")
    if not file.exists():
        raise FileNotFoundError(
            f"no {name} of {task} is recorded in {shorten_path(folder)}: TEACHER=train (in a notebook, weights='train')"
            " trains it"
        )
    noted = read_json(file, "put the committed file back")
    asked = read_json(recipe, "run the notebook again")
    wanted = deciding_settings(asked)
    had = deciding_settings(noted["settings"])
    different = sorted(key for key in wanted | had if wanted.get(key) != had.get(key))
    if different:
        raise ValueError(
            f"the recorded {name} of {task} was trained with other settings ({', '.join(different)}): set those of"
            f" {shorten_path(file)}, or train with TEACHER=train"
        )
    if noted["data"] != load_info(data)["sha256"]:
        raise ValueError(
            f"the recorded {name} of {task} was trained on other pictures than {shorten_path(data)} holds: give chapter"
            " 1 the settings of its record, or train with TEACHER=train"
        )
    if asked.get("teacher"):
        _check_teacher(folder / name, recipe.parent / asked["teacher"])
        if isinstance(asked["generator"], str):  # of another network, the settings above have the widths
            _check_widths(folder / name, recipe.parent / asked["generator"])
    judge = folder / f"{name}-discriminator"
    return RecordedTraining(
        load_generator(folder / name),
        load_discriminator(judge) if judge.with_suffix(".json").exists() else None,
        noted["losses"],
        load_scales(folder / "scales") if name == "teacher" else [],
        read_frames(folder / "snapshots" / name),
        load_info(folder / name)["packed_from"],
        noted["made"],
    )


def known_hashes(info: dict[str, Any]) -> set[str]:
    """The SHA-256 hashes by which a student may name the teacher with this record (`load_info`).

    Beside that of its file, the one from before its weights were rounded, of the same file or of the one it came from.
    """
    return {info["sha256"], info.get("packed_from"), info["provenance"].get("packed_from")} - {None}


def _check_teacher(student: Path, teacher: Path) -> None:
    """Raise ValueError if a recorded student is not of this teacher."""
    made_of, own = load_info(student)["provenance"]["teacher"], load_info(teacher)
    if made_of not in known_hashes(own):
        raise ValueError(
            f"the recorded {student.name} learned from another teacher than {shorten_path(teacher)}: TEACHER=train"
            " (in a notebook, weights='train') trains it"
        )


def _check_widths(student: Path, plan: Path) -> None:
    """Raise ValueError if a recorded student has not the widths of this plan."""
    if load_generator(student).config != load_plan(plan).config:
        raise ValueError(
            f"the recorded {student.name} has other widths than {shorten_path(plan)}: give chapter 3 the settings of"
            " its record, or train with TEACHER=train"
        )


def deciding_settings(recipe: dict[str, Any]) -> dict[str, Any]:
    """The settings of a recipe that decide what a training gives; of a student, which is one of a seed, with the seed.

    A record that is older than a setting was made as the setting's default makes it.
    """
    recipe, training = _defaults(Recipe) | recipe, _defaults(TrainConfig) | recipe["training"]
    training = {key: value for key, value in training.items() if key not in _FREE_TRAINING}
    free = [key for key in _FREE if key != "seed" or not recipe["teacher"]]
    return {key: value for key, value in recipe.items() if key not in free} | {"training": training}


def _defaults(settings: type) -> dict[str, Any]:
    return {field.name: field.default for field in fields(settings) if field.default is not MISSING}
