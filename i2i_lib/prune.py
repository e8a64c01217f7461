"""One-step pruning: from a teacher's norm scales to the widths of a student (paper, section 3.2).

The ranked norms are those after the stem's and the up-sampling convolutions, and the first in each branch of a block.
Their channels can go without changing the shape of anything but the next layer.

Inception-SPADE generators rank the stem's norm and the branches', SPADE's included (supplement S1). Between blocks no
norm could be ranked: these widths follow the stem's, all in the teacher's ratios.
"""

from typing import Literal

import torch

from i2i_lib.config import check_choice, is_branch
from i2i_lib.generators import InceptionGenerator
from i2i_lib.spade import InceptionSpadeGenerator
from i2i_lib.threshold import ChannelPlan, Cost, Scales, plan_channels

Prunable = InceptionGenerator | InceptionSpadeGenerator


def norm_scales(teacher: Prunable) -> dict[str, list[float]]:
    """|scale| of every channel that can go, by prunable layer, in the order of the forward pass."""
    if not isinstance(teacher, Prunable):
        raise ValueError(f"only an inception generator can be pruned, got {type(teacher).__name__}")
    scales = {}
    for name in teacher.config.ranked_widths:
        norm = teacher.get_submodule(f"{name}.expand.norm" if is_branch(name) else f"{name}.norm")
        scales[name] = norm.get_parameter("weight").detach().abs().double().tolist()
    return scales


def uniform_scales(teacher: Prunable) -> dict[str, list[float]]:
    """Scales by which `prune` narrows every layer by the same share: the baseline that ranks nothing."""
    return {name: [1 - i / len(s) for i in range(len(s))] for name, s in norm_scales(teacher).items()}


def spared_scales(teacher: Prunable, part: Literal["trunk", "last"]) -> dict[str, list[float]]:
    """Scales by which `prune` narrows every layer but one by the same share, and that one last of all.

    A wide trunk with thin blocks, or a wide `last` layer before the picture, made by hand: the baseline for a ranking
    that leads to such a student. Raises ValueError for another part, and for a SPADE teacher's `last` layer, whose
    width follows its stem's.
    """
    check_choice("part", part, ("trunk", "last"))
    scales = uniform_scales(teacher)
    found = [name for name in scales if name.startswith({"trunk": "stem", "last": "up"}[part])]
    if not found:
        raise ValueError("the last layer of an inception-SPADE generator is as wide as its stem says")
    whole = found[-1]  # the stem's last layer is as wide as the trunk
    return scales | {whole: [2.0] * len(scales[whole])}


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
    fill: bool = False,
) -> ChannelPlan:
    """The widest student within `budget` that one global threshold on the scales can give. Changes nothing.

    A channel stays if its scale is above the threshold. Layers outside the blocks keep at least their `min_width`
    largest (the lower index of equals), by default a quarter of the base width, and never more than they have; a
    branch inside a block may vanish. Cost falls as the threshold rises, so a binary search over the scales finds the
    exact answer, with no network built on the way. A SPADE teacher's `min_width` bounds its narrowest stage; its stem
    keeps a multiple of its own ratio to that (8 with 3 upsamplings, 16 with 4 to 6, 32 with 7).

    Args:
        budget: in MACs by the convention `cost`, or in whatever a callable `cost` returns.
        image_size: a side, or height and width, in pixels, as `config.check_image_size` takes them.
        cost: a convention of `macs`, or a function of a config that does not grow when a width shrinks.
        scales: ranks channels by these instead of the teacher's own, with the same names and lengths.
        fill: then also keeps, one by one from the largest scale down, the channels below the threshold that still fit.
            A single channel between the blocks may cost several per cent of a small student; students that are to
            differ in the ranking alone need the same cost.

    Raises ValueError where even the narrowest student is over the budget. A budget above the teacher's own cost keeps
    everything, with the threshold None.
    """
    own = norm_scales(teacher)
    return plan_channels(
        teacher.config,
        own if scales is None else scales,
        budget,
        image_size=image_size,
        min_width=min_width,
        cost=cost,
        fill=fill,
    )
