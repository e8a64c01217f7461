"""Tasks from folders of picture files: the reader's own, and the paper's."""

import filecmp
import hashlib
import json
import os
import re
import statistics
import unicodedata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor

from i2i_lib.data.picture_cache import FileImages
from i2i_lib.data.pictures import (
    THREADS,
    Filter,
    Listing,
    no_pictures,
    picture_size,
    read_halves,
    scan_pictures,
    shorten,
    shown,
)
from i2i_lib.data.tiles import Task, Tiles, placeless_tiles
from i2i_lib.files import data_folder

Layout = Literal["auto", "unpaired", "side-by-side", "paired"]
Part = tuple[Path, dict[str, int]]  # a folder, and some of its files with their sizes
TRAIN_MARGIN = 286 / 256  # a training tile's side over image_size: what pix2pix and CycleGAN crop from
_HELD_OUT = 0.1  # of the pictures, where no folder is for the test
_MAX_HELD_OUT = 500
_LEAST_TEST = 2  # pictures of each domain: a covariance and an interval need two
_DARK = 63  # of 255: no picture that people look at stays below, and many numbers of labels do
_MAX_TEST = 2000  # pictures of a test folder: they are held in memory, and every student translates them all
# The tasks of the paper: the folder in data/, its layout, and whether the second domain is the source.
_PAPER_TASKS: dict[str, tuple[str, Layout, bool]] = {
    "horse2zebra": ("horse2zebra", "unpaired", False),
    "zebra2horse": ("horse2zebra", "unpaired", True),
    "maps": ("maps", "side-by-side", True),  # an aerial photograph, and to its right the map
}


def load_paper(name: str, image_size: int, validation: float = 0.0, path: str | None = None) -> Task:
    """One of `_PAPER_TASKS`, from `path` or from where `i2i data fetch` puts it.

    `maps` translates maps to aerial photographs, as the paper does. Pictures are resized by the filter of its code.
    """
    folder, layout, swap = _PAPER_TASKS[name]
    where = Path(path) if path else data_folder() / folder
    if not where.is_dir():
        raise FileNotFoundError(
            f"{where} does not exist: `i2i data fetch {folder}` downloads it, or give the path of a copy"
        )
    task = load_folder(image_size, validation, str(where), layout, swap=swap, filter="bicubic")
    domains = ["map", "aerial photograph"] if name == "maps" else name.split("2")
    return replace(task, name=name, info=task.info | {"domains": domains})


load_horse2zebra = partial(load_paper, "horse2zebra")
load_zebra2horse = partial(load_paper, "zebra2horse")
load_maps = partial(load_paper, "maps")


def maps_originals(task: Task) -> Iterator[Tensor]:
    """The aerial photographs of the test of `maps` at their own size, each uint8 [1, 3, H, W].

    The paper's code takes the real pictures' statistics for its FID from them, before any resizing.
    """
    ((folder, files),) = find_parts(Path(task.info["folder"]), task.info["layout"]).test
    for name in files:
        yield read_halves(folder / name)[0][None]


