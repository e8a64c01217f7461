"""Mean IoU of generated street scenes as in the literature: a DRN-D-105, trained on Cityscapes, classifies every pixel,
and its classes are compared with the labels that the pictures were made from.

Its weights come with no package, and no command downloads them: where they are not found, `drn_d_105` raises
`WeightsMissing`, whose message names the way to get them. The network never enters a loss.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from textwrap import shorten

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from i2i_lib.metrics.labels import confusion_matrix
from i2i_lib.metrics.networks.literature import find_weights, read_weights
from i2i_lib.metrics.pairs import quantise
from i2i_lib.weights import DRN, hub_checkpoints

CLASSES = 19  # train ids
# Of Cityscapes' training photographs, on the scale [0, 1]; distributed with the network.
MEAN = (0.29010095242892997, 0.32808144844279574, 0.28696394422942517)
DEVIATION = (0.1829540508368939, 0.18656561047509476, 0.18447508988480435)


class Bottleneck(nn.Module):
    """Residual block of a 1 x 1, a dilated 3 x 3 and a 1 x 1 convolution, each with its norm; four times as wide out.

    [N, inputs, H, W] -> [N, 4 * width, H / stride, W / stride]
    """

    def __init__(self, inputs: int, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        # The names of these attributes are the keys of the distributed file.
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = None
        if stride != 1 or inputs != 4 * width:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class DrnSegmenter(nn.Module):
    """Dilated residual network of kind D (Yu et al. 2017) with its segmentation head; by default DRN-D-105.

    Nine levels: plain convolutions in the first three and the last two, bottleneck blocks between them. The side
    shrinks to an eighth on the way; instead of shrinking further, levels 5 and 6 dilate.
    """

    STRIDES = (1, 1, 2, 2, 2, 1, 1, 1, 1)
    DILATIONS = (1, 1, 1, 1, 1, 2, 4, 2, 1)

    def __init__(
        self,
        widths: Sequence[int] = (16, 16, 32, 64, 128, 256, 512, 512, 512),
        depths: Sequence[int] = (1, 1, 1, 3, 4, 23, 3, 1, 1),
    ) -> None:
        super().__init__()
        levels, inputs = [], 3
        for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            level: list[nn.Module] = []
            for stride in (self.STRIDES[i], *(1,) * (depth - 1)):
                if 3 <= i <= 6:
                    level.append(Bottleneck(inputs, width, stride, self.DILATIONS[i]))
                    inputs = 4 * width
                else:
                    kernel = 3 if i else 7
                    padding = self.DILATIONS[i] * (kernel // 2)
                    conv = nn.Conv2d(inputs, width, kernel, stride, padding, self.DILATIONS[i], bias=False)
                    level += [conv, nn.BatchNorm2d(width), nn.ReLU()]
                    inputs = width
            levels.append(nn.Sequential(*level))
        self.base = nn.Sequential(*levels)
        self.seg = nn.Conv2d(inputs, CLASSES, 1)
        # Bilinear interpolation by 8, written as a convolution; not renormalised at the border.
        self.up = nn.ConvTranspose2d(CLASSES, CLASSES, 16, 8, 4, groups=CLASSES, bias=False)
        ramp = 1 - (torch.arange(16) - 7.5).abs() / 8
        self.up.weight.data.copy_(torch.outer(ramp, ramp))

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, 19, H, W] of normalised pictures [N, 3, H, W], H and W multiples of 8."""
        return self.up(self.seg(self.base(x)))


def drn_d_105(weights: Path | str | None = None, device: str | torch.device = "cpu") -> DrnSegmenter:
    """The network with the weights that the literature measures with.

    They are the file `weights`, or the one that the variable I2I_DRN names, or drn-d-105_ms_cityscapes.pth in the
    checkpoint folder of PyTorch's hub. Raises WeightsMissing if there is none, ValueError for any other file.
    """
    (name,) = DRN.names
    help = f"get {name} from http://go.yf.io/drn-cityscapes-models into {hub_checkpoints()}"
    path = find_weights(weights, DRN, "Mean IoUs on Cityscapes", help)
    with torch.random.fork_rng(devices=[]):  # what is drawn here is overwritten
        network = DrnSegmenter()
    state = read_weights(path)
    try:
        # The file is older than the counters of batches in norms: PyTorch adds them.
        network.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"{path} is not {name}: {shorten(str(error), 300)}") from error
    return network.to(device).eval().requires_grad_(False)


def segment(network: nn.Module, picture: Tensor, size: tuple[int, int]) -> Tensor:
    """Predicted train ids [height, width] at `size`, of one picture [3, H, W], float in [-1, 1] or uint8.

    As in the literature, the picture goes in at its own size and the logits are enlarged bilinearly. (There they are
    log-probabilities, which differ by one number per pixel and have the same maximum.)
    """
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    mean, deviation = (torch.tensor(v, device=device).view(3, 1, 1) for v in (MEAN, DEVIATION))
    with torch.no_grad():
        logits = network((quantise(picture[None], "down").to(device).float() / 255 - mean) / deviation)
    # Antialiased only where a side shrinks, as Pillow's filter is.
    return F.interpolate(logits, size, mode="bilinear", antialias=True)[0].argmax(0)


def cityscapes_confusion(network: nn.Module, pictures: Iterable[Tensor], labels: Iterable[Tensor]) -> Tensor:
    """Confusion matrices [N, 19, 19], int64, of pictures as `segment` reads them, one for each.

    `labels` are the full maps of train ids [1024, 2048], 255 where nothing is counted, in the same order. The
    published number is `mean_iou` of the sum over all 500 validation images. `network` must be in evaluation mode.
    """
    if network.training:
        raise ValueError("the segmentation network is in training mode: call eval() first")
    found = []
    for picture, truth in zip(pictures, labels, strict=True):
        guess = segment(network, picture, (truth.shape[0], truth.shape[1]))
        found.append(confusion_matrix(truth[None], guess[None].to(truth.device), CLASSES))
    return torch.cat(found)
