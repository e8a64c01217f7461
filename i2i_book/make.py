"""The door from `make book` to Snakemake: check what was asked, take the lock, hand over, and end all if asked to."""

import ctypes
import getpass
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from i2i_book import gpus, presets, runs
from i2i_lib import files
from i2i_lib.commands import one_line_errors
from i2i_lib.cpus import usable_cpus


@one_line_errors
def main(preset: str, task: str, seeds: str, data: str = "", layout: str = "", *targets: str) -> int:
    """Run Snakemake for the whole book or for some of its files; returns its exit status.

    Ctrl-C, SIGTERM and a closed terminal end it and all that it started. Raises ValueError, RuntimeError or OSError
    where something cannot be as asked.
    """
    settings = presets.load_preset(preset)
    if odd := set(Path(preset).stem) & set("{}*?[]/\\'\""):
        raise ValueError(f"{preset} gives its run's folder its name, which cannot hold {' '.join(sorted(odd))}")
    if missing := sorted({"threads", "gpu", "minutes", "arms", "generators"} - settings.keys()):
        raise ValueError(f"the preset {preset} does not say {', '.join(missing)}: presets/cpu.yml shows how")
    tasks, found = presets.tasks(task), settings["gpu"]
    from_record = not targets and shown(Path(preset).stem, tasks)
    if found and not from_record:
        found = _gpus_for(settings["gpu"], preset)
    if presets.seeds(seeds).start and not targets:
        raise ValueError(f"SEEDS={seeds} does not begin with seed 0, as a book does: make record takes it")
    if from_record:
        _check_recorded_seeds(Path(preset).stem, tasks, presets.seeds(seeds).stop)
    teacher = os.environ.get("TEACHER", "")
    if teacher not in ("", "train"):
        raise ValueError(f"TEACHER is empty, for the preset's choice, or train, got {teacher!r}")
    folder = Path(data).expanduser().resolve() if data else ""
    if folder and not folder.is_dir():
        raise ValueError(f"DATA={data} is not a folder")
    if task == "folder" and not folder:
        raise ValueError("TASK=folder needs DATA=path/to/the/pictures; the chapter on your own images says more")
    if folder:
        _check_same_folder(runs.root() / "runs" / Path(preset).stem / task, folder)
    os.chdir(runs.root())
    # Snakemake's own lock outlives a kill; the system frees this one with the process that holds it.
    with files.exclusive(runs.root() / ".snakemake" / "make.lock", "this checkout") as lock:
        # By a file: on its command line Snakemake reads values as YAML, in which `a #b` ends at the blank.
        asked = runs.root() / ".snakemake" / "asked.json"
        values = {"preset": preset, "task": task, "seeds": seeds, "data": str(folder), "layout": layout}
        files.write_json(asked, values | {"teacher": teacher})
        command = [sys.executable, "-m", "snakemake", "--cores", str(usable_cpus()), "--nolock"]
        command += ["--rerun-incomplete", "--keep-going", "--scheduler", "greedy"]
        command += ["--quiet", "host", "reason", "rules", "progress"]
        command += ["--resources", f"gpu={found}", "--configfile", str(asked)]
        command += ["--", *targets] if targets else []
        for name in ("SNAKEMAKE_PROFILE", "PYTHONWARNINGS", "PYTHONINSPECT"):  # the user's settings for other work
            os.environ.pop(name, None)
        _stand_in_for_home(runs.root() / ".snakemake" / "cache")
        for name in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(name) == signal.SIG_DFL:  # nohup ignores the latter
                signal.signal(name, signal.default_int_handler)
        # A session of its own: the terminal's signals reach this process alone. The lock lives as long as either does.
        pipeline = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=[lock],
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
        try:
            return pipeline.wait()
        except KeyboardInterrupt:
            _end(psutil.Process(pipeline.pid))
            raise


