"""The strict runner: what it refuses, what it keeps, and that nothing outlives it."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import psutil
import pytest
from fake_run import source
from project import wait_for

from i2i_book.pages.status import status_of
from i2i_book.runner import __main__ as runner_command
from i2i_book.runner import run as runner
from i2i_book.runner.notebook import NotebookError, code_digest, imported_modules, read_parameters
from i2i_book.runner.run import run_notebook
from i2i_lib.files import sha256

PARAMETERS = 'run: str = "lab"\nsteps: int = 3  # how many\nlr: float = 1e-3\nflag: bool = False\nname: str = "a"\n'
PARAMETERS += "arms: list[str] = []\n"


def notebook(folder: Path, *cells: str, parameters: str = PARAMETERS) -> Path:
    return source(folder / "made.ipynb", parameters, *cells)


@pytest.mark.parametrize(
    "given, cast",
    [
        ({"lr": "1e-4"}, {"lr": 1e-4}),  # YAML 1.1 reads this as text
        ({"lr": "1"}, {"lr": 1.0}),
        ({"flag": "false"}, {"flag": False}),
        ({"steps": "7", "name": "7"}, {"steps": 7, "name": "7"}),
        ({"steps": "010"}, {"steps": 10}),  # YAML 1.1 reads this as octal
        ({"arms": "[gcka, none]"}, {"arms": ["gcka", "none"]}),
    ],
)
def test_the_command_line_is_read_by_annotation(tmp_path, given, cast):
    read = read_parameters(notebook(tmp_path), given)
    assert read == cast
    assert [type(v) for v in read.values()] == [type(v) for v in cast.values()]


@pytest.mark.parametrize(
    "given, message",
    [
        ({"steps": 2.5}, "'steps' must be of type int, got 2.5"),
        ({"steps": True}, "'steps' must be of type int, got True"),
        ({"lr": "fast"}, "'lr' must be of type float, got 'fast'"),
        ({"lr": "1e-4"}, "'lr' must be of type float, got '1e-4'"),  # of a preset
        ({"flag": "false"}, "'flag' must be of type bool, got 'false'"),
        ({"arms": ["gcka", 3]}, r"'arms' must be of type list\[str\], got \['gcka', 3\]"),
        ({"flag": 1}, "'flag' must be of type bool, got 1"),
        ({"name": 3}, "'name' must be of type str, got 3"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_runs(tmp_path, given, message):
    path, log = notebook(tmp_path), tmp_path / "log.ipynb"
    with pytest.raises(NotebookError, match=message):
        run_notebook(path, given, log=log)
    assert not log.exists()


def test_a_good_run_is_published_with_its_provenance(tmp_path):
    log, published = tmp_path / "logs" / "made.ipynb", tmp_path / "out" / "made.ipynb"
    path = notebook(tmp_path, "print(steps, lr)")
    run_notebook(path, {"steps": 5, "lr": 1}, log=log, publish=published, threads=1, preset="smoke")
    executed = nbformat.read(published, as_version=4)
    facts = executed.metadata["i2i"]
    assert facts["status"] == "ok" and facts["preset"] == "smoke"
    assert facts["parameters"] == {"run": "lab", "steps": 5, "lr": 1.0, "flag": False, "name": "a", "arms": []}
    assert executed.cells[-1].outputs[0].text == "5 1.0\n", "whole numbers do for float"


def test_a_notebook_that_leaves_early_is_not_published(tmp_path, capsys):
    path = notebook(tmp_path, "import sys; sys.exit(0)", "print('after')")
    log, published = tmp_path / "logs" / "made.ipynb", tmp_path / "out" / "made.ipynb"
    assert runner_command.main([str(path), "--log", str(log), "--publish", str(published)]) == 1
    said = capsys.readouterr().err
    assert "made.ipynb failed" in said and "SystemExit: 0" in said and str(log) in said
    assert log.exists() and not published.exists()


def test_the_manifest_holds_what_decides_a_number(tmp_path):
    (runner.runs.root() / "runs").mkdir(exist_ok=True)  # the names in a manifest are relative to it
    (tmp_path / "in.json").write_text("{}")
    writes = f"""
