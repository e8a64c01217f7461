"""Every write, broken in every way: what is read afterwards is the old artifact, the new one, or a documented error."""

import errno
import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest
import torch
from fake_run import finished_run, finished_teacher, source
from server import CYCLEGAN, zipped
from torch import nn
from toys import GENERATORS, network, tiles, trained

from i2i_book.recorded.check import check
from i2i_book.recorded.importing import import_recording
from i2i_book.recorded.pack import pack
from i2i_book.recorded.teachers import keep
from i2i_book.runner.run import run_notebook
from i2i_lib.checkpoint import load_generator, save_generator
from i2i_lib.config import cat_teacher
from i2i_lib.data.downloads import fetch
from i2i_lib.data.picture_cache import FileImages
from i2i_lib.data.pictures import list_pictures, read_picture, write_picture
from i2i_lib.data.store import load_saved_task, save_task
from i2i_lib.data.tiles import Task
from i2i_lib.export.onnx import export_onnx
from i2i_lib.files import sha256, write_json
from i2i_lib.train.loop import TrainingRun, fit

DOCUMENTED = (ValueError, OSError)


# --- faults -----------------------------------------------------------------------------------------------------------


@contextmanager
def failing(call: str, at: int, code: int) -> Iterator[list[int]]:
    """The `at`-th call of `os.<call>` fails; yields a list that grows by 1 with each call."""
    real, calls = getattr(os, call), []

    def wrapped(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) - 1 == at:
            raise OSError(code, os.strerror(code))
        return real(*arguments, **options)

    setattr(os, call, wrapped)
    try:
        yield calls
    finally:
        setattr(os, call, real)


@contextmanager
def short_writes(limit: int) -> Iterator[None]:
    """The system writes files up to `limit` bytes: what crosses it is written in part, and the next write fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


CALLS = {"fsync": errno.ENOSPC, "replace": errno.EIO, "rename": errno.EACCES}


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def faults(write: Callable[[], Any], folder: Path) -> list[Any]:
    """Every fault that can meet `write` into `folder`: the first, middle and last of its calls, and some lengths."""
    with failing("fsync", -1, 0) as fsyncs, failing("replace", -1, 0) as replaces, failing("rename", -1, 0) as renames:
        write()
    found: list[Any] = []
    for call, calls in {"fsync": fsyncs, "replace": replaces, "rename": renames}.items():
        places = {0, len(calls) // 2, len(calls) - 1} if calls else set()
        found += [(failing, call, at, CALLS[call]) for at in sorted(places)]
    size = max(path.stat().st_size for path in files_in(folder))
    return found + [(short_writes, limit) for limit in (0, size // 2, size - 1)]


# --- artifacts --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Artifact:
    """`write(folder, version)` makes one of two versions; `read(folder)` gives what tells them apart."""

    write: Callable[[Path, int], Any]
    read: Callable[[Path], Any]


def task(version: int) -> Task:
    made = tiles(n=2, size=8, seed=version)
    return Task("earth", "pix2pix", made, made, {"version": version})


def publish(folder: Path, version: int) -> None:
    """A notebook that the runner publishes; what executes it is a stand-in."""
    made = source(folder.parent / "made.ipynb", "x: int = 1", f"{version}")

    def execute(source: str, target: str, **options: Any) -> None:
        notebook: Any = nbformat.read(source, as_version=4)
        for cell in notebook.cells:
            cell.execution_count = 1
        nbformat.write(notebook, target)

    real, papermill.execute_notebook = papermill.execute_notebook, execute
    try:
        run_notebook(made, {}, log=folder.parent / "logs" / "made.ipynb", publish=folder / "made.ipynb")
    except RuntimeError as error:  # which NotebookError is: here, that the copy could not be kept
        raise OSError(str(error)) from error
    finally:
        papermill.execute_notebook = real


def published(folder: Path) -> str:
    notebook: Any = nbformat.read(folder / "made.ipynb", as_version=4)
    assert notebook.metadata.i2i.status == "ok"
    return notebook.cells[1].source


def run_of(folder: Path, version: int) -> Path:
    made = folder.parent / f"there{version}"
    if not made.exists():
        finished_run(made, version=version)
    return made / "runs" / "gpu"


def taken_in(folder: Path, version: int) -> None:
    archive = folder.parent / f"{version}.zip"
    if not archive.exists():
        with suppress(OSError):
            pack(run_of(folder, version), archive)
    import_recording(archive, folder, replace=True)


ARTIFACTS = {
    "JSON": Artifact(lambda f, v: write_json(f / "a.json", [v] * 99), lambda f: json.loads((f / "a.json").read_text())),
    "generator": Artifact(
        lambda f, v: save_generator(network(cat_teacher(4 + 2 * v, 3, "batch"), v), f / "net"),
        lambda f: load_generator(f / "net").config,
    ),
    "task": Artifact(
        lambda f, v: save_task(task(v), f / "data"),
        lambda f: (load_saved_task(f / "data").info, load_saved_task(f / "data").test.source.tolist()),
    ),
    "picture": Artifact(
        lambda f, v: write_picture(torch.full((3, 40, 40), v, dtype=torch.uint8), f / "a.png"),
        lambda f: read_picture(f / "a.png").tolist(),
    ),
    "page": Artifact(publish, published),
    "ONNX file": Artifact(
        lambda f, v: export_onnx(student(f.parent, v), f / "a.onnx", size=16), lambda f: sha256(f / "a.onnx")
    ),
    "models": Artifact(
        lambda f, v: keep(teacher_of(f.parent, v), f / "kept"),
        lambda f: load_generator(f / "kept" / "teacher").state_dict()["head.bias"].tolist(),
    ),
    "import": Artifact(taken_in, lambda f: [check(f / "gpu")["files"]["fluent/seed0/plan.json"]]),
}


def teacher_of(folder: Path, version: int) -> Path:
    home = folder / f"teacher{version}"
    return home if home.exists() else finished_teacher(home, version)


def student(folder: Path, version: int) -> Path:
    path = folder / f"student{version}"
    if not path.with_suffix(".json").exists():
        save_generator(trained(GENERATORS["pix2pix"], version), path)
    return path


@pytest.mark.parametrize("name", ARTIFACTS)
def test_no_half_written_artifact_is_read(name, tmp_path, monkeypatch):
    artifact, folder = ARTIFACTS[name], tmp_path / "here"
    monkeypatch.setattr("i2i_book.recorded.teachers._model_card", lambda home: "a card")
    # Slow, and before anything is written.
    monkeypatch.setattr("i2i_lib.export.onnx._difference", lambda *_: (0.0, 99.0))
    folder.mkdir()
    artifact.write(folder, 1)
    new = artifact.read(folder)
    artifact.write(folder, 0)
    old, names = artifact.read(folder), files_in(folder)
    assert old != new
    for fault, *arguments in faults(lambda: artifact.write(folder, 0), folder):
        artifact.write(folder, 0)
        done = True
        try:
            with fault(*arguments):
                artifact.write(folder, 1)
        except OSError:
            done = False
        try:
            found = artifact.read(folder)
        except DOCUMENTED:
            assert not done
        else:
            assert found == new if done else found in (old, new)
        assert set(files_in(folder)) <= set(names), f"{fault.__name__} {arguments} left something behind"
        artifact.write(folder, 1)
        assert artifact.read(folder) == new, "the same command again repairs it"


@pytest.mark.parametrize("name", ["recording.zip", "recording"])
def test_a_recording_is_packed_whole_or_not_at_all(name, tmp_path):
    folder = tmp_path / "here"
    run = run_of(folder, 0)

    def again() -> Path:
        shutil.rmtree(folder, ignore_errors=True)
        return pack(run, folder / name)

    for fault, *arguments in faults(again, folder):
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError), fault(*arguments):
            pack(run, folder / name)
        if files_in(folder):
            import_recording(folder / name, tmp_path / "taken", replace=True)
        assert {path.name for path in folder.iterdir()} <= {name}


class Toy(nn.Module):
    """A trainer of one number."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Buffer(torch.zeros(2000))

    def step(self, batch: Any) -> dict[str, torch.Tensor]:
        self.weight = self.weight * 0.9 + batch
        return {"loss": self.weight.mean()}

    def check(self) -> None:
        pass

    def skipped(self) -> int:
        return 0


