"""The task of a compression: a folder's pictures, and what the teacher makes of them."""

from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from i2i_lib.data.folders import TRAIN_MARGIN, Layout, find_parts, hold_out, load_folder
from i2i_lib.data.picture_cache import FileImages
from i2i_lib.data.pictures import list_pictures, picture_size
from i2i_lib.data.tiles import Task, Tiles, encode, middle, placeless_tiles
from i2i_lib.metrics.pairs import quantise

MOST_TEST = 48  # pictures: the teacher, too, has to translate them
MOST_REAL = 256  # the teacher's pictures that the discriminator takes for real where there are no others
LARGEST, SMALLEST = 256, 32  # sides of pictures in training, unless one is asked for


class Folder(NamedTuple):
    """What a folder was found to hold."""

    path: Path  # of the pictures; with a `layout`, of the folders that hold them
    layout: Layout | None  # None: sources alone
    size: int  # side in training and test, pixels
    pictures: int  # for training


def look_into(folder: str, layout: Layout = "auto", size: int | None = None) -> Folder:
    """Find out how a folder is arranged, and which size suits; no picture is decoded.

    With trainA and trainB, or train, it is a folder as `load_folder` takes it. With trainA alone, or pictures right
    in it, it holds sources. Without `size`, that is the median of their shorter sides, 256 at most.

    Raises the errors of `load_folder` and `list_pictures`, and ValueError for a size that is no multiple of 4 from 16.
    """
    where = Path(folder).expanduser()
    if not where.is_dir():
        what = "is a file, not a folder" if where.exists() else "does not exist"
        raise FileNotFoundError(f"{where} {what}: expected a folder of pictures such as the teacher translates")
    if size is not None and (size < 16 or size % 4):
        raise ValueError(f"--size is a multiple of 4 and at least 16, got {size}")
    both = (where / "trainA").is_dir() and (where / "trainB").is_dir()
    halves = 1
    if layout != "auto" or both or (where / "train").is_dir():
        parts = find_parts(where, layout)
        found, (path, files) = parts.layout, parts.train[0]
        halves = 2 if found == "side-by-side" else 1
        if found != "side-by-side":
            path = where / "trainA"
    else:
        found, path = None, where / "trainA" if (where / "trainA").is_dir() else where
        ((_, files),), _ = hold_out([(path, list_pictures(path))], together=False)
    if size is None:
        shapes = [picture_size(path / name) for name in [*files][:99]]
        sides = [min(width // halves, height) for width, height in shapes]
        size = max(SMALLEST, min(LARGEST, int(median(sides)) // 4 * 4))
    return Folder(where if found else path, found, size, len(files))


def compression_task(folder: Folder, teacher: nn.Module, *, swap: bool, device: torch.device) -> Task:
    """The pictures to distil on: pairs, two domains, or sources with the teacher's pictures as the second domain.

    With `swap`, of a folder that holds two domains, the second is the source. Test pictures are 48 at most.
    """
    size = folder.size
    if folder.layout:
        task = load_folder(size, path=str(folder.path), layout=folder.layout, swap=swap)
        return replace(task, test=_thinned(task.test))
    ((_, train),), ((_, test),) = hold_out([(folder.path, list_pictures(folder.path))], together=False)
    source = FileImages(folder.path, train, round(TRAIN_MARGIN * size))
    chosen = FileImages(folder.path, test, size)[_spread(len(test), MOST_TEST)]
    few = source[_spread(len(source), MOST_REAL)]
    real = teacher_pictures(teacher, middle(few, (size, size)), device, "the teacher's pictures")
    seen = placeless_tiles(cast(Tensor, source), real, paired=False)
    made = teacher_pictures(teacher, chosen, device, "the teacher's test pictures")
    held_out = placeless_tiles(chosen, made, torch.arange(len(chosen)), paired=False)
    info: dict[str, Any] = {"domains": ["source", "the teacher's picture"], "folder": str(folder.path)}
    return Task("pictures", "cyclegan", seen, held_out, info)


def teacher_pictures(generator: nn.Module, sources: Tensor, device: torch.device, what: str) -> Tensor:
    """What a generator in eval mode makes of sources, uint8 [N, 3, S, S] to the same."""
    made = []
    with torch.inference_mode():
        for part in tqdm(sources.split(4), desc=what, unit_scale=4, unit=" pictures", disable=None):
            made.append(quantise(generator(encode(part).to(device))).cpu())
    return torch.cat(made).clone()


def _thinned(tiles: Tiles) -> Tiles:
    """Test pictures, `MOST_TEST` at most; of two domains without pairs, as many of each."""
    count = min(len(tiles.source), len(tiles.target), MOST_TEST)
    a, b = _spread(len(tiles.source), count), _spread(len(tiles.target), count)
    return placeless_tiles(tiles.source[a], tiles.target[b], torch.arange(count), paired=tiles.paired)


def _spread(count: int, most: int) -> Tensor:
    return torch.linspace(0, count - 1, min(count, most)).round().long()
