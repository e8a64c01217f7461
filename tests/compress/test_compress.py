"""`i2i compress`, from a user's file and folder to a student, and the calls that it refuses."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from goldens import widely_used_resnet
from PIL import Image
from toys import network, trained

from i2i_lib.checkpoint import load_generator, save_discriminator, save_generator
from i2i_lib.cli.__main__ import main
from i2i_lib.compress import budget as budgets
from i2i_lib.compress import run as runs
from i2i_lib.compress.budget import Budget, narrowed
from i2i_lib.compress.pictures import teacher_pictures
from i2i_lib.config import DiscriminatorConfig, GeneratorConfig, ResnetConfig, cat_spade_teacher, cat_teacher
from i2i_lib.data.store import load_saved_task
from i2i_lib.export.onnx import session
from i2i_lib.macs import generator_macs
from i2i_lib.translate import at_any_size


def pictures(folder: Path, count: int, size: tuple[int, int] = (24, 20), first: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(first, first + count):
        noise = np.random.default_rng(i).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{i:02}.png")
    return folder


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> Path:
    """What users have: a ResNet's file, a teacher of ours, photographs, and pairs side by side."""
    here = tmp_path_factory.mktemp("given")
    torch.manual_seed(0)
    torch.save(widely_used_resnet("instance", dropout=True, base=8).state_dict(), here / "latest_net_G.pth")
    save_generator(trained(cat_teacher(8, 3)), here / "teacher")
    pictures(here / "photos", 10)
    pictures(here / "pairs" / "train", 8, (48, 24))
    pictures(here / "two" / "trainA", 5)
    pictures(here / "two" / "trainB", 4, first=50)
    return here


