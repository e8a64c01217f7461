"""Snapshots of a training: what its generator makes of a fixed row of sources, noted every so many steps."""

from io import BytesIO
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from i2i_lib.data.tiles import Task, encode, evenly, middle
from i2i_lib.files import atomic_write
from i2i_lib.metrics.pairs import quantise

COUNT = 16  # snapshots of a training, denser where it changes faster: at its beginning
WIDTH = 6  # pictures of a snapshot
_QUALITY = 90  # of the WebP files


class Snapshots:
    """Snapshots of one training, each in a file of its own in `folder`, so that they outlive a kill.

    They show `WIDTH` sources of the task's validation part, or of its training part where there is none, translated.
    """

    def __init__(self, folder: Path, steps: int, task: Task, device: str | torch.device = "cpu") -> None:
        self.folder, self.sources = folder, _sources(task).to(device)
        self.due = sorted({max(1, round(steps * (k / COUNT) ** 2)) for k in range(1, COUNT + 1)})

    def take(self, step: int, generator: nn.Module) -> None:
        """Note what the generator makes of the sources; its mode and its statistics stay as they are.

        Pictures that are not finite are left out: the next line of the log tells of them.
        """
        training = generator.training
        with torch.no_grad():
            made = generator.eval()(self.sources)
        generator.train(training)
        if made.isfinite().all():
            atomic_write(self.folder / f"{step}.webp", picture_row(made))


def _sources(task: Task) -> Tensor:
    """The sources that are watched, encoded, evenly spaced over their part and cut to the size of a test picture."""
    tiles = task.validation or task.train
    chosen = tiles.source[evenly(len(tiles), WIDTH)]
    return encode(middle(chosen, task.test.shape), tiles.classes)


def read_frames(folder: Path) -> dict[int, bytes]:
    """The snapshots in a folder, step -> WebP file, in their order."""
    files = {int(file.stem): file for file in folder.glob("*.webp")}
    return {step: files[step].read_bytes() for step in sorted(files)}


def picture_row(images: Tensor) -> bytes:
    """The images [N, 3, H, W], uint8 or float in [-1, 1], side by side as one WebP file."""
    row = torch.cat([*quantise(images).cpu()], -1).permute(1, 2, 0).contiguous()
    file = BytesIO()
    Image.fromarray(row.numpy()).save(file, "WEBP", quality=_QUALITY)
    return file.getvalue()
