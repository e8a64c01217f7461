"""The way to a GPU: what `.ci/gpu` says of a machine before anything is installed, and what the workflows run."""

import hashlib
import os
import re
import runpy
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from i2i_lib.cli import data
from i2i_lib.files import root

Preflight = Callable[..., tuple[int, dict[str, str]]]
H200 = "NVIDIA H200, 580.159.03, 9.0, 143000, 143771"


@pytest.fixture
def preflight(tmp_path, monkeypatch, capsys) -> Preflight:
    """The status and, by their first word, the lines of a machine whose `nvidia-smi` gives an answer."""

    def asked(answer: str, status: int = 0, free: float = 100, **settings: str) -> tuple[int, dict[str, str]]:
        tool = tmp_path / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\nprintf '%s\\n' '{answer}'\nexit {status}\n")
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        for name in ("CUDA_VISIBLE_DEVICES", "PRESET"):
            monkeypatch.delenv(name, raising=False)
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free * 2**30))
        done = runpy.run_path(str(root() / ".ci" / "preflight.py"))["main"]()
        return done, {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}

    return asked


def test_a_machine_that_fits_is_described_in_a_line_each(preflight):
    status, said = preflight(H200, PRESET="paper")
    assert status == 0
    assert list(said) == ["driver", "capability", "memory", "precision", "disk"]
    assert "580.159.03 of NVIDIA H200" in said["driver"] and "139.6 of 140.4 GiB" in said["memory"]
    assert said["precision"].endswith("bf16 in hardware")
    assert all(line.split()[1] == "ok" for line in said.values())


@pytest.mark.parametrize(
    ("answer", "what", "words"),
    [
        ("Tesla T4, 535.104.05, 7.5, 15000, 15360", "driver", "needs 580 or newer: update the driver"),
        ("Tesla V100-SXM2-16GB, 580.65.06, 7.0, 16000, 16384", "capability", "choose another GPU"),
        ("NVIDIA A100-SXM4-40GB, 580.65.06, 8.0, 900, 40960", "memory", "0.9 of 40.0 GiB are free; PRESET=gpu needs"),
        ("No devices were found", "GPU", "names no GPU but says: No devices were found"),
    ],
)  # fmt: skip
def test_a_machine_that_does_not_fit_is_refused_with_the_way_out(preflight, answer, what, words):
    status, said = preflight(answer, PRESET="gpu")
    assert status == 1 and words in said[what]
    assert [name for name, line in said.items() if line.split()[1] == "NO"] == [what]


def test_a_driver_that_fails_is_no_gpu(preflight):
    status, said = preflight("NVIDIA-SMI has failed", status=9)
    assert status == 1 and "install the driver anew" in said["GPU"]


def test_a_card_without_bf16_and_a_newer_one_of_a_known_kind_fit(preflight):
    status, said = preflight("Tesla T4, 580.65.06, 7.5, 15000, 15360")
    assert status == 0 and "fp16 or fp32" in said["precision"]
    assert preflight("NVIDIA L4, 590.1, 8.9, 22000, 23034")[0] == 0


def test_a_full_disk_is_said_before_anything_is_installed(preflight):
    status, said = preflight(H200, free=4)
    assert status == 1 and said["disk"].endswith("are needed: make room, or put the checkout on another disk")


def test_hidden_gpus_are_not_asked_for(preflight):
    status, said = preflight(H200, CUDA_VISIBLE_DEVICES="")
    assert status == 1 and said["GPU"].endswith("CUDA_VISIBLE_DEVICES hides every GPU: unset it")


