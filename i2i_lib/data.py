"""Translation tasks by name: made from their sources, saved by chapter 1, read by the others."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import load, save

from i2i_lib.batches import Batch, Task, Tiles, encode, paired_batches, to_batch, unpaired_batches
from i2i_lib.earth import load_earth, load_earth_unpaired
from i2i_lib.earth_labels import load_earth_labels
from i2i_lib.files import atomic_write, sha256, write_json
from i2i_lib.openmoji import load_openmoji

__all__ = [
    "Batch", "Task", "Tiles", "encode", "load_saved_task", "load_task", "paired_batches", "save_task", "to_batch",
    "unpaired_batches",
]  # fmt: skip

FORMAT = 2


def load_task(name: str, *, image_size: int, direction: Literal["AtoB", "BtoA"] = "AtoB", **options: Any) -> Task:
    """Build a task from its source files.

    `image_size` is the side of a test tile and of a training crop, in pixels, a multiple of 4. `direction="BtoA"`
    translates the other way, for tasks whose two domains are pictures. `options` are those of the task's loader, such
    as `scale` for the tasks of the Earth.

    Raises ValueError for an unknown name or option, a size that leaves no tile, or a source file that is not the
    recorded one; FileNotFoundError for a missing source file.
    """
    if name not in _LOADERS:
        raise ValueError(f"unknown task {name!r}; known tasks: {', '.join(sorted(_LOADERS))}")
    if image_size < 8 or image_size % 4:
        raise ValueError(f"image_size must be a multiple of 4 and at least 8, got {image_size}")
    if direction not in ("AtoB", "BtoA"):
        raise ValueError(f"direction is 'AtoB' or 'BtoA', got {direction!r}")
    task = _LOADERS[name](image_size, **options)
    if direction == "BtoA":
        if task.train.classes:
            raise ValueError(f"{name} translates labels to pictures: there is no other direction")
        task = replace(task, train=_turned(task.train), test=_turned(task.test))
    made_by = {"image_size": image_size, "direction": direction, "options": options}
    return replace(task, info=task.info | made_by)


def _turned(tiles: Tiles) -> Tiles:
    other = {"source": tiles.target, "target": tiles.source, "box": tiles.target_box, "target_box": tiles.box}
    block = tiles.block if tiles.paired else tiles.block.new_full((len(tiles.target),), -1)
    return replace(tiles, block=block, **other)


_LOADERS: dict[str, Callable[..., Task]] = {
    "earth": load_earth,
    "earth-unpaired": load_earth_unpaired,
    "earth-labels": load_earth_labels,
    "openmoji": load_openmoji,
}


# --- to disk and back ------------------------------------------------------------------------------------------------


def save_task(task: Task, path: str | Path) -> None:
    """Write `path`.safetensors, then `path`.json, which holds its checksum."""
    tensors, record = _task_files(path)
    atomic_write(tensors, _task_bytes(task))
    described = {"format": FORMAT, "kind": "task", "name": task.name, "family": task.family, "info": task.info}
    described |= {part: _plain_fields(getattr(task, part)) for part in ("train", "test")}
    write_json(record, described | {"sha256": sha256(tensors)})


def load_saved_task(path: str | Path) -> Task:
    """Read what `save_task` wrote; ValueError if the two files do not belong together or are damaged.

    A record without its tensors, as a small recording keeps it, is cut again from the source files and must then
    have the recorded checksum.
    """
    tensors, record = _task_files(path)
    if not record.exists():
        raise FileNotFoundError(f"{record} does not exist: run notebook 01 (data) first, which writes it")
    try:
        described = json.loads(record.read_text())
        if (described["format"], described["kind"]) != (FORMAT, "task"):
            raise ValueError(f"{record} holds {described['kind']!r} in format {described['format']}, not a task")
        wanted, name, info = described["sha256"], described["name"], described["info"]
        family, plain = described["family"], {part: described[part] for part in ("train", "test")}
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{record} is not a task record ({error!r}): delete it and run notebook 01 again") from error
    if not tensors.exists():
        task = load_task(name, image_size=info["image_size"], direction=info["direction"], **info["options"])
        if hashlib.sha256(_task_bytes(task)).hexdigest() != wanted:
            raise ValueError(f"{tensors} is missing, and tiles cut anew do not match {record}: run notebook 01 again")
        return task
    if sha256(tensors) != wanted:
        raise ValueError(f"{tensors} does not match the checksum in {record}: delete both and run notebook 01 again")
    flat = load(tensors.read_bytes())
    parts = {part: {f: flat[f"{part}.{f}"] for f in _TENSORS} | plain[part] for part in plain}
    return Task(name, family, Tiles(**parts["train"]), Tiles(**parts["test"]), info)


_TENSORS = ("source", "target", "block", "box", "target_box")


def _plain_fields(tiles: Tiles) -> dict[str, Any]:
    return {f.name: getattr(tiles, f.name) for f in fields(Tiles) if f.name not in _TENSORS}


def _task_bytes(task: Task) -> bytes:
    parts = {"train": task.train, "test": task.test}
    return save(
        {f"{part}.{f}": getattr(tiles, f).contiguous().clone() for part, tiles in parts.items() for f in _TENSORS}
    )


def _task_files(path: str | Path) -> tuple[Path, Path]:
    return Path(f"{path}.safetensors"), Path(f"{path}.json")
