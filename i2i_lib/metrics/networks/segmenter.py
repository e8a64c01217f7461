"""A small segmenter of pictures, to measure how well generated ones follow their labels.

It is trained on real training tiles, from the picture to its labels, and never enters a loss. A generated picture
scores high where this network reads the labels back from it: that measures obedience to the labels, not realism. Real
test tiles set the ceiling, which a generator exceeds by showing each class more plainly than nature does.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from i2i_lib.data.batches import paired_batches
from i2i_lib.data.tiles import Tiles
from i2i_lib.metrics.labels import confusion_matrix
from i2i_lib.metrics.pairs import quantise


class Segmenter(nn.Module):
    """U-Net of three scales: pictures [N, 3, H, W] in [-1, 1] to logits [N, classes, H, W].

    H and W are multiples of 4. There are no norms: a tile is often all forest or all desert, and a few such tiles'
    mean and deviation would remove the very colour that distinguishes them.
    """

    def __init__(self, classes: int, width: int = 8) -> None:
        super().__init__()
        self.fine, self.middle, self.coarse = _convs(3, width), _convs(width, 2 * width), _convs(2 * width, 4 * width)
        self.middle_up, self.fine_up = _convs(6 * width, 2 * width), _convs(3 * width, width)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        # Land is dark: on a logarithmic scale, forests differ from each other as much as deserts do.
        fine = self.fine((x.clamp(-1, 1) * 127.5 + 135.5).log() - 4)
        middle = self.middle(F.avg_pool2d(fine, 2))
        coarse = self.coarse(F.avg_pool2d(middle, 2))
        middle = self.middle_up(torch.cat([middle, _enlarged(coarse)], 1))
        return self.head(self.fine_up(torch.cat([fine, _enlarged(middle)], 1)))


def _convs(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        conv = nn.Conv2d(channels, outputs, 3, padding=1)
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        layers += [conv, nn.ReLU()]
    return nn.Sequential(*layers)


def _enlarged(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def train_segmenter(
    tiles: Tiles,
    *,
    steps: int = 600,
    batch_size: int = 32,
    crop: int = 32,
    lr: float = 5e-3,
    device: str | torch.device = "cpu",
) -> Segmenter:
    """Learn the labels of real tiles from their pictures, by cross-entropy; returned in evaluation mode.

    Many small crops, of `crop` pixels a side (a multiple of 4), teach more than few whole tiles: a batch then holds
    most classes. PyTorch's global random numbers are left as they were. Raises ValueError for tiles without labels.
    """
    if not tiles.classes:
        raise ValueError("these tiles have pictures as sources, not labels: a segmenter has nothing to learn")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        segmenter = Segmenter(tiles.classes).to(device).to(memory_format=torch.channels_last)  # faster if narrow
    # Every class has one vote in the mean IoU, however rare: between equal pixels and equal classes.
    weights = tiles.source[:, 0].flatten().bincount(minlength=tiles.classes).clamp(min=1).to(device) ** -0.5
    optimiser = torch.optim.Adam(segmenter.parameters(), lr=lr)
    # Up for a tenth of the steps and down to nothing: few steps suffice (Smith & Topin 2019).
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=steps, pct_start=0.1)
    batches = paired_batches(tiles, image_size=crop, batch_size=batch_size, seed=0, device=device)
    for _, batch in zip(range(steps), batches(0), strict=False):
        labels = batch.source[:, : tiles.classes].argmax(1)
        loss = F.cross_entropy(segmenter(batch.target.contiguous(memory_format=torch.channels_last)), labels, weights)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    return segmenter.eval()


def segmenter_confusion(segmenter: Segmenter, pictures: Tensor, labels: Tensor, *, batch_size: int = 16) -> Tensor:
    """Confusion matrices [N, classes, classes], int64, of the labels that the segmenter reads from each picture.

    `pictures` [N, 3, H, W], float in [-1, 1] or uint8, are rounded to 8 bits first, as for every measure; `labels`
    [N, 1, H, W] are the maps that they were made from (`Tiles.source`). Raises ValueError for a label that is no class.
    """
    if len(pictures) != len(labels):
        raise ValueError(f"need one label map per picture, got {len(labels)} for {len(pictures)}")
    device = segmenter.head.weight.device
    found = []
    with torch.no_grad():
        for some, target in zip(pictures.split(batch_size), labels[:, 0].split(batch_size), strict=True):
            read = segmenter(quantise(some).to(device).float() / 127.5 - 1).argmax(1).to(target.device)
            found.append(confusion_matrix(target, read, segmenter.head.out_channels))
    return torch.cat(found)
