"""Training on many processes: who takes part, and what they do together.

The processes are those of PyTorch's default group, which `accelerate launch` forms. Each holds the whole of every
network and an equal share of every batch. For a process alone nothing here communicates or changes anything.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def together() -> "dist.ProcessGroup | None":
    """The processes that train together; None for one alone."""
    many = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    return dist.group.WORLD if many else None


def rank() -> int:
    """This process's number, from 0; only the first writes files."""
    return dist.get_rank() if together() else 0


def share(batch_size: int) -> slice:
    """The samples of a batch that are this process's. ValueError unless all processes get equally many."""
    count = dist.get_world_size() if together() else 1
    own, rest = divmod(batch_size, count)
    if rest or not own:
        raise ValueError(f"batch_size {batch_size} cannot be shared by {count} processes: give a multiple of {count}")
    return slice(own * rank(), own * (rank() + 1))


def parallel(module: nn.Module) -> Callable[..., Any]:
    """What to call in place of `module` for its gradients to become the mean over processes (DDP).

    Buffers are not sent round before every pass: they are the same everywhere, since norms either keep none or agree on
    them (SyncBN).
    """
    if not together():
        return module
    shared = DistributedDataParallel(module)
    shared.broadcast_buffers = False  # as an argument deprecated since PyTorch 2.13, whose word 2.12 does not know
    return shared


def mean(values: Tensor) -> Tensor:
    """The mean over processes."""
    if together():
        dist.all_reduce(values)
        values /= dist.get_world_size()
    return values


def gather(own: Tensor) -> Tensor:
    """All processes' shares of a batch, in order; without gradients."""
    if not together():
        return own
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own)
    return torch.cat(parts)


@contextmanager
def first_first() -> Iterator[None]:
    """Let the first process go through the block before the others enter it."""
    if together() and rank():
        dist.barrier()
    yield
    if together() and not rank():
        dist.barrier()
