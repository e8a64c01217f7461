"""The pipeline, run on a copy of the project: chapters by hand, and what a kill leaves behind."""

import json
import os
import shutil
import signal
from pathlib import Path

import nbformat
import pytest
import torch
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from project import Project, wait_for

from i2i_lib.files import sha256


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Project:
    """A project with the real notebooks, the first two of them run."""
    project = Project(tmp_path_factory.mktemp("trained"))
    project.make("runs/micro/earth/seed0/teacher.json")
    return project


def by_hand(project: Project, name: str) -> str | None:
    """Restart and run all, as JupyterLab does it: in the notebook's own folder, nothing passed. Its error, if any."""
    notebook = nbformat.read(project.folder / "notebooks" / name, as_version=4)
    environment = {**os.environ, "PYTHONPATH": str(project.folder)}
    client = NotebookClient(notebook, resources={"metadata": {"path": str(project.folder / "notebooks")}}, timeout=120)
    try:
        client.execute(env=environment)
    except CellExecutionError as error:
        return error.evalue
    return None


def test_a_chapter_runs_by_hand_and_touches_nothing_else(trained):
    """The recorded models let it open at once; without them it says which notebook and command make its input."""

    def files() -> dict[Path, int]:
        found = (p for p in trained.folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
        return {p: p.stat().st_mtime_ns for p in found}

    before = files()
    assert by_hand(trained, "03-pruning.ipynb") is None
    new = {str(path.relative_to(trained.folder)) for path, when in files().items() if before.get(path) != when}
    assert new == {"runs/lab/fluent/seed0/plan.json"}

    shutil.rmtree(trained.folder / "book" / "recorded")
    said = by_hand(trained, "03-pruning.ipynb")
    assert said and "notebook 02-search-space makes it" in said and "make book PRESET=cpu TASK=fluent" in said


def test_a_training_killed_twice_ends_in_the_same_bits(trained):
    """By the pipeline's death and by the notebook's; the runner's is in test_runner, all of them in `make stress`."""
    project = trained
    target, private = "runs/micro/earth/seed0/teacher.json", project.seed / "train" / "teacher"
    wanted = sha256(project.seed / "teacher.safetensors")
    (project.seed / "teacher.json").unlink()
    shutil.rmtree(private)

    checkpoint = private / "checkpoint.pt"

    def reached() -> int:
        return torch.load(checkpoint, weights_only=True)["step"] if checkpoint.exists() else 0

    for victim in ("snakemake", "ipykernel_launcher"):
        seen = reached()
        process = project.start(target)
        if not seen:  # a second one at the same time stops at once
            lock = project.folder / ".snakemake" / "make.lock"
            wait_for(lambda lock=lock, process=process: lock.read_text() == f"{process.pid}\n", 60)
            second = project.start(target)
            said = second.communicate(timeout=60)[0]
            assert second.returncode == 1 and f"this checkout is in use by process {process.pid}: wait" in said
        wait_for(lambda seen=seen: reached() > seen, 120)
        killed = [p for p in project.processes() if any(victim in part for part in p.cmdline()[:4])]
        assert len(killed) == 1, [p.cmdline() for p in project.processes()]
        killed[0].send_signal(signal.SIGKILL)
        said = process.communicate(timeout=60)[0]
        assert process.returncode != 0, said
        wait_for(lambda: not project.processes(), 10)
        assert not (project.seed / "teacher.json").exists()

    project.make(target)
    assert "going on from the checkpoint" in (project.seed / "notebooks" / "02-search-space.ipynb").read_text()
    assert sha256(project.seed / "teacher.safetensors") == wanted
    steps = [json.loads(line)["step"] for line in (private / "losses.jsonl").read_text().splitlines()]
    assert steps == list(range(2, 121, 2))