def _stand_in_for_home(folder: Path) -> None:
    """Give a user without a name a name, and one whose home cannot be written the `folder` for caches.

    In a container neither is there for an arbitrary user id, and either stops Snakemake.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = str(os.getuid())
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        cache = Path(home).expanduser()
        cache.mkdir(parents=True, exist_ok=True)
        if os.access(cache, os.W_OK):
            return
    except (OSError, RuntimeError):  # a user without an entry has no home at all
        pass
    os.environ.setdefault("TORCH_HOME", f"{home}/torch")  # weights are read from where they are
    os.environ["XDG_CACHE_HOME"] = str(folder)


def _die_with_parent() -> None:
    """Have the system kill this process when its parent ends, even by SIGKILL."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1: PR_SET_PDEATHSIG


def _end(pipeline: psutil.Process, patience: float = 10) -> None:
    """End Snakemake without a word of its own, and all that it started, by force after `patience` seconds."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    with suppress(psutil.NoSuchProcess):
        pipeline.suspend()  # else it would report the jobs as failed and start others
        below = pipeline.children(recursive=True)
        for job in pipeline.children():
            job.terminate()
        end = time.monotonic() + patience
        while time.monotonic() < end and any(map(_runs, below)):
            time.sleep(0.05)
        for process in [*below, pipeline]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        pipeline.wait()


def _runs(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def shown(run: str, tasks: Sequence[str]) -> bool:
    """Whether tasks that another machine has recorded by a preset are shown, not run.

    They are where its recording has all of them, unless the preset was begun here or RECORDED=no.
    """
    recording = runs.root() / "book" / "recorded" / run
    recorded = (recording / "manifest.json").exists() and all((recording / task).is_dir() for task in tasks)
    return recorded and not (runs.root() / "runs" / run).exists() and os.environ.get("RECORDED") != "no"


def _check_recorded_seeds(run: str, tasks: Sequence[str], asked: int) -> None:
    """Raise ValueError where a recording that is shown has fewer seeds than were asked for."""
    for task in tasks:
        count = len(list((runs.root() / "book" / "recorded" / run / task).glob("seed*")))
        if asked > count:
            raise ValueError(
                f"the recording {run} has {count} seeds of {task}, not {asked}: SEEDS={count} shows them, RECORDED=no"
                " runs as many as you ask for here"
            )


def command(preset: str, task: str = presets.MAIN_TASK) -> str:
    """The call that runs a task by a preset, also where it would be shown as recorded."""
    said = f"make book PRESET={preset}"
    if task != presets.MAIN_TASK:
        said += f" TASK={task}"
    return said + (" RECORDED=no" if shown(Path(preset).stem, [task]) else "")


def _check_same_folder(run: Path, folder: Path) -> None:
    """Raise ValueError if the run's networks are of the pictures of another folder: they would be overwritten."""
    for record in sorted(run.glob("seed*/data.json")):
        made_of = files.read_json(record, "delete it").get("info", {}).get("options", {}).get("path")
        if made_of and Path(made_of).expanduser().resolve() != folder:
            here = files.shorten_path(run)
            raise ValueError(
                f"{here} holds networks that were trained on {made_of}: to keep them, move them"
                f" (mv {here} kept-{run.name}); to replace them, delete them (rm -r {here})"
            )


def _gpus_for(needed: int, preset: str) -> int:
    """How many GPUs this machine has, if they are enough for a job that needs so many. Raises ValueError if not."""
    import torch  # seconds, which only the presets for a GPU need

    if not torch.cuda.is_available():
        raise ValueError(
            f"the preset {preset} is for a GPU, and PyTorch finds none here: take PRESET=cpu, or a copy of"
            f" presets/{preset}.yml with gpu: 0, which would take days"
        )
    found = len(gpus.visible()) or 1  # those that cannot be told apart cannot be handed out
    if found < needed:
        raise ValueError(
            f"a training of the preset {preset} takes {needed} GPUs, and this machine has {found}: set"
            f" `gpu: {found}` in a copy of the preset"
        )
    return found


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
