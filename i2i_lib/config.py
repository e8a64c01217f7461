"""Widths of all layers. Plain data: no tensors, no torch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import gcd
from typing import Any, Literal, TypeVar, get_args

Norm = Literal["batch", "instance", "sync_batch"]
DiscriminatorNorm = Literal["batch", "instance", "sync_batch", "none"]
Upsample = Literal["transpose", "resize"]
# More than any picture needs: without a limit, a damaged file could describe millions of layers.
MOST_BLOCKS, MOST_SCALES = 999, 16
T = TypeVar("T")


def _store(config: object, **fields: object) -> None:
    """Set fields of a frozen dataclass while it is made, where JSON brought lists and dictionaries."""
    for name, value in fields.items():
        object.__setattr__(config, name, value)


def _made(kind: type[T], value: Any) -> T:
    return value if isinstance(value, kind) else kind(**value)


@dataclass(frozen=True, slots=True)
class BlockWidths:
    """Hidden widths of one inception residual block, one entry per kernel size (paper, figure 2).

    A width of 0 removes that branch; a block with no branch left is the identity.
    """

    conv: tuple[int, ...]  # k x k, then k x k
    depthwise: tuple[int, ...]  # 1 x 1, k x k depthwise, 1 x 1

    def __post_init__(self) -> None:
        _store(self, conv=tuple(self.conv), depthwise=tuple(self.depthwise))
        for name, widths in (("conv", self.conv), ("depthwise", self.depthwise)):
            if any(w < 0 for w in widths):
                raise ValueError(f"a branch's width is at least 0, got {name}={widths}")

    @property
    def any_branch(self) -> bool:
        """Whether a branch is left."""
        return any(self.conv) or any(self.depthwise)

    def branches(self, kernel_sizes: tuple[int, ...]) -> Iterator[tuple[str, int, int]]:
        """Kind ("conv" or "depthwise"), kernel size and width of each branch that is left."""
        for kind, widths in (("conv", self.conv), ("depthwise", self.depthwise)):
            for kernel, width in zip(kernel_sizes, widths, strict=True):
                if width:
                    yield kind, kernel, width


class _OneTrunk:
    """Feature maps of a generator whose blocks all read and write the stem's last width, the trunk."""

    __slots__ = ()

    @property
    def taps(self: Any) -> tuple[int, ...]:
        """The blocks, counted from 1, whose outputs are features for distillation: after each third of them."""
        n = self.n_blocks
        return (-(-n // 3), -(-2 * n // 3), n)

    @property
    def feature_widths(self: Any) -> tuple[int, ...]:
        """Channels of each feature map: the stem's and those after the taps."""
        return (self.stem[-1],) * (1 + len(self.taps))


class _Stages:
    """Blocks and feature maps of a generator that reads labels on a grid that doubles."""

    __slots__ = ()

    @property
    def stages(self: Any) -> dict[str, int]:
        """The blocks' names, and how much smaller than the image the grid is there."""
        ups = len(self.widths) - 1 - 3
        early = self.upsamplings - ups  # doublings before up_0's
        doublings = {"head_0": self.upsamplings, "G_middle_0": self.upsamplings - min(early, 1), "G_middle_1": ups}
        for i in range(ups):
            doublings[f"up_{i}"] = ups - 1 - i
        return {name: 2**left for name, left in doublings.items()}

    @property
    def feature_widths(self: Any) -> tuple[int, ...]:
        """Channels of each feature map: the outputs of head_0, G_middle_1 and up_1."""
        return self.widths[1:6:2]


@dataclass(frozen=True, slots=True)
class GeneratorConfig(_OneTrunk):
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
        _store(self, stem=tuple(self.stem), up=tuple(self.up), kernel_sizes=tuple(self.kernel_sizes))
        _store(self, blocks=tuple(_made(BlockWidths, block) for block in self.blocks))
        check_choice("norm", self.norm, get_args(Norm))
        check_choice("upsample", self.upsample, get_args(Upsample))
        _check_blocks(self.n_blocks)
        if len(self.stem) != 3 or len(self.up) != 2:
            raise ValueError(f"expected 3 stem and 2 up widths, got stem={self.stem}, up={self.up}")
        if min(*self.stem, *self.up, self.in_channels, self.out_channels) < 1:
            raise ValueError(f"widths outside the blocks are at least 1, got stem={self.stem}, up={self.up}")
        _check_kernels(self.kernel_sizes, self.blocks)

    @property
    def n_blocks(self) -> int:
        return len(self.blocks)

    @property
    def base(self) -> int:
        """Width at the image's full size; `cat_teacher` makes every other from it."""
        return self.stem[0]

    @property
    def ranked_widths(self) -> dict[str, int]:
        """The width of every layer whose channels can go, in the order of the forward pass."""
        widths = {f"stem.{i}": width for i, width in enumerate(self.stem)}
        for i, block in enumerate(self.blocks):
            widths |= _ranked_branches(f"blocks.{i}", block, self.kernel_sizes)
        return widths | {f"up.{i}": width for i, width in enumerate(self.up)}

    def narrowed(self, widths: Mapping[str, int]) -> "GeneratorConfig":
        """The config with new widths for its `ranked_widths`; a branch that is not named vanishes."""
        return replace(
            self,
            stem=tuple(widths[f"stem.{i}"] for i in range(3)),
            blocks=tuple(_narrowed_branches(f"blocks.{i}", widths, self.kernel_sizes) for i in range(self.n_blocks)),
            up=tuple(widths[f"up.{i}"] for i in range(2)),
        )

    def stem_floor(self, min_width: int) -> int:
        """Fewest channels of a layer outside the branches, where none may be narrower than `min_width`."""
        return min_width


@dataclass(frozen=True, slots=True)
class ResnetConfig(_OneTrunk):
    """ResNet generator of Johnson et al. (2016), as in CycleGAN; its defaults are the paper's "Original"."""

    base: int = 64
    n_blocks: int = 9
    norm: Norm = "instance"
    separable: bool = False  # depthwise-separable blocks, as in GAN Compression (Li et al. 2020)
    upsample: Upsample = "transpose"
    in_channels: int = 3
    out_channels: int = 3

    def __post_init__(self) -> None:
        check_choice("norm", self.norm, get_args(Norm))
        check_choice("upsample", self.upsample, get_args(Upsample))
        _check_blocks(self.n_blocks)
        if min(self.base, self.in_channels, self.out_channels) < 1:
            raise ValueError(f"widths are at least 1, got {self}")

    @property
    def stem(self) -> tuple[int, ...]:
        return (self.base, 2 * self.base, 4 * self.base)

    @property
    def up(self) -> tuple[int, ...]:
        return (2 * self.base, self.base)


@dataclass(frozen=True, slots=True)
class SpadeBlockWidths:
    """Widths of one block of an inception-SPADE generator (paper, supplement S1).

    With no branch left in `body` the block is its shortcut: SPADE has nothing to feed, so its widths become 0 too.
    """

    outputs: int
    body: BlockWidths  # hidden widths from the modulated features to the outputs
    spade: BlockWidths  # hidden widths from the labels to SPADE's scale and shift

    def __post_init__(self) -> None:
        _store(self, body=_made(BlockWidths, self.body), spade=_made(BlockWidths, self.spade))
        if not self.body.any_branch:
            _store(self, spade=BlockWidths(self.body.conv, self.body.depthwise))


@dataclass(frozen=True, slots=True)
class SpadeConfig(_Stages):
    """Every width of an inception-SPADE generator, teacher and student alike.

    Three blocks (head_0, G_middle_0, G_middle_1) and then one after each doubling of the grid (up_0, up_1, ...). Of
    the `upsamplings` that are more than those blocks, the first comes after head_0, the second after G_middle_0.
    """

    stem: int  # 3 x 3, on labels shrunk by 2^upsamplings
    blocks: tuple[SpadeBlockWidths, ...]
    label_channels: int = 36
    upsamplings: int = 6
    norm: Norm = "batch"
    kernel_sizes: tuple[int, ...] = (1, 3, 5)
    out_channels: int = 3

    def __post_init__(self) -> None:
        _store(self, kernel_sizes=tuple(self.kernel_sizes))
        _store(self, blocks=tuple(_made(SpadeBlockWidths, block) for block in self.blocks))
        check_choice("norm", self.norm, get_args(Norm))
        _check_kernels(self.kernel_sizes, [part for block in self.blocks for part in (block.body, block.spade)])
        if min(self.label_channels, self.out_channels, *self.widths) < 1:
            raise ValueError(f"widths outside the branches are at least 1, got {self.widths}")
        _check_upsamplings(self.upsamplings, len(self.blocks))

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the stem's output and of each block's."""
        return (self.stem, *(block.outputs for block in self.blocks))

    @property
    def unit(self) -> int:
        """The largest number that divides all `widths`: pruning scales them together, from this to 1."""
        return gcd(*self.widths)

    @property
    def base(self) -> int:
        """A sixteenth of the stem's width; `cat_spade_teacher` makes every other width from it."""
        return self.stem // 16

    @property
    def ranked_widths(self) -> dict[str, int]:
        """The width of every layer whose channels can go, in the order of the forward pass."""
        widths = {"stem": self.stem}
        for stage, block in zip(self.stages, self.blocks, strict=True):
            widths |= _ranked_branches(f"blocks.{stage}.spade", block.spade, self.kernel_sizes)
            widths |= _ranked_branches(f"blocks.{stage}.body", block.body, self.kernel_sizes)
        return widths

    def narrowed(self, widths: Mapping[str, int]) -> "SpadeConfig":
        """The config with new widths for its `ranked_widths`; a branch that is not named vanishes.

        Between blocks the widths follow the stem's, in the ratios that they have here: all in whole units.
        """
        units = widths["stem"] * self.unit // self.stem
        blocks = []
        for stage, block in zip(self.stages, self.blocks, strict=True):
            body = _narrowed_branches(f"blocks.{stage}.body", widths, self.kernel_sizes)
            spade = _narrowed_branches(f"blocks.{stage}.spade", widths, self.kernel_sizes)
            blocks.append(SpadeBlockWidths(block.outputs // self.unit * units, body, spade))
        return replace(self, stem=self.stem // self.unit * units, blocks=tuple(blocks))

    def stem_floor(self, min_width: int) -> int:
        """The narrowest stem that leaves `min_width` channels in the narrowest stage, or all that it has."""
        narrowest = min(self.widths)
        units = -(-min(min_width, narrowest) * self.unit // narrowest)
        return self.stem // self.unit * units


@dataclass(frozen=True, slots=True)
class SpadeResnetConfig(_Stages):
    """The original SPADE generator (Park et al. 2019); its defaults are the paper's "Original" GauGAN."""

    base: int = 64
    label_channels: int = 36
    upsamplings: int = 6
    norm: Norm = "batch"
    hidden: int = 128  # between the labels and SPADE's scale and shift
    out_channels: int = 3

    def __post_init__(self) -> None:
        check_choice("norm", self.norm, get_args(Norm))
        if min(self.base, self.label_channels, self.hidden, self.out_channels, *self.widths) < 1:
            raise ValueError(f"widths are at least 1, got {self}")
        _check_upsamplings(self.upsamplings, len(self.widths) - 1)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the stem's output and of each block's."""
        return _spade_widths(self.base, self.upsamplings)


@dataclass(frozen=True, slots=True)
class DiscriminatorConfig:
    """PatchGAN (Isola et al. 2017). Three layers judge patches of 70 pixels; 0 layers judge single pixels."""

    in_channels: int = 6  # source and target side by side; 3 where the discriminator sees one image
    base: int = 64
    n_layers: int = 3
    norm: DiscriminatorNorm = "batch"

    def __post_init__(self) -> None:
        check_choice("norm", self.norm, get_args(DiscriminatorNorm))
        if min(self.in_channels, self.base) < 1 or not 0 <= self.n_layers <= MOST_SCALES:
            raise ValueError(f"expected positive widths and n_layers of 0 to {MOST_SCALES}, got {self}")


@dataclass(frozen=True, slots=True)
class MultiscaleDiscriminatorConfig:
    """PatchGANs on the image and on smaller copies of it, as in SPADE (Park et al. 2019)."""

    in_channels: int = 39  # labels and image side by side
    base: int = 64
    n_layers: int = 4
    n_scales: int = 2

    def __post_init__(self) -> None:
        parts = (self.n_layers, self.n_scales)
        if min(self.in_channels, self.base, *parts) < 1 or max(parts) > MOST_SCALES:
            raise ValueError(f"expected positive widths, and 1 to {MOST_SCALES} layers and scales, got {self}")


def cat_teacher(base: int = 64, n_blocks: int = 9, norm: Norm = "instance") -> GeneratorConfig:
    """The paper's teacher: six branches share the width of one residual block (section 3.1)."""
    hidden = (4 * base // 6,) * 3
    return GeneratorConfig(
        stem=(base, 2 * base, 4 * base),
        blocks=(BlockWidths(conv=hidden, depthwise=hidden),) * n_blocks,
        up=(2 * base, base),
        norm=norm,
    )


def cat_spade_teacher(
    base: int = 64, label_channels: int = 36, upsamplings: int = 6, norm: Norm = "batch", hidden: int = 128
) -> SpadeConfig:
    """The paper's GauGAN teacher: six branches share the width of one SPADE residual block, or `hidden` of SPADE's.

    `label_channels` counts one-hot labels and, where there is one, the instance-edge channel. The official code has
    5, 6 and 7 `upsamplings` ("normal", "more", "most"); fewer leave small images a grid to start from. At a small
    `base`, SPADE's 128 would cost nearly all there is.
    """
    stem, *widths = _spade_widths(base, upsamplings)
    spade = BlockWidths((hidden // 6,) * 3, (hidden // 6,) * 3)
    blocks = []
    for inputs, outputs in zip((stem, *widths), widths, strict=False):
        body = (min(inputs, outputs) // 6,) * 3
        blocks.append(SpadeBlockWidths(outputs, BlockWidths(body, body), spade))
    return SpadeConfig(stem, tuple(blocks), label_channels, upsamplings, norm)


def mobile_resnet(base: int = 16, n_blocks: int = 9, norm: Norm = "instance") -> ResnetConfig:
    """The depthwise-separable ResNet that GAN Compression and OMGD start from.

    All its norms are of one kind; theirs are instance norms inside the blocks whatever the others are.
    """
    return ResnetConfig(base=base, n_blocks=n_blocks, norm=norm, separable=True)


def _spade_widths(base: int, upsamplings: int) -> tuple[int, ...]:
    """Four layers of 16 x base, then half as many after each doubling of the grid, down to base (7: base // 2)."""
    ups = 5 if upsamplings == 7 else min(upsamplings, 4)
    return (16 * base,) * 4 + tuple(16 * base // 2**i for i in range(1, ups + 1))


def _check_upsamplings(upsamplings: int, n_blocks: int) -> None:
    if n_blocks < 5 or not n_blocks - 3 <= upsamplings <= n_blocks - 1:
        raise ValueError(
            f"got {n_blocks} blocks and upsamplings={upsamplings}, expected at least 5 blocks (features are read after"
            " the fifth) and an upsampling for all but three of them, or for all but two or one"
        )


def _check_kernels(kernel_sizes: tuple[int, ...], blocks: Sequence[BlockWidths]) -> None:
    if any(k < 1 or k % 2 == 0 for k in kernel_sizes) or len(set(kernel_sizes)) != len(kernel_sizes):
        raise ValueError(f"kernel sizes are odd and differ, got {kernel_sizes}")
    for i, block in enumerate(blocks):
        if len(block.conv) != len(kernel_sizes) or len(block.depthwise) != len(kernel_sizes):
            raise ValueError(f"block {i} needs one width per kernel size of {kernel_sizes}, got {block}")


def _check_blocks(n_blocks: int) -> None:
    if not 3 <= n_blocks <= MOST_BLOCKS:
        raise ValueError(
            f"expected 3 to {MOST_BLOCKS} blocks, got {n_blocks}: features are read after each third of them"
        )


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} is one of {', '.join(choices)}, got {value!r}")


Config = GeneratorConfig | ResnetConfig | SpadeConfig | SpadeResnetConfig
PrunableConfig = GeneratorConfig | SpadeConfig


def is_branch(layer: str) -> bool:
    """Whether a layer of `ranked_widths` is the hidden layer of a branch, which may vanish. Other layers stay."""
    return layer.startswith("blocks.")


def _ranked_branches(name: str, hidden: BlockWidths, kernel_sizes: tuple[int, ...]) -> dict[str, int]:
    return {f"{name}.{kind}.k{kernel}": width for kind, kernel, width in hidden.branches(kernel_sizes)}


def _narrowed_branches(name: str, widths: Mapping[str, int], kernel_sizes: tuple[int, ...]) -> BlockWidths:
    return BlockWidths(
        conv=tuple(widths.get(f"{name}.conv.k{kernel}", 0) for kernel in kernel_sizes),
        depthwise=tuple(widths.get(f"{name}.depthwise.k{kernel}", 0) for kernel in kernel_sizes),
    )


def check_image_size(image_size: int | tuple[int, int], config: Config) -> tuple[int, int]:
    """Height and width, or a ValueError where the generator's smallest grid would not fit them.

    They are multiples of 2^upsamplings for SPADE, else of 4 and large enough for the blocks, whose grid is a quarter
    of the size, to reflect half a kernel of it: at least 12 for kernels up to 5 x 5, 8 for a ResNet.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    spade = isinstance(config, SpadeConfig | SpadeResnetConfig)
    multiple = 2**config.upsamplings if spade else 4
    if height < multiple or width < multiple or height % multiple or width % multiple:
        raise ValueError(f"image sizes are positive multiples of {multiple}, got {height} x {width}")
    kernels = config.kernel_sizes if isinstance(config, GeneratorConfig) else ()
    least = multiple if spade else 4 * (max((3, *kernels)) // 2 + 1)
    if min(height, width) < least:
        raise ValueError(f"image sizes are at least {least} for this generator, got {height} x {width}")
    return height, width
