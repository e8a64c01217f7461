"""Tasks from folders of picture files: the reader's own, and the paper's."""

import hashlib
import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor

from i2i_lib.data.picture_cache import FileImages
from i2i_lib.data.pictures import list_pictures, read_picture, shorten
from i2i_lib.data.tiles import Task, Tiles, placeless_tiles
from i2i_lib.files import root

Layout = Literal["auto", "unpaired", "side-by-side", "paired"]
Part = tuple[Path, dict[str, int]]  # a folder, and some of its files with their sizes
_TRAIN_MARGIN = 286 / 256  # a training tile's side over image_size: what pix2pix and CycleGAN crop from
_HELD_OUT = 0.1  # of the pictures, where no folder is for the test
_MAX_HELD_OUT = 500
_MAX_TEST = 2000  # pictures of a test folder: they are held in memory, and every student translates them all
# The tasks of the paper: the folder in data/, its layout, and whether the second domain is the source.
_PAPER_TASKS: dict[str, tuple[str, Layout, bool]] = {
    "horse2zebra": ("horse2zebra", "unpaired", False),
    "zebra2horse": ("horse2zebra", "unpaired", True),
    "maps": ("maps", "side-by-side", True),  # an aerial photograph, and to its right the map
}


def load_paper(name: str, image_size: int, path: str | None = None) -> Task:
    """One of `_PAPER_TASKS`, from `path` or from where `python -m i2i_lib.data fetch` puts it.

    `maps` translates maps to aerial photographs, as the paper does.
    """
    folder, layout, swap = _PAPER_TASKS[name]
    where = Path(path) if path else root() / "data" / folder
    if not where.is_dir():
        raise FileNotFoundError(
            f"{where} does not exist: `python -m i2i_lib.data fetch {folder}` downloads it, or give the path of a copy"
        )
    task = load_folder(image_size, str(where), layout, swap=swap)
    domains = ["map", "aerial photograph"] if name == "maps" else name.split("2")
    return replace(task, name=name, info=task.info | {"domains": domains})


load_horse2zebra = partial(load_paper, "horse2zebra")
load_zebra2horse = partial(load_paper, "zebra2horse")
load_maps = partial(load_paper, "maps")


def load_folder(image_size: int, path: str = "", layout: Layout = "auto", *, swap: bool = False) -> Task:
    """A folder of pictures, translated from domain A to B, or with `swap` from B to A.

    | layout | expected in `path` | family |
    |---|---|---|
    | unpaired | `trainA`, `trainB`; for the test `testA`, `testB` | cyclegan |
    | paired | the same; a picture of A belongs to that of B with its name, up to the suffix | pix2pix |
    | side-by-side | `train`; for the test `test` or `val`; each picture's left half is A, its right half B | pix2pix |
    | auto | inferred from the folders' names, or ValueError where they leave it open | |

    Pictures may have any size: the middle square of each is brought to `image_size`, and for training a little larger.
    Without test folders a tenth of the pictures, at most 500, are held out: those whose names have the lowest hash.
    Of a test folder, 2,000 pictures are taken at most, evenly. Training pictures stay in their files (`FileImages`).
    """
    if not path:
        raise ValueError("the task folder needs path: the folder that holds trainA and trainB, or train")
    where = Path(path).expanduser().resolve()
    if not where.is_dir():
        raise FileNotFoundError(f"{where} is not a folder")
    if layout == "auto":
        layout = _detect(where)
    train, test, test_from = _parts(where, layout)
    train_size = round(_TRAIN_MARGIN * image_size)
    listing = [list(files.items()) for _, files in train + test]
    info = {
        "domains": ["B", "A"] if swap else ["A", "B"],
        "folder": str(where),
        "layout": layout,
        "train_size": train_size,
        "train_pictures": [len(files) for _, files in train],
        "test_pictures": [len(files) for _, files in test],
        "test_from": test_from,
        # So that a training on other files is not taken up where this one stopped.
        "listing": hashlib.sha256(json.dumps(listing).encode()).hexdigest(),
    }
    family = "cyclegan" if layout == "unpaired" else "pix2pix"
    seen = _tiles(train, train_size, layout, swap=swap, whole=False)
    return Task("folder", family, seen, _tiles(test, image_size, layout, swap=swap, whole=True), info)


def _parts(where: Path, layout: Layout) -> tuple[list[Part], list[Part], list[str] | str]:
    """Training and test pictures of both domains, or of the folder whose files hold both; and where the test is from.

    Paired domains are in the same order.
    """
    if layout == "side-by-side":
        names, test_names = ["train"], ["test" if (where / "test").is_dir() else "val"]
    elif layout in ("paired", "unpaired"):
        names, test_names = ["trainA", "trainB"], ["testA", "testB"]
    else:
        raise ValueError(f"unknown layout {layout!r}: expected auto, unpaired, side-by-side or paired")
    train = [(where / name, _listed(where / name)) for name in names]
    present = [name for name in test_names if (where / name).is_dir()]
    if present and len(present) < len(test_names):
        raise ValueError(f"{where} has {present[0]} and not the other: both testA and testB are needed, or neither")
    test = [(where / name, _listed(where / name)) for name in present]
    if layout == "paired":
        train, test = _in_pairs(train), _in_pairs(test)
    if not test:
        train, test = _hold_out(train, together=layout == "paired")
    return train, [(folder, _thinned(files)) for folder, files in test], present or "held out by name"


