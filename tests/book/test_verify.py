"""`make verify` runs what made a number, on what it was made of, and its exit status says whether the two agree."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
from fake_run import facts, row, source

from i2i_book import runs, verify
from i2i_book.recorded.check import read_manifest, recordings
from i2i_book.runner.notebook import check_parameters, code_digest
from i2i_book.runner.provenance import machine
from i2i_lib.files import sha256, write_json
from i2i_lib.results import save_evaluation

ROOT = Path(__file__).resolve().parents[2]
PARAMETERS = 'run: str = "lab"\ntask: str = "earth"\nseed: int = 0\n'
CHAIN = {"01-data": "", "02-search-space": "", "03-pruning": "", "04-distillation": 'arm: str = "gcka"'}
CHAIN |= {"05-evaluation": 'arms: list[str] = ["gcka", "mse"]\noriginal: bool = True'}


class FirstByte:
    """An evaluator whose L1 is the first byte of the weights, in percent."""

    def __init__(self, task: bytes, **_: Any) -> None:
        assert task == bytes([1]), "the tiles of the run"

    def evaluate(self, name: str, weights: Path) -> Any:
        return SimpleNamespace(result=SimpleNamespace(l1=weights.with_suffix(".safetensors").read_bytes()[0] / 100))


@pytest.fixture
def home(tmp_path: Path, monkeypatch) -> Path:
    """The folder of one task and seed, run from notebooks that do next to nothing."""
    monkeypatch.setattr(runs, "root", lambda: tmp_path)
    monkeypatch.setattr(verify, "Evaluator", FirstByte)
    monkeypatch.setattr(verify, "load_saved_task", lambda path: path.with_suffix(".safetensors").read_bytes())
    home = tmp_path / "runs" / "micro" / "earth" / "seed0"
    (home / "notebooks").mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    for artifact, first in {"data": 1, "teacher": 2, "student-gcka": 25, "student-mse": 50}.items():
        (home / f"{artifact}.safetensors").write_bytes(bytes([first]))
        write_json(home / f"{artifact}.json", {})
    read = {f"micro/earth/seed0/{p.name}": sha256(p) for p in home.glob("*.safetensors")}
    save_evaluation(home / "eval.json", [row(l1=0.25, train_seconds=1.0)], {})
    for name, more in CHAIN.items():
        bare = source(tmp_path / "notebooks" / f"{name}.ipynb", PARAMETERS + more, "pass")
        digests = dict(zip(("source_sha256", "modules_sha256"), code_digest(bare), strict=True))
        made = facts(name, "micro", machine=machine(), **digests)
        made["parameters"] = {"run": "micro", "task": "earth", "seed": 0}
        made["files"] = {"read": read if name.startswith("05") else {}}
        page = "04-distillation-gcka" if name.startswith("04") else name
        source(home / "notebooks" / f"{page}.ipynb", PARAMETERS + more, "pass", **made)
    return home


def recorded_value(home: Path, value: float) -> None:
    content = json.loads((home / "eval.json").read_text())
    content["results"][0]["l1"] = value
    write_json(home / "eval.json", content)


def test_a_number_is_evaluated_again(home: Path, ran, capsys):
    (home / "teacher.safetensors").unlink()  # only what the number takes is read
    (home / "student-mse.safetensors").unlink()
    assert verify.main(["micro", "earth/0/gcka/l1"]) == 0
    said = capsys.readouterr().out
    assert "agrees: to the last bit; 0.0001 is allowed (the same weights on the same tiles)" in said
    assert "has changed since" not in said
    assert ran == [], "no notebook runs"


@pytest.fixture
def ran(monkeypatch) -> list[tuple[str, dict[str, Any]]]:
    """Notebooks are not executed but noted; their artifacts are those of the run."""
    calls: list[tuple[str, dict[str, Any]]] = []

    def stub(notebook: Path, parameters: dict[str, Any], *, gpu: int, **_: Any) -> None:
        assert gpu == 0 or machine()["gpu"], "a number of a GPU's run is made again without one, too"
        calls.append((notebook.stem, parameters))
        student = f"student-{parameters.get('arm')}"
        made = {"01-data": "data", "02-search-space": "teacher", "04-distillation": student}.get(notebook.stem)
        if made:
            name = f"{made}.safetensors"
            shutil.copy(runs.root() / "runs/micro/earth/seed0" / name, runs.Run("verify", "earth", 0).folder / name)

    monkeypatch.setattr(verify, "run_notebook", stub)
    return calls


def test_a_preset_may_be_named_by_its_file(home: Path, ran, capsys):
    assert verify.main(["presets/micro.yml", "earth/0/gcka/l1"]) == 0
    assert verify.draw("presets/micro.yml", 1)
    assert verify.main(["presets/micro.yml", "earth/1/gcka/l1"]) == 1
    assert "`make record PRESET=presets/micro.yml TASK=earth SEEDS=1-1` makes it" in capsys.readouterr().err


def test_a_number_that_was_made_up_does_not_agree(home: Path, ran, capsys):
    for value, status in ((0.25 * (1 + 0.9e-4), 0), (0.25 * (1 + 1.1e-4), 1), (0.2, 1)):
        recorded_value(home, value)
        assert verify.main(["micro", "earth/0/gcka/l1"]) == status
    assert "DIFFERS: relative difference 0.25; 0.0001 is allowed" in capsys.readouterr().out


def test_numbers_are_drawn_by_lot(home: Path, ran, capsys, monkeypatch):
    monkeypatch.setattr(verify, "evaluate_again", lambda number, _: number.value * (1 + (number.measure == "ssim")))
    assert verify.main(["micro", "99"]) == 1
    said = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in said if "on record" in line} == {f"earth/0/gcka/{m}" for m in verify.DRAWN}
    assert [line.split()[0] for line in said].count("agrees:") == 2
    assert len(verify.draw("micro", 1)) == 1
    assert verify.main(["other", "3"]) == 1 and "`make book PRESET=other`" in capsys.readouterr().err


def test_from_the_data_every_notebook_behind_it_runs(home: Path, ran, capsys):
    path = home / "notebooks" / "04-distillation-gcka.ipynb"
    notebook: Any = nbformat.read(path, as_version=4)
    notebook.metadata.i2i.parameters["arm"] = "gcka"
    nbformat.write(notebook, path)
    assert verify.main(["micro", "earth/0/gcka/l1", "--from", "data"]) == 0
    assert [name for name, _ in ran] == list(CHAIN)[:-1] and all(p["run"] == "verify" for _, p in ran)
    assert "trained on the same kind of processor" in capsys.readouterr().out or machine()["gpu"]

    notebook.metadata.i2i.machine |= {"cpu": "Another Processor", "gpu": "A Large GPU"}
    nbformat.write(notebook, path)
    recorded_value(home, 0.27)
    assert verify.main(["micro", "earth/0/gcka/l1", "--from", "data"]) == 0
    assert "0.1 is allowed (trained on another kind of machine" in capsys.readouterr().out


def test_what_was_taken_from_the_record_is_trained_but_a_students_teacher(home: Path, ran, capsys):
    for page in ("02-search-space", "04-distillation-gcka"):
        path = home / "notebooks" / f"{page}.ipynb"
        notebook: Any = nbformat.read(path, as_version=4)
        notebook.metadata.i2i.parameters |= {"weights": "recorded", "arm": "gcka"}
        nbformat.write(notebook, path)
    save_evaluation(home / "eval.json", [row(l1=0.27), row(model="teacher", l1=0.02)], {})
    assert verify.main(["micro", "earth/0/gcka/l1", "--from", "data"]) == 0
    assert [parameters.get("weights") for _, parameters in ran] == [None, "recorded", None, "train"]
    said = capsys.readouterr().out
    assert "note: its teacher is the recorded one, which `make teacher TASK=earth` trains again" in said
    assert "0.1 is allowed (the recorded training was another machine's" in said
    ran.clear()
    assert verify.main(["micro", "earth/0/teacher/l1", "--from", "data"]) == 0
    assert [parameters.get("weights") for _, parameters in ran] == [None, "train"]
    assert "note:" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("task", "family", "pruning"),
    [
        ("earth-labels", "", "03-pruning-gaugan"),
        ("cityscapes", "gaugan", "03-pruning-gaugan"),
        ("cityscapes", "", "03-pruning"),
    ],
)
def test_a_student_was_pruned_in_the_chapter_of_its_family(task, family, pruning):
    data = {"01-data": {"parameters": {"family": family}}}
    number = verify.Number("", task, 0, "gcka", "l1", 0.0, Path(), False, data)
    assert number.chain == ["01-data", "02-search-space", pruning, "04-distillation-gcka"]


@pytest.mark.parametrize("folder", recordings(ROOT / "book" / "recorded"), ids=lambda folder: folder.name)
def test_the_notebooks_of_today_take_the_parameters_of_what_is_recorded(folder: Path):
    for name, made in read_manifest(folder)["runs"].items():
        if name.rsplit("/", 1)[-1][:2] in ("01", "02", "03", "04"):  # what FROM=data runs
            check_parameters(ROOT / "notebooks" / f"{made['notebook']}.ipynb", verify.known_today(made["parameters"]))


def test_a_number_whose_notebook_is_missing_is_refused_before_anything_runs(home: Path, ran, capsys):
    (home / "notebooks" / "04-distillation-gcka.ipynb").unlink()
    assert verify.main(["micro", "earth/0/gcka/l1", "--from", "data"]) == 1
    assert "04-distillation-gcka.ipynb is missing, which says how it was run" in capsys.readouterr().err
    assert ran == []


def test_other_weights_are_not_taken_for_those_of_the_number(home: Path, ran, capsys):
    (home / "student-gcka.safetensors").write_bytes(bytes([99]))
    assert verify.main(["micro", "earth/0/gcka/l1"]) == 1
    assert "student-gcka.safetensors is not the file that the number was evaluated on" in capsys.readouterr().err
    (home / "student-gcka.safetensors").unlink()
    assert verify.main(["micro", "earth/0/gcka/l1"]) == 1
    assert "is missing, so that the number cannot be evaluated again: use FROM=data" in capsys.readouterr().err
    assert ran == []


def test_changed_code_is_said(home: Path, ran, capsys):
    source = runs.root() / "notebooks" / "05-evaluation.ipynb"
    source.write_text(source.read_text().replace("pass", "print()"))
    assert verify.main(["micro", "earth/0/gcka/l1"]) == 0
    assert "note: 05-evaluation.ipynb or the library has changed since" in capsys.readouterr().out


def test_trainings_by_changed_code_may_part_ways(home: Path):
    number = verify.find("micro", "earth/0/gcka/l1")
    if not machine()["gpu"]:
        assert verify.tolerance(number, "data") == (verify.SAME, "trained on the same kind of processor")
    source = runs.root() / "notebooks" / "04-distillation.ipynb"
    source.write_text(source.read_text().replace("pass", "print()"))
    assert verify.tolerance(number, "data")[0] == verify.RETRAINED


@pytest.mark.parametrize(
    ("number", "says"),
    [
        ("gcka/l1", "must read task/seed/model/measure, such as earth/0/gcka/l1, got 'gcka/l1'"),
        ("earth/1/gcka/l1", "seed 1 has no evaluation: `make record PRESET=micro TASK=earth SEEDS=1-1` makes it"),
        ("earth/0/none/l1", "no model 'none'"),
        ("earth/0/gcka/l2", "gcka has no number 'l2': it has l1, ssim, feature_distance, kd, kd_low, kd_high, fd"),
    ],
)
def test_what_cannot_be_verified_is_said_in_a_sentence(home: Path, number, says, capsys):
    assert verify.main(["micro", number]) == 1
    assert says in capsys.readouterr().err
