"""Batches made ahead: the same ones in the same order, while a step runs, and on a stream of their own."""

import threading
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from i2i_lib.data.ahead import batches_from, made_ahead


def test_the_next_batch_is_made_while_a_step_runs():
    made = {step: threading.Event() for step in range(3, 9)}

    def batch(step: int) -> Any:
        made[step].set()
        return step

    before = set(threading.enumerate())
    batches: Any = made_ahead(batch, 3)
    for step in range(3, 7):
        assert next(batches) == step
        assert made[step + 1].wait(10), "it waits until it is asked for"
        assert not made[step + 2].is_set(), "no more than one is kept"
    batches.close()
    assert set(threading.enumerate()) <= before


def test_what_goes_wrong_in_a_batch_is_raised_in_its_turn():
    def batch(step: int) -> Any:
        if step == 1:
            raise OSError("the disk is gone")
        return step

    batches = made_ahead(batch, 0)
    assert next(batches) == 0
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)


def test_a_gpu_gets_its_batches_on_another_stream(monkeypatch):
    """By what PyTorch is asked for: a stream that waits for the tiles, and memory that both streams keep."""
    done = []

    class Stream:
        def __init__(self, device: Any) -> None:
            self.name = str(device)

        def wait_stream(self, other: str) -> None:
            done.append(f"wait for {other}")

        def synchronize(self) -> None:
            done.append("synchronize")

    def tensor(name: str) -> Any:
        return SimpleNamespace(record_stream=lambda stream: done.append(f"{name} is read by {stream}"))

    def batch(step: int) -> Any:
        done.append(f"batch {step}")
        return SimpleNamespace(source=tensor("source"), target=tensor("target"))

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "training")
    monkeypatch.setattr(
        torch.cuda, "stream", lambda stream: nullcontext(done.append(f"on the stream of {stream.name}"))
    )
    batches: Any = batches_from(batch, 7, "cuda:1")
    next(batches)
    batches.close()
    one = [
        "on the stream of cuda:1",
        "batch 7",
        "synchronize",
        "source is read by training",
        "target is read by training",
    ]
    assert done[: len(one) + 1] == ["wait for training", *one]


def test_a_cpu_makes_its_batches_in_turn():
    made: list[int] = []
    batches: Any = batches_from(lambda step: made.append(step) or step, 2)  # type: ignore
    assert next(batches) == 2 and made == [2]
