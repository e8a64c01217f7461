"""From a plan to a student: random, inherited or with the teacher's scales."""

from collections.abc import Iterator
from typing import Any, Literal, TypeVar, cast

import torch
from torch import nn

from i2i_lib.config import GeneratorConfig, check_choice, is_branch
from i2i_lib.generators import InceptionGenerator
from i2i_lib.layers import init_weights
from i2i_lib.prune import Prunable
from i2i_lib.threshold import ChannelPlan, Channels

P = TypeVar("P", bound=Prunable)


def inherit(teacher: Prunable, plan: ChannelPlan) -> InceptionGenerator:
    """The student that keeps the teacher's weights at the kept channels, on its device and in its mode.

    It computes what the teacher does if all dropped channels are silent, that is:
    - the ranked norm outputs 0 after its ReLU;
    - in a depthwise branch with tracked norms, so does the second norm for the constant 0 (untracked norms subtract
      such constants later, at the block's end);
    - in the trunk, every block's closing norm outputs 0 too.

    Raises ValueError for a SPADE teacher: no norm ranks the channels of its blocks' outputs.
    """
    _check_ranks_all(teacher)
    student = _like(teacher, plan).train(teacher.training)
    _copy(teacher, student, plan)
    return cast(InceptionGenerator, student)


def start_student(
    teacher: P, plan: ChannelPlan, start: Literal["random", "inherited", "scales"] = "random", **drawn: Any
) -> P:
    """A student to train, in one of three states.

    - "random": fresh weights, as published (section 3.3), by `init_weights` with the options `drawn`, such as `seed`;
    - "inherited": see `inherit`;
    - "scales": fresh weights but the teacher's norm scales and shifts at the kept channels, closing norms excepted.
      The official code does this, unsaid, wherever it uses instance norm.

    Students of SPADE teachers start from random weights; another start is a ValueError.
    """
    check_choice("start", start, ("random", "inherited", "scales"))
    if start != "random":
        _check_ranks_all(teacher)
    if start == "inherited":
        return cast(P, inherit(teacher, plan).train())
    student = _like(teacher, plan)
    init_weights(student, **drawn)
    if start == "scales":
        _copy(teacher, student, plan, scales_only=True)
    return student


def _check_ranks_all(teacher: Prunable) -> None:
    if not isinstance(teacher, InceptionGenerator):
        raise ValueError(
            f"a student cannot start from the weights or scales of an {type(teacher).__name__}: no norm ranks the"
            " channels that its blocks pass on, so none of them can be called kept. Use start='random'"
        )


def _channels(plan: ChannelPlan) -> Iterator[tuple[str, Channels | None, Channels | None]]:
    """For each module of the student, the teacher's output and input channels that it keeps; None for all."""
    keep, trunk = plan.keep, plan.keep["stem.2"]
    for layers, inputs in ((("stem.0", "stem.1", "stem.2"), None), (("up.0", "up.1"), trunk)):
        for name in layers:
            yield f"{name}.conv", keep[name], inputs
            yield f"{name}.norm", keep[name], None
            inputs = keep[name]
    for branch, hidden in keep.items():
        if is_branch(branch) and hidden:
            yield f"{branch}.expand.conv", hidden, trunk
            yield f"{branch}.expand.norm", hidden, None
            if ".depthwise." in branch:
                yield f"{branch}.spatial.conv", hidden, None
                yield f"{branch}.spatial.norm", hidden, None
            yield f"{branch}.project", trunk, hidden
    for i, block in enumerate(cast(GeneratorConfig, plan.config).blocks):
        if block.any_branch:
            yield f"blocks.{i}.norm", trunk, None
    yield "head", None, keep["up.1"]


def _like(teacher: P, plan: ChannelPlan) -> P:
    """An unfilled student, on its teacher's device and in its precision."""
    reference = next(teacher.parameters())
    return type(teacher)(cast(Any, plan.config)).to(reference.device, reference.dtype)


def _copy(teacher: Prunable, student: nn.Module, plan: ChannelPlan, *, scales_only: bool = False) -> None:
    """Fill the student with the teacher's kept channels, or only its norms' scales and shifts but the closing ones."""
    widths = {name: len(channels) for name, channels in plan.keep.items()}
    if teacher.config.ranked_widths.keys() != widths.keys() or teacher.config.narrowed(widths) != plan.config:
        raise ValueError("the plan is not of this teacher: its layers or widths differ")
    with torch.no_grad():
        for name, outputs, inputs in _channels(plan):
            closing = is_branch(name) and name.count(".") == 2  # blocks.0.norm
            if scales_only and (closing or not name.endswith(".norm")):
                continue
            whole, kept = teacher.get_submodule(name), student.get_submodule(name).state_dict()
            axes = (inputs, outputs) if isinstance(whole, nn.ConvTranspose2d) else (outputs, inputs)
            values = dict(whole.named_parameters()) if scales_only else whole.state_dict()
            for key, value in values.items():
                chosen = axes if value.ndim == 4 else (outputs,) * value.ndim  # statistics count batches in a scalar
                for axis, channels in enumerate(chosen):
                    if channels is not None:
                        value = value.index_select(axis, torch.tensor(channels, device=value.device))
                kept[key].copy_(value)