def load_folder(
    image_size: int,
    validation: float = 0.0,
    path: str = "",
    layout: Layout = "auto",
    *,
    swap: bool = False,
    filter: Filter = "lanczos",
) -> Task:
    """A folder of pictures, translated from domain A to B, or with `swap` from B to A.

    | layout | expected in `path` | family |
    |---|---|---|
    | unpaired | `trainA`, `trainB`; for the test `testA`, `testB` | cyclegan |
    | paired | the same; a picture of A belongs to that of B with its name, up to suffix and capitals | pix2pix |
    | side-by-side | `train`; for the test `test` or `val`; each picture's left half is A, its right half B | pix2pix |
    | auto | inferred from the names of folders and files, or ValueError where they leave it open | |

    Pictures may have any size: the middle square of each is brought to `image_size`, and for training a little larger.
    Without test folders a tenth of the pictures, 2 to 500, are held out: those whose names have the lowest hash.
    Of a test folder, 2,000 pictures are taken at most, evenly. Of what is left for training, the share `validation` is
    held out in the same way, 500 at most; none where that were fewer than 2. Training pictures stay in their files
    (`FileImages`).
    `info["left_out"]` has a sentence for each kind of file that is not read, such as pictures in sub-folders, and for
    what makes little sense: domains that are the same or as dark as numbers of labels, tests of training pictures.

    Raises FileNotFoundError if the folder does not exist. Raises ValueError for a folder without pictures or with too
    few; names that pair in part; pairs of two shapes; side-by-side files that are not twice as wide as high, or with
    `layout="side-by-side"`, have another shape than most. Of the two paired layouts, every file's header is read.
    """
    if not path:
        raise ValueError("the task folder needs path: the folder that holds trainA and trainB, or train")
    where = Path(path).expanduser().resolve()
    layout, train, test, test_from, left_out = find_parts(where, layout)
    train, held = _hold_out_share(train, validation, together=layout == "paired")
    train_size = round(TRAIN_MARGIN * image_size)
    tiles = partial(_tiles, layout=layout, swap=swap, filter=filter)
    held_out = tiles(test, image_size, whole=True)
    domains = ["B", "A"] if swap else ["A", "B"]
    parts = train + held + test
    listing = [[(name, size, _time(folder / name)) for name, size in files.items()] for folder, files in parts]
    info = {
        "domains": domains,
        "folder": str(where),
        "layout": layout,
        "train_size": train_size,
        "train_pictures": [len(files) for _, files in train],
        "validation_pictures": [len(files) for _, files in held],
        "test_pictures": [len(files) for _, files in test],
        "test_from": test_from,
        "left_out": left_out + _doubts(held_out, domains) + _seen_before(train, test),
        # So that a training on other files is not taken up where this one stopped.
        "listing": hashlib.sha256(json.dumps(listing).encode()).hexdigest(),
    }
    family = "cyclegan" if layout == "unpaired" else "pix2pix"
    seen = tiles(train, train_size, whole=False)
    kept_apart = tiles(held, image_size, whole=True) if held else None
    return Task("folder", family, seen, held_out, info, kept_apart)


class Parts(NamedTuple):
    """The files of a task: training and test pictures of both domains, or of the folder that holds both."""

    layout: Layout  # not "auto"
    train: list[Part]  # paired domains are in the same order
    test: list[Part]
    test_from: list[str] | str  # the test folders, or how the pictures were chosen
    left_out: list[str]  # sentences about what is not read


def find_parts(where: Path, layout: Layout = "auto") -> Parts:
    """List a folder in one of the layouts of `load_folder`, whose errors it raises; no picture is decoded."""
    if not where.is_dir():
        raise FileNotFoundError(f"{where} {'is not a folder' if where.exists() else 'does not exist'}")
    asked = layout != "auto"
    if not asked:
        layout = _detect(where)
    if layout == "side-by-side":
        names, test_names = ["train"], ["test" if (where / "test").is_dir() else "val"]
    elif layout in ("paired", "unpaired"):
        names, test_names = ["trainA", "trainB"], ["testA", "testB"]
    else:
        raise ValueError(f"unknown layout {layout!r}: expected auto, unpaired, side-by-side or paired")
    missing = [name for name in names if not (where / name).exists()]
    if missing:
        raise FileNotFoundError(
            f"{where / missing[0]} does not exist: with the layout {layout}, pictures lie in {' and '.join(names)}"
        )
    present = [name for name in test_names if (where / name).is_dir()]
    if present and len(present) < len(test_names):
        raise ValueError(f"{where} has {present[0]} and not the other: both testA and testB are needed, or neither")
    beside = scan_pictures(where, skip=[*names, *present])
    left_out = list(beside.left_out)
    if beside.pictures:
        left_out.append(f"{shorten(beside.pictures)} beside {' and '.join(names)}: move them into one of these")
    train, test = [], []
    for part, folders in ((train, names), (test, present)):
        for name in folders:
            found = _listed(where / name)
            part.append((where / name, found.pictures))
            left_out += [f"{name}: {sentence}" for sentence in found.left_out]
    if layout == "side-by-side":
        _check_halves(train + test, asked=asked)
    elif layout == "paired":
        train = _in_pairs(train)
        _check_pairs(train)
        if test:
            test = _in_pairs(test)
            _check_pairs(test)
    if not test:
        train, test = hold_out(train, together=layout == "paired")
    for folder, files in test:
        if len(files) < _LEAST_TEST:
            raise ValueError(f"{folder} holds one picture: the evaluation needs at least {_LEAST_TEST}, add some")
        if len(files) > _MAX_TEST:
            left_out.append(f"{folder.name}: {len(files) - _MAX_TEST:,} of {len(files):,} pictures, evenly")
    test = [(folder, _thinned(files)) for folder, files in test]
    return Parts(layout, train, test, present or "held out by name", left_out)


