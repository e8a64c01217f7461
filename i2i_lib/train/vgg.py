"""VGG-19's features for a perceptual loss."""

from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn

from i2i_lib.losses import sum_of_l1


class Vgg19Features(nn.Module):
    """VGG-19's ImageNet features at five depths, for a perceptual loss (Johnson et al. 2016).

    Weights are read from `path`, a state dict of torchvision's `vgg19` (see `weights.find_vgg19`). They are never used
    to evaluate: a generator trained on the judging features would overfit them.
    """

    weights = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)  # as in pix2pixHD (Wang et al. 2018), from shallow to deep

    def __init__(self, path: Path | None) -> None:
        """`path` holds the weights; with None they mean nothing, which is enough to count what the network takes."""
        from torchvision.models import vgg19  # imported here: it takes seconds

        super().__init__()
        with torch.device("meta"):  # nothing is allocated or drawn for weights that are read
            layers = nn.Sequential(*list(vgg19(weights=None).features.children())[:30])
        if path is None:
            layers.to_empty(device="cpu")
        else:
            _load(layers, path)
        self.slices = nn.ModuleList(layers[a:b] for a, b in ((0, 2), (2, 7), (7, 12), (12, 21), (21, 30)))
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Feature maps after relu1_1, relu2_1, ..., relu5_1 of images [N, 3, H, W] in [-1, 1], at least 16 wide.

        The images go in as they are, not shifted to ImageNet's mean: the weight of the loss belongs to that.
        """
        maps = []
        for part in self.slices:
            image = part(image)
            maps.append(image)
        return maps

    def distance(self, fake: Tensor, target: Tensor) -> Tensor:
        """Weighted sum of L1 distances between the features of two batches; the gradient is that of `fake`."""
        with torch.no_grad():
            target_features = self(target)
        return sum_of_l1(self(fake), target_features, self.weights)


def _load(layers: nn.Sequential, path: Path) -> None:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        found = {name.removeprefix("features."): w for name, w in state.items() if name.startswith("features.")}
        layers.load_state_dict({name: found[name] for name in layers.state_dict()}, assign=True)
    except (AttributeError, EOFError, KeyError, RuntimeError, UnpicklingError) as error:
        raise ValueError(f"{path} is not a state dict of torchvision's vgg19: {error}") from error
