"""The device and its threads."""

import ctypes
from contextlib import suppress

import torch

from i2i_lib.variables import variable


def set_up(threads: int) -> torch.device:
    """Bound PyTorch's threads (0 keeps its choice) and pick the device: the first GPU, else the CPU.

    On a GPU, all but bfloat16 is computed in float32, to all its digits. On the CPU, kernels that sum
    in varying order are refused, so that the same run gives the same bits. Raises RuntimeError if the preset needs a
    GPU (I2I_GPU) and there is none.
    """
    if threads:
        torch.set_num_threads(threads)
    if torch.cuda.is_available():
        # TF32 would round factors to 10 bits in alignments, fp32 trainings and measures. The large products of a bf16
        # training run in bfloat16, and would not be faster.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = True
        return torch.device("cuda")
    wanted = variable("I2I_GPU") or "0"
    if wanted != "0":
        raise RuntimeError(
            f"this preset needs {wanted} GPU, and PyTorch {torch.__version__} sees none: choose PRESET=cpu, or run it"
            " where there is one, or set `gpu: 0` in the preset and wait for days"
        )
    torch.use_deterministic_algorithms(True)
    # PyTorch would also fill every allocation: 14 % of a step, for memory that is never read uninitialised.
    torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue]
    _keep_memory()
    return torch.device("cpu")


def _keep_memory() -> None:
    """Have the C library keep freed memory for the next step: the kernel would fill its pages with zeros again."""
    trim, mmap = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD
    with suppress(OSError, AttributeError):  # another library than glibc
        library = ctypes.CDLL(None)
        # An older glibc takes 32 MiB at most. Without this setting, the other one would make things worse.
        if library.mallopt(mmap, 2**30) or library.mallopt(mmap, 2**25):
            library.mallopt(trim, 2**30)
