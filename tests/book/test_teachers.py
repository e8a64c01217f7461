"""Recorded trainings: kept small, taken up only by a run with the same settings and pictures."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from fake_run import TRAINING, finished_teacher, finished_training, recipe
from toys import TEACHERS, trained

from i2i_book.recorded import teachers, trainings
from i2i_book.recorded.teachers import ROWS, keep
from i2i_book.recorded.trainings import recorded_training
from i2i_lib.checkpoint import load_generator, save_generator, save_plan
from i2i_lib.data.store import save_task
from i2i_lib.data.tiles import Task, placeless_tiles
from i2i_lib.files import sha256
from i2i_lib.macs import generator_macs
from i2i_lib.prune import norm_scales, prune
from i2i_lib.train.recipe import save_recipe


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return finished_teacher(tmp_path / "runs" / "teacher" / "toy" / "seed0")


@pytest.fixture
def kept(home: Path, tmp_path: Path, monkeypatch) -> Path:
    """The same, kept in a checkout."""
    target = tmp_path / "checkout" / "book" / "recorded" / "toy"
    keep(home, target)
    for module in (teachers, trainings):
        monkeypatch.setattr(module, "root", lambda: tmp_path / "checkout")
    return target


def test_a_recorded_training_comes_back(home: Path, kept: Path):
    found = recorded_training("toy", "teacher", home / "train" / "teacher" / "config.json", home / "data")
    exact, rounded = load_generator(home / "teacher"), found.generator
    for name, value in exact.state_dict().items():
        other = rounded.state_dict()[name]
        assert torch.equal(value, other) if value.dim() < 2 else torch.allclose(value, other, rtol=1e-3, atol=1e-7), (
            name
        )
    assert norm_scales(rounded) == norm_scales(exact), "what pruning ranks is not rounded"
    assert found.discriminator is not None and found.scales[-1].step == 1000
    assert list(found.frames) == [9, 10, 1000]
    losses = pd.DataFrame(found.losses)
    assert len(losses) == ROWS and losses.step.iloc[-1] == 1000 and losses.recon.mean() == pytest.approx(500.5)
    assert found.made["device"] == "A Large GPU"
    assert found.packed_from == sha256(home / "teacher.safetensors")
    assert load_generator(kept / "students" / "half").config == TEACHERS["pix2pix"]
    assert "1,000 s" not in (kept / "MODEL_CARD.md").read_text() and "100 s" in (kept / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize(
    ("settings", "named"), [({"matching": 3.0}, "matching"), ({"training": replace(TRAINING, lr=1e-4)}, "training")]
)
def test_other_settings_are_refused(home: Path, kept: Path, tmp_path: Path, settings, named):
    save_recipe(replace(recipe(), **settings), tmp_path / "other.json")
    with pytest.raises(ValueError, match=rf"recorded teacher of toy was trained with other settings \({named}\)"):
        recorded_training("toy", "teacher", tmp_path / "other.json", home / "data")


def test_seed_threads_and_arithmetic_may_differ(home: Path, kept: Path, tmp_path: Path):
    training = replace(TRAINING, precision="bf16", compiled=True)
    save_recipe(replace(recipe(seed=3, threads=2, log_every=7), training=training), tmp_path / "other.json")
    assert recorded_training("toy", "teacher", tmp_path / "other.json", home / "data").losses


def test_a_record_older_than_a_setting_has_its_default(home: Path, kept: Path, tmp_path: Path):
    """As a teacher of before GauGAN's gain and alignments over shards were settings."""
    file = kept / "teacher-training.json"
    record = json.loads(file.read_text())
    assert record["settings"].pop("gain") == 0.02 and record["settings"]["training"].pop("shard") == 0
    file.write_text(json.dumps(record))
    config = home / "train" / "teacher" / "config.json"
    assert recorded_training("toy", "teacher", config, home / "data").losses
    for settings, named in (({"gain": 1.0}, "gain"), ({"training": replace(TRAINING, shard=8)}, "training")):
        save_recipe(replace(recipe(), **settings), tmp_path / "other.json")
        with pytest.raises(ValueError, match=rf"trained with other settings \({named}\)"):
            recorded_training("toy", "teacher", tmp_path / "other.json", home / "data")


