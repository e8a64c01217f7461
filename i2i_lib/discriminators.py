"""Discriminators: images to maps of logits, one for each patch."""

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from i2i_lib.config import DiscriminatorConfig, MultiscaleDiscriminatorConfig
from i2i_lib.layers import InstanceNorm, norm_layer


class PatchDiscriminator(nn.Module):
    """PatchGAN (Isola et al. 2017), or with `n_layers=0` the one that judges single pixels.

    A conditional discriminator reads `torch.cat([source, image], 1)`. Instance norms hide from it how large the values
    of a picture are, and so much of its colour; `norm="none"` leaves them out.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        bias = config.norm in ("instance", "none")
        kernel, padding = (4, 1) if config.n_layers else (1, 0)
        stride = 2 if config.n_layers else 1
        # The layers are numbered as in the official code, so that its state dicts load as they are.
        width = config.base
        parts: list[nn.Module] = [
            nn.Conv2d(config.in_channels, width, kernel, stride, padding),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        for i in range(1, max(config.n_layers, 1) + 1):
            inputs, width = width, config.base * min(2**i, 8)
            # The last of these no longer halves the grid.
            parts += [
                nn.Conv2d(inputs, width, kernel, stride if i < config.n_layers else 1, padding, bias=bias),
                nn.Identity() if config.norm == "none" else norm_layer(config.norm, width),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        parts.append(nn.Conv2d(width, 1, kernel, 1, padding, bias=bias or config.n_layers > 0))
        self.model = nn.Sequential(*parts)

    def forward(self, image: Tensor) -> Tensor:
        """Logits [N, 1, h, w] of images [N, in_channels, H, W]; three layers shrink the grid to H/8 - 2.

        Raises ValueError for images without a single patch, of less than 3 x 2^n_layers pixels a side.
        """
        height, width = image.shape[-2:]
        least = 3 * 2**self.config.n_layers if self.config.n_layers else 1
        if min(height, width) < least:
            raise ValueError(
                f"a discriminator of {self.config.n_layers} layers needs images of at least {least} pixels a side, got "
                f"{height} x {width}: train on larger crops, or with fewer layers"
            )
        return self.model(image)

    def features(self, image: Tensor) -> list[Tensor]:
        """The outputs of all activations, of images as in `forward`."""
        found = []
        for layer in self.model:
            image = layer(image)
            if isinstance(layer, nn.LeakyReLU):
                found.append(image)
        return found


class MultiscaleDiscriminator(nn.Module):
    """SPADE's (Park et al. 2019): PatchGANs that judge the image and smaller copies of it, and show what they saw.

    All convolutions but the first and the last have spectral norm, and an instance norm without scale and shift.
    """

    def __init__(self, config: MultiscaleDiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        self.scales = nn.ModuleList(_feature_layers(config) for _ in range(config.n_scales))

    def forward(self, image: Tensor) -> list[list[Tensor]]:
        """For each scale, of images [N, in_channels, H, W], the outputs of all layers; the last are logits."""
        scales = []
        for layers in self.scales:
            outputs = [image]
            for layer in layers:  # pyright: ignore[reportGeneralTypeIssues]
                outputs.append(layer(outputs[-1]))
            scales.append(outputs[1:])
            image = F.avg_pool2d(image, 3, stride=2, padding=1, count_include_pad=False)
        return scales


def _feature_layers(config: MultiscaleDiscriminatorConfig) -> nn.ModuleList:
    width = config.base
    first = nn.Conv2d(config.in_channels, width, 4, stride=2, padding=2)
    layers = [nn.Sequential(first, nn.LeakyReLU(0.2))]
    for i in range(1, config.n_layers):
        inputs, width = width, config.base * min(2**i, 8)
        stride = 2 if i < config.n_layers - 1 else 1  # the last of these no longer halves the grid
        conv = spectral_norm(nn.Conv2d(inputs, width, 4, stride=stride, padding=2, bias=False))
        layers.append(nn.Sequential(conv, InstanceNorm(width), nn.LeakyReLU(0.2)))
    return nn.ModuleList([*layers, nn.Conv2d(width, 1, 4, padding=2)])
