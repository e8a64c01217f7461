"""Weights as the official code stores them."""

from pathlib import Path

import torch
from safetensors.torch import load_file

DATA = Path(__file__).parent / "golden"


def official(name: str = "student_batch") -> dict[str, torch.Tensor]:
    """A recorded state dict of the official code."""
    return golden(name)[0]


def golden(name: str) -> tuple[dict[str, torch.Tensor], torch.Tensor, list[torch.Tensor]]:
    """Recorded weights of the official code, an input, and the outputs that it computed."""
    values = load_file(DATA / f"{name}.safetensors")
    weights = {key.removeprefix("weights/"): v for key, v in values.items() if key.startswith("weights/")}
    return weights, values["input/0"].float(), [v for key, v in sorted(values.items()) if key.startswith("output/")]


def official_resnet() -> dict[str, torch.Tensor]:
    """Names and shapes of an instance-norm ResNet of three blocks, two channels wide."""
    shapes = {"model.1": (2, 3, 7, 7), "model.4": (4, 2, 3, 3), "model.7": (8, 4, 3, 3)}
    shapes |= {f"model.{10 + i}.conv_block.{j}": (8, 8, 3, 3) for i in range(3) for j in (1, 5)}
    shapes |= {"model.13": (8, 4, 3, 3), "model.16": (4, 2, 3, 3), "model.20": (3, 2, 7, 7)}
    state = {f"{name}.weight": torch.rand(shape) for name, shape in shapes.items()}
    transposed = ("model.13", "model.16")
    return state | {f"{name}.bias": torch.rand(s[1] if name in transposed else s[0]) for name, s in shapes.items()}


def tracked_resnet() -> dict[str, torch.Tensor]:
    """The same with statistics in its norms, and no scales."""
    state = official_resnet()
    widths = {"model.2": 2, "model.5": 4, "model.8": 8, "model.14": 4, "model.17": 2}
    widths |= {f"model.{10 + i}.conv_block.{j}": 8 for i in range(3) for j in (2, 6)}
    for norm, width in widths.items():
        state |= {f"{norm}.running_mean": torch.rand(width), f"{norm}.running_var": torch.rand(width)}
        state[f"{norm}.num_batches_tracked"] = torch.tensor(3)
    return state
