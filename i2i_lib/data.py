"""Translation tasks by name: made from their sources, saved by chapter 1, read by the others."""

import glob
import hashlib
import inspect
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from i2i_lib.batches import Batch, Task, Tiles, encode, paired_batches, to_batch, unpaired_batches
from i2i_lib.cityscapes import load_cityscapes
from i2i_lib.commands import plainly
from i2i_lib.downloads import fetch, listing
from i2i_lib.earth import load_earth, load_earth_unpaired
from i2i_lib.earth_labels import load_earth_labels
from i2i_lib.files import atomic_write, sha256, write_json
from i2i_lib.folders import PAPER_TASKS, load_folder, load_paper
from i2i_lib.openmoji import load_openmoji
from i2i_lib.pictures import FileImages, check_pictures, read_tile

__all__ = [
    "Batch", "Task", "Tiles", "encode", "load_saved_task", "load_task", "paired_batches", "real_targets", "save_task",
    "to_batch", "unpaired_batches",
]  # fmt: skip

FORMAT = 1


def load_task(name: str, *, image_size: int, direction: Literal["AtoB", "BtoA"] = "AtoB", **options: Any) -> Task:
    """Build a task from its source files.

    `image_size` is the side of a test tile and of a training crop, in pixels, a multiple of 4 and at least 12.
    `direction="BtoA"` translates the other way, for tasks whose two domains are pictures. `options` are those of the
    task's loader, such as `scale` for the tasks of the Earth, `path` and `layout` for the task `folder` (see
    `load_folder`).

    Raises ValueError for an unknown name or option, a size that leaves no tile, or a source file that is not the
    recorded one; FileNotFoundError for a missing source file.
    """
    if name not in _LOADERS:
        raise ValueError(f"unknown task {name!r}; known tasks: {', '.join(sorted(_LOADERS))}")
    if image_size < 12 or image_size % 4:
        raise ValueError(f"image_size must be a multiple of 4 and at least 12, got {image_size}")
    if direction not in ("AtoB", "BtoA"):
        raise ValueError(f"direction is 'AtoB' or 'BtoA', got {direction!r}")
    known = [option for option in inspect.signature(_LOADERS[name]).parameters if option != "image_size"]
    if unknown := sorted(options.keys() - set(known)):
        has = f"its options are {', '.join(known)}" if known else "it has none"
        raise ValueError(f"the task {name} has no option {', '.join(unknown)}: {has}")
    options = {key: str(value) if isinstance(value, Path) else value for key, value in options.items()}
    task = _LOADERS[name](image_size, **options)
    info = task.info | {"image_size": image_size, "direction": direction, "options": options}
    if direction == "BtoA":
        if task.train.classes:
            raise ValueError(f"{name} translates labels to pictures: there is no other direction")
        task = replace(task, train=_turned(task.train), test=_turned(task.test))
        info["domains"] = info["domains"][::-1]
    return replace(task, info=info)


def _turned(tiles: Tiles) -> Tiles:
    other = {"source": tiles.target, "target": tiles.source, "box": tiles.target_box, "target_box": tiles.box}
    block = tiles.block
    if not tiles.paired:  # only where every source is independent of the others is the same said of the targets
        single = torch.equal(block, torch.arange(len(block)))
        block = torch.arange(len(tiles.target)) if single else block.new_full((len(tiles.target),), -1)
    return replace(tiles, block=block, **other)


_LOADERS: dict[str, Callable[..., Task]] = {
    "earth": load_earth,
    "earth-labels": load_earth_labels,
    "earth-unpaired": load_earth_unpaired,
    "openmoji": load_openmoji,
    "cityscapes": load_cityscapes,
    "folder": load_folder,
    **{name: partial(load_paper, name) for name in PAPER_TASKS},
}


def real_targets(task: Task, batch_size: int = 32) -> Iterator[Tensor]:
    """Every target picture of training and test as those of the test are, uint8 [n, 3, H, W], in batches.

    Of a training tile that is larger, this is the middle; a picture in a file is read anew at the test's size.
    """
    height, width = task.test.target.shape[-2:]
    for images in (task.train.target, task.test.target):
        learnt: Any = images
        top, left = (images.shape[-2] - height) // 2, (images.shape[-1] - width) // 2
        for start in range(0, len(images), batch_size):
            if isinstance(learnt, FileImages):
                paths = [learnt.folder / name for name in list(learnt.files)[start : start + batch_size]]
                yield torch.stack([read_tile(path, height, learnt.halves)[learnt.half] for path in paths])
            else:
                yield images[start : start + batch_size, :, top : top + height, left : left + width]


# --- to disk and back ------------------------------------------------------------------------------------------------


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
        raise FileNotFoundError(f"{record} does not exist: run notebook 01 (data) first, which writes it")
    try:
        described = json.loads(record.read_text())
        if (described["format"], described["kind"]) != (FORMAT, "task"):
            found = f"{described['kind']!r} in format {described['format']!r}"
            raise ValueError(f"{record} holds {found}, not a task in format {FORMAT}: run notebook 01 again")
        name, info, wanted = described["name"], described["info"], described["sha256"]
        if tensors.exists():
            return _saved_task(described, tensors, record)
        task = load_task(name, image_size=info["image_size"], direction=info["direction"], **info["options"])
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{record} is not a task record ({error!r}): delete it and run notebook 01 again") from error
    if hashlib.sha256(_task_bytes(task)).hexdigest() != wanted:
        raise ValueError(f"{tensors} is missing, and tiles cut anew do not match {record}: run notebook 01 again")
    return task


def _saved_task(described: dict[str, Any], tensors: Path, record: Path) -> Task:
    data = tensors.read_bytes()
    if hashlib.sha256(data).hexdigest() != described["sha256"]:
        raise ValueError(f"{tensors} does not match the checksum in {record}: delete both and run notebook 01 again")
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


# --- on the command line ---------------------------------------------------------------------------------------------

_USAGE = """usage:
  python -m i2i_lib.data fetch NAME    download a public data set into data/
  python -m i2i_lib.data check FOLDER  read every picture in a folder and name those that are damaged

"""


@plainly
def main(arguments: Sequence[str]) -> int:
    """Run one of the two commands; returns the exit status."""
    match arguments:
        case ["fetch", name]:
            print(fetch(name))
        case ["check", folder]:
            problems = list(check_pictures(folder))
            print("\n".join(problems) or "every picture can be read")
            return int(bool(problems))
        case _:
            print(_USAGE + listing(), file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
