"""Measured memory of one picture, beside the MACs that are counted."""

import os

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile


def peak_memory(
    generator: nn.Module, image_size: int | tuple[int, int], *, channels: int = 3, batch_size: int = 1
) -> float:
    """Largest sum of live intermediate tensors in MiB, weights and input apart, of a pass in eval mode.

    In float32 and channels-last. `image_size` is the side of a square or (height, width).
    """
    device = next(generator.parameters()).device
    shape = (batch_size, channels, *((image_size, image_size) if isinstance(image_size, int) else image_size))
    image = torch.zeros(shape, device=device).to(memory_format=torch.channels_last)
    training = generator.training
    generator.eval()
    with torch.inference_mode():
        generator(image)  # the first pass prepares
        peak = _of_gpu(generator, image) if device.type == "cuda" else _of_cpu(generator, image)
    generator.train(training)
    return peak / 2**20


def _of_gpu(generator: nn.Module, image: torch.Tensor) -> int:
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    generator(image)
    return torch.cuda.max_memory_allocated() - before


def _of_cpu(generator: nn.Module, image: torch.Tensor) -> int:
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's chatter about GPUs that it does not find
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        generator(image)
    # What an operator leaves allocated counts from its start; what is freed between operators has events of its own.
    live = peak = 0
    for event in sorted(recorded.events() or [], key=lambda event: event.time_range.start):
        live += event.self_cpu_memory_usage
        peak = max(peak, live)
    return peak
