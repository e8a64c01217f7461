"""Land cover of the Earth: surface classes derived from the satellite picture and from height."""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from i2i_lib.data.earth import (
    EARTH_FILES,
    EARTH_SIZE,
    HEIGHT,
    SATELLITE,
    earth_land,
    earth_picture,
    earth_places,
    earth_task,
)
from i2i_lib.data.tiles import Task, source_pictures


@dataclass(frozen=True, slots=True)
class SurfaceClass:
    """A class, its colour in figures, and satellite colours (red, green, blue; 0 to 255) that stand for it."""

    name: str
    colour: str
    seen_as: tuple[tuple[int, int, int], ...] = ()


# The satellite colours are means over places that an atlas names, listed behind. Figures' colours also differ
# in lightness, so that neighbours on the map can be told apart without red and green.
CLASSES = (
    SurfaceClass("deep water", "#12365C", ((8, 25, 60), (2, 6, 22))),  # Atlantic, 30 N 40 W; trenches; and every lake
    SurfaceClass("shallow sea", "#62A8DC", ((28, 70, 128), (22, 56, 105))),  # North Sea; shelf edges
    SurfaceClass("dense forest", "#0A4A2A", ((21, 34, 8), (22, 35, 10), (19, 33, 7))),  # Amazon; Congo; Borneo
    # Western Siberia; Ontario; Lapland; south-eastern China
    SurfaceClass("woodland", "#2F8F6B", ((29, 38, 13), (34, 37, 16), (39, 43, 13), (48, 62, 24))),
    # France; Ukraine; Illinois; Iowa
    SurfaceClass("grassland and farmland", "#B9DA72", ((60, 66, 26), (48, 59, 26), (65, 71, 38), (62, 70, 35))),
    # Cerrado; Zambia; Caatinga; Pampas
    SurfaceClass("savanna and open woodland", "#A08A35", ((49, 49, 23), (44, 41, 20), (69, 60, 35), (76, 69, 37))),
    # Kazakhstan; Central African Republic; Kansas; Kalahari; Nevada
    SurfaceClass(
        "steppe and tundra", "#DEC76B", ((98, 85, 53), (95, 87, 54), (94, 86, 52), (128, 104, 68), (117, 103, 72))
    ),
    SurfaceClass("desert", "#F9EBC0", ((196, 165, 122), (167, 138, 102), (163, 147, 114))),  # Sahara; Namib; Taklamakan
    SurfaceClass("red desert", "#C2531C", ((117, 74, 44), (103, 62, 35))),  # Gibson Desert; Great Victoria Desert
    SurfaceClass("snow and ice", "#FFFFFF"),
    SurfaceClass("green highland", "#6F4FA0"),
    SurfaceClass("bare highland", "#BBA3CF"),
)
DEEP, SHALLOW, FOREST, WOODLAND, GRASSLAND, SAVANNA, STEPPE, DESERT, RED_DESERT, SNOW, GREEN, BARE = range(12)
_WIDTH = 2700  # of the raster on which classes are found: 7.5 pixels to the degree
_BLUR = 5  # pixels of it, twice: colours are means over about two thirds of a degree
_MAJORITY = 5
_SNOWY = 0.35  # of the land around: snow in patches would otherwise pass, on average, for something grey
_LAKE_DARKNESS = 16  # grey levels: nothing else on land is as dark in all channels


