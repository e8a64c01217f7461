"""One-step pruning: from a teacher's norm scales to the widths of a student (paper, section 3.2).

The ranked norms are those after the stem's and the up-sampling convolutions, and the first in each branch of a block.
Their channels can go without changing the shape of anything but the next layer.

Inception-SPADE generators rank the stem's norm and the branches', SPADE's included (supplement S1). Between blocks no
norm could be ranked: these widths follow the stem's, all in the teacher's ratios.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from i2i_lib.config import BlockWidths, GeneratorConfig, SpadeBlockWidths, SpadeConfig
from i2i_lib.generators import InceptionGenerator
from i2i_lib.layers import init_weights
from i2i_lib.macs import generator_macs
from i2i_lib.spade import InceptionSpadeGenerator

Prunable = InceptionGenerator | InceptionSpadeGenerator
PrunableConfig = GeneratorConfig | SpadeConfig
Cost = Literal["paper", "exact"] | Callable[[Any], float]
Scales = Mapping[str, Sequence[float]]
Channels = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ChannelPlan:
    """Which of its teacher's channels a student keeps, and what it then costs."""

    keep: Mapping[str, Channels]  # prunable layer -> kept channels, ascending
    config: PrunableConfig  # the widths that `keep` implies
    threshold: float | None  # scales above it stay; None if all do
    cost: float  # in the unit of the budget
    macs: int  # by the paper's count, whatever the budget was in


def norm_scales(teacher: Prunable) -> dict[str, list[float]]:
    """|scale| of every channel that can go, by prunable layer, in the order of the forward pass."""
    if not isinstance(teacher, Prunable):
        raise ValueError(f"only an inception generator can be pruned, got {type(teacher).__name__}")
    scales = {}
    for name in ranked_widths(teacher.config):
        norm = teacher.get_submodule(f"{name}.expand.norm" if name.startswith("blocks") else f"{name}.norm")
        scales[name] = norm.get_parameter("weight").detach().abs().double().tolist()
    return scales


def uniform_scales(teacher: Prunable) -> dict[str, list[float]]:
    """Scales by which `prune` narrows every layer by the same share: the baseline that ranks nothing."""
    return {name: [1 - i / len(s) for i in range(len(s))] for name, s in norm_scales(teacher).items()}