def test_an_old_python_is_named_before_anything_else(tmp_path):
    old = tmp_path / "python"
    old.write_text("#!/bin/sh\ncase $1 in -V) echo Python 3.8.10;; *) exit 1;; esac\n")
    old.chmod(0o755)
    environment = os.environ | {"PYTHON": str(old)}
    done = subprocess.run([root() / ".ci" / "gpu", "preflight"], env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "Python 3.8.10: Python 3.11 or newer" in done.stdout


def test_what_preflight_asks_for_is_what_this_pytorch_needs():
    known = runpy.run_path(str(root() / ".ci" / "preflight.py"))
    assert re.search(r"^torch==(.*)$", (root() / "constraints.txt").read_text(), re.M)[1] == known["TORCH"]  # pyright: ignore[reportOptionalSubscript]
    assert {path.stem for path in (root() / "presets").glob("*.yml")} <= set(known["MEMORY"])
    if not torch.version.cuda:
        pytest.skip("this PyTorch was built without CUDA")
    assert torch.version.cuda == known["CUDA"]
    built = [name.removeprefix("sm_") for name in str(torch._C._cuda_getArchFlags()).split()]
    assert [f"{name[:-1]}.{name[-1]}" for name in built] == list(known["CAPABILITIES"])


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A folder with the script, a `make` and a Python that say what they were asked."""
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci" / "gpu").write_bytes((root() / ".ci" / "gpu").read_bytes())
    python, make = tmp_path / ".venv" / "bin" / "python", tmp_path / "bin" / "make"
    for tool in (python, make):
        tool.parent.mkdir(parents=True)
        tool.write_text(
            f'#!/bin/sh\necho "{tool.name} $* $PRESET $TASK $SEEDS $RECORDED"\nexec sleep "${{LASTS:-0}}"\n'
        )
        tool.chmod(0o755)
    return tmp_path


def asked(checkout: Path, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    outside = {name: value for name, value in os.environ.items() if name not in ("PRESET", "TASK", "SEEDS", "RECORDED")}
    environment = outside | {"PATH": f"{checkout / 'bin'}:{os.environ['PATH']}"} | settings
    return subprocess.run(["bash", ".ci/gpu", *words], cwd=checkout, env=environment, capture_output=True, text=True)


def test_a_run_makes_the_book_here_and_packs_it(checkout):
    for preset in ("smoke", "presets/smoke.yml"):
        done = asked(checkout, "run", PRESET=preset)
        packing = f"python -m i2i_book.recorded pack runs/smoke smoke.zip {preset} fluent 1 "
        assert done.stdout.split("\n")[:2] == [f"make book {preset} fluent 1 no", packing]


def test_a_run_whose_time_is_up_is_interrupted_and_packs_nothing(checkout):
    done = asked(checkout, "run", LASTS="60", MINUTES="0.01")
    assert done.returncode == 124 and "the same command goes on" in done.stderr and "pack" not in done.stdout


def test_unknown_steps_get_the_usage(checkout):
    done = asked(checkout, "fly")
    assert done.returncode == 2 and ".ci/gpu preflight" in done.stderr and "set -euo" not in done.stderr


def workflow(name: str) -> tuple[str, dict[str, Any]]:
    text = (root() / ".github" / "workflows" / f"{name}.yml").read_text()
    return text, yaml.safe_load(text)["jobs"]


def test_the_machine_with_the_gpu_ends_in_time_and_cannot_write():
    text, jobs = workflow("gpu")
    minutes = int(re.search(r'MINUTES: "(\d+)"', text)[1])  # pyright: ignore[reportOptionalSubscript]
    assert minutes + 20 < jobs["run"]["timeout-minutes"] < 360
    assert "permissions" not in jobs["run"] and yaml.safe_load(text)["permissions"] == {"contents": "read"}
    steps = [step.get("run", step.get("uses")) for step in jobs["run"]["steps"]]
    kept = [step for step in jobs["run"]["steps"] if step.get("if") == "always()"]
    assert [step["uses"] for step in kept] == ["actions/cache/save@v4", "actions/upload-artifact@v4"]
    assert steps.index(".ci/gpu preflight") < steps.index(".ci/gpu weights") < steps.index(".ci/gpu run")
    offered = [step.get("run", "") for step in jobs["offer"]["steps"]]
    verified, pushed = (next(i for i, run in enumerate(offered) if w in run) for w in ("make verify", "git push"))
    assert verified < pushed and "set -o pipefail" in offered[verified]


@pytest.mark.parametrize("name", ["gpu", "publish"])
def test_workflows_ask_the_script_for_steps_that_it_has(name):
    text, _ = workflow(name)
    known = re.findall(r"^  ([a-z]+)\)$", (root() / ".ci" / "gpu").read_text(), re.M)
    assert known and {"weights"} <= set(re.findall(r"\.ci/gpu ([a-z]+)", text)) <= set(known)


def test_weights_that_are_there_are_not_fetched_again(tmp_path, monkeypatch):
    from i2i_lib.metrics.networks import literature
    from i2i_lib.weights import INCEPTION

    fetched = []
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", lambda *_, **__: fetched.append(1))
    monkeypatch.setattr(literature, "INCEPTION_PREFIX", hashlib.sha256(b"weights").hexdigest()[:8])
    path = tmp_path / "hub" / "checkpoints" / INCEPTION.names[0]
    data._weights()
    path.write_bytes(b"weights cut sh")
    data._weights()
    assert len(fetched) == 2
    path.write_bytes(b"weights")
    assert data._weights().record == {"weights": str(path)} and len(fetched) == 2
