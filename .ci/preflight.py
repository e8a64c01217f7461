"""Whether a machine's GPU can run the book, a line for each question, before anything is installed.

`.ci/gpu preflight` runs it; Python's standard library and `nvidia-smi` are all it needs. The status is 1 if anything is
missing, whose line then ends with the way out.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

# What the PyTorch of constraints.txt was built with; a test compares them.
TORCH, CUDA = "2.15.0", "13.2"
DRIVER = 580  # the first of CUDA 13; newer ones run it too
CAPABILITIES = ("7.5", "8.0", "8.6", "9.0", "10.0", "12.0")
BF16 = (8, 0)  # the first capability that computes in bfloat16 by hardware
# GiB of a GPU that must be free: generous guesses, but for the published trainings, whose need was counted.
MEMORY = {"smoke": 2, "cpu": 4, "gpu": 12, "gpu-256": 12, "paper": 40, "paper-gaugan": 40}
# A preset may be like `cpu` in what it trains.
MEMORY |= {
    path.stem: MEMORY["cpu"]
    for path in (Path(__file__).parent.parent / "presets").glob("*.yml")
    if "\nlike: cpu\n" in path.read_text(encoding="utf-8")
}
INSTALLED, RUN = 7, 5  # GiB of disk: the environment, and what a run writes
FIELDS = ("name", "driver_version", "compute_cap", "memory.free", "memory.total")

Line = tuple[str, str, str]  # what was asked, what was found, and the way out, which is empty where nothing is missing


def main() -> int:
    """Print the lines; return the exit status."""
    try:
        lines = [line for gpu in _gpus() for line in _lines(gpu, os.environ.get("PRESET", "gpu"))]
    except RuntimeError as error:
        lines = [("GPU", *error.args)]
    lines.append(_disk())
    for what, found, way_out in lines:
        print(f"{what:<11} {'NO' if way_out else 'ok'}  {found}{': ' * bool(way_out)}{way_out}")
    return int(any(way_out for *_, way_out in lines))


def _gpus() -> list[dict[str, str]]:
    """The FIELDS of each GPU that a program would see. Raises RuntimeError, with the way out, where there is none."""
    if not shutil.which("nvidia-smi"):
        raise RuntimeError(
            "there is no nvidia-smi",
            "choose a machine with an NVIDIA GPU and its driver (in a container: --gpus all), or PRESET=cpu",
        )
    command = ["nvidia-smi", f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits"]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible in ("", "-1"):
        raise RuntimeError("CUDA_VISIBLE_DEVICES hides every GPU", "unset it")
    if visible:
        command.append(f"--id={visible}")
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        raise RuntimeError("nvidia-smi did not answer within a minute", "restart the machine") from None
    rows = [[value.strip() for value in line.split(",")] for line in asked.stdout.splitlines() if line.strip()]
    if asked.returncode or not rows or any(len(row) != len(FIELDS) for row in rows):
        said = (asked.stdout + asked.stderr).strip().splitlines() or ["nothing"]
        raise RuntimeError(
            f"nvidia-smi names no GPU but says: {said[0]}", "install the driver anew, or change machines"
        )
    return [dict(zip(FIELDS, row, strict=True)) for row in rows]


def _lines(gpu: dict[str, str], preset: str) -> list[Line]:
    """What is to be said of one GPU."""
    driver, capability = gpu["driver_version"], _numbers(gpu["compute_cap"])
    # Kernels run where the first number is theirs, and the second theirs or greater.
    runs = any(capability[0] == major and capability[1] >= minor for major, minor in map(_numbers, CAPABILITIES))
    free, total = (float(gpu[f"memory.{which}"]) / 1024 for which in ("free", "total"))
    needs = MEMORY.get(preset)
    asked = f"PRESET={preset} needs {needs}" if needs else f"what PRESET={preset} needs is not known"
    bf16 = "bf16 in hardware" if capability >= BF16 else "fp16 or fp32: bf16 has no hardware before capability 8.0"
    return [
        (
            "driver",
            f"{driver} of {gpu['name']}; PyTorch {TORCH}, built for CUDA {CUDA}, needs {DRIVER} or newer",
            "" if _numbers(driver)[0] >= DRIVER else "update the driver, or choose another machine",
        ),
        (
            "capability",
            f"{gpu['compute_cap']}; PyTorch {TORCH} has kernels for {', '.join(CAPABILITIES)}",
            "" if runs else "choose another GPU",
        ),
        (
            "memory",
            f"{free:.1f} of {total:.1f} GiB are free; {asked}",
            "" if free >= (needs or 0) else "end what else runs on the GPU, or choose a larger one",
        ),
        ("precision", bf16, ""),
    ]


def _disk() -> Line:
    """Room for the environment and a run, where the checkout lies."""
    free = shutil.disk_usage(".").free / 2**30
    needs = RUN if Path(".venv/.ready").exists() else INSTALLED + RUN
    way_out = "" if free >= needs else "make room, or put the checkout on another disk"
    return "disk", f"{free:.0f} GiB are free; {needs} are needed", way_out


def _numbers(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


if __name__ == "__main__":
    sys.exit(main())
