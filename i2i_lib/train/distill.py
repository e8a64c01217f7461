"""Shared by all distillers: the feature loss, the frozen teacher and its outputs."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i_lib.config import check_choice
from i2i_lib.distributed import default_group, parallel
from i2i_lib.fuse import can_fuse, fuse
from i2i_lib.losses import unchecked_alignment
from i2i_lib.train.adversarial import GanState, TrainConfig, autocast, channels_last, frozen
from i2i_lib.train.packed import on_cpu

Distillation = Literal["gcka", "gka", "cka", "ka", "mse", "none"]
# Kernel alignments by what they compare and whether they centre it. G, "global": every pixel is a row, not every
# sample. C: centred. "gcka" is the index that the paper's abstract names, "ka" that of the authors' code.
ALIGNMENTS: dict[str, dict[str, Any]] = {
    "gcka": {"rows": "pixels", "centered": True},
    "gka": {"rows": "pixels", "centered": False},
    "cka": {"rows": "samples", "centered": True},
    "ka": {"rows": "samples", "centered": False},
}


class FeatureLoss(nn.Module):
    """How far a student's features are from its teacher's at each tapped layer (paper section 3.3, equation 5).

    `kind` is one of `ALIGNMENTS`, "mse" through learned 1 x 1 adaptors, or "none".
    """

    def __init__(self, kind: Distillation, student: Any, teacher: Any, config: TrainConfig) -> None:
        super().__init__()
        check_choice("distillation", kind, get_args(Distillation))
        self.kind, self.config = kind, config
        self.adaptors = nn.ModuleList()
        if kind == "mse":  # only the MSE needs the student's channels to be as many as the teacher's
            device = next(student.parameters()).device
            widths = zip(student.config.feature_widths, teacher.config.feature_widths, strict=True)
            with torch.random.fork_rng(devices=[]):  # the same start, whatever was drawn before
                torch.manual_seed(0)
                self.adaptors.extend(nn.Conv2d(s, t, 1).to(device) for s, t in widths)
        self.adapt = [parallel(adaptor) for adaptor in self.adaptors]
        self.group = default_group()  # an alignment is that of the whole batch
        self.constant: Tensor | None = None  # [layers, 2], bool: features that did not vary since the last check

    def forward(
        self, features: Sequence[Tensor], teacher_features: Sequence[Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the weighted loss as "distill", and its terms as "layer1" onwards; both empty for "none"."""
        if self.kind == "none":
            return {}, {}
        if self.kind == "mse":
            with autocast(features[0], self.config):
                adapted = [adapt(f) for adapt, f in zip(self.adapt, features, strict=True)]
            layers = [F.mse_loss(f.float(), t.float()) for f, t in zip(adapted, teacher_features, strict=True)]
            distance = torch.stack(layers).sum()
        else:
            pairs = zip(features, teacher_features, strict=True)
            aligned = [self._alignment(f, t) for f, t in pairs]
            layers = [value for value, _ in aligned]
            constant = torch.stack([flags for _, flags in aligned])
            self.constant = constant if self.constant is None else self.constant | constant
            # A constant offset keeps the term at 0 for perfect alignment; it changes no gradient.
            distance = (1 - torch.stack(layers)).sum()
        named = {f"layer{i}": value for i, value in enumerate(layers, start=1)}
        return {"distill": self.config.distill * distance}, named

    def _alignment(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """As `unchecked_alignment`: of the whole batch, or the mean over its shards or over patches of its maps."""
        index, shard, patches = ALIGNMENTS[self.kind], self.config.shard, self.config.patches
        if not shard and patches == 1:
            return unchecked_alignment(x, y, group=self.group, **index)
        group = None if shard else self.group
        parts = (m.split(shard) if shard else _patches(m, patches) for m in (x, y))
        found = (unchecked_alignment(a, b, group=group, **index) for a, b in zip(*parts, strict=True))
        values, constant = zip(*found, strict=True)
        return torch.stack(values).mean(), torch.stack(constant).any(0)

    def check(self) -> None:
        """Raise ValueError, naming the layer, if features since the last check did not vary.

        Apart from the steps, because reading the flags makes a GPU wait for the host.
        """
        if self.constant is None:
            return
        flags, self.constant = self.constant.tolist(), None
        for layer, (student, teacher) in enumerate(flags, start=1):
            if student or teacher:
                whose = " and ".join(["the student"] * student + ["the teacher"] * teacher)
                raise ValueError(
                    f"the alignment of layer {layer} is undefined: the features of {whose} do not vary (or are all"
                    " zero): lower the learning rate, or widen the student"
                )


def _patches(maps: Tensor, count: int) -> list[Tensor]:
    """Maps [N, C, H, W] cut into `count` parts of their height times as many of their width (Zhou et al. 2024)."""
    return [part for row in maps.tensor_split(count, -2) for part in row.tensor_split(count, -1)]


class Distiller(GanState):
    """A student in training, beside its frozen teacher; `kind` is that of its `FeatureLoss`."""

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        discriminator: nn.Module,
        config: TrainConfig,
        kind: Distillation = "gcka",
    ) -> None:
        super().__init__(student, discriminator, config, feature_loss=FeatureLoss(kind, student, teacher, config))
        self.teacher: Any = quick(frozen(teacher))


def quick(teacher: Any) -> Any:
    """The frozen teacher; on a CPU in its fused form, which computes the same up to rounding in less time."""
    return channels_last(fuse(teacher)) if on_cpu(teacher) and can_fuse(teacher) else teacher


def teacher_outputs(teacher: Any, source: Tensor, *, image: bool, features: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return the teacher's images [N, 3, H, W], float32, and its features, or of either nothing if it is not needed."""
    with torch.no_grad():
        if image:
            made, maps = teacher.forward_features(source)
            return made.float(), maps
        return source.new_empty(0), teacher.features(source) if features else ()
