"""Tasks to disk and back."""

import glob
import hashlib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from i2i_lib.data.picture_cache import FileImages
from i2i_lib.data.tasks import load_task
from i2i_lib.data.tiles import Task, Tiles
from i2i_lib.files import atomic_write, sha256, write_json

FORMAT = 1


def save_task(task: Task, path: str | Path) -> None:
    """Write `path`.safetensors, then `path`.json, which holds its checksum.

    Pictures that are still in their files stay there: the record lists them, with their sizes, and what is decoded of
    them later is kept in `path`.<key>.tiles.
    """
    tensors, record = _task_files(path)
    for stale in record.parent.glob(f"{glob.escape(record.stem)}.*.tiles"):
        stale.unlink()
    atomic_write(tensors, _task_bytes(task))
    described = {"format": FORMAT, "kind": "task", "name": task.name, "family": task.family, "info": task.info}
    described |= {part: _plain_fields(getattr(task, part)) for part in ("train", "test")}
    described["files"] = {name: i.record() for name, i in _fields(task).items() if isinstance(i, FileImages)}
    write_json(record, described | {"sha256": sha256(tensors)})


def load_saved_task(path: str | Path) -> Task:
    """Read what `save_task` wrote; ValueError if the two files do not belong together or are damaged.

    A record without its tensors, as a small recording keeps it, is cut again from the source files and must then
    have the recorded checksum.
    """
    tensors, record = _task_files(path)
    if not record.exists():
        raise FileNotFoundError(f"{record} does not exist: make the data first")
    try:
        described = json.loads(record.read_text())
        if (described["format"], described["kind"]) != (FORMAT, "task"):
            found = f"{described['kind']!r} in format {described['format']!r}"
            raise ValueError(f"{record} holds {found}, not a task in format {FORMAT}: make the data again")
        name, info, wanted = described["name"], described["info"], described["sha256"]
        if tensors.exists():
            return _saved_task(described, tensors, record)
        task = load_task(name, image_size=info["image_size"], direction=info["direction"], **info["options"])
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{record} is not a task record ({error!r}): delete it and make the data again") from error
    if hashlib.sha256(_task_bytes(task)).hexdigest() != wanted:
        raise ValueError(f"{tensors} is missing, and tiles cut anew do not match {record}: make the data again")
    return task


def _saved_task(described: dict[str, Any], tensors: Path, record: Path) -> Task:
    data = tensors.read_bytes()
    if hashlib.sha256(data).hexdigest() != described["sha256"]:
        raise ValueError(f"{tensors} does not match the checksum in {record}: delete both and make the data again")
    try:
        flat: dict[str, Any] = load(data)
    except SafetensorError as error:
        raise TypeError(f"{tensors.name} is not a safetensors file: {error}") from error
    for part, files in described.get("files", {}).items():
        key = hashlib.sha256(json.dumps(files | {"half": 0}).encode()).hexdigest()[:12]  # both halves share a cache
        flat[part] = FileImages(**files, cache=record.with_name(f"{record.stem}.{key}.tiles"))
    train, test = (Tiles(**{f: flat[f"{part}.{f}"] for f in _TENSORS} | described[part]) for part in ("train", "test"))
    return Task(described["name"], described["family"], train, test, described["info"])


_TENSORS = ("source", "target", "block", "box", "target_box")


def _plain_fields(tiles: Tiles) -> dict[str, Any]:
    return {f.name: getattr(tiles, f.name) for f in fields(Tiles) if f.name not in _TENSORS}


def _task_bytes(task: Task) -> bytes:
    return save({name: t.contiguous().clone() for name, t in _fields(task).items() if isinstance(t, torch.Tensor)})


def _fields(task: Task) -> dict[str, Any]:
    parts = {"train": task.train, "test": task.test}
    return {f"{part}.{f}": getattr(tiles, f) for part, tiles in parts.items() for f in _TENSORS}


def _task_files(path: str | Path) -> tuple[Path, Path]:
    return Path(f"{path}.safetensors"), Path(f"{path}.json")
