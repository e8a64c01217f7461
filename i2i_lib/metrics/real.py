"""The real pictures that a set of generated ones is compared with."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from i2i_lib.data.picture_cache import FileImages
from i2i_lib.data.pictures import read_tile
from i2i_lib.data.tiles import Task


def real_targets(task: Task, batch_size: int = 32) -> Iterator[Tensor]:
    """Every target picture of training and test as those of the test are, uint8 [n, 3, H, W], in batches.

    Of a training tile that is larger, this is the middle; a picture in a file is read anew at the test's size.
    """
    height, width = task.test.target.shape[-2:]
    for images in (task.train.target, task.test.target):
        learnt: Any = images
        top, left = (images.shape[-2] - height) // 2, (images.shape[-1] - width) // 2
        for start in range(0, len(images), batch_size):
            if isinstance(learnt, FileImages):
                paths = [learnt.folder / name for name in list(learnt.files)[start : start + batch_size]]
                yield torch.stack([read_tile(path, height, learnt.halves)[learnt.half] for path in paths])
            else:
                yield images[start : start + batch_size, :, top : top + height, left : left + width]