def _tiles(parts: list[Part], size: int, *, layout: Layout, swap: bool, filter: Filter, whole: bool) -> Tiles:
    """Tiles of the two domains: `whole` in memory, each a block of its own, or still in their files."""
    if layout == "side-by-side":
        ((folder, files),) = parts
        left = FileImages(folder, files, size, halves=2, filter=filter)
        images = [left, left.other_half()]
    else:
        images = [FileImages(folder, files, size, filter=filter) for folder, files in parts]
    if swap:
        images.reverse()
    # What is indexed only, and never computed with as a whole, need not be a tensor.
    source, target = (cast(Tensor, pictures[:] if whole else pictures) for pictures in images)
    block = torch.arange(len(source)) if whole else None
    return placeless_tiles(source, target, block, paired=layout != "unpaired")


def _time(file: Path) -> int:
    """When a file was written: an edited BMP has its old size."""
    return file.stat().st_mtime_ns


def _seen_before(train: list[Part], test: list[Part]) -> list[str]:
    """A sentence for each test folder that holds files of its training folder."""
    found = []
    for (folder, files), (other, held) in zip(train, test, strict=True):
        same = [name for name in held if folder != other and files.get(name) == held[name]]
        if copies := [name for name in same if filecmp.cmp(folder / name, other / name, shallow=False)]:
            found.append(
                f"{other.name}: {shorten(copies)} are in {folder.name} too: such a test is no test, remove them"
            )
    return found


def _doubts(test: Tiles, domains: list[str]) -> list[str]:
    """A sentence for each domain whose test pictures may be labels, being dark, and where both domains are the same."""
    found = []
    for domain, pictures in zip(domains, (test.source, test.target), strict=True):
        if (largest := int(pictures.max())) <= _DARK:
            dark = f"no value of the test pictures of {domain} is above {largest} of 255, so that they look black"
            found.append(f"labels as such: {dark}; save labels as colours")
    if test.source.shape == test.target.shape and torch.equal(test.source, test.target):
        found.append("any difference of A and B: their test pictures are the same, so that there is nothing to learn")
    return found


def _listed(folder: Path) -> Listing:
    found = scan_pictures(folder)
    if not found.pictures:
        raise no_pictures(folder, found)
    if empty := [name for name, size in found.pictures.items() if not size]:
        raise ValueError(f"{folder} holds {shorten(empty)} of 0 bytes: copy them again, or remove them")
    return found