from pathlib import Path
from i2i_lib.files import record_file
folder = Path({str(tmp_path)!r})
record_file('read', folder / 'in')
for name in ('out.json', 'out.safetensors', 'out-of-the-way.json'):
    (record_file('wrote', folder / 'out').parent / name).write_text(name)"""
    path = source(tmp_path / "made.ipynb", 'seed: int = 3\ntask: str = "earth"', writes)
    run_notebook(path, {}, log=tmp_path / "log.ipynb", threads=1)
    facts = nbformat.read(tmp_path / "log.ipynb", as_version=4).metadata["i2i"]
    assert facts["parameters"] == {"seed": 3, "task": "earth"} and facts["seed"] == 3
    assert {"python", "torch", "numpy", "scipy"} <= facts["versions"].keys()
    assert {"cpu", "cores", "gpu", "os"} == facts["machine"].keys()
    assert facts["threads"] == 1 and facts["seconds"] > 0 and facts["peak_memory_mib"] > 0
    assert len(facts["source_sha256"]) == len(facts["modules_sha256"]) == 64
    # Only the two files of the artifact `out`, not another whose name begins alike.
    here = os.path.relpath(tmp_path, runner.runs.root() / "runs")
    assert facts["files"] == {
        "read": {f"{here}/in.json": sha256(tmp_path / "in.json")},
        "wrote": {f"{here}/{name}": sha256(tmp_path / name) for name in ("out.json", "out.safetensors")},
    }
    assert not (tmp_path / "log.files.txt").exists() and "I2I_FILES" not in os.environ

    def status():
        facts["notebook"] = "made"
        return status_of(facts, False, code_digest, tmp_path, runner.runs.root() / "runs")

    assert status() == "fresh"
    (tmp_path / "out.safetensors").write_text("another")
    assert status() == "stale"
    (tmp_path / "out.safetensors").write_text("out.safetensors")
    assert status() == "fresh"
    (tmp_path / "in.json").unlink()
    assert status() == "stale"


def test_a_run_leaves_its_process_as_it_was(tmp_path, monkeypatch):
    """`make verify` runs several in one process: neither threads nor files nor signals of one reach the next."""
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr(runner.gpus, "visible", lambda: ["GPU-a", "GPU-b", "GPU-c"])
    before, handler = dict(os.environ), signal.getsignal(signal.SIGTERM)
    path = notebook(
        tmp_path, "import os; print(*(os.environ[n] for n in ('OMP_NUM_THREADS', 'I2I_GPU', 'CUDA_VISIBLE_DEVICES')))"
    )
    run_notebook(path, {}, log=tmp_path / "log.ipynb", threads=1, gpu=2)
    assert nbformat.read(tmp_path / "log.ipynb", as_version=4).cells[-1].outputs[0].text == "1 2 GPU-a,GPU-b\n"
    with pytest.raises(NotebookError):
        run_notebook(notebook(tmp_path, "1 / 0"), {}, log=tmp_path / "log.ipynb", threads=1)
    assert dict(os.environ) == before and signal.getsignal(signal.SIGTERM) is handler


def test_a_cell_that_never_ran_is_noticed(tmp_path):
    """papermill's own status says `completed` for such a cell after a dead kernel."""
    executed = nbformat.read(notebook(tmp_path, "1 + 1"), as_version=4)
    executed.cells[0].execution_count = 1
    assert "cell 2 was never run" in str(runner._unfinished(executed))