def load_earth_labels(image_size: int, validation: float = 0.0, scale: int = 1, band: int | None = None) -> Task:
    """Surface classes to satellite picture, on the tiles of `i2i_lib.data.earth.load_earth`.

    `source` is a map of labels [N, 1, S, S]; `info["classes"]` lists name, colour and share of the training pixels of
    each. A class per pixel would hand the picture's own texture to the generator, and painting each label in its mean
    colour would solve the task. As in a land-cover map, a label covers a place some 70 km across, and leaves relief,
    rivers and fields to be made up.
    """
    labels = earth_labels(scale)
    satellite = earth_picture(SATELLITE, EARTH_SIZE[1] // scale)
    places = earth_places(satellite, image_size, scale, band, validation)
    task = earth_task("earth-labels", "gaugan", labels, satellite, places, image_size, len(CLASSES))
    shares = torch.bincount(task.train.source.flatten(), minlength=len(CLASSES)) / task.train.source.numel()
    info = task.info
    info["sources"] = {name: EARTH_FILES[name] for name in (SATELLITE, HEIGHT)}
    info["classes"] = [
        {"name": kind.name, "colour": kind.colour, "share": round(share, 5)}
        for kind, share in zip(CLASSES, shares.tolist(), strict=True)
    ]
    info["domains"] = ["surface classes", "satellite"]
    return task


def earth_labels(scale: int = 1) -> Tensor:
    """The class of every pixel of the raster of `earth_rasters(scale)`, uint8 [1, H, W].

    Sea and land without snow are blurred apart from each other, each pixel takes the class of the nearest colour in
    `CLASSES`, then snow covers it where there is enough around, and then the commonest class around it wins. What is
    not white and lies higher than about 1,500 m, by the tints of the height map, is highland. Coasts and lakes come
    last and keep the sharpness of the raster.
    """
    size = (EARTH_SIZE[0] // scale, EARTH_SIZE[1] // scale)
    cover, sea = (F.interpolate(x[None, None], size, mode="nearest")[0] for x in _cover_and_sea())
    # The commoner of two states in 3 x 3 pixels: without specks.
    at_sea, in_lake = (_sums(_water(earth_picture(SATELLITE, size[1]).float()), 3) > 4).unbind()
    return torch.where(at_sea, sea, torch.where(in_lake, DEEP, cover))


def earth_label_overview(width: int = 1350) -> Tensor:
    """The world's labels in the colours of their classes, uint8 [3, width / 2, width], to be drawn as a map."""
    labels = F.interpolate(earth_labels(2)[None], (width // 2, width), mode="nearest")
    return source_pictures(labels, {"classes": [{"colour": kind.colour} for kind in CLASSES]})[0]


@cache
def _cover_and_sea() -> tuple[Tensor, Tensor]:
    """The class of each place if it is land, and if it is sea; uint8 [1350, 2700]."""
    satellite, height = (earth_picture(name, _WIDTH).float() for name in (SATELLITE, HEIGHT))
    water = _water(satellite)
    land = 1 - water.max(0, keepdim=True).values
    snow = _snow(satellite)
    cover = _nearest(_mean(satellite, land * (1 - snow)), range(FOREST, SNOW))
    cover[_mean(snow, land)[0] > _SNOWY] = SNOW
    sea = _nearest(_mean(satellite, water[:1]), (DEEP, SHALLOW))
    high = _highland(_mean(height, land))
    cover[high & (cover < STEPPE)] = GREEN
    cover[high & (cover >= STEPPE) & (cover < SNOW)] = BARE
    return _commonest(cover, land), _commonest(sea, water[:1])


def _water(satellite: Tensor) -> Tensor:
    """Masks of sea and of lakes, float [2, H, W]."""
    sea = ~torch.from_numpy(earth_land(satellite))
    return torch.stack([sea, ~sea & (satellite.max(0).values <= _LAKE_DARKNESS)]).float()


def _snow(satellite: Tensor) -> Tensor:
    """Mask of pixels that are bright and nearly grey (snow, ice, some salt), float [1, H, W]. Grey levels."""
    least, most = satellite.aminmax(dim=0, keepdim=True)
    return ((least > 90) & (most - least < 24)).float()


def _mean(picture: Tensor, mask: Tensor) -> Tensor:
    """Each pixel's mean over those pixels around it that `mask` [1, H, W] keeps; 0 where it keeps none."""
    sums, count = (_sums(_sums(x, _BLUR), _BLUR) for x in (picture * mask, mask))
    return sums / count.clamp(min=1)


def _sums(x: Tensor, size: int) -> Tensor:
    """Sums over squares of `size` around each pixel; of whole numbers, exact on any machine."""
    rows = F.avg_pool2d(x, (size, 1), 1, (size // 2, 0), divisor_override=1)
    return F.avg_pool2d(rows, (1, size), 1, (0, size // 2), divisor_override=1)


def _nearest(picture: Tensor, classes: range | tuple[int, ...]) -> Tensor:
    """The class, out of `classes`, with the nearest colour; on a logarithmic scale, as dark greens differ by little."""
    colours, kinds = zip(*[(colour, kind) for kind in classes for colour in CLASSES[kind].seen_as], strict=True)
    named = (torch.tensor(colours).double() + 8).log()
    lengths = named.square().sum(1)[:, None]
    # In float64, so that no machine rounds a pixel into another class; in strips, for memory.
    strips = [(strip.double().flatten(1) + 8).log() for strip in picture.split(150, 1)]
    chosen = torch.cat([(lengths - 2 * named @ points).argmin(0) for points in strips])
    return torch.tensor(kinds, dtype=torch.uint8)[chosen].view(picture.shape[1:])


def _highland(height: Tensor) -> Tensor:
    """Mask of the height map's tints above about 1,500 m: golden brown, dark brown, purple or grey."""
    red, green, blue = height
    return (green < red) & ((blue < 0.24 * red) | (green < 0.73 * red) | (blue > 0.88 * green))


def _commonest(labels: Tensor, mask: Tensor) -> Tensor:
    """The commonest label around each pixel, out of those that `mask` keeps."""
    best, chosen = torch.zeros(labels.shape), labels.clone()
    for kind in labels.unique().tolist():
        votes = _sums((labels == kind) * mask, _MAJORITY)[0]
        chosen[votes > best] = kind
        best = torch.maximum(best, votes)
    return chosen
