"""Features of one test picture at the tapped layers of teacher and students, for the figure that compares them."""

from base64 import b64encode
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from i2i_lib.losses import kernel_alignment

# What each student in the figure was taught by, in words.
LABELS = {"student-gcka": "student, learned by GCKA", "student-none": "student, not distilled"}


def tapped(source: Tensor, networks: Mapping[str, Any]) -> dict[str, Any]:
    """Features of the picture `source` [1, 3, H, W] in [-1, 1], as 16-bit numbers in text, and their alignments.

    `networks`: name -> generator, the teacher and at least one of `LABELS`; others are left out. The features of a
    layer come channel by channel, position by position. The alignments with the teacher are PyTorch's, from the
    unrounded features.
    """
    maps = {}
    for name in ("teacher", *LABELS):
        if name in networks:
            with torch.no_grad():
                maps[name] = [layer.float() for layer in networks[name].features(source)]
    teacher = maps["teacher"]
    layers = ["stem", *(f"block {number}" for number in networks["teacher"].config.taps)]
    found: dict[str, Any] = {"grid": list(teacher[0].shape[2:]), "layers": layers, "networks": {}}
    for name, own in maps.items():
        halves = b"".join(layer[0].flatten(1).half().numpy().tobytes() for layer in own)
        entry = {"widths": [layer.shape[1] for layer in own], "features": b64encode(halves).decode()}
        if name != "teacher":
            aligned = [kernel_alignment(x, y).item() for x, y in zip(own, teacher, strict=True)]
            entry |= {"label": LABELS[name], "aligned": aligned}
        found["networks"][name] = entry
    return found
