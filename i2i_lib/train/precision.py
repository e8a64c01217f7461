"""The arithmetic of a training by measurement: bfloat16 gains on some processors and costs on others."""

import time
from dataclasses import replace
from pathlib import Path
from typing import cast, get_args

import torch
from torch.nn import functional as F

from i2i_lib.checkpoint import build
from i2i_lib.config import cat_teacher, check_choice
from i2i_lib.cpus import processor
from i2i_lib.files import read_json, write_json
from i2i_lib.layers import init_weights
from i2i_lib.train.adversarial import Precision, TrainConfig, autocast, channels_last, descend

_REPEATS = 5


def settle(precision: str, recipe: Path, memo: Path, device: torch.device) -> Precision:
    """Return the precision that a training has: "bf16" or "fp32" as asked for, or for "auto" the faster one.

    A training whose `recipe` stands already goes on in its own. On a CPU, "auto" times a step in both and keeps the
    answer for this processor in the file `memo`. A GPU computes in bfloat16 if it can.
    """
    if precision != "auto":
        check_choice("precision", precision, get_args(Precision))
        return cast(Precision, precision)
    if recipe.exists():
        return read_json(recipe, "delete it, to train from the beginning")["training"]["precision"]
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    known = read_json(memo, "delete it") if memo.exists() else {}
    if known.get("processor") != processor():
        known = {"processor": processor(), "seconds": {kind: step_seconds(kind) for kind in ("bf16", "fp32")}}
        write_json(memo, known)
    return min(known["seconds"], key=known["seconds"].__getitem__)


def step_seconds(precision: Precision) -> float:
    """Seconds of this thread for a step of a small generator on a CPU: the best of a few."""
    config = TrainConfig(1, precision=precision)
    network = channels_last(build(replace(cat_teacher(16, 3, "batch"), upsample="resize")).train())
    init_weights(network, seed=0)
    optimiser = torch.optim.Adam(network.parameters(), fused=True)
    images = torch.linspace(-1, 1, 8 * 3 * 64 * 64).reshape(8, 3, 64, 64)
    seconds = []
    for _ in range(1 + _REPEATS):
        started = time.thread_time()
        with autocast(images, config):
            generated = network(images).float()
        descend(F.l1_loss(generated, images), optimiser)
        seconds.append(time.thread_time() - started)
    return min(seconds[1:])