def _detect(where: Path) -> Layout:
    """Infer the layout from the names of folders and files."""
    if all((where / name).is_dir() for name in ("trainA", "trainB")):
        a = {_stem(name): name for name in _listed(where / "trainA").pictures}
        b = {_stem(name): name for name in _listed(where / "trainB").pictures}
        both = a.keys() & b.keys()
        if 2 * len(both) < min(len(a), len(b)):
            _check_alike(where, list(a.values()), list(b.values()))
            return "unpaired"
        if len(a) == len(b) == len(both):
            raise ValueError(
                f"{where}: trainA and trainB hold the same names. Say layout='paired' if each picture of B shows what "
                "the one of the same name in A should become, layout='unpaired' if the names mean nothing"
            )
        odd = [f"trainA/{a[stem]}" for stem in a.keys() - both] + [f"trainB/{b[stem]}" for stem in b.keys() - both]
        raise ValueError(
            f"{where}: trainA and trainB share {len(both):,} names, and not {shorten(odd)}. If the names make pairs, "
            "rename or remove these and say layout='paired'; if they mean nothing, say layout='unpaired'"
        )
    if (where / "train").is_dir():
        return "side-by-side"
    found = ", ".join(sorted(shown(entry.name) for entry in where.iterdir())[:5]) or "nothing"
    raise ValueError(
        f"{where} holds {found}: expected trainA and trainB (pictures of two kinds), or train (each picture holds "
        "both, side by side); the page “Your own images” shows how to arrange them"
    )


def _stem(name: str) -> str:
    """The name that partners share; macOS writes an accent as a character of its own, others do not."""
    return unicodedata.normalize("NFC", Path(name).stem).casefold()


def _check_alike(where: Path, a: list[str], b: list[str]) -> None:
    """Refuse names that differ, but for most of them not in their numbers or in what varies within a folder.

    As 001-input and 1-target do, or IMG_7 and IMG_7 (1).
    """
    for differs, key in (("numbers", _numbers), ("middles", _middles)):
        ones, others = key(a), key(b)
        both = ones.keys() & others.keys()
        if 2 * len(both) >= min(len(a), len(b)):
            example = min(both)
            raise ValueError(
                f"{where}: names in trainA and trainB differ, and their {differs} do not (as trainA/{ones[example]} "
                f"and trainB/{others[example]}). If these are pairs, give both the same name and say layout='paired'; "
                "if not, say layout='unpaired'"
            )


def _numbers(names: list[str]) -> dict[Any, str]:
    """The names that hold any, by their numbers."""
    return {numbers: name for name in names if (numbers := tuple(map(int, re.findall(r"\d+", name))))}


def _middles(names: list[str]) -> dict[Any, str]:
    """The names by what is left without the start and the end that all have in common."""
    stems = [_stem(name) for name in names]
    start = os.path.commonprefix(stems)  # noqa: RUF071 - of text, not of paths
    rest = [stem[len(start) :] for stem in stems]
    end = os.path.commonprefix([stem[::-1] for stem in rest])  # noqa: RUF071
    return {middle: name for stem, name in zip(rest, names, strict=True) if (middle := stem[: len(stem) - len(end)])}


