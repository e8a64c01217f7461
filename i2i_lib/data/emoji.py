"""Shared by the emoji tasks: rendered drawings, and a split that keeps all variants of an emoji in one part."""

import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import resvg_py
import torch
from PIL import Image
from torch import Tensor

from i2i_lib.data.pictures import to_tensor
from i2i_lib.data.tiles import Task, Tiles, placeless_tiles

RENDERER = f"resvg {resvg_py.__resvg_version__}"


def render_svg(svg: str, size: int, mode: str = "RGB", background: str | None = "white") -> Tensor:
    """Render a drawing as uint8 [C, size, size], its edges smoothed, in the channels of a Pillow mode.

    With `background=None` and mode "RGBA", the last channel holds how much of a pixel the drawing covers.
    Text has no font to be set in and is left out, so that a picture is the same on every machine.
    """
    png = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, background=background, skip_system_fonts=True)
    with Image.open(io.BytesIO(png)) as image:
        return to_tensor(image.convert(mode))


def contents_sha256(files: Iterable[tuple[str, bytes]]) -> str:
    """SHA-256 over names and contents, in this order."""
    digest = hashlib.sha256()
    for name, content in files:
        digest.update(name.encode() + hashlib.sha256(content).digest())
    return digest.hexdigest()


def originals(variants: Mapping[str, str]) -> dict[str, str]:
    """The original of each code, from the codes of each original's variants, separated by spaces."""
    return {code: original for original, codes in variants.items() for code in codes.split()}


Part = Literal["train", "validation", "test"]


def part_of(group: str, test_share: float, validation: float = 0.0) -> Part:
    """The part that a group is in, by a hash of its key, so that a new emoji moves no other.

    `validation` is the share of what is not in the test.
    """
    place = int(hashlib.sha256(group.encode()).hexdigest()[:8], 16) / 2**32
    if place < test_share:
        return "test"
    return "validation" if place < test_share + validation * (1 - test_share) else "train"


def divide(groups: Sequence[str], test_share: float, validation: float) -> dict[Part, list[int]]:
    """The places of `groups` that are in each part; ValueError if none is in training."""
    parts: dict[Part, list[int]] = {"train": [], "validation": [], "test": []}
    for place, group in enumerate(groups):
        parts[part_of(group, test_share, validation)].append(place)
    if not parts["train"]:
        raise ValueError(f"a validation share of {validation} leaves no drawing to train on: lower it")
    return parts


class Pairs(NamedTuple):
    """Pairs of pictures [N, 3, S, S], and the group of each."""

    source: Tensor
    target: Tensor
    groups: Sequence[str]

    def numbers(self) -> list[int]:
        """The number of each pair's group, from 0 in the order of their keys."""
        numbers = {group: number for number, group in enumerate(sorted(set(self.groups)))}
        return [numbers[group] for group in self.groups]

    def held_out(self) -> Tiles:
        """Tiles that are not learned from, whose `block` numbers the groups."""
        return placeless_tiles(self.source, self.target, torch.tensor(self.numbers()))


def emoji_task(name: str, train: Pairs, test: Pairs, validation: Pairs | None, info: Mapping[str, Any]) -> Task:
    """A task from pairs; `info["train_groups"]` has the number of each training pair's group."""
    info = {**info, "renderer": RENDERER, "test_groups": len(set(test.groups)), "train_groups": train.numbers()}
    held = validation and validation.held_out()
    return Task(name, "pix2pix", placeless_tiles(train.source, train.target), test.held_out(), info, held)