def random_scales(teacher: Prunable, seed: int) -> dict[str, list[float]]:
    """Scales by which `prune` keeps channels at random: the baseline for the ranking."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(len(s), generator=generator, dtype=torch.float64).tolist()
        for name, s in norm_scales(teacher).items()
    }


def prune(
    teacher: Prunable,
    budget: float,
    *,
    image_size: int | tuple[int, int],
    min_width: int | None = None,
    cost: Cost = "paper",
    scales: Scales | None = None,
) -> ChannelPlan:
    """The widest student within `budget` that one global threshold on the scales can give. Changes nothing.

    A channel stays if its scale is above the threshold. Layers outside the blocks keep at least their `min_width`
    largest (the lower index of equals), by default a quarter of the base width, and never more than they have; a
    branch inside a block may vanish. Cost falls as the threshold rises, so a binary search over the scales finds the
    exact answer, with no network built on the way. A SPADE teacher's `min_width` bounds its narrowest stage; its stem
    keeps a multiple of its own ratio to that (16, or 32 with 7 upsamplings).

    Args:
        budget: in MACs by the convention `cost`, or in whatever a callable `cost` returns.
        image_size: a side, or height and width, in pixels, as `macs.check_image_size` takes them.
        cost: a callable must not grow when a width shrinks. Its attribute `unit`, if any, names its unit in errors.
        scales: ranks channels by these instead of the teacher's own, with the same names and lengths.

    Raises ValueError where even the narrowest student is over the budget. A budget above the teacher's own cost keeps
    everything, with the threshold None.
    """
    own = norm_scales(teacher)
    config = teacher.config
    scales = own if scales is None else scales
    if {k: len(v) for k, v in scales.items()} != {k: len(v) for k, v in own.items()}:
        raise ValueError("`scales` must name the teacher's prunable layers, with a scale for each of their channels")
    for name, layer in scales.items():
        if not all(0 <= s < float("inf") for s in layer):
            raise ValueError(f"norm scales of {name} are not finite and positive: the teacher's training diverged")
    if min_width is None:
        base = config.stem // 16 if isinstance(config, SpadeConfig) else config.stem[0]
        min_width = max(base // 4, 1)
    if min_width < 1:
        raise ValueError(f"min_width is at least 1, got {min_width}")
    stem_floor = _stem_floor(config, min_width) if isinstance(config, SpadeConfig) else min_width

    measure: Callable[[PrunableConfig], float]
    if callable(cost):
        measure, unit = cost, getattr(cost, "unit", "units of the given cost")
    else:
        measure = partial(generator_macs, image_size=image_size, convention=cost)
        unit = f"MACs ({cost} convention)"

    ascending = {name: sorted(layer) for name, layer in scales.items()}
    thresholds = [-1.0, *sorted({s for layer in scales.values() for s in layer})]  # the first keeps everything

    def widths_at(threshold: float) -> dict[str, int]:
        return {
            name: max(
                len(layer) - bisect_right(layer, threshold),
                0 if name.startswith("blocks") else min(stem_floor, len(layer)),
            )
            for name, layer in ascending.items()
        }

    costs: dict[int, float] = {}

    def fits(index: int) -> bool:
        costs[index] = measure(_narrowed(config, widths_at(thresholds[index])))
        return costs[index] <= budget

    index = bisect_left(range(len(thresholds)), True, key=fits)
    if index == len(thresholds):
        floor = costs[index - 1]
        raise ValueError(
            f"a budget of {budget:,} {unit} is below the floor of {floor:,} that min_width={min_width} leaves at"
            f" image size {image_size}: raise the budget or lower min_width"
        )
    student = _narrowed(config, widths_at(thresholds[index]))
    widths = ranked_widths(student)
    keep = {name: _largest(layer, widths.get(name, 0)) for name, layer in scales.items()}
    threshold = thresholds[index] if index else None
    return ChannelPlan(keep, student, threshold, costs[index], generator_macs(student, image_size))


def inherit(teacher: Prunable, plan: ChannelPlan) -> InceptionGenerator:
    """The student that keeps the teacher's weights at the kept channels, on its device and in its mode.

    It computes what the teacher does if all dropped channels are silent, that is:
    - the ranked norm outputs 0 after its ReLU;
    - in a depthwise branch with tracked norms, so does the second norm for the constant 0 (untracked norms subtract
      such constants later, at the block's end);
    - in the trunk, every block's closing norm outputs 0 too.

    Raises ValueError for a SPADE teacher, which does not say which channels of a block's output stay.
    """
    if not isinstance(teacher, InceptionGenerator):
        raise ValueError(
            f"a student cannot inherit from an {type(teacher).__name__}: no norm ranks the channels that its blocks"
            " pass on, so none of them can be called kept. Start it from random weights: start='random'"
        )
    student = _like(teacher, plan).train(teacher.training)
    _copy(teacher, student, plan, lambda name: True)
    return student


def start_student(
    teacher: Prunable,
    plan: ChannelPlan,
    start: Literal["random", "inherited", "scales"] = "random",
    *,
    seed: int,
    gain: float = 0.02,
    norm_start: Literal["one", "normal"] = "one",
    scheme: Literal["normal", "xavier"] = "normal",
) -> Any:
    """A student to train, in one of three states.

    - "random": fresh weights, as published (section 3.3), by `init_weights` with `seed` and the further options;
    - "inherited": see `inherit`;
    - "scales": fresh weights but the teacher's norm scales and shifts at the kept channels, closing norms excepted.
      The official code does this, unsaid, wherever it uses instance norm.

    Students of SPADE teachers start from random weights; another start is a ValueError.
    """
    if start not in ("random", "inherited", "scales"):
        raise ValueError(f"start is 'random', 'inherited' or 'scales', got {start!r}")
    if start == "inherited" or (start == "scales" and not isinstance(teacher, InceptionGenerator)):
        return inherit(teacher, plan).train()
    student = _like(teacher, plan)
    init_weights(student, seed=seed, gain=gain, norm_start=norm_start, scheme=scheme)
    if start == "scales":
        closing = {f"blocks.{i}.norm" for i in range(len(plan.config.blocks))}
        _copy(teacher, student, plan, lambda name: name.endswith(".norm") and name not in closing, statistics=False)
    return student


def ranked_widths(config: PrunableConfig) -> dict[str, int]:
    """The width of every layer whose channels can go, in the order of the forward pass."""
    if isinstance(config, SpadeConfig):
        widths = {"stem": config.stem}
        parts = {}
        for stage, block in zip(config.stages, config.blocks, strict=True):
            parts |= {f"blocks.{stage}.spade": block.spade, f"blocks.{stage}.body": block.body}
    else:
        widths = {f"stem.{i}": width for i, width in enumerate(config.stem)}
        parts = {f"blocks.{i}": block for i, block in enumerate(config.blocks)}
    for name, hidden in parts.items():
        for kind, branches in (("conv", hidden.conv), ("depthwise", hidden.depthwise)):
            kernels = zip(config.kernel_sizes, branches, strict=True)
            widths |= {f"{name}.{kind}.k{kernel}": c for kernel, c in kernels if c}
    if isinstance(config, GeneratorConfig):
        widths |= {f"up.{i}": width for i, width in enumerate(config.up)}
    return widths


def _narrowed(config: PrunableConfig, widths: Mapping[str, int]) -> PrunableConfig:
    """The config with new widths for its prunable layers. SPADE's stages shrink with the stem, in whole units."""

    def branches(name: str) -> BlockWidths:
        return BlockWidths(
            *(
                tuple(widths.get(f"{name}.{kind}.k{k}", 0) for k in config.kernel_sizes)
                for kind in ("conv", "depthwise")
            )
        )

    if isinstance(config, SpadeConfig):
        unit = config.unit
        units = widths["stem"] * unit // config.stem
        blocks = tuple(
            SpadeBlockWidths(
                block.outputs // unit * units,
                branches(f"blocks.{stage}.body"),
                branches(f"blocks.{stage}.spade"),
            )
            for stage, block in zip(config.stages, config.blocks, strict=True)
        )
        return replace(config, stem=config.stem // unit * units, blocks=blocks)
    return replace(
        config,
        stem=tuple(widths[f"stem.{i}"] for i in range(3)),
        blocks=tuple(branches(f"blocks.{i}") for i in range(len(config.blocks))),
        up=tuple(widths[f"up.{i}"] for i in range(2)),
    )


def _stem_floor(config: SpadeConfig, min_width: int) -> int:
    """The narrowest stem that leaves `min_width` channels in the narrowest stage, or all of them."""
    narrowest = min(config.widths)
    units = -(-min(min_width, narrowest) * config.unit // narrowest)
    return config.stem // config.unit * units


def _largest(scales: Sequence[float], count: int) -> Channels:
    return tuple(sorted(sorted(range(len(scales)), key=lambda i: -scales[i])[:count]))


def _channels(plan: ChannelPlan) -> Iterator[tuple[str, Channels | None, Channels | None]]:
    """For each module of the student, the teacher's output and input channels that it keeps; None for all."""
    keep, config = plan.keep, plan.config
    assert isinstance(config, GeneratorConfig)
    trunk = keep["stem.2"]
    inputs = None
    for name in ("stem.0", "stem.1", "stem.2"):
        yield f"{name}.conv", keep[name], inputs
        yield f"{name}.norm", keep[name], None
        inputs = keep[name]
    for branch, hidden in keep.items():
        if branch.startswith("blocks") and hidden:
            yield f"{branch}.expand.conv", hidden, trunk
            yield f"{branch}.expand.norm", hidden, None
            if ".depthwise." in branch:
                yield f"{branch}.spatial.conv", hidden, None
                yield f"{branch}.spatial.norm", hidden, None
            yield f"{branch}.project", trunk, hidden
    for i, block in enumerate(config.blocks):
        if any(block.conv) or any(block.depthwise):
            yield f"blocks.{i}.norm", trunk, None
    inputs = trunk
    for name in ("up.0", "up.1"):
        yield f"{name}.conv", keep[name], inputs
        yield f"{name}.norm", keep[name], None
        inputs = keep[name]
    yield "head", None, inputs


def _like(teacher: Prunable, plan: ChannelPlan) -> Any:
    reference = next(teacher.parameters())
    return type(teacher)(plan.config).to(reference.device, reference.dtype)  # pyright: ignore[reportArgumentType]


def _copy(
    teacher: Prunable,
    student: nn.Module,
    plan: ChannelPlan,
    wanted: Callable[[str], bool],
    *,
    statistics: bool = True,
) -> None:
    """Fill the student's `wanted` modules with the teacher's kept channels, running statistics included or not."""
    widths = {name: len(channels) for name, channels in plan.keep.items()}
    if set(ranked_widths(teacher.config)) != set(widths) or _narrowed(teacher.config, widths) != plan.config:
        raise ValueError("the plan is not of this teacher: its layers or widths differ")
    with torch.no_grad():
        for name, outputs, inputs in _channels(plan):
            if wanted(name):
                source, target = teacher.get_submodule(name), student.get_submodule(name).state_dict()
                first, second = (inputs, outputs) if isinstance(source, nn.ConvTranspose2d) else (outputs, inputs)
                for key, value in (source.state_dict() if statistics else dict(source.named_parameters())).items():
                    if value.ndim == 1:
                        value = _select(value, 0, outputs)
                    elif value.ndim == 4:
                        value = _select(_select(value, 0, first), 1, second)
                    target[key].copy_(value)


def _select(value: Tensor, axis: int, channels: Channels | None) -> Tensor:
    if channels is None:
        return value
    return value.index_select(axis, torch.tensor(channels, device=value.device))
