"""Discriminators: images to maps of logits, one for each patch."""

from torch import Tensor, nn

from i2i_lib.config import DiscriminatorConfig
from i2i_lib.layers import norm_layer


class PatchDiscriminator(nn.Module):
    """PatchGAN (Isola et al. 2017), or with `n_layers=0` the one that judges single pixels.

    A conditional discriminator reads `torch.cat([source, image], 1)`.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        bias = config.norm == "instance"
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
                norm_layer(config.norm, width),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        parts.append(nn.Conv2d(width, 1, kernel, 1, padding, bias=bias if not config.n_layers else True))
        self.model = nn.Sequential(*parts)

    def forward(self, image: Tensor) -> Tensor:
        """Logits [N, 1, h, w] of images [N, in_channels, H, W]; three layers shrink the grid to H/8 - 2."""
        return self.model(image)
