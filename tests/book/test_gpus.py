"""The machine's GPUs, handed out to jobs side by side, on a machine of which only `nvidia-smi` claims to have any."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from project import wait_for

from i2i_book import gpus, make
from i2i_book.runs import root

JOB = """
import json, os, sys, time
from pathlib import Path
from i2i_book.gpus import held
with held(int(sys.argv[2])) as own:
    begun = time.monotonic()
    Path(sys.argv[1] + ".begun").write_text(own["CUDA_VISIBLE_DEVICES"])
    time.sleep(float(sys.argv[3]))
    Path(sys.argv[1]).write_text(json.dumps([own["CUDA_VISIBLE_DEVICES"].split(","), begun, time.monotonic()]))
"""


@pytest.fixture
def two(tmp_path, monkeypatch) -> Path:
    """A machine with two GPUs."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\ncase $* in *--id=1*) echo GPU-b;; *) printf 'GPU-a\\nGPU-b\\n';; esac\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(gpus.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(root()))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


def start(name: Path, count: int = 1, seconds: float = 0.3) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", JOB, name, str(count), str(seconds)], stdout=subprocess.PIPE)


def test_jobs_side_by_side_never_share_a_gpu(two):
    jobs = [start(two / f"job{i}") for i in range(4)]
    said = [job.communicate(timeout=60)[0].decode() for job in jobs]
    held = sorted((json.loads((two / f"job{i}").read_text()) for i in range(4)), key=lambda job: job[1])
    assert {gpu for own, *_ in held for gpu in own} == {"GPU-a", "GPU-b"}, "both are in use"
    for i, (own, _, end) in enumerate(held):
        assert all(end <= begin for other, begin, _ in held[i + 1 :] if other == own)
    assert "waiting for 1 of 2 GPUs" in "".join(said)


def test_a_job_that_dies_frees_its_gpus(two):
    first = start(two / "first", count=2, seconds=60)
    wait_for((two / "first.begun").exists, 30)
    second = start(two / "second", seconds=0)
    with pytest.raises(subprocess.TimeoutExpired):
        second.communicate(timeout=0.5)
    assert not (two / "second.begun").exists()
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=10)
    second.communicate(timeout=30)
    assert (two / "second").exists()


def test_only_what_is_visible_is_handed_out(two, monkeypatch):
    assert gpus.visible() == ["GPU-a", "GPU-b"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with gpus.held(1) as own:
        assert own == {"CUDA_VISIBLE_DEVICES": "GPU-b"}
    with pytest.raises(RuntimeError, match="2 GPUs are needed, and there are 1"), gpus.held(2):
        pass
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with gpus.held(2) as own:
        assert own == {}, "PyTorch says that there is none"


def test_without_nvidias_driver_all_stays_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with gpus.held(1) as own:
        assert own == {}


def test_the_pipeline_gets_what_the_machine_has_if_a_job_fits_it(two, monkeypatch, capsys):
    """The preset says what a job takes, the machine how many there are."""
    commands = []

    def started(command: list[str], **options: object) -> SimpleNamespace:
        commands.append(command)
        return SimpleNamespace(pid=0, wait=lambda: 0)

    preset = two / "many.yml"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(make.runs, "root", lambda: two)
    monkeypatch.setattr(make, "subprocess", SimpleNamespace(Popen=started, DEVNULL=None))
    monkeypatch.setattr(make.signal, "signal", lambda *_: None)
    monkeypatch.chdir(two)
    needs = "threads: 1\ngpu: {}\nminutes: 1\narms: [none]\ngenerators: [inception]\n"
    for needed in (1, 2):
        preset.write_text(needs.format(needed))
        assert make.main(str(preset), "earth", "1") == 0
        assert commands[-1][commands[-1].index("--resources") + 1] == "gpu=2"
    preset.write_text(needs.format(3))
    assert make.main(str(preset), "earth", "1") == 1 and len(commands) == 2
    assert "takes 3 GPUs, and this machine has 2: set `gpu: 2`" in capsys.readouterr().err
