"""The door from `make book` to Snakemake: check what was asked, take the lock, hand over."""

import os
import sys
from pathlib import Path

from i2i_lib import runs


def main(preset: str, task: str, seeds: str, data: str = "", layout: str = "", *targets: str) -> None:
    """Replace this process by Snakemake, for the whole book or for some of its files.

    Exits with a sentence where something cannot be as asked.
    """
    try:
        gpu = runs.load_preset(preset)["gpu"]
        runs.tasks(task)
        if not seeds.isdigit() or int(seeds) < 1:
            raise ValueError(f"SEEDS must be a whole number of at least 1, got {seeds!r}")
        folder = Path(data).resolve() if data else ""
        if folder and not folder.is_dir():
            raise ValueError(f"DATA={data} is not a folder")
        if task == "folder" and not folder:
            raise ValueError("TASK=folder needs DATA=path/to/the/pictures; the chapter on your own images says more")
        os.chdir(runs.root())
        # Snakemake's own lock outlives a kill; the system frees this one with the process that holds it.
        with runs.exclusive(runs.root() / ".snakemake" / "make.lock", "this checkout") as lock:
            os.set_inheritable(lock, True)
            command = [sys.executable, "-m", "snakemake", "--cores", str(os.cpu_count()), "--nolock"]
            command += ["--rerun-incomplete", "--keep-going", "--scheduler", "greedy"]
            command += ["--quiet", "host", "reason", "rules", "progress"]
            command += ["--resources", f"gpu={gpu}", "--config", f"preset={preset}", f"task={task}", f"seeds={seeds}"]
            command += [f"data={folder}"] if folder else []
            command += [f"layout={layout}"] if layout else []
            command += ["--", *targets] if targets else []
            os.execv(sys.executable, command)
    except (ValueError, RuntimeError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
