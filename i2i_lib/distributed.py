"""Distributed helpers; no-ops in a single process.

The processes are those of PyTorch's default group, which `accelerate launch` forms. Each holds the whole of every
network and an equal slice of every batch.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def default_group() -> "dist.ProcessGroup | None":
    """The processes that train together; None for one alone."""
    many = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    return dist.group.WORLD if many else None


def rank() -> int:
    """This process's number, from 0; only the first writes files."""
    return dist.get_rank() if default_group() else 0


def local_slice(batch_size: int) -> slice:
    """This process's samples of a batch. Raises ValueError unless all processes get equally many."""
    count = dist.get_world_size() if default_group() else 1
    own, rest = divmod(batch_size, count)
    if rest or not own:
        raise ValueError(f"batch_size {batch_size} cannot be shared by {count} processes: give a multiple of {count}")
    return slice(own * rank(), own * (rank() + 1))


def parallel(module: nn.Module) -> Callable[..., Any]:
    """Wrap `module` so that its gradients become the mean over processes (DDP).

    Buffers are not broadcast before every pass: they are the same everywhere, since norms keep none or share them
    (SyncBN).
    """
    if not default_group():
        return module
    shared = DistributedDataParallel(module)
    shared.broadcast_buffers = False  # as an argument deprecated since PyTorch 2.13, under a name that 2.12 lacks
    return shared


def mean(values: Tensor) -> Tensor:
    """The mean over processes."""
    if default_group():
        dist.all_reduce(values)
        values /= dist.get_world_size()
    return values


def gather(own: Tensor) -> Tensor:
    """All processes' slices of a batch, in order; without gradients."""
    if not default_group():
        return own
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own)
    return torch.cat(parts)


@contextmanager
def rank_zero_first() -> Iterator[None]:
    """Rank 0 goes first."""
    if default_group() and rank():
        dist.barrier()
    yield
    if default_group() and not rank():
        dist.barrier()