def _sizes(folder: Path, files: dict[str, int]) -> list[tuple[int, int]]:
    """Width and height of each file."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(picture_size, [folder / name for name in files]))


def _check_halves(parts: list[Part], *, asked: bool) -> None:
    """Refuse files that are unlikely to hold two pictures side by side, by their shapes.

    Files twice as wide as high pass. Where the layout was `asked` for, so do others of the shape that most have.
    """
    sizes: dict[Path, tuple[int, int]] = {}
    for folder, files in parts:
        sizes |= zip((folder / name for name in files), _sizes(folder, files), strict=True)
    usual = statistics.median(width / height for width, height in sizes.values()) if asked else 2
    odd = []
    for path, (width, height) in sizes.items():
        if abs(width - 2 * height) > 2 and abs(width - usual * height) > 2:
            odd.append(path)
    if not odd:
        return
    width, height = sizes[odd[0]]
    shape = "two pictures side by side are mostly twice as wide as high"
    if usual != 2:
        shape = f"most files here are {usual:.2f} times as wide as high"
    if len(odd) < len(sizes):
        names = shorten([f"{path.parent.name}/{path.name}" for path in odd])
        way_out = f"{names} of {len(sizes):,} have another shape: remove them, or make two pictures of each"
    else:
        way_out = "say layout='side-by-side' if its halves are two pictures, else sort them into trainA and trainB"
    raise ValueError(f"{odd[0]} is {width} x {height}: {shape}; {way_out}")


def _check_pairs(parts: list[Part]) -> None:
    """Refuse partners of two shapes, which cannot show the same thing in the same places."""
    (first, files), (second, others) = parts
    odd = []
    for name, size, other in zip(files, _sizes(first, files), _sizes(second, others), strict=True):
        # At the size of the smaller, 2 pixels are the rounding of whoever shrank it.
        if abs(size[0] * other[1] - size[1] * other[0]) > 2 * max(*size, *other):
            odd.append(f"{name}: {size[0]} x {size[1]} and {other[0]} x {other[1]}")
    if odd:
        raise ValueError(
            f"{first.name} and {second.name}: {shorten(odd)} have another shape than their partners: crop both to the "
            "same part, or say layout='unpaired'"
        )


def _in_pairs(parts: list[Part]) -> list[Part]:
    """The same files, in one order for both folders."""
    stems = []
    for folder, files in parts:
        stems.append({_stem(name): name for name in files})
        if len(stems[-1]) < len(files):
            twice = sorted(files.keys() - stems[-1].values())
            raise ValueError(
                f"{folder}: {shorten(twice)} share their name with another but for its suffix, capitals "
                "or the encoding of its accents: rename them"
            )
    for i, (folder, _) in enumerate(parts):
        if alone := [name for stem, name in stems[i].items() if stem not in stems[1 - i]]:
            raise ValueError(
                f"{folder}: {shorten(alone)} have no partner of that name in {parts[1 - i][0].name}: add or remove"
                " them, or say layout='unpaired'"
            )
    order = sorted(stems[0], key=lambda stem: Path(stems[0][stem]).stem)
    return [
        (folder, {names[stem]: files[names[stem]] for stem in order})
        for (folder, files), names in zip(parts, stems, strict=True)
    ]


def hold_out(parts: list[Part], *, together: bool) -> tuple[list[Part], list[Part]]:
    """A training and a test part of each."""
    for folder, files in parts:
        if len(files) <= _LEAST_TEST:
            raise ValueError(
                f"at least {_LEAST_TEST + 1} pictures are needed, {_LEAST_TEST} of them for the test, and {folder} "
                f"holds {len(files)}: add pictures, or a folder {folder.name.replace('train', 'test')}"
            )
    return _divide(parts, [max(_LEAST_TEST, round(_HELD_OUT * len(files))) for _, files in parts], together=together)


def _hold_out_share(parts: list[Part], share: float, *, together: bool) -> tuple[list[Part], list[Part]]:
    """What remains of each part, and a share of it; all of it, and nothing, where a share were too few to measure."""
    numbers = [round(share * len(files)) for _, files in parts]
    return (parts, []) if min(numbers) < _LEAST_TEST else _divide(parts, numbers, together=together)


def _divide(parts: list[Part], numbers: list[int], *, together: bool) -> tuple[list[Part], list[Part]]:
    """What remains of each part, and so many of its files, those whose names have the lowest hash; 500 at most.

    `together`: the same places of their lists, by the names of the first.
    """
    remaining, held = [], []
    for (folder, files), number in zip(parts, numbers, strict=True):
        names = list(parts[0][1] if together else files)
        ranked = sorted(range(len(names)), key=lambda i: hashlib.sha256(os.fsencode(names[i])).digest())
        lowest = set(ranked[: min(_MAX_HELD_OUT, number)])
        for part, is_held in ((remaining, False), (held, True)):
            chosen = [item for i, item in enumerate(files.items()) if (i in lowest) == is_held]
            part.append((folder, dict(chosen)))
    return remaining, held


def _thinned(files: dict[str, int]) -> dict[str, int]:
    names = list(files)
    kept = torch.linspace(0, len(names) - 1, min(len(names), _MAX_TEST)).round().long().tolist()
    return {names[i]: files[names[i]] for i in kept}
