"""Tasks to disk and back."""

import glob
import hashlib
import json
import shutil
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import Tensor

from i2i_lib.artifacts import artifact_file, read_record, read_tensors, tensor_bytes, write_artifact
from i2i_lib.data.tiles import Task, Tiles
from i2i_lib.files import sha256

_TENSORS = ("source", "target", "block", "box", "target_box")  # fields of `Tiles`; the others are plain JSON


def save_task(task: Task, path: str | Path) -> None:
    """Write the artifact `path`: tiles as tensors, all else in its record.

    Pictures that are still in their files stay there: the record lists them, with their sizes, and what is decoded of
    them later is kept in `path.<key>.tiles`.
    """
    record = artifact_file(path, "json")
    for stale in record.parent.glob(f"{glob.escape(record.stem)}.*.tiles"):
        shutil.rmtree(stale)
    images = {name: value for name, value in _named_fields(task).items() if not isinstance(value, Tensor)}
    described = {
        "name": task.name,
        "family": task.family,
        "info": task.info,
        **{part: _plain_fields(tiles) for part, tiles in _parts(task).items()},
        "files": {name: value.record() for name, value in images.items()},
    }
    write_artifact(path, "task", described, _task_tensors(task))


def load_saved_task(path: str | Path) -> Task:
    """Read what `save_task` wrote; ValueError if the two files do not belong together or are damaged.

    A record without its tensors, as a small recording keeps it, is cut again from the source files and must then
    have the recorded checksum.
    """
    file, tensor_file = artifact_file(path, "json"), artifact_file(path, "safetensors")
    if not file.exists():
        raise FileNotFoundError(f"{file} does not exist: make the data first")
    record = read_record(path, ["task"])
    try:
        if tensor_file.exists():
            return _saved_task(record, read_tensors(path, record), path)
        info, recorded = record["info"], record["sha256"]
        # Imported by name, as tasks are: one that keeps its tensors depends on no code that makes tasks.
        load_task = import_module("i2i_lib.data.tasks").load_task
        parts = {"crop": info.get("crop", 0), "validation": info.get("validation", 0.0)}
        asked = {"image_size": info["image_size"], "direction": info["direction"], **parts}
        task = load_task(record["name"], **asked, **info["options"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is not a task record ({error!r}): delete it and make the data again") from error
    if hashlib.sha256(tensor_bytes(_task_tensors(task))).hexdigest() != recorded:
        raise ValueError(f"{tensor_file} is missing, and tiles cut anew do not match {file}: make the data again")
    return task


def _saved_task(record: dict[str, Any], tensors: dict[str, Tensor], path: str | Path) -> Task:
    found: dict[str, Any] = dict(tensors)
    for name, files in record["files"].items():
        file_images = import_module("i2i_lib.data.picture_cache").FileImages  # which few tasks depend on
        decoder = sha256(Path(__file__).with_name("pictures.py"))
        # Both halves share a cache, which holds nothing that other code has decoded.
        key = hashlib.sha256(json.dumps(files | {"half": 0, "decoder": decoder}).encode()).hexdigest()[:12]
        found[name] = file_images(**files, cache=artifact_file(path, f"{key}.tiles"))
    parts = {}
    for part in ("train", "test", "validation"):
        if part in record or part != "validation":
            parts[part] = Tiles(**{field: found[f"{part}.{field}"] for field in _TENSORS}, **record[part])
    return Task(record["name"], record["family"], info=record["info"], **parts)


def _plain_fields(tiles: Tiles) -> dict[str, Any]:
    return {field.name: getattr(tiles, field.name) for field in fields(Tiles) if field.name not in _TENSORS}


def _task_tensors(task: Task) -> dict[str, Tensor]:
    """The tiles that are in memory, in memory of their own: `box` and `target_box` are often one tensor."""
    named = _named_fields(task)
    return {name: value.contiguous().clone() for name, value in named.items() if isinstance(value, Tensor)}


def _named_fields(task: Task) -> dict[str, Any]:
    return {f"{part}.{field}": getattr(tiles, field) for part, tiles in _parts(task).items() for field in _TENSORS}


def _parts(task: Task) -> dict[str, Tiles]:
    parts = {"train": task.train, "test": task.test}
    return parts | {"validation": task.validation} if task.validation else parts