@pytest.mark.parametrize("victim", ["parent", "runner"])
def test_nothing_outlives_a_killed_runner(tmp_path, victim):
    started = tmp_path / "pid"
    sleep = f"import os, time; open({str(started)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    command = [sys.executable, "-m", "i2i_book.runner", str(notebook(tmp_path, sleep))]
    command += ["--log", str(tmp_path / "l.ipynb")]
    # A shell in between, as under Snakemake; `exec` would make it the runner itself.
    parent = subprocess.Popen(["bash", "-c", '"$@" & wait', "-", *command], cwd=runner.runs.root())
    wait_for(started.exists, 60)
    below = psutil.Process(parent.pid).children(recursive=True)
    runner_process = next(p for p in below if "i2i_book.runner" in p.cmdline())
    os.kill(parent.pid if victim == "parent" else runner_process.pid, signal.SIGKILL)
    wait_for(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in below), 10)
    parent.wait(10)


def test_notebooks_side_by_side_share_neither_ports_nor_files(tmp_path):
    """Two at once of one source end as one alone does, and listen to this machine only; a third is refused."""
    wait = f"""
import pathlib, time
folder = pathlib.Path({str(tmp_path)!r})
(folder / name / "begun").touch()
while not (folder / "go").exists(): time.sleep(0.05)
print(name)"""
    path = notebook(tmp_path, wait)

    def start(name: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "i2i_book.runner", str(path), "-p", "name", name]
        command += ["--log", f"{tmp_path}/{name}/log.ipynb", "--publish", f"{tmp_path}/{name}/page.ipynb"]
        return subprocess.Popen(command, cwd=runner.runs.root(), stderr=subprocess.PIPE, text=True)

    both = {name: start(name) for name in ("a", "b")}
    wait_for(lambda: all((tmp_path / name / "begun").exists() for name in both), 200)
    below = [kernel for p in both.values() for kernel in psutil.Process(p.pid).children(recursive=True)]
    # Messages go through files; ipykernel opens a port of its own, any free one, for what forked processes print.
    ports = [connection.laddr for kernel in below for connection in kernel.net_connections("inet")]
    assert len(below) >= 2 and {port.ip for port in ports} <= {"127.0.0.1"} and len(set(ports)) == len(ports) <= 2
    third = start("a")
    assert f"in use by process {both['a'].pid}" in third.communicate(timeout=200)[1] and third.returncode == 1
    (tmp_path / "go").touch()
    for name, process in both.items():
        said = process.communicate(timeout=200)[1]
        assert process.returncode == 0, said
        published = nbformat.read(tmp_path / name / "page.ipynb", as_version=4)
        assert published.cells[-1].outputs[0].text == f"{name}\n"


def test_imports_are_followed_through_the_library(tmp_path):
    found = {p.stem for p in imported_modules(notebook(tmp_path, "%matplotlib inline\nfrom i2i_lib import macs"))}
    assert found == {"macs", "config"}


@pytest.mark.parametrize(
    "content, sentence",
    [
        ("{", r"made\.ipynb is not a notebook, or was cut short"),
        ("[]", r"made\.ipynb is not a notebook"),
        ('{"cells": [{"cell_type": "code"}]}', r"made\.ipynb is not a notebook"),
        ('{"cells": []}', "made.ipynb has 0 cells tagged `parameters`"),
        ("x = 3", "`x = 3` is not of the form `name: type = value`"),
        ("x: int = 3 +", r"`x: int = 3 \+` is not Python"),
        ("x: int = len('abc')", "is not of the form `name: type = value`"),
        ("x: tuple = ()", "is not of the form `name: type = value`"),
    ],
)
def test_what_is_no_notebook_says_so(content, sentence, tmp_path, capsys):
    path = tmp_path / "made.ipynb"
    if content[0] in "{[":
        path.write_text(content)
    else:
        notebook(tmp_path, parameters=content)
    assert runner_command.main([str(path), "--log", str(tmp_path / "log.ipynb")]) == 1
    assert re.search(f"error: .*{sentence}", capsys.readouterr().err)


def test_help_and_a_missing_notebook(capsys):
    with pytest.raises(SystemExit, match="0"):
        runner_command.main(["--help"])
    assert "NAME VALUE" in capsys.readouterr().out
    assert runner_command.main(["nowhere.ipynb"]) == 1
    assert "no notebook nowhere.ipynb" in capsys.readouterr().err
