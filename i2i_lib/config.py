"""How wide every layer is. Plain data: no tensors, no torch."""

from dataclasses import dataclass
from typing import Literal

Norm = Literal["batch", "instance", "sync_batch"]
Upsample = Literal["transpose", "resize"]


@dataclass(frozen=True, slots=True)
class BlockWidths:
    """Hidden widths of one inception residual block, one entry per kernel size (paper, figure 2).

    A width of 0 removes that branch; a block with no branch left is the identity.
    """

    conv: tuple[int, ...]  # k x k, then k x k
    depthwise: tuple[int, ...]  # 1 x 1, k x k depthwise, 1 x 1

    def __post_init__(self) -> None:
        for name in ("conv", "depthwise"):
            widths = tuple(getattr(self, name))
            object.__setattr__(self, name, widths)  # JSON knows only lists
            if any(w < 0 for w in widths):
                raise ValueError(f"a branch's width is at least 0, got {name}={widths}")


@dataclass(frozen=True, slots=True)
class GeneratorConfig:
    """Every width of an inception generator, teacher and student alike.

    The stem's last width is the trunk: each block reads and writes it.
    """

    stem: tuple[int, ...]  # 7 x 7, then two 3 x 3 of stride 2
    blocks: tuple[BlockWidths, ...]
    up: tuple[int, ...]  # two that double the grid
    norm: Norm = "instance"
    upsample: Upsample = "transpose"
    kernel_sizes: tuple[int, ...] = (1, 3, 5)
    in_channels: int = 3
    out_channels: int = 3

    def __post_init__(self) -> None:
        for name in ("stem", "up", "kernel_sizes"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        blocks = tuple(b if isinstance(b, BlockWidths) else BlockWidths(**b) for b in self.blocks)
        object.__setattr__(self, "blocks", blocks)
        _check_choices(self.norm, self.upsample)
        _check_blocks(len(blocks))
        if len(self.stem) != 3 or len(self.up) != 2:
            raise ValueError(f"expected 3 stem and 2 up widths, got stem={self.stem}, up={self.up}")
        if min(*self.stem, *self.up, self.in_channels, self.out_channels) < 1:
            raise ValueError(f"widths outside the blocks are at least 1, got stem={self.stem}, up={self.up}")
        if any(k < 1 or k % 2 == 0 for k in self.kernel_sizes) or len(set(self.kernel_sizes)) != len(self.kernel_sizes):
            raise ValueError(f"kernel sizes are odd and differ, got {self.kernel_sizes}")
        for i, block in enumerate(blocks):
            if len(block.conv) != len(self.kernel_sizes) or len(block.depthwise) != len(self.kernel_sizes):
                raise ValueError(f"block {i} needs one width per kernel size of {self.kernel_sizes}, got {block}")

    @property
    def taps(self) -> tuple[int, ...]:
        """The blocks, counted from 1, whose outputs are features for distillation."""
        return _taps(len(self.blocks))

    @property
    def feature_widths(self) -> tuple[int, ...]:
        """Channels of each feature map: the stem's and those after the taps."""
        return (self.stem[-1],) * (1 + len(self.taps))


@dataclass(frozen=True, slots=True)
class ResnetConfig:
    """ResNet generator of Johnson et al. (2016), as in CycleGAN; its defaults are the paper's "Original"."""

    base: int = 64
    n_blocks: int = 9
    norm: Norm = "instance"
    separable: bool = False  # depthwise-separable blocks, as in GAN Compression (Li et al. 2020)
    upsample: Upsample = "transpose"
    in_channels: int = 3
    out_channels: int = 3

    def __post_init__(self) -> None:
        _check_choices(self.norm, self.upsample)
        _check_blocks(self.n_blocks)
        if min(self.base, self.in_channels, self.out_channels) < 1:
            raise ValueError(f"widths are at least 1, got {self}")

    @property
    def stem(self) -> tuple[int, ...]:
        return (self.base, 2 * self.base, 4 * self.base)

    @property
    def up(self) -> tuple[int, ...]:
        return (2 * self.base, self.base)

    @property
    def taps(self) -> tuple[int, ...]:
        """The blocks, counted from 1, whose outputs are features for distillation."""
        return _taps(self.n_blocks)

    @property
    def feature_widths(self) -> tuple[int, ...]:
        """Channels of each feature map: the stem's and those after the taps."""
        return (self.stem[-1],) * (1 + len(self.taps))


@dataclass(frozen=True, slots=True)
class DiscriminatorConfig:
    """PatchGAN (Isola et al. 2017). Three layers judge patches of 70 pixels; 0 layers judge single pixels."""

    in_channels: int = 6  # source and target side by side; 3 where the discriminator sees one image
    base: int = 64
    n_layers: int = 3
    norm: Norm = "batch"

    def __post_init__(self) -> None:
        _check_choices(self.norm)
        if min(self.in_channels, self.base) < 1 or self.n_layers < 0:
            raise ValueError(f"expected positive widths and n_layers of at least 0, got {self}")


def cat_teacher(base: int = 64, n_blocks: int = 9, norm: Norm = "instance") -> GeneratorConfig:
    """The paper's teacher: six branches share the width of one residual block (section 3.1)."""
    hidden = (4 * base // 6,) * 3
    return GeneratorConfig(
        stem=(base, 2 * base, 4 * base),
        blocks=(BlockWidths(conv=hidden, depthwise=hidden),) * n_blocks,
        up=(2 * base, base),
        norm=norm,
    )


def mobile_resnet(base: int = 16, n_blocks: int = 9, norm: Norm = "instance") -> ResnetConfig:
    """The depthwise-separable ResNet that GAN Compression and OMGD start from."""
    return ResnetConfig(base=base, n_blocks=n_blocks, norm=norm, separable=True)


def _taps(n_blocks: int) -> tuple[int, ...]:
    return (-(-n_blocks // 3), -(-2 * n_blocks // 3), n_blocks)


def _check_blocks(n_blocks: int) -> None:
    if n_blocks < 3:
        raise ValueError(f"expected at least 3 blocks, got {n_blocks}: features are read after each third of them")


def _check_choices(norm: str, upsample: str = "transpose") -> None:
    if norm not in ("batch", "instance", "sync_batch"):
        raise ValueError(f"norm is 'batch', 'instance' or 'sync_batch', got {norm!r}")
    if upsample not in ("transpose", "resize"):
        raise ValueError(f"upsample is 'transpose' or 'resize', got {upsample!r}")
