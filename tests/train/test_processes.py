"""Several processes train as one does: the same losses, one that writes, a death that ends all, fewer on resume.

All in float32 with instance norm, on gloo. Sums in another order differ by rounding, and training lets it grow: over
these few steps the losses agree to 1 in 10,000.
"""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import torch.distributed as dist
import toys
from project import wait_for
from torch import nn
from torch.multiprocessing.spawn import start_processes
from toys import FAMILIES

from i2i_book.runs import root
from i2i_lib.checkpoint import load_generator, load_info, load_plan, save_generator, save_plan
from i2i_lib.cli.__main__ import main
from i2i_lib.config import DiscriminatorConfig, cat_teacher
from i2i_lib.data.batches import paired_batches
from i2i_lib.data.store import load_saved_task, save_task
from i2i_lib.macs import generator_macs
from i2i_lib.prune import prune
from i2i_lib.train import processes
from i2i_lib.train.adversarial import TrainConfig
from i2i_lib.train.device import set_up
from i2i_lib.train.loop import TrainingRun, fit
from i2i_lib.train.processes import launch_command
from i2i_lib.train.recipe import Recipe, _sync_batch_norm, build, launch, load_recipe, save_recipe
from i2i_lib.train.snapshots import Snapshots, read_frames

STEPS, STOPPED = 6, 5
KINDS = (*FAMILIES, "gcka", "ka", "mse")


def train(kind: str, folder: Path, stop: int = STEPS) -> list[dict[str, float]]:
    """The loss log of a toy training that ends, or dies after step `stop`."""

    torch.manual_seed(0)  # for the adaptors of "mse"
    config = TrainConfig(STEPS, lr=1e-4, recon=10.0, distill=5.0, average=0.5)
    if kind in FAMILIES:
        family, trainer = kind, toys.trainer(kind, config, norm="instance")
    else:
        family, trainer = "pix2pix", toys.distiller("pix2pix", config, kind, norm="instance")

    def step(batch):
        if trainer.count == stop:
            raise KeyboardInterrupt
        return trainer.step(batch)

    return fit(step, toys.batches(family), TrainingRun(folder, trainer, {}, kind, log_every=1), STEPS)