def compress(capsys, *words: object) -> dict:
    """The record that `i2i compress` prints."""
    assert main(["compress", *map(str, words), "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def test_a_resnet_and_photographs_become_a_student(given, tmp_path, capsys):
    words = (given / "latest_net_G.pth", given / "photos", tmp_path / "out", "--share", "0.3", "--steps", "3")
    record = compress(capsys, *words)
    out = tmp_path / "out"
    assert record["size"] == 32 and record["test_pictures"] == 2 and not record["pairs"]
    assert record["training"]["pictures"] == 8
    assert record["teacher"]["macs"] == generator_macs(ResnetConfig(8, 3), 32, "exact")
    assert 0.15 < record["student"]["macs"] / record["teacher"]["macs"] <= 0.3
    student = load_generator(out / "student")
    assert isinstance(student.config, GeneratorConfig) and student.config.n_blocks == 3
    assert record["l1_to_teacher"]["low"] < record["l1_to_teacher"]["mean"] < record["l1_to_teacher"]["high"]

    test = load_saved_task(out / "data").test
    made = teacher_pictures(load_generator(out / "teacher"), test.source, torch.device("cpu"), "")
    assert torch.equal(test.target, made), "`i2i evaluate` on the saved task compares with the teacher's pictures"

    source = torch.rand(1, 3, 20, 28) * 2 - 1
    with torch.no_grad():
        made = session(out / "student.onnx").run(None, {"source": source.numpy()})[0]
        torch.testing.assert_close(torch.tensor(made), at_any_size(student, source), atol=1e-4, rtol=0)
    page = (out / "report.html").read_text()
    assert page.count('src="data:image/png;base64,') == 2 * 3 and not re.search(r"(src|href)=\"(?!data:)", page)
    assert f"{record['l1_to_teacher']['mean']:.4f}" in page and f"{record['student']['macs']:,}" in page
    assert "0.3" in (out / "MODEL_CARD.md").read_text()

    before = (out / "student.safetensors").stat().st_mtime_ns
    assert compress(capsys, *words) == record, "a second call only tells"
    assert (out / "student.safetensors").stat().st_mtime_ns == before


def test_an_interrupted_call_goes_on(given, tmp_path, capsys, monkeypatch):
    words = [given / "latest_net_G.pth", given / "photos", tmp_path / "out", "--share", "0.3", "--minutes", "0.01"]
    with monkeypatch.context() as stopped:
        stopped.setattr(runs, "fit", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        stopped.setattr(runs, "LEAST_STEPS", 2)
        assert main(["compress", *map(str, words)]) == 130
    config = (tmp_path / "out" / "train" / "config.json").read_bytes()
    monkeypatch.setattr(runs, "narrowed", None)  # the widths and the number of steps stay as they were found
    record = compress(capsys, *words)
    assert (tmp_path / "out" / "train" / "config.json").read_bytes() == config
    assert record["training"]["steps"] == json.loads(config)["training"]["steps"]


def test_pairs_teach_too_and_a_pruned_teacher_is_inherited_from(given, tmp_path, capsys):
    words = (given / "teacher.safetensors", given / "pairs", tmp_path / "out", "--macs", "5e5", "--size", "16")
    record = compress(capsys, *words, "--steps", "2")
    assert record["pairs"] and record["student"]["macs"] <= 5e5
    gap = record["l1_student_to_target"]["mean"] - record["l1_teacher_to_target"]["mean"]
    assert record["l1_difference"]["mean"] == pytest.approx(gap)
    recipe = json.loads((tmp_path / "out" / "train" / "config.json").read_text())
    assert recipe["start"] == "inherited" and recipe["generator"] == "../plan"


def test_two_domains_without_pairs(given, tmp_path, capsys):
    words = (given / "latest_net_G.pth", given / "two", tmp_path / "out", "--share", "0.3", "--steps", "1")
    record = compress(capsys, *words, "--direction", "BtoA", "--layout", "unpaired")
    assert not record["pairs"] and "l1_difference" not in record
    assert json.loads((tmp_path / "out" / "data.json").read_text())["info"]["domains"] == ["B", "A"]


@pytest.mark.parametrize("config", [cat_teacher(8, 3), ResnetConfig(8, 3, "batch", upsample="resize")])
def test_a_latency_is_a_budget_like_any_other(config: Any, monkeypatch):
    """Here that of a machine whose milliseconds are its MACs."""
    monkeypatch.setattr(budgets, "latency", lambda config, size: generator_macs(config, size, "exact") / 1e6)
    teacher = trained(config)
    ms = generator_macs(config, 32, "exact") / 1e6 / 3
    plan: Any = narrowed(teacher, Budget("ms", ms), 32)
    assert 0.95 * ms < plan.cost <= ms and plan.cost == generator_macs(plan.config, 32, "exact") / 1e6
    assert (plan.config.norm, plan.config.upsample) == (config.norm, config.upsample)
    with pytest.raises(ValueError, match=r"--ms 0.001 is too little: .* 0.001 ms is below the floor .*--min-width"):
        narrowed(teacher, Budget("ms", 0.001), 32)
    with pytest.raises(ValueError, match=r"--ms 900 leaves nothing to compress: the teacher takes about .* ms"):
        narrowed(teacher, Budget("ms", 900), 32)


def test_the_time_that_nothing_may_exceed_is_the_teachers_own(monkeypatch):
    """Not that of the inception generator from which a ResNet's student is narrowed, which may be faster."""
    monkeypatch.setattr(budgets, "latency", lambda config, size: 8.0 if isinstance(config, ResnetConfig) else 7.0)
    teacher: Any = network(ResnetConfig(8, 3))
    assert narrowed(teacher, Budget("ms", 7.5), 32).cost == 7
    with pytest.raises(ValueError, match="the teacher takes about 8 ms"):
        narrowed(teacher, Budget("ms", 8), 32)


def test_a_budget_of_milliseconds_is_met_by_the_clock_of_this_machine(monkeypatch):
    """To a tenth; here by a clock that no other process disturbs."""
    monkeypatch.setattr(budgets, "latency", lambda config, size: 0.2 + generator_macs(config, size, "exact") / 1e8)
    torch.manual_seed(0)
    teacher: Any = network(ResnetConfig(16, 3))
    ms = budgets.latency(budgets.inception_of(teacher), 64) / 3
    plan: Any = narrowed(teacher, Budget("ms", ms), 64)
    assert 0.9 * ms < budgets.latency(plan.config, 64) <= 1.1 * ms, plan.cost


# --- what is refused --------------------------------------------------------------------------------------------------


def whole_network(here: Path) -> None:
    torch.save(torch.nn.Conv2d(3, 3, 1), here / "latest_net_G.pth")


def unet(here: Path) -> None:
    torch.save({"model.model.1.model.3.model.1.weight": torch.zeros(4, 4, 4, 4)}, here / "latest_net_G.pth")


def grey(here: Path) -> None:
    save_generator(network(ResnetConfig(4, 3, in_channels=1, out_channels=1)), here / "teacher")


def labels(here: Path) -> None:
    save_generator(network(cat_spade_teacher(2, 4, 2)), here / "teacher")


def judge(here: Path) -> None:
    (here / "teacher.safetensors").unlink()
    save_discriminator(network(DiscriminatorConfig(6, 4, 2)), here / "teacher")


def discriminator(here: Path) -> None:
    torch.save({"model.0.weight": torch.zeros(4, 3, 4, 4), "model.0.bias": torch.zeros(4)}, here / "latest_net_D.pth")


def checkpoint(here: Path) -> None:
    state = torch.load(here / "latest_net_G.pth")
    torch.save({"epoch": 3, "G_A": state}, here / "checkpoint.pth")


def alone(here: Path) -> None:
    pictures(here / "one", 1)


def unmatched(here: Path) -> None:
    pictures(here / "odd" / "trainA", 4)
    pictures(here / "odd" / "trainB", 4, first=2)


WRONG: dict[str, tuple[str, str, Callable[[Path], object] | None]] = {
    "no such teacher": ("none.pth photos out --share 0.3", "none.pth does not exist: the teacher is", None),
    "a picture in place of a teacher": ("photos/00.png photos out --share 0.3", "00.png is a picture: first", None),
    "a folder in place of a teacher": ("photos photos out --share 0.3", "photos is a folder: name the teacher's", None),
    "a text in place of a teacher": (
        "notes.pth photos out --share 0.3", "no state dict can be read", lambda at: (at / "notes.pth").write_text("x")
    ),
    "an empty file": (
        "empty.pth photos out --share 0.3", "no state dict can be read", lambda here: (here / "empty.pth").touch()
    ),
    "a pickled network": ("latest_net_G.pth photos out --share 0.3", "not a whole pickled network", whole_network),
    "a U-Net": ("latest_net_G.pth photos out --share 0.3", "is part of a U-Net .*supported are", unet),
    "a discriminator": ("teacher photos out --share 0.3", "kind 'patch', expected 'inception' or 'resnet'", judge),
    "a discriminator of the widely used code": (
        "latest_net_D.pth photos out --share 0.3", "begins a discriminator .*expected a generator", discriminator
    ),
    "a whole checkpoint": (
        "checkpoint.pth photos out --share 0.3", "'epoch' holds int, .*perhaps what 'G_A' holds", checkpoint
    ),
    "a generator of labels": ("teacher photos out --share 0.3", "reads label maps: only generators that read", labels),
    "a generator of grey pictures": ("teacher photos out --share 0.3", "turns 1 channels into 1: expected", grey),
    "no such folder": ("latest_net_G.pth none out --share 0.3", "none does not exist: expected a folder", None),
    "a file in place of a folder": ("latest_net_G.pth photos/00.png out --share 0.3", "is a file, not a folder", None),
    "an empty folder": (
        "latest_net_G.pth void out --share 0.3", "void holds no pictures", lambda here: (here / "void").mkdir()
    ),
    "a single picture": ("latest_net_G.pth one out --share 0.3", "at least 3 pictures are needed", alone),
    "a damaged picture": (
        "latest_net_G.pth photos out --share 0.3",
        "03.png cannot be decoded",
        lambda here: (here / "photos" / "03.png").write_bytes((here / "photos" / "03.png").read_bytes()[:200]),
    ),
    "no pairs": (
        "latest_net_G.pth photos out --share 0.3 --layout paired",
        "trainA does not exist: with the layout paired, pictures lie in trainA and trainB",
        None,
    ),
    "names that do not pair": ("latest_net_G.pth odd out --share 0.3 --layout paired", "have no partner", unmatched),
    "sources have no other direction": (
        "latest_net_G.pth photos out --share 0.3 --direction BtoA", "holds sources alone: --direction BtoA", None
    ),
    "no budget": ("latest_net_G.pth photos out", "give one budget, such as --share 0.1, .* got none", None),
    "two budgets": ("latest_net_G.pth photos out --share 0.3 --ms 2", "got --share 0.3 and --ms 2", None),
    "a share of more than all": ("latest_net_G.pth photos out --share 10", "between 0 and 1, got 10", None),
    "a budget that is no number": ("latest_net_G.pth photos out --share tenth", "invalid float value: 'tenth'", None),
    "a negative budget": ("latest_net_G.pth photos out --macs -5", "--macs must be above 0 and finite, got -5", None),
    "a budget under the floor": (
        "latest_net_G.pth photos out --share 1e-6", r"1e-06 is too little: a budget of [\d.]{1,5} MACs .*floor", None
    ),
    "a budget above the teacher": ("latest_net_G.pth photos out --macs 1e15", "leaves nothing to compress", None),
    "an odd size": ("latest_net_G.pth photos out --share 0.3 --size 30", "multiple of 4 and at least 16, got 30", None),
    "no steps": ("latest_net_G.pth photos out --share 0.3 --steps 0", "--steps must be at least 1, got 0", None),
    "no width": (
        "latest_net_G.pth photos out --share 0.3 --min-width 0", "--min-width must be at least 1, got 0", None
    ),
    "more than the memory": (
        "latest_net_G.pth photos out --share 0.3 --size 100000000", "the memory of this machine does not suffice", None
    ),
    "no minutes": (
        "latest_net_G.pth photos out --share 0.3 --minutes 0", "--minutes must be above 0 and finite, got 0", None
    ),
    "an out that is a file": ("latest_net_G.pth photos photos/00.png --share 0.3", "00.png exists and holds no", None),
    "an out below a file": (
        "latest_net_G.pth photos photos/00.png/out --share 0.3", "00.png is a file, so that .*another folder", None
    ),
    "an out with other files": ("latest_net_G.pth photos two --share 0.3", "two exists and holds no compression", None),
    "no arguments": ("", "the following arguments are required: TEACHER, PICTURES, OUT", None),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_call_is_a_sentence_and_writes_nothing(what, given, tmp_path, capsys, monkeypatch):
    words, sentence, prepare = WRONG[what]
    here = shutil.copytree(given, tmp_path / "here")
    if prepare:
        prepare(here)
    monkeypatch.chdir(here)
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    assert main(["compress", *words.split()]) == 1
    told = capsys.readouterr()
    assert re.search(f"^error: .*{sentence}", told.err, re.M) and "Traceback" not in told.err and not told.out
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before
    assert not (here / "out").exists()


def test_a_folder_that_cannot_be_written_into_is_refused_at_once(given, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(runs.os, "access", lambda path, mode: path != tmp_path)
    monkeypatch.setattr(runs, "narrowed", None)
    words = (given / "latest_net_G.pth", given / "photos", tmp_path / "new" / "out", "--share", "0.3")
    assert main(["compress", *map(str, words)]) == 1
    assert f"{tmp_path} cannot be written into: name another folder" in capsys.readouterr().err


def test_another_call_into_the_same_folder_is_refused(given, tmp_path, capsys):
    words = ["compress", *map(str, (given / "teacher", given / "photos", tmp_path / "out", "--steps", 1, "--share"))]
    assert main([*words, "0.3"]) == 0
    assert main([*words, "0.4"]) == 1
    assert "of another teacher, folder, budget or length: name a new folder" in capsys.readouterr().err
