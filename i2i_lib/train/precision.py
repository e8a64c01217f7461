"""The arithmetic that a training has: bfloat16 gains on some processors and costs on others."""

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
from i2i_lib.train.adversarial import Precision, TrainConfig, autocast, channels_last
from i2i_lib.train.packed import packed

_REPEATS = 5


def settle(precision: str, recipe: Path, memo: Path, device: torch.device) -> Precision:
    """Return the precision that a training has: the one asked for, or for "auto" the fastest one that trains alike.

    With "auto", a training whose `recipe` stands already goes on in its own. A GPU computes in bfloat16 where it has
    the circuits (Ampere and later), else in float16 where it has those (Volta, Turing), else in float32. On a CPU, a
    step is timed in bfloat16 and float32, and the answer for this processor is kept in the file `memo`.
    """
    if precision != "auto":
        check_choice("precision", precision, get_args(Precision))
        return cast(Precision, precision)
    if recipe.exists():
        return read_json(recipe, "delete it, to train from the beginning")["training"]["precision"]
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16"
        return "fp16" if torch.cuda.get_device_capability(device) >= (7, 0) else "fp32"
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
    passes = packed(network)
    optimiser = torch.optim.Adam(network.parameters(), fused=True)
    images = torch.linspace(-1, 1, 8 * 3 * 64 * 64).reshape(8, 3, 64, 64)
    seconds = []
    for _ in range(1 + _REPEATS):
        started = time.thread_time()
        with autocast(images, config):
            generated = passes(images).float()
        optimiser.zero_grad()
        F.l1_loss(generated, images).backward()
        optimiser.step()
        seconds.append(time.thread_time() - started)
    return min(seconds[1:])