def worker(number: int, path: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{path}/rendezvous", rank=number, world_size=2)
    logs = {kind: train(kind, path / f"rank{number}" / kind) for kind in KINDS}
    with pytest.raises(KeyboardInterrupt):
        train("gcka", path / "stopped", stop=STOPPED)
    with pytest.raises(ValueError, match="batch_size 5 cannot be shared by 2 processes: give a multiple of 2"):
        paired_batches(toys.tiles(), image_size=16, batch_size=5, seed=0)
    with pytest.raises(ValueError, match="batch norm over several processes needs GPUs"):
        _sync_batch_norm(nn.BatchNorm2d(3))
    (path / f"{number}.json").write_text(json.dumps(logs))
    dist.destroy_process_group()


def check(log: list[dict[str, float]], expected: list[dict[str, float]]) -> None:
    assert [row.keys() for row in log] == [row.keys() for row in expected]
    for row, other in zip(log, expected, strict=True):
        for name in row.keys() - {"seconds"}:
            assert row[name] == pytest.approx(other[name], rel=1e-4), (name, row["step"])


def test_two_processes_train_as_one(tmp_path):
    # Fresh processes, as by spawning, but forked from one that has torch loaded: seconds instead of half a minute.
    multiprocessing.set_forkserver_preload(["torch._dynamo", "torch.distributed", __name__])
    start_processes(worker, (tmp_path,), nprocs=2, start_method="forkserver")
    logs = [json.loads((tmp_path / f"{number}.json").read_text()) for number in range(2)]
    alone = {kind: train(kind, tmp_path / "alone" / kind) for kind in KINDS}
    for kind in KINDS:
        for log in logs:  # of the whole batch, so that every process has the same
            check(log[kind], alone[kind])
    assert not (tmp_path / "rank1").exists(), "only the first process writes"
    # What two processes began, one ends.
    assert torch.load(tmp_path / "stopped" / "checkpoint.pt", weights_only=True)["step"] == STOPPED
    check(train("gcka", tmp_path / "stopped"), alone["gcka"])


def student_recipe(**given) -> Recipe:
    discriminator = DiscriminatorConfig(6, 4, 2, norm="instance")
    training = TrainConfig(steps=80, lr=1e-4, recon=10.0, distill=5.0)
    return Recipe("../data", "plan", discriminator, training, 4, teacher="../teacher", threads=1, log_every=2, **given)


@pytest.fixture
def folder(tmp_path):
    """The folder of a student's training, with its recipe, beside its data and its teacher."""
    save_task(toys.task(), tmp_path / "data")
    teacher = toys.network(cat_teacher(8, 3))
    save_generator(teacher, tmp_path / "teacher")
    budget = generator_macs(teacher.config, 16) / 3
    made_of = {"teacher": load_info(tmp_path / "teacher")["sha256"]}
    save_plan(prune(teacher, budget, image_size=16), tmp_path / "student" / "plan", provenance=made_of)
    save_recipe(student_recipe(), tmp_path / "student" / "config.json")
    assert load_recipe(tmp_path / "student" / "config.json") == student_recipe()
    yield tmp_path / "student"
    torch.use_deterministic_algorithms(False)  # as before the training in this process


def built(folder: Path) -> tuple[Any, Any, TrainingRun]:
    return build(load_recipe(folder / "config.json"), folder, load_saved_task(folder.parent / "data"), set_up(1))


def test_a_process_that_dies_ends_all_and_one_goes_on_alone(folder):
    """As the chapters do it: processes train, and the notebook's own `fit` finds the log and what was noted."""
    started = subprocess.Popen(
        launch_command(folder / "config.json", 2),
        cwd=root(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(root())},
    )  # fmt: skip
    checkpoint, log = folder / "checkpoint.pt", folder / "losses.jsonl"
    lines = lambda: log.read_text().splitlines() if log.exists() else []  # noqa: E731
    wait_for(lambda: len(lines()) > 2 or started.poll() is not None, 200)
    assert started.poll() is None, started.communicate()[0]
    below = psutil.Process(started.pid).children(recursive=True)
    second = next(p for p in below if p.environ().get("RANK") == "1")
    second.send_signal(signal.SIGKILL)
    said = started.communicate(timeout=200)[0]
    assert started.returncode != 0 and "SIGKILL" in said, said
    assert not psutil.wait_procs(below, timeout=10)[1], "nothing is left running"
    assert not (folder / "generator.json").exists()
    together = lines()

    assert torch.load(checkpoint, weights_only=True)["step"] < 80
    launch(folder / "config.json")
    trainer, batches, run = built(folder)
    rows = fit(trainer.step, lambda step: iter(()), run, 80)  # without a batch
    assert [row["step"] for row in rows] == list(range(2, 81, 2))
    assert load_generator(folder / "generator").config == load_plan(folder / "plan").config
    assert list(read_frames(folder / "snapshots")) == Snapshots(folder, 80, toys.task()).due

    shutil.copytree(folder, folder.parent / "alone", ignore=shutil.ignore_patterns("*.pt", "*.jsonl"))
    trainer, batches, run = built(folder.parent / "alone")
    with pytest.raises(ValueError, match="ended after step 4"):
        fit(trainer.step, lambda step: islice(batches(step), 4), run, 80)
    alone = (run.folder / "losses.jsonl").read_text().splitlines()
    check([json.loads(line) for line in together[:2]], [json.loads(line) for line in alone])


@pytest.mark.parametrize(("gpus", "asked"), [("", []), ("1", []), ("3", [3])])
def test_a_job_with_several_gpus_trains_on_all(gpus, asked, tmp_path, monkeypatch):
    started = []
    monkeypatch.setenv("I2I_GPU", gpus)
    monkeypatch.setattr(processes, "train_together", lambda recipe, count: started.append(count))
    processes.train_on_all_gpus(tmp_path / "config.json")
    assert started == asked


def test_processes_that_fail_give_their_reason(tmp_path, monkeypatch):
    says = "echo Traceback; echo 'error: batch_size 5 cannot be shared'; echo and more; exit 1"
    monkeypatch.setattr(processes, "launch_command", lambda recipe, count: ["sh", "-c", says])
    with pytest.raises(RuntimeError, match="training by 2 processes failed: batch_size 5 cannot be shared"):
        processes.train_together(tmp_path, 2)


@pytest.mark.parametrize("error", [MemoryError, PermissionError, RuntimeError, FloatingPointError])
def test_a_launch_that_fails_gives_its_reason_in_a_sentence(error, tmp_path, monkeypatch, capsys):
    def fail(path):
        raise error(f"no luck with {path.name}")

    monkeypatch.setattr("i2i_lib.train.recipe.launch", fail)
    (tmp_path / "config.json").touch()
    assert (
        main(["train", str(tmp_path / "config.json")]) == 1
        and capsys.readouterr().err == "error: no luck with config.json\n"
    )
