"""A copy of the project to run its pipeline in."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from i2i_book.runs import root

BESIDE = {"deployment", "demo", "paper_numbers", "students", "ablations"}  # rules that nothing else waits for
PRESETS = {"micro": "tests/golden/micro.yml", "other": "tests/golden/other.yml"}


def left_out(folder: str, names: list[str]) -> list[str]:
    """What a run makes, and recordings: every book that is made checks all of their files."""
    made = {"__pycache__", "notebooks", "mathjax", "models", "onnxruntime", "pyodide", "reference", "searched"}
    return [name for name in names if name in made or Path(folder, name, "manifest.json").exists()]


def dry_run(folder: Path, *arguments: str, **environment: str) -> str:
    """What Snakemake would do in `folder`, with `arguments` from `--config` on."""
    command = [sys.executable, "-m", "snakemake", "-n", "--nolock", "--cores", "64", "--config", *arguments]
    env = {**os.environ, "PYTHONPATH": ".", **environment}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def wait_for(condition: Callable[[], object], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


class Project:
    """A copy of the project in another folder, with a `make` of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "PYTHONPATH": "."}  # the copy's own library, not the installed one
        for name in ("i2i_lib", "i2i_book", "notebooks", "presets", "tests/golden", "book"):
            shutil.copytree(root() / name, folder / name, ignore=left_out)
        for name in ("Snakefile", "_config.yml", "package.json", "package-lock.json", "pyproject.toml", "CHANGELOG.md"):
            shutil.copy(root() / name, folder)
        self.seed = folder / "runs" / "micro" / "earth" / "seed0"

    def start(
        self, *targets: str, preset: str = "micro", task: str = "earth", data: str = "", layout: str = ""
    ) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "i2i_book.make", PRESETS[preset], task, "1", data, layout, *targets]
        return subprocess.Popen(
            command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self.environment
        )

    def make(self, *targets: str, preset: str = "micro", seconds: float = 200) -> str:
        process = self.start(*targets, preset=preset)
        said = process.communicate(timeout=seconds)[0]
        assert process.returncode == 0, said
        return said

    def pending(self, preset: str = "micro", **environment: str) -> set[str]:
        """The rules of the chain of chapters 1 to 6 that `make book` would run; the chapters beside it are not made."""
        said = dry_run(self.folder, f"preset={PRESETS[preset]}", "task=earth", "seeds=1", **environment)
        return set(re.findall(r"^(\w+) +\d+$", said, flags=re.M)) - {"total", "all"} - BESIDE

    def processes(self) -> list[psutil.Process]:
        """Everything that still runs in this project or below something that does."""
        found = []
        for process in psutil.process_iter(["cwd", "status"]):
            if process.info["status"] != psutil.STATUS_ZOMBIE and (process.info["cwd"] or "") == str(self.folder):
                found.append(process)
        return found
