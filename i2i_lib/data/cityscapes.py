"""Cityscapes as it is distributed: label maps of street scenes, and the photographs that they were drawn on."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from cityscapesscripts.helpers.labels import labels as LABELS
from PIL import Image
from torch import Tensor

from i2i_lib.data.pictures import to_tensor
from i2i_lib.data.tiles import Task, Tiles, placeless_tiles
from i2i_lib.files import data_folder

_PHOTO = "leftImg8bit/{}_leftImg8bit.png"
_LABEL_MAP, _INSTANCES = "gtFine/{}_gtFine_labelIds.png", "gtFine/{}_gtFine_instanceIds.png"
CHANNELS = 35  # one for each of the table's labels; the last is that without an id, the licence plate
# By label id, as a byte: -1, which the table gives the licence plate, is 255 there.
_CHANNEL, _TRAIN_ID = np.full(256, 255, np.uint8), np.full(256, 255, np.uint8)
_COLOUR = np.zeros((256, 3), np.uint8)
for _label in LABELS:
    _CHANNEL[_label.id & 255] = _label.id if _label.id >= 0 else CHANNELS - 1
    _TRAIN_ID[_label.id & 255] = _label.trainId & 255
    _COLOUR[_label.id & 255] = _label.color


def load_cityscapes(
    image_size: int,
    validation: float = 0.0,
    *,
    path: str | None = None,
    family: Literal["pix2pix", "gaugan"] = "pix2pix",
) -> Task:
    """From labels to photographs: `train` to learn from, `val` to test on, as the paper's two uses of the data set.

    With `family="pix2pix"` the source is the picture of the labels' colours, and a scene is squashed to a square of
    `image_size`, which for training is enlarged to 286 / 256 of its side and cropped, as in the paper's code. With
    `family="gaugan"` the source is a label map with an instance-edge channel, and tiles are `image_size` high, twice as
    wide and never cropped: the paper's are 256 x 512.

    `validation` is the share of the cities of `train`, evenly spaced by name, whose scenes are held out of training:
    scenes of one city resemble each other, and those of the test are of other cities, too.

    `path` is the folder with `gtFine` and `leftImg8bit`, by default data/cityscapes. All tiles are in memory: 1.5 GB at
    the paper's sizes. Each scene of the test and of the validation part is its own block; `info["test_scenes"]` and
    `info["validation_scenes"]` name them in order, for `train_ids`.

    Raises FileNotFoundError without the data set, ValueError naming the file for a scene without its counterpart, a
    damaged file or a label that is not in the table.
    """
    if family not in ("pix2pix", "gaugan"):
        raise ValueError(f"family must be 'pix2pix' or 'gaugan', got {family!r}")
    folder = cityscapes_folder(path)
    enlarged = image_size * 286 // 256 if family == "pix2pix" else 0
    scenes = {split: list_scenes(folder, split, instances=family == "gaugan") for split in ("train", "val")}
    cities = sorted({_city(scene) for scene in scenes["train"]})
    number = round(validation * len(cities))
    away = {cities[(2 * i + 1) * len(cities) // (2 * number)] for i in range(number)}
    held = [scene for scene in scenes["train"] if _city(scene) in away]
    seen = [scene for scene in scenes["train"] if _city(scene) not in away]
    train = _tiles(folder, seen, image_size, family, enlarged=enlarged)
    test = _whole(folder, scenes["val"], image_size, family)
    info = {
        "domains": ["labels", "photograph"],
        "train_size": enlarged or image_size,
        "train_scenes": len(train),
        "validation_scenes": held,
        "test_scenes": scenes["val"],
    }
    if family == "gaugan":  # by channel, so that label maps can be painted
        ordered = sorted(LABELS, key=lambda label: _CHANNEL[label.id & 255])
        info["classes"] = [
            {"name": label.name, "colour": "#{:02x}{:02x}{:02x}".format(*label.color)} for label in ordered
        ]
    return Task("cityscapes", family, train, test, info, _whole(folder, held, image_size, family) if held else None)


def cityscapes_folder(path: str | None = None) -> Path:
    """Folder of the data set; FileNotFoundError with the way to get it if it is not there."""
    folder = Path(path) if path else data_folder() / "cityscapes"
    if missing := [part for part in ("gtFine", "leftImg8bit") if not (folder / part).is_dir()]:
        raise FileNotFoundError(
            f"{folder} does not hold the folder {' and '.join(missing)}. Cityscapes may not be passed on: register at "
            "https://www.cityscapes-dataset.com, download gtFine_trainvaltest.zip and leftImg8bit_trainvaltest.zip "
            f"and unpack both in {folder}, or give the option `path`"
        )
    return folder


def list_scenes(folder: Path, split: str, *, instances: bool) -> list[str]:
    """The scenes of a split, such as val/lindau/lindau_000000_000019, sorted; ValueError if one lacks a file."""
    found = {}
    for kind in [_PHOTO, _LABEL_MAP, *([_INSTANCES] if instances else [])]:
        start, end = kind.split("{}")
        files = (folder / start / split).glob(f"*/*{end}")
        found[kind] = {file.relative_to(folder / start).as_posix().removesuffix(end) for file in files}
    scenes = sorted(set().union(*found.values()))
    missing = [kind.format(scene) for scene in scenes for kind, has in found.items() if scene not in has]
    if missing:
        raise ValueError(
            f"{folder} lacks {missing[0]}, the counterpart of a file it has ({len(missing)} missing in all)"
        )
    if not scenes:
        raise ValueError(f"{folder} holds no scene of the split {split!r}: unpack the archives again")
    return scenes


def read_scene(folder: Path, scene: str, height: int, width: int, family: str) -> tuple[Tensor, Tensor]:
    """Source and photograph of one scene at this size, uint8 [C, height, width] and [3, height, width].

    The source has 3 channels of colour (pix2pix), or label numbers below `CHANNELS` and instance edges (gaugan).
    Pictures are reduced by Pillow's bicubic filter, maps by taking the nearest pixel, as the paper's code does.
    """
    ids = _read_labels(folder / _LABEL_MAP.format(scene))
    photo = _read(folder / _PHOTO.format(scene), "RGB")
    if photo.shape[:2] != ids.shape:
        raise ValueError(f"{folder / _PHOTO.format(scene)} is {photo.shape[:2]}, its label map {ids.shape} pixels")
    target = _resized(photo, height, width)
    if family == "pix2pix":
        return _resized(_COLOUR[ids], height, width), target
    instances = _read_labels(folder / _INSTANCES.format(scene), instances=True)
    if instances.shape != ids.shape:
        raise ValueError(f"{folder / _INSTANCES.format(scene)} is {instances.shape}, its label map {ids.shape} pixels")
    maps = [_CHANNEL[_nearest(ids, height, width)], _edges(_nearest(instances, height, width))]
    return torch.from_numpy(np.stack(maps)), target


def train_ids(scenes: Iterable[str], path: str | None = None) -> Iterator[Tensor]:
    """The full label maps of scenes for evaluation, uint8 [1024, 2048]: train ids 0 to 18, and 255 for all else."""
    folder = cityscapes_folder(path)
    for scene in scenes:
        yield torch.from_numpy(_TRAIN_ID[_read_labels(folder / _LABEL_MAP.format(scene))])


def _city(scene: str) -> str:
    return scene.split("/")[1]


def _whole(folder: Path, scenes: list[str], height: int, family: str) -> Tiles:
    """Tiles to evaluate on, each its own block."""
    return replace(_tiles(folder, scenes, height, family), block=torch.arange(len(scenes)))


def _tiles(folder: Path, scenes: list[str], height: int, family: str, *, enlarged: int = 0) -> Tiles:
    """Scenes at this height, and then, if asked for, squares `enlarged` to that side."""
    n, width = len(scenes), height if family == "pix2pix" else 2 * height
    shape = (enlarged, enlarged) if enlarged else (height, width)
    source = torch.empty(n, 3 if family == "pix2pix" else 2, *shape, dtype=torch.uint8)
    target = torch.empty(n, 3, *shape, dtype=torch.uint8)

    def read(i: int) -> None:
        pictures = read_scene(folder, scenes[i], height, width, family)
        if enlarged:
            pictures = [_resized(picture.movedim(0, -1).numpy(), *shape) for picture in pictures]
        source[i], target[i] = pictures

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(read, range(n)):  # which raises here what a reader raised
            pass
    return placeless_tiles(source, target, classes=0 if family == "pix2pix" else CHANNELS)


def _read(path: Path, mode: str | None = None) -> np.ndarray:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert(mode) if mode else image)
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises on damage
        raise ValueError(f"{path} cannot be decoded ({error}): unpack it again") from error


def _read_labels(path: Path, *, instances: bool = False) -> np.ndarray:
    """A label map as bytes [H, W], or an instance map, whose values are label ids or 1000 of them and a count."""
    values = _read(path)
    if values.ndim != 2 or values.dtype.kind not in "ui":
        raise ValueError(
            f"{path} is not a single-channel integer image: its pixels are {values.shape[2:]} of {values.dtype}"
        )
    ids = np.where(values >= 1000, values // 1000, values) if instances else values
    known = (ids >= 0) & (ids < 256)
    known &= _CHANNEL[np.where(known, ids, 0)] < CHANNELS
    if not known.all():
        raise ValueError(
            f"{path} holds the label {ids[~known].flat[0]}: expected the label ids of Cityscapes, 0 to "
            f"{CHANNELS - 2} (not train ids or colours)"
        )
    return values if instances else values.astype(np.uint8)


def _resized(picture: np.ndarray, height: int, width: int) -> Tensor:
    return to_tensor(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))


def _nearest(values: np.ndarray, height: int, width: int) -> np.ndarray:
    rows, columns = (
        ((np.arange(m) + 0.5) * n / m).astype(int) for m, n in zip((height, width), values.shape, strict=True)
    )
    return values[rows[:, None], columns]


def _edges(instances: np.ndarray) -> np.ndarray:
    """1 on both sides of every border between instances, up, down, left and right; [H, W], uint8."""
    around = np.pad(instances, 1, mode="edge")
    neighbours = (around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:])
    return np.any([instances != neighbour for neighbour in neighbours], 0).astype(np.uint8)
