"""Batches made ahead: a GPU's next batch is read, cut and copied while the step before it runs."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import torch

from i2i_lib.data.tiles import Batch


def batches_from(batch: Callable[[int], Batch], first_step: int, device: str | torch.device = "cpu") -> Iterator[Batch]:
    """The batches of `first_step` and all steps after it; `batch` makes that of a step on `device`.

    Those of a GPU are made ahead. On a CPU they are made in turn: it would only take its own time from training.
    """
    if torch.device(device).type == "cuda" and torch.cuda.is_available():
        return made_ahead(_on_own_stream(batch, torch.device(device)), first_step)
    return map(batch, count(first_step))


def made_ahead(batch: Callable[[int], Batch], first_step: int) -> Iterator[Batch]:
    """The same batches, each made by a second thread while the one before is in use.

    What goes wrong in a batch is raised in its turn.
    """
    with ThreadPoolExecutor(1) as other:
        coming = other.submit(batch, first_step)
        for step in count(first_step + 1):
            ready = coming.result()
            coming = other.submit(batch, step)
            yield ready


def _on_own_stream(batch: Callable[[int], Batch], device: torch.device) -> Callable[[int], Batch]:
    """`batch` on a stream of its own: neither the copies to the GPU nor the cut wait for the training's kernels."""
    training, own = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    own.wait_stream(training)  # for the tiles that batches are cut from

    def make(step: int) -> Batch:
        with torch.cuda.stream(own):
            made = batch(step)
        own.synchronize()  # so waits this thread, and not the one that trains
        for tensor in (made.source, made.target):
            tensor.record_stream(training)  # else its memory would be this stream's again while a step reads it
        return made

    return make
