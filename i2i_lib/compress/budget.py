"""A student's widths within a budget of multiply-accumulates or of milliseconds."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from i2i_lib.checkpoint import build
from i2i_lib.compress.teacher import Teacher
from i2i_lib.config import GeneratorConfig, cat_teacher, is_branch
from i2i_lib.export.onnx import milliseconds, onnx_file
from i2i_lib.generators import InceptionGenerator
from i2i_lib.macs import generator_macs
from i2i_lib.prune import norm_scales, prune, uniform_scales
from i2i_lib.threshold import ChannelPlan, Scales

Unit = Literal["share", "macs", "ms"]
LEAST_WIDTH = 8  # channels outside the blocks, where a budget leaves them: behind four a student drew no three colours
NEAR = 0.97  # of a budget of milliseconds: measurements scatter by about as much
SEARCHES = 8  # for a student that near, at most


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that one picture may cost: a share of the teacher's exact MACs, exact MACs, or milliseconds.

    Milliseconds are those of the ONNX file on one thread of this machine's CPU, by that thread's own clock.
    """

    unit: Unit
    value: float

    def text(self) -> str:
        """As on the command line: `--share 0.1`."""
        return f"--{self.unit} {self.value:g}"


def one_budget(share: float | None, macs: float | None, ms: float | None) -> Budget:
    """The one budget that was given. ValueError for none, several, or one that no student can have."""
    asked: dict[Unit, float | None] = {"share": share, "macs": macs, "ms": ms}
    given = [Budget(unit, value) for unit, value in asked.items() if value is not None]
    if len(given) != 1:
        got = " and ".join(budget.text() for budget in given) or "none"
        raise ValueError(f"give one budget, such as --share 0.1, --macs 5e9 or --ms 20; got {got}")
    (budget,) = given
    if budget.unit == "share" and not 0 < budget.value < 1:
        raise ValueError(f"--share is a part of the teacher's MACs, between 0 and 1, got {budget.value:g}")
    if not 0 < budget.value < float("inf"):
        raise ValueError(f"--{budget.unit} must be above 0 and finite, got {budget.value:g}")
    return budget


def latency(config: Any, size: int) -> float:
    """Milliseconds of one picture by the ONNX file of a generator of a config."""
    return milliseconds(onnx_file(build(config).eval()), size)


def narrowed(teacher: Teacher, budget: Budget, size: int, min_width: int | None = None) -> ChannelPlan:
    """The widest student within a budget, for pictures of `size` pixels; `plan.cost` is in the budget's unit.

    An inception teacher loses the channels of its smallest norm scales. A ResNet has no branches to choose from: its
    student is the inception generator of its width and depth, narrowed uniformly. Layers outside the blocks keep
    `min_width` channels; by default a quarter of the first's, and `LEAST_WIDTH` if the budget allows for that.

    Raises ValueError for a budget that the teacher itself meets, or that no student does.
    """
    whole = teacher if isinstance(teacher, InceptionGenerator) else InceptionGenerator(inception_of(teacher))
    scales = None if whole is teacher else uniform_scales(whole)
    measure: Literal["exact"] | Callable[[GeneratorConfig], float] = "exact"
    limit, of_teacher = budget.value, float(generator_macs(teacher.config, size, "exact"))
    if budget.unit == "share":
        limit *= of_teacher
    elif budget.unit == "ms":
        measure, of_teacher = lambda config: latency(config, size), latency(teacher.config, size)
    if limit >= of_teacher:
        unit = "ms" if budget.unit == "ms" else "MACs"
        raise ValueError(
            f"{budget.text()} leaves nothing to compress: the teacher takes about {of_teacher:,.4g} {unit}"
        )

    within = partial(prune, whole, limit, image_size=size, cost=measure, scales=scales)
    found: ChannelPlan | None = None
    if min_width is None and whole.config.base // 4 < LEAST_WIDTH:
        with suppress(ValueError):  # the budget is below that floor
            found = within(min_width=LEAST_WIDTH)
    if found:
        min_width = LEAST_WIDTH
    else:
        try:
            found = within(min_width=min_width)
        except ValueError as error:  # in the words of the command line
            text = str(error).replace("units of the given cost", "ms").replace("min_width", "--min-width")
            raise ValueError(f"{budget.text()} is too little: {text}") from error
    if budget.unit != "ms":
        return found
    return _nearer(found, whole, scales or norm_scales(whole), limit, size, min_width)


def _nearer(
    plan: ChannelPlan, whole: InceptionGenerator, ranked: Scales, ms: float, size: int, min_width: int | None
) -> ChannelPlan:
    """A plan nearer to its limit of latency than one threshold comes, whose steps are several channels at once.

    Where a layer between the blocks begins another vector register, time jumps by a quarter. So these stay, and the
    branches are filled up, channel by channel, to the MACs that take as long as they may.
    """
    scales = {
        name: [value if is_branch(name) or i in plan.keep[name] else 0.0 for i, value in enumerate(layer)]
        for name, layer in ranked.items()
    }
    low, high = float(generator_macs(plan.config, size, "exact")), float(generator_macs(whole.config, size, "exact"))
    for _ in range(SEARCHES):
        if plan.cost >= NEAR * ms:
            break
        middle = (low + high) / 2
        wider = prune(whole, middle, image_size=size, min_width=min_width, cost="exact", scales=scales, fill=True)
        cost = latency(wider.config, size)
        if cost > ms:
            high = middle
        else:
            low = middle
            plan = max(plan, replace(wider, cost=cost), key=lambda found: found.cost)
    return plan


def inception_of(teacher: Teacher) -> GeneratorConfig:
    """The inception generator of a ResNet's width and depth, with its norm, up-sampling and channels."""
    config = teacher.config
    body = cat_teacher(config.base, config.n_blocks, config.norm)
    return replace(body, upsample=config.upsample, in_channels=config.in_channels, out_channels=config.out_channels)
