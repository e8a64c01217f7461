"""Measured cost of one picture in time and memory, beside the MACs that are counted."""

import os
import time
from dataclasses import dataclass

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile


@dataclass(frozen=True, slots=True)
class InferenceCost:
    """Latency and memory on the machine that ran it, with its present number of threads."""

    median_ms: float
    p95_ms: float
    peak_mib: float  # largest sum of live intermediate tensors, weights and input apart


def inference_cost(
    generator: nn.Module,
    image_size: int | tuple[int, int],
    *,
    channels: int = 3,
    batch_size: int = 1,
    repeats: int = 50,
) -> InferenceCost:
    """Latency and peak memory of one forward pass in eval mode, in float32 and channels-last.

    `image_size` is the side of a square or (height, width).

    Raises ValueError for fewer than 20 repeats, from which no 95th percentile can be read.
    """
    if repeats < 20:
        raise ValueError(f"a 95th percentile needs at least 20 repeats, got {repeats}")
    device = next(generator.parameters()).device
    shape = (batch_size, channels, *((image_size, image_size) if isinstance(image_size, int) else image_size))
    image = torch.zeros(shape, device=device).to(memory_format=torch.channels_last)
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    training = generator.training
    generator.eval()
    times = []
    with torch.inference_mode():
        for _ in range(5):
            generator(image)
        wait()
        for _ in range(repeats):
            started = time.perf_counter()
            generator(image)
            wait()
            times.append(1000 * (time.perf_counter() - started))
        peak = _peak_mib(generator, image)
    generator.train(training)
    median, p95 = torch.tensor(times).quantile(torch.tensor([0.5, 0.95])).tolist()
    return InferenceCost(median, p95, peak)


def _peak_mib(generator: nn.Module, image: torch.Tensor) -> float:
    if image.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        generator(image)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's chatter about GPUs that it does not find
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        generator(image)
    # What an operator leaves allocated counts from its start; what is freed between operators has events of its own.
    live = peak = 0
    for event in sorted(recorded.events() or [], key=lambda event: event.time_range.start):
        live += event.self_cpu_memory_usage
        peak = max(peak, live)
    return peak / 2**20
