"""What the distillers of all families share: a teacher, and how alike the student's features are to its own."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from i2i_lib.losses import kernel_alignment
from i2i_lib.train.adversarial import Adversaries, Judge, Network, TrainConfig, autocast
from i2i_lib.distributed import parallel, together

Distillation = Literal["gcka", "gka", "cka", "ka", "mse", "none"]
# Kernel alignments by what they compare and whether they centre it. G, "global": every pixel is a row, not every
# sample. C: centred. "gcka" is the index that the paper's abstract names, "ka" that of the authors' code.
ALIGNMENTS: dict[str, dict[str, Any]] = {
    "gcka": {"rows": "pixels", "centered": True},
    "gka": {"rows": "pixels", "centered": False},
    "cka": {"rows": "samples", "centered": True},
    "ka": {"rows": "samples", "centered": False},
}
Look = tuple[Tensor, tuple[Tensor, ...]]  # images [N, 3, H, W], float32, and the feature maps behind them


class Distiller(Adversaries[Network, Judge]):
    """A student learns from the discriminator and the teacher's features (paper section 3.3, eq. 5).

    `kind` says what "like the teacher" means at each tapped layer: one of `ALIGNMENTS`, "mse" through learned 1 x 1
    adaptors, or "none".
    """

    def __init__(
        self,
        student: Network,
        teacher: Network,
        discriminator: Judge,
        config: TrainConfig,
        kind: Distillation = "gcka",
        **optimisers: Any,
    ) -> None:
        if kind not in (*ALIGNMENTS, "mse", "none"):
            raise ValueError(f"unknown distillation {kind!r}: expected {', '.join(ALIGNMENTS)}, mse or none")
        self.kind = kind
        self.student = student
        self.teacher = teacher.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.adaptors = nn.ModuleList()
        if kind == "mse":  # only the MSE needs the student's channels to be as many as the teacher's
            device = next(student.parameters()).device
            widths = zip(student.config.feature_widths, teacher.config.feature_widths, strict=True)  # pyright: ignore
            with torch.random.fork_rng(devices=[]):  # the same start, whatever was drawn before
                torch.manual_seed(0)
                self.adaptors.extend(nn.Conv2d(s, t, 1).to(device) for s, t in widths)
        super().__init__(student, discriminator, config, extra=self.adaptors.parameters(), **optimisers)
        self.adapt = [parallel(adaptor) for adaptor in self.adaptors]
        self.group = together()  # an alignment is that of the whole batch

    def parts(self) -> dict[str, Any]:
        return super().parts() | {"adaptors": self.adaptors}

    def look(self, source: Tensor) -> tuple[Look, Look]:
        """What the student makes of the sources, and the teacher: its part is empty if nothing is learnt from it."""
        teacher: Look = source.new_empty(0), ()
        with autocast(source, self.config):
            if self.kind != "none" or self.config.imitate:
                with torch.no_grad():
                    teacher = self.teacher.forward_features(source)  # pyright: ignore[reportCallIssue]
            fake, features = self.learning_generator(source, features=True)
        return (fake.float(), features), (teacher[0].float(), teacher[1])

    def distillation(
        self, features: Sequence[Tensor], wanted: Sequence[Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The weighted loss as "distill", and what it sums as "layer1" onwards; both empty for the kind "none"."""
        if self.kind == "none":
            return {}, {}
        if self.kind == "mse":
            with autocast(features[0], self.config):
                features = [adapt(f) for adapt, f in zip(self.adapt, features, strict=True)]
            layers = [F.mse_loss(f.float(), w.float()) for f, w in zip(features, wanted, strict=True)]
            total = torch.stack(layers).sum()
        else:
            index = ALIGNMENTS[self.kind]
            layers = [kernel_alignment(f, w, group=self.group, **index) for f, w in zip(features, wanted, strict=True)]
            # A constant offset keeps the term at 0 for perfect alignment; it changes no gradient.
            total = (1 - torch.stack(layers)).sum()
        named = {f"layer{i}": value for i, value in enumerate(layers, start=1)}
        return {"distill": self.config.distill * total}, named
