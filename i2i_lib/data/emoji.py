"""Shared by the emoji tasks: rendered drawings, and a split that keeps all variants of an emoji in one part."""

import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import resvg_py
import torch
from PIL import Image
from torch import Tensor

from i2i_lib.data.pictures import to_tensor
from i2i_lib.data.tiles import Task, placeless_tiles

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


def held_out(group: str, share: float) -> bool:
    """Whether a group is in the test: by a hash of its key, so that a new emoji moves no other."""
    return int(hashlib.sha256(group.encode()).hexdigest()[:8], 16) < share * 2**32


def emoji_task(
    name: str,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    test_emoji: Sequence[Mapping[str, Any]],
    info: Mapping[str, Any],
) -> Task:
    """A task from pairs of pictures [N, 3, S, S]; `test_emoji` describes each of the test, with its "group"."""
    groups = sorted({emoji["group"] for emoji in test_emoji})
    block = torch.tensor([groups.index(emoji["group"]) for emoji in test_emoji])
    info = {**info, "renderer": RENDERER, "test_groups": len(groups), "test": list(test_emoji)}
    return Task(name, "pix2pix", placeless_tiles(*train), placeless_tiles(*test, block), info)
