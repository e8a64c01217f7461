"""What `make stress` does, hours of it: kill the pipeline at random moments, make hostile input, train in bfloat16.

Each part writes what it found into `book/stress.json`, which the book's appendix shows.
"""

import argparse
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import torch
from project import PRESETS, Project, wait_for
from toys import batches, distiller

from i2i_book.runner.provenance import machine
from i2i_book.runs import root
from i2i_lib.files import sha256, write_json
from i2i_lib.train.adversarial import TrainConfig
from i2i_lib.train.loop import TrainingRun, fit
from i2i_lib.train.nonfinite import not_finite

RECORD = root() / "book" / "stress.json"
TARGET = "runs/micro/notebooks/06-results.ipynb"
VICTIMS = {"Snakemake": "snakemake", "runner": "i2i_book.runner", "kernel": "ipykernel_launcher"}
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
PATIENCE = 3600  # seconds for a chain, on a machine that does other things too
MOST = 3  # kills of one chain before it may end
# What no rerun repeats: times, memory, and the folder that another chain lay in.
TIMES = {"seconds", "train_seconds", "peak_memory_mib", "speed"}


def artifacts(run: Path) -> dict[str, Any]:
    """What a chain made: the SHA-256 of all tensors, and everything in JSON but times."""
    found: dict[str, Any] = {}
    for path in sorted(p for p in run.rglob("*") if p.is_file()):
        name = str(path.relative_to(run))
        if path.suffix == ".safetensors":
            found[name] = sha256(path)
        elif path.suffix == ".jsonl":
            found[name] = [_timeless(json.loads(line)) for line in path.read_text().splitlines()]
        elif path.suffix == ".json":
            found[name] = _timeless(json.loads(path.read_text()))
    return found


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(inner) for key, inner in value.items() if key not in TIMES}
    return [_timeless(inner) for inner in value] if isinstance(value, list) else value


def kills(count: int) -> dict[str, Any]:
    """Kill `count` times, restart each time, and compare what every chain ends with to an unbroken chain.

    A chain that ended before its moment came was not killed and does not count.
    """
    met: list[dict[str, Any]] = []
    chains = differing = 0
    with tempfile.TemporaryDirectory(prefix="i2i-stress-") as folder:
        project = Project(Path(folder).resolve() / "project")
        run = project.folder / "runs" / "micro"
        preset = project.folder / PRESETS["micro"]
        preset.write_text(preset.read_text().replace("minutes: 5", "minutes: 60"))  # as patient as this script
        started = time.monotonic()
        project.make(TARGET, seconds=PATIENCE)
        length = time.monotonic() - started
        wanted = artifacts(run)
        print(f"an unbroken chain: {length:.0f} s, {len(wanted)} files", flush=True)
        while len(met) < count:
            chance = random.Random(chains)
            shutil.rmtree(run)
            for _ in range(min(chance.randint(1, MOST), count - len(met))):
                kill = _kill(project, chance, chance.uniform(0, length))
                met += [kill] if kill.pop("met") else []
                print(f"{len(met)} of {count} kills: {kill}", flush=True)
            project.make(TARGET, seconds=PATIENCE)
            chains += 1
            found = artifacts(run)
            if wrong := sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)):
                differing += 1
                print(f"chain {chains} DIFFERS in {', '.join(wrong)}", flush=True)
    victims = {name: sum(kill["victim"] == name for kill in met) for name in VICTIMS}
    return {
        "kills": len(met), "victims": victims, "chains": chains, "differing": differing, "files": len(wanted),
        "seconds_unbroken": round(length),
    }  # fmt: skip


def _kill(project: Project, chance: random.Random, delay: float) -> dict[str, Any]:
    """Start the chain, end one of its processes after `delay` seconds, and wait until nothing of it runs."""
    victim, code = chance.choice(sorted(VICTIMS)), chance.choice(SIGNALS)
    process = project.start(TARGET)
    end, met = time.monotonic() + delay, False
    while process.poll() is None and not met:
        time.sleep(0.02)
        if time.monotonic() >= end:
            named = [p for p in project.processes() if any(VICTIMS[victim] in part for part in _command(p)[:4])]
            if named:
                with suppress(psutil.Error):
                    chance.choice(sorted(named, key=lambda p: p.pid)).send_signal(code)
                    met = True
    process.communicate(timeout=PATIENCE)
    wait_for(lambda: not project.processes(), 60)
    return {"victim": victim, "signal": code.name, "after": round(delay, 1), "met": met}


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:  # it ended meanwhile
        return []


def fuzz(count: int) -> dict[str, Any]:
    """The tests of damaged input with `count` cases, other ones than those of `make test`."""
    command = [sys.executable, "-m", "pytest", "--timeout", "0", "tests/test_fuzz.py"]
    done = subprocess.run(command, cwd=root(), env={**os.environ, "I2I_CASES": str(count)})
    return {"cases": count, "passed": done.returncode == 0}


def bfloat16(steps: int) -> dict[str, Any]:
    """Train a small student in bfloat16 and look for numbers that are not finite."""
    config = TrainConfig(steps, lr=2e-4, distill=1.0, average=0.99, precision="bf16")
    student = distiller("pix2pix", config)
    with tempfile.TemporaryDirectory(prefix="i2i-stress-") as folder:
        rows = fit(student.step, batches("pix2pix"), TrainingRun(Path(folder), student, {}, "bfloat16"), steps)
    finite = not not_finite(student.state_dict())
    return {"steps": rows[-1]["step"], "finite": finite, "l1_first": rows[0]["recon"], "l1_last": rows[-1]["recon"]}


def main() -> int:
    """The command line; returns the exit status: 0 only if nothing was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--steps", type=int, default=5000)
    given = parser.parse_args()
    torch.set_num_threads(1)
    parts = {"kills": (kills, given.kills), "fuzz": (fuzz, given.cases), "bfloat16": (bfloat16, given.steps)}
    good = True
    for name, (part, count) in parts.items():
        if not count:  # left out
            continue
        clock = time.monotonic()
        found = part(count)
        good &= not found.get("differing") and found.get("passed", True) and found.get("finite", True)
        found |= {"seconds": round(time.monotonic() - clock), "date": datetime.now(UTC).strftime("%Y-%m-%d")}
        found |= {"machine": machine(), "python": platform.python_version(), "torch": torch.__version__}
        print(f"{name}: {found}", flush=True)
        record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
        write_json(RECORD, record | {name: found})
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
