"""Translation tasks by name: made from their sources."""

import inspect
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch

from i2i_lib.data.adapters import LOADERS, loader_module
from i2i_lib.data.tiles import Task, Tiles


def load_task(
    name: str,
    *,
    image_size: int,
    crop: int = 0,
    validation: float = 0.0,
    direction: Literal["AtoB", "BtoA"] = "AtoB",
    **options: Any,
) -> Task:
    """Build a task from its source files.

    `image_size` is the side of a test or validation tile in pixels, `crop` that of a training crop, by default the
    same; both are multiples of 4 and at least 12. `validation` is the share of the training groups, 0 to 0.5, that is
    held out of training to choose settings on: of drawings, regions or pictures, as the task's loader says.
    `direction="BtoA"` translates the other way, for tasks whose two domains are pictures. `options` are those of the
    loader, such as `scale` for the tasks of the Earth, `path` and `layout` for the task `folder` (see `load_folder`).

    Raises ValueError for an unknown name or option, a crop larger than the picture, a size or share that leaves no
    tile, or a source file that is not the recorded one; FileNotFoundError for a missing source file.
    """
    load = getattr(import_module(loader_module(name)), LOADERS[name][1])
    crop = crop or image_size
    for what, side in (("image_size", image_size), ("crop", crop)):
        if side < 12 or side % 4:
            raise ValueError(f"{what} must be a multiple of 4 and at least 12, got {side}")
    if crop > image_size:
        raise ValueError(
            f"a crop of {crop} px is larger than the picture of {image_size}: lower crop or raise image_size"
        )
    if not 0 <= validation <= 0.5:
        raise ValueError(f"validation is the share of the training groups to hold out, 0 to 0.5, got {validation}")
    if direction not in ("AtoB", "BtoA"):
        raise ValueError(f"direction is 'AtoB' or 'BtoA', got {direction!r}")
    known = [option for option in inspect.signature(load).parameters if option not in ("image_size", "validation")]
    if unknown := sorted(options.keys() - set(known)):
        has = f"its options are {', '.join(known)}" if known else "it has none"
        raise ValueError(f"the task {name} has no option {', '.join(unknown)}: {has}")
    options = {key: str(value) if isinstance(value, Path) else value for key, value in options.items()}
    task = load(image_size, validation, **options)
    info = task.info | {"image_size": image_size, "crop": crop, "validation": validation}
    info |= {"direction": direction, "options": options}
    if direction == "BtoA":
        if task.train.classes:
            raise ValueError(f"{name} translates labels to pictures: there is no other direction")
        held = task.validation and _turned(task.validation)
        task = replace(task, train=_turned(task.train), validation=held, test=_turned(task.test))
        info["domains"] = info["domains"][::-1]
    return replace(task, info=info)


def _turned(tiles: Tiles) -> Tiles:
    other = {"source": tiles.target, "target": tiles.source, "box": tiles.target_box, "target_box": tiles.box}
    block = tiles.block
    if not tiles.paired:  # only where every source is independent of the others is the same said of the targets
        single = torch.equal(block, torch.arange(len(block)))
        block = torch.arange(len(tiles.target)) if single else block.new_full((len(tiles.target),), -1)
    return replace(tiles, block=block, **other)
