"""Several processes train as one does: the same losses, one that writes, a death that ends all, fewer on resume.

All in float32 with instance norm, on gloo. Sums in another order differ by rounding, and training lets it grow: over
these few steps the losses agree to 1 in 10,000.
"""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
import torch.distributed as dist
import toys
from torch import nn
from torch.multiprocessing.spawn import start_processes
from toys import FAMILIES

from i2i_book.runs import root
from i2i_lib.checkpoint import load_generator, load_plan, save_generator, save_plan
from i2i_lib.cli.__main__ import main
from i2i_lib.config import DiscriminatorConfig, cat_teacher
from i2i_lib.data.batches import paired_batches
from i2i_lib.data.store import save_task
from i2i_lib.macs import generator_macs
from i2i_lib.prune import prune
from i2i_lib.train.adversarial import TrainConfig
from i2i_lib.train.loop import TrainingRun, fit
from i2i_lib.train.recipe import Recipe, _sync_batch_norm, launch, load_recipe, save_recipe

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
    save_plan(prune(teacher, budget, image_size=16), tmp_path / "student" / "plan")
    save_recipe(student_recipe(), tmp_path / "student" / "config.json")
    assert load_recipe(tmp_path / "student" / "config.json") == student_recipe()
    yield tmp_path / "student"
    torch.use_deterministic_algorithms(False)  # as before the training in this process


def test_a_process_that_dies_ends_the_launch_and_one_goes_on_alone(folder):
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    started = subprocess.Popen(
        [*command, "-m", "i2i_lib.cli", "train", str(folder / "config.json")],
        cwd=root(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(root())},
    )  # fmt: skip
    checkpoint, log = folder / "checkpoint.pt", folder / "losses.jsonl"
    while not checkpoint.exists():
        assert started.poll() is None, started.communicate()[0]
        time.sleep(0.05)
    processes = psutil.Process(started.pid).children(recursive=True)
    second = next(p for p in processes if p.environ().get("RANK") == "1")
    second.send_signal(signal.SIGKILL)
    said = started.communicate(timeout=200)[0]
    assert started.returncode != 0 and "SIGKILL" in said, said
    assert not psutil.wait_procs(processes, timeout=10)[1], "nothing is left running"
    assert not (folder / "generator.json").exists()

    assert torch.load(checkpoint, weights_only=True)["step"] < 80
    launch(folder / "config.json")
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == list(range(2, 81, 2))
    assert load_generator(folder / "generator").config == load_plan(folder / "plan").config


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
