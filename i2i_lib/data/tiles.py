"""In-memory tiles, the batches made of them, and the task that holds its parts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Family = Literal["pix2pix", "cyclegan", "gaugan"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Input of a training or evaluation step, float.

    `source` [N, C, H, W] holds pictures in [-1, 1] or encoded labels (see `encode`), `target` [N, 3, H, W] pictures in
    [-1, 1]. They are registered to each other unless the tiles they were drawn from are not paired; of a batch that is
    labelled in part (see `batches.partly_labelled_batches`), the targets are those of the first sources.
    """

    source: Tensor
    target: Tensor


@dataclass(frozen=True, slots=True)
class Tiles:
    """Pictures of two domains, uint8; square, except where a task states another shape.

    In place of a tensor, `source` and `target` may be pictures still in their files (`picture_cache.FileImages`): these
    have its shape, and an index into them gives a tensor.
    """

    source: Tensor  # [N, 3, H, W] pictures; [N, 1, H, W] label maps; [N, 2, H, W] label maps and instance edges
    target: Tensor  # [M, 3, H, W] pictures; M = N and registered to the source where `paired`
    block: Tensor  # [N], int64: what is not independent shares a block, the unit of a bootstrap; -1 in training
    box: Tensor  # [N, 2], int64: top-left (row, column) of each source in its raster, where there is one
    target_box: Tensor  # [M, 2], int64: the same of each target
    paired: bool = True
    classes: int = 0  # how many labels a label map may hold; 0: the source is a picture

    def __len__(self) -> int:
        return len(self.source)

    @property
    def size(self) -> int:
        """Side of a tile in pixels: its height, if it is not square."""
        return self.source.shape[-2]

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of a tile in pixels."""
        return self.source.shape[-2], self.source.shape[-1]

    @property
    def source_channels(self) -> int:
        """Channels of an encoded source: what a generator reads."""
        return self.classes + self.source.shape[1] - 1 if self.classes else self.source.shape[1]


def placeless_tiles(
    source: Tensor, target: Tensor, block: Tensor | None = None, *, paired: bool = True, classes: int = 0
) -> Tiles:
    """Tiles that were not cut from a raster; without `block` they are for training."""
    return Tiles(
        source,
        target,
        block=torch.full((len(source),), -1) if block is None else block,
        box=torch.zeros(len(source), 2, dtype=torch.int64),
        target_box=torch.zeros(len(target), 2, dtype=torch.int64),
        paired=paired,
        classes=classes,
    )


@dataclass(frozen=True, slots=True)
class Task:
    """A translation task: pictures to learn from, to choose settings on and to test on; no two parts share a pixel."""

    name: str
    family: Family
    train: Tiles
    test: Tiles
    info: dict[str, Any]  # plain JSON: `domains`, the names of source and target; how the tiles were made, of what
    validation: Tiles | None = None  # as `test`, for the choice of settings; None if nothing was held out for it

    @property
    def crop(self) -> int:
        """Side of a training crop in pixels: its height, if it is not square."""
        return self.info.get("crop", self.test.size)  # records of before there were crops have none


def encode(images: Tensor, classes: int = 0) -> Tensor:
    """Encode for a network: uint8 pictures as float in [-1, 1]; label maps as one channel per class, 0 or 1.

    An edge map behind the labels becomes one more channel, 1 on an edge.
    """
    if not classes:
        return images.float() / 127.5 - 1
    one_hot = F.one_hot(images[:, 0].long(), classes).movedim(-1, 1).float()
    return torch.cat([one_hot, images[:, 1:].float()], 1)


def evenly(count: int, most: int) -> Tensor:
    """Indices [min(count, most)], int64, evenly spaced over `count` things from the first to the last."""
    return torch.linspace(0, count - 1, min(count, most)).long()


def middle(images: Tensor, shape: tuple[int, int]) -> Tensor:
    """The middle of images [..., H, W], `shape` high and wide."""
    height, width = shape
    top, left = (images.shape[-2] - height) // 2, (images.shape[-1] - width) // 2
    return images[..., top : top + height, left : left + width]


def to_batch(tiles: Tiles, index: slice | Sequence[int] | Tensor) -> Batch:
    """The chosen tiles of a paired set whole and unchanged, for evaluation."""
    return Batch(encode(tiles.source[index], tiles.classes), encode(tiles.target[index]))


def source_pictures(images: Tensor, info: Mapping[str, Any]) -> Tensor:
    """A task's sources as pictures [N, 3, H, W], uint8: label maps are painted in the colours of `Task.info`."""
    if "classes" not in info:
        return images
    colours = [list(bytes.fromhex(label["colour"].removeprefix("#"))) for label in info["classes"]]
    return torch.tensor(colours, dtype=torch.uint8)[images[:, 0].long()].movedim(-1, 1)
