"""Batches drawn from tiles: shuffled, cropped and mirrored, as a function of seed and step."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import count

import numpy as np
import torch
from torch import Tensor

from i2i_lib.data.ahead import batches_from
from i2i_lib.data.tiles import Batch, Tiles, encode
from i2i_lib.distributed import local_slice


def paired_batches(
    tiles: Tiles, *, image_size: int, batch_size: int, seed: int, device: str | torch.device = "cpu"
) -> Callable[[int], Iterator[Batch]]:
    """Endless augmented training batches, as a function of the step to start from.

    Every tile is used once per epoch, in a new order, as a random crop of `image_size` that is mirrored left to right
    half of the time. Of tiles that are not square, the crop is `image_size` high and keeps their proportions. The
    batch of step k depends on `seed` and k alone, so a resumed run sees what an unbroken one would have seen. Tiles are
    augmented on `device`, for a GPU a step ahead. Of several processes that train together, each gets its slice of the
    batch.
    """
    if not tiles.paired:
        raise ValueError("these tiles are not paired: draw from them with unpaired_batches")
    _check(tiles, image_size, batch_size)
    source, target = tiles.source.to(device), tiles.target.to(device)

    def batch(step: int) -> Batch:
        index, crop = _draw(len(tiles), source.shape[-2:], image_size, batch_size, (seed,), step)
        return Batch(encode(crop(source[index]), tiles.classes), encode(crop(target[index])))

    return partial(batches_from, batch, device=device)


def unpaired_batches(
    tiles: Tiles, *, image_size: int, batch_size: int, seed: int, device: str | torch.device = "cpu"
) -> Callable[[int], Iterator[Batch]]:
    """As `paired_batches`, with sources and targets drawn independently of each other."""
    _check(tiles, image_size, batch_size)
    source, target = tiles.source.to(device), tiles.target.to(device)

    def batch(step: int) -> Batch:
        chosen = []
        for domain, images in enumerate((source, target)):
            index, crop = _draw(len(images), images.shape[-2:], image_size, batch_size, (seed, 2 + domain), step)
            chosen.append(encode(crop(images[index])))
        return Batch(*chosen)

    return partial(batches_from, batch, device=device)


def partly_labelled_batches(
    tiles: Tiles,
    groups: Sequence[int],
    share: float,
    *,
    image_size: int,
    batch_size: int,
    seed: int,
    device: str | torch.device = "cpu",
) -> Callable[[int], Iterator[Batch]]:
    """As `paired_batches`, for a student that is told the targets of a share of the pairs alone (`labelled_pairs`).

    The first half of a batch is drawn from these pairs, the second from the sources of all, whose targets are not
    looked at: the batch has half as many targets as sources. The halves are shuffled, cropped and mirrored
    independently of each other.
    """
    _check(tiles, image_size, batch_size)
    half, odd = divmod(batch_size, 2)
    if odd:
        raise ValueError(f"targets are known of half of such a batch: give an even batch_size, got {batch_size}")
    chosen = labelled_pairs(groups, share)
    own = {name: getattr(tiles, name)[chosen] for name in ("source", "target", "block", "box", "target_box")}
    labelled = paired_batches(replace(tiles, **own), image_size=image_size, batch_size=half, seed=seed, device=device)
    source = tiles.source.to(device)

    def batch(step: int, known: Batch) -> Batch:
        index, crop = _draw(len(tiles), source.shape[-2:], image_size, half, (seed, 4), step)
        return Batch(torch.cat([known.source, encode(crop(source[index]), tiles.classes)]), known.target)

    return lambda first_step: map(batch, count(first_step), labelled(first_step))


def labelled_pairs(groups: Sequence[int], share: float) -> Tensor:
    """The pairs whose targets are known where only a share of them is: indices, int64, ascending.

    `groups` numbers what belongs together, such as the variants of a drawing, from 0 on: all of a group is known or
    none of it. Groups are taken in an order drawn once, as long as they fit, so that the choice is a function of groups
    and share alone. Raises ValueError if none fits.
    """
    numbers = torch.as_tensor(groups)
    sizes, room = numbers.bincount().tolist(), round(share * len(numbers))
    chosen = []
    for group in np.random.default_rng(0).permutation(len(sizes)).tolist():
        if 0 < sizes[group] <= room:
            room -= sizes[group]
            chosen.append(group)
    if not chosen:
        raise ValueError(f"a share of {share} of {len(numbers)} pairs holds no whole group of them: raise labelled")
    return torch.isin(numbers, torch.tensor(chosen)).nonzero().flatten()


def _check(tiles: Tiles, image_size: int, batch_size: int) -> None:
    if not len(tiles) or not len(tiles.target):
        raise ValueError("there are no tiles to draw batches from")
    size = min(tiles.size, tiles.target.shape[-2])
    if not 0 < image_size <= size:
        raise ValueError(f"cannot crop image_size {image_size} from tiles of {size}: load the task with that size")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    local_slice(batch_size)


def _draw(
    n: int, shape: Sequence[int], image_size: int, batch_size: int, stream: tuple[int, ...], step: int
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Indices of the images of step `step`, out of `n` of `shape` [height, width], and a function that crops them."""
    crop_width = image_size * shape[1] // shape[0]
    places = np.arange(step * batch_size, (step + 1) * batch_size)  # in the endless concatenation of epochs
    epochs = range(places[0] // n, places[-1] // n + 1)
    orders = [np.random.default_rng((*stream, 0, epoch)).permutation(n) for epoch in epochs]
    index = np.concatenate(orders)[places - epochs.start * n]

    rng = np.random.default_rng((*stream, 1, step))
    free = np.array([shape[0] - image_size, shape[1] - crop_width])
    top, left = rng.integers(0, free[:, None, None], (2, batch_size, 1), endpoint=True)
    mirrored = rng.random((batch_size, 1)) < 0.5
    rows = top + np.arange(image_size)
    columns = left + np.where(mirrored, np.arange(crop_width)[::-1], np.arange(crop_width))

    own = local_slice(batch_size)
    index, rows, columns = index[own], rows[own], columns[own]

    def crop(images: Tensor) -> Tensor:
        image = torch.arange(len(index), device=images.device)[:, None, None]
        row, column = (torch.from_numpy(a).to(images.device) for a in (rows[:, :, None], columns[:, None]))
        # Indices on both sides of the channel axis put it last: [N, h, w, C].
        return images[image, :, row, column].permute(0, 3, 1, 2).contiguous()

    return torch.from_numpy(index), crop