def _tiles(parts: list[Part], size: int, layout: Layout, *, swap: bool, whole: bool) -> Tiles:
    """Tiles of the two domains: `whole` in memory, each a block of its own, or still in their files."""
    if layout == "side-by-side":
        ((folder, files),) = parts
        left = FileImages(folder, files, size, halves=2)
        images = [left, left.other_half()]
    else:
        images = [FileImages(folder, files, size) for folder, files in parts]
    if swap:
        images.reverse()
    # What is indexed only, and never computed with as a whole, need not be a tensor.
    source, target = (cast(Tensor, pictures[:] if whole else pictures) for pictures in images)
    block = torch.arange(len(source)) if whole else None
    return placeless_tiles(source, target, block, paired=layout != "unpaired")


def _listed(folder: Path) -> dict[str, int]:
    files = list_pictures(folder)
    if empty := [name for name, size in files.items() if not size]:
        raise ValueError(f"{folder} holds {shorten(empty)} of 0 bytes: copy them again, or remove them")
    return files


def _detect(where: Path) -> Layout:
    """Infer the layout from the folders' names."""
    if all((where / name).is_dir() for name in ("trainA", "trainB")):
        a, b = ({Path(name).stem for name in _listed(where / f)} for f in ("trainA", "trainB"))
        if a != b:
            return "unpaired"
        raise ValueError(
            f"{where}: trainA and trainB hold the same names. Say layout='paired' if each picture of B shows what the "
            "one of the same name in A should become, layout='unpaired' if the names mean nothing"
        )
    if (where / "train").is_dir():
        first = where / "train" / next(iter(_listed(where / "train")))
        _, height, width = read_picture(first).shape
        if abs(width - 2 * height) > 2:
            raise ValueError(
                f"{first} is {width} x {height}: two pictures side by side are mostly twice as wide as high. Say "
                "layout='side-by-side' if its halves are two pictures, else sort your pictures into trainA and trainB"
            )
        return "side-by-side"
    found = ", ".join(sorted(entry.name for entry in where.iterdir())[:5]) or "nothing"
    raise ValueError(
        f"{where} holds {found}: expected trainA and trainB (pictures of two kinds), or train (each picture holds "
        "both, side by side); the page “Your own images” shows how to arrange them"
    )


def _in_pairs(parts: list[Part]) -> list[Part]:
    """The same files, in one order for both folders."""
    stems = []
    for folder, files in parts:
        stems.append({Path(name).stem: name for name in files})
        if len(stems[-1]) < len(files):
            twice = sorted(files.keys() - stems[-1].values())
            raise ValueError(
                f"{folder}: {shorten(twice)} share their name with another but for its suffix: rename them"
            )
    for i, (folder, _) in enumerate(parts):
        if alone := [name for stem, name in stems[i].items() if stem not in stems[1 - i]]:
            raise ValueError(
                f"{folder}: {shorten(alone)} have no partner of that name in {parts[1 - i][0].name}: add or remove"
                " them, or say layout='unpaired'"
            )
    return [
        (folder, {names[stem]: files[names[stem]] for stem in sorted(stems[0])})
        for (folder, files), names in zip(parts, stems, strict=True)
    ]


def _hold_out(parts: list[Part], *, together: bool) -> tuple[list[Part], list[Part]]:
    """A training and a test part of each. `together`: the same places of their lists, by the names of the first."""
    train, test = [], []
    for folder, files in parts:
        if len(files) < 2:
            raise ValueError(
                f"{folder} holds one picture, which cannot be both for training and for the test: add pictures, or a "
                f"folder {folder.name.replace('train', 'test')}"
            )
        names = list(parts[0][1] if together else files)
        ranked = sorted(range(len(names)), key=lambda i: hashlib.sha256(os.fsencode(names[i])).digest())
        held = set(ranked[: min(_MAX_HELD_OUT, max(1, round(_HELD_OUT * len(names))))])
        for part, is_test in ((train, False), (test, True)):
            chosen = [item for i, item in enumerate(files.items()) if (i in held) == is_test]
            part.append((folder, dict(chosen)))
    return train, test


def _thinned(files: dict[str, int]) -> dict[str, int]:
    names = list(files)
    kept = torch.linspace(0, len(names) - 1, min(len(names), _MAX_TEST)).round().long().tolist()
    return {names[i]: files[names[i]] for i in kept}
