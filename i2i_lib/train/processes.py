"""One training on all GPUs of a job: a process for each, started by one that waits for them."""

import ctypes
import signal
import subprocess
import sys
from pathlib import Path

from i2i_lib.variables import variable


def train_on_all_gpus(recipe: Path) -> None:
    """Train by the file `recipe` to the end, with a process on each GPU that the runner gave this job (I2I_GPU).

    `fit` then finds every step done. With one GPU or none nothing happens here: `fit` trains. Raises RuntimeError with
    what the first process that failed said.
    """
    count = int(variable("I2I_GPU") or "0")
    if count > 1:
        train_together(recipe, count)


def train_together(recipe: Path, processes: int) -> None:
    """The same with so many processes, which without GPUs share the cores. They end when this process does."""
    done = subprocess.run(
        launch_command(recipe, processes),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=_end_with_parent if sys.platform == "linux" else None,
    )
    if done.returncode:
        lines = done.stdout.strip().splitlines() or ["they said nothing"]
        reason = next((line for line in lines if line.startswith("error: ")), lines[-1])
        raise RuntimeError(f"training by {processes} processes failed: {reason.removeprefix('error: ')}")


def launch_command(recipe: Path, processes: int) -> list[str]:
    """The command that starts the processes: PyTorch's own, which ends all if one fails."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [*start, "-m", "i2i_lib.cli", "train", str(recipe)]


def _end_with_parent() -> None:
    """Have the system end the started process, and it its own, when this one ends, even by SIGKILL."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # 1: PR_SET_PDEATHSIG