def test_other_pictures_are_refused(home: Path, kept: Path, tmp_path: Path):
    other = torch.zeros(4, 3, 16, 16, dtype=torch.uint8)
    save_task(
        Task("toy", "pix2pix", placeless_tiles(other, other), placeless_tiles(other, other), {}), tmp_path / "data"
    )
    with pytest.raises(ValueError, match="recorded teacher of toy was trained on other pictures"):
        recorded_training("toy", "teacher", home / "train" / "teacher" / "config.json", tmp_path / "data")


@pytest.fixture
def ran(monkeypatch, tmp_path: Path) -> dict[str, dict]:
    """What `train` runs: the page of each notebook -> how it is run. Nothing is trained."""
    calls = {}

    def note(notebook: Path, parameters: dict, *, publish: Path, **options) -> None:
        calls[publish.stem] = options | {"notebook": notebook.stem}

    monkeypatch.setattr(teachers, "run_notebook", note)
    monkeypatch.setattr(teachers, "measure", lambda home: None)
    monkeypatch.setattr(teachers, "root", lambda: tmp_path)
    return calls


def test_a_teacher_and_its_students_run_in_the_chapters_of_their_family_on_the_presets_gpus(ran, tmp_path):
    preset = tmp_path / "mine.yml"
    lists = "arms: [gcka]\ngenerators: [inception]\nrecorded: [none]\n"
    preset.write_text(f"like: cpu\nthreads: 1\ngpu: 2\nminutes: 1\n{lists}")
    for task, pruning in (("earth-labels", "03-pruning-gaugan"), ("openmoji", "03-pruning")):
        ran.clear()
        teachers.train(str(preset), task)
        assert list(ran) == ["01-data", "02-search-space", pruning, "04-distillation-none"]
        assert ran[pruning]["notebook"] == pruning
        assert [how["gpu"] for how in ran.values()] == [0, 2, 0, 2], "for what trains"


@pytest.fixture
def student(home: Path, tmp_path: Path, monkeypatch) -> Path:
    """A student kept with its teacher; its settings by the run."""
    teacher = load_generator(home / "teacher")
    plan = prune(teacher, generator_macs(teacher.config, 16) / 2, image_size=16)
    paths = {"teacher": "../../teacher", "generator": "plan", "discriminator": "../../teacher-discriminator"}
    private = finished_training(home, "student-none", replace(recipe(), **paths), "04-distillation-none")
    save_plan(plan, private / "plan", provenance={})
    noted = {"teacher": sha256(home / "teacher.safetensors")}
    save_generator(trained(plan.config), home / "student-none", provenance=noted)
    monkeypatch.setattr(trainings, "root", lambda: tmp_path / "checkout")
    keep(home, tmp_path / "checkout" / "book" / "recorded" / "toy", ["none"])
    return private / "config.json"


def test_a_recorded_student_comes_back(home: Path, student: Path):
    found = recorded_training("toy", "student-none", student, home / "data")
    assert found.generator.config == load_generator(home / "student-none").config and found.discriminator is None
    assert found.losses[-1]["step"] == 1000 and list(found.frames) == [9, 10, 1000]
    assert found.packed_from == sha256(home / "student-none.safetensors")


def test_a_student_of_another_seed_teacher_or_plan_is_refused(home: Path, student: Path):
    settings = json.loads(student.read_text())
    student.write_text(json.dumps(settings | {"seed": 1}))
    with pytest.raises(ValueError, match=r"student-none of toy was trained with other settings \(seed\)"):
        recorded_training("toy", "student-none", student, home / "data")
    student.write_text(json.dumps(settings))
    teacher = load_generator(home / "teacher")
    narrower = prune(teacher, generator_macs(teacher.config, 16) / 3, image_size=16)
    save_plan(narrower, student.parent / "plan", provenance={})
    with pytest.raises(ValueError, match="student-none has other widths than"):
        recorded_training("toy", "student-none", student, home / "data")
    save_generator(trained(teacher.config, 7), home / "teacher")
    with pytest.raises(ValueError, match="student-none learned from another teacher than"):
        recorded_training("toy", "student-none", student, home / "data")


def test_a_task_without_a_record_says_how_to_train_one(home: Path, kept: Path):
    with pytest.raises(FileNotFoundError, match=r"no original of toy is recorded in .*: TEACHER=train \("):
        recorded_training("toy", "original", home / "train" / "teacher" / "config.json", home / "data")
