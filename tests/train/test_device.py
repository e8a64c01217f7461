"""The device: what `set_up` settles before anything is computed."""

import os
import subprocess
import sys
from typing import Any

import pytest
import torch

from i2i_lib.train.device import set_up


def test_a_gpu_preset_needs_a_gpu(monkeypatch):
    monkeypatch.setenv("I2I_GPU", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match=r"this preset needs 1 GPU, and PyTorch .* sees none: choose PRESET=cpu"):
        set_up(0)


@pytest.fixture
def backends():
    """PyTorch's two backends with TF32 allowed, as they were when the test is over."""
    matmul: Any = torch.backends.cuda.matmul
    cudnn: Any = torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    matmul.allow_tf32 = cudnn.allow_tf32 = True
    yield matmul, cudnn
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before


def test_float32_keeps_its_digits_on_a_gpu(backends, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert set_up(0).type == "cuda"
    assert not any(backend.allow_tf32 for backend in backends)


FAULTS = """
import ctypes, resource, torch
from i2i_lib.train.device import set_up

set_up(0)
if getattr(ctypes.CDLL(None), "mallopt", lambda *_: 0)(-3, 2**30):
    for _ in range(10):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(2**24)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_on_a_cpu_a_step_uses_the_memory_of_the_last_one_again():
    """In a process of its own: one that was once refused memory, as tests are, takes large blocks from the kernel."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "I2I_GPU": "0"}
    said = subprocess.run([sys.executable, "-c", FAULTS], env=environment, capture_output=True, text=True, check=True)
    if not (faults := [int(line) for line in said.stdout.splitlines()]):
        pytest.skip("this C library gives large blocks back, whatever it is told")
    # Taken from the kernel each time, they are 16,384 small pages, or 32 large ones.
    assert min(faults) < 8