def numbers(first: int) -> Iterator[Any]:
    while True:
        yield first
        first += 1


def test_a_training_outlives_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("i2i_lib.train.loop._fingerprint", lambda run, steps: {"all": "the same"})  # reads all sources

    def train(folder: Path) -> tuple[list[Any], torch.Tensor]:
        toy = Toy()
        rows = fit(toy.step, numbers, TrainingRun(folder, toy, {}, "toy", log_every=2), 40)  # pyright: ignore
        return [(row["step"], row["loss"]) for row in rows], toy.weight

    wanted = train(tmp_path / "whole")

    again = iter(range(100))
    for number, (fault, *arguments) in enumerate(
        faults(lambda: train(tmp_path / f"count{next(again)}"), tmp_path / "whole")
    ):
        folder = tmp_path / str(number)
        with suppress(OSError), fault(*arguments):
            train(folder)
        rows, weight = train(folder)
        assert rows == wanted[0] and torch.equal(weight, wanted[1]), (fault, arguments)
        logged = [json.loads(line) for line in (folder / "losses.jsonl").read_text().splitlines()]
        assert [(row["step"], row["loss"]) for row in logged] == rows
        assert {path.name for path in folder.iterdir()} == {"checkpoint.pt", "losses.jsonl", "lock"}


def test_decoded_pictures_are_whole_or_decoded_again(tmp_path):
    for i in range(4):
        write_picture(torch.full((3, 9, 9), 50 * i, dtype=torch.uint8), tmp_path / "in" / f"{i}.png")
    listed = list_pictures(tmp_path / "in")
    for limit in (0, 3, 100):
        cache = tmp_path / f"cache{limit}"
        with short_writes(limit), pytest.raises(OSError, match=r"File too large .*cache"):
            FileImages(tmp_path / "in", listed, 8, cache=cache)[:]
        whole = FileImages(tmp_path / "in", listed, 8, cache=cache)[:]
        assert whole.amax((1, 2, 3)).tolist() == [0, 50, 100, 150]


def test_a_data_set_arrives_whole_after_any_fault(server, tmp_path):
    server.content = zipped(CYCLEGAN)
    again = iter(range(100))

    found = faults(lambda: fetch("horse2zebra", tmp_path / str(next(again))), tmp_path / "0")
    for number, (fault, *arguments) in enumerate(found):
        folder = tmp_path / f"broken{number}"
        folder.mkdir()
        with suppress(OSError), fault(*arguments):
            fetch("horse2zebra", folder)
        target = fetch("horse2zebra", folder)
        assert {str(p.relative_to(folder)): p.read_bytes() for p in target.rglob("*.png")} == CYCLEGAN
        assert {p.name for p in folder.iterdir()} == {"horse2zebra", "horse2zebra.json", ".horse2zebra.lock"}
