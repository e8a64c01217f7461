"""Tasks from folders of pictures: layouts, splits, and a large folder that is listed and decoded once."""

import ast
import io
import os
import re
import unicodedata
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from i2i_lib.cli.__main__ import main
from i2i_lib.data import folders, picture_cache
from i2i_lib.data.batches import paired_batches, unpaired_batches
from i2i_lib.data.folders import maps_originals
from i2i_lib.data.picture_cache import FileImages
from i2i_lib.data.store import load_saved_task, save_task
from i2i_lib.data.tasks import load_task
from i2i_lib.data.tiles import to_batch
from i2i_lib.metrics.networks.literature import real_targets


def fill(folder: Path, names, colour: int = 0, pair: bool = False) -> None:
    """Pictures of one colour each: green counts them, red is `colour`, in a right half 255 - `colour`."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        picture = np.zeros((12, 24 if pair else 16, 3), np.uint8)
        picture[..., 0], picture[..., 1] = colour, i % 256
        picture[:, 12 if pair else 99 :, 0] = 255 - colour
        Image.fromarray(picture).save(folder / name)


def numbered(n: int, suffix: str = "png") -> list[str]:
    return [f"{i:04}.{suffix}" for i in range(n)]


def test_unpaired_folders(tmp_path):
    fill(tmp_path / "trainA", numbered(5), 10)
    fill(tmp_path / "trainB", ["x.png", "y.BMP"], 200)
    fill(tmp_path / "testA", ["t.png", "u.png"], 10)
    fill(tmp_path / "testB", numbered(3), 200)
    task = load_task("folder", image_size=12, path=tmp_path)
    assert (task.name, task.family, task.train.paired, task.test.paired) == ("folder", "cyclegan", False, False)
    assert (len(task.train), len(task.train.target)) == (5, 2) and task.train.size == 13
    assert (len(task.test), len(task.test.target), task.test.size) == (2, 3, 12)
    batch = next(unpaired_batches(task.train, image_size=12, batch_size=4, seed=0)(0))
    assert batch.source.shape == (4, 3, 12, 12)
    assert ((batch.source[:, 0] + 1) * 127.5).round().eq(10).all()
    assert ((batch.target[:, 0] + 1) * 127.5).round().eq(200).all()
    turned = load_task("folder", image_size=12, path=tmp_path, direction="BtoA")
    assert torch.equal(turned.test.source, task.test.target) and turned.test.block.tolist() == [0, 1, 2]


def test_all_real_targets_have_the_size_of_a_test_tile(tmp_path):
    for name, n in {"trainA": 2, "trainB": 5, "testA": 2, "testB": 3}.items():
        fill(tmp_path / name, numbered(n), 200 if name.endswith("B") else 10)
    whole = np.arange(144, dtype=np.uint8).reshape(12, 12, 1).repeat(3, 2)  # at the size asked for, to stay as it is
    Image.fromarray(whole).save(tmp_path / "trainB" / "0004.png")
    task = load_task("folder", image_size=12, path=tmp_path, layout="unpaired")
    batches = list(real_targets(task, 3))
    assert [batch.shape for batch in batches] == [(3, 3, 12, 12), (2, 3, 12, 12), (3, 3, 12, 12)]
    assert torch.equal(batches[1][1], torch.from_numpy(whole).permute(2, 0, 1))
    assert torch.equal(batches[2], task.test.target) and batches[0][:, 0].unique().tolist() == [200]
    # Tiles of a raster are larger than a test tile so that crops differ, and of its scale: the middle is a tile.
    larger = torch.arange(2 * 3 * 16 * 16, dtype=torch.int32).view(2, 3, 16, 16).to(torch.uint8)
    cut = replace(task, train=replace(task.train, target=larger))
    assert torch.equal(next(real_targets(cut)), larger[..., 2:14, 2:14])


def test_the_papers_tasks_are_resized_as_by_its_authors(tmp_path):
    """Bicubic, of the whole square; a training picture to 286 / 256 of the crop. FID's real ones keep their size."""
    rng = np.random.default_rng(0)
    wide = rng.integers(0, 256, (4, 30, 60, 3), dtype=np.uint8)
    for part, number in (("train", 0), ("train", 1), ("val", 2), ("val", 3)):
        (tmp_path / part).mkdir(exist_ok=True)
        Image.fromarray(wide[number]).save(tmp_path / part / f"{number}.png")
    task = load_task("maps", image_size=20, path=tmp_path)

    def resized(number: int, half: int, side: int) -> torch.Tensor:
        image = Image.fromarray(wide[number][:, 30 * half : 30 * half + 30])
        return torch.from_numpy(np.array(image.resize((side, side), Image.Resampling.BICUBIC))).permute(2, 0, 1)

    assert torch.equal(task.test.target[1], resized(3, 0, 20)) and torch.equal(task.test.source[0], resized(2, 1, 20))
    assert torch.equal(task.train.target[0], resized(0, 0, 22))
    save_task(task, tmp_path / "saved")
    reopened = load_saved_task(tmp_path / "saved")
    assert torch.equal(reopened.train.source[1], resized(1, 1, 22))
    originals = [picture[0] for picture in maps_originals(reopened)]
    assert torch.equal(torch.stack(originals), torch.from_numpy(wide[2:, :, :30]).permute(0, 3, 1, 2))


def test_pairs_by_name_stay_together(tmp_path):
    names = [f"{i}.png" for i in range(30)]
    fill(tmp_path / "trainA", names, 10)
    fill(tmp_path / "trainB", [name.replace("png", "bmp") for name in names], 200)
    with pytest.raises(ValueError, match=r"hold the same names\. Say layout='paired'"):
        load_task("folder", image_size=12, path=tmp_path)
    task = load_task("folder", image_size=12, path=tmp_path, layout="paired")
    assert task.family == "pix2pix" and (len(task.train), len(task.test)) == (27, 3)
    greens = []
    for part in (task.train, task.test):
        batch = to_batch(part, slice(None))
        assert torch.equal(batch.source[:, 1], batch.target[:, 1]), "both halves of a pair have its number"
        greens += ((batch.source[:, 1, 0, 0] + 1) * 127.5).round().int().tolist()
    assert sorted(greens) == list(range(30))
    again = load_task("folder", image_size=12, path=tmp_path, layout="paired")
    assert torch.equal(again.test.source, task.test.source), "the split is by name, not by chance"

    fill(tmp_path / "trainA", ["8.jpg"])
    with pytest.raises(ValueError, match=r"8\.(jpg|png)\) share their name with another"):
        load_task("folder", image_size=12, path=tmp_path, layout="paired")


def test_side_by_side_and_the_papers_maps(tmp_path):
    fill(tmp_path / "train", numbered(4), 10, pair=True)
    fill(tmp_path / "val", numbered(2), 10, pair=True)
    task = load_task("folder", image_size=12, path=tmp_path)
    assert task.family == "pix2pix" and task.info["layout"] == "side-by-side" and len(task.test) == 2
    maps = load_task("maps", image_size=12, path=tmp_path)
    assert maps.name == "maps"
    for source, target in ((task.train.source, maps.train.target), (task.train.target, maps.train.source)):
        assert torch.equal(source[:], target[:])
    assert task.train.source[:][:, 0].float().mean() < 20 < 230 < task.train.target[:][:, 0].float().mean()
    batch = next(paired_batches(maps.train, image_size=12, batch_size=6, seed=0)(0))
    assert batch.source.mean() > batch.target.mean()


def test_the_two_ways_between_horses_and_zebras(tmp_path):
    for name, colour in (("trainA", 10), ("trainB", 200), ("testA", 10), ("testB", 200)):
        fill(tmp_path / name, numbered(3), colour)
    horse, zebra = (load_task(name, image_size=12, path=tmp_path) for name in ("horse2zebra", "zebra2horse"))
    assert horse.family == zebra.family == "cyclegan" and not horse.test.paired
    assert torch.equal(horse.test.source, zebra.test.target) and torch.equal(horse.test.target, zebra.test.source)
    assert horse.test.source[0, 0, 0, 0] == 10


def test_what_cannot_be_a_task_says_why(tmp_path, monkeypatch):
    load = lambda path, **options: load_task("folder", image_size=12, path=path, **options)  # noqa: E731
    fill(tmp_path / "loose", ["a.png"])
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        load(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="the task folder needs path"):
        load_task("folder", image_size=12)
    with pytest.raises(ValueError, match="unknown layout 'pairs': expected auto"):
        load(tmp_path / "loose", layout="pairs")
    fill(tmp_path / "single" / "train", ["a.png"])
    with pytest.raises(ValueError, match=r"a\.png is 16 x 12: two pictures side by side are mostly twice as wide"):
        load(tmp_path / "single")
    fill(tmp_path / "one" / "trainA", ["a.png"])
    fill(tmp_path / "one" / "trainB", ["b.png", "c.png"])
    with pytest.raises(
        ValueError, match=r"at least 3 pictures are needed, 2 .*trainA holds 1: add pictures, or a folder testA"
    ):
        load(tmp_path / "one")
    fill(tmp_path / "one" / "testA", ["a.png"])
    with pytest.raises(ValueError, match="has testA and not the other"):
        load(tmp_path / "one")
    fill(tmp_path / "one" / "testB", ["b.png", "c.png"])
    with pytest.raises(ValueError, match=r"testA holds one picture: the evaluation needs at least 2"):
        load(tmp_path / "one")
    fill(tmp_path / "one" / "testA", ["b.png"])
    task = load(tmp_path / "one")
    assert next(unpaired_batches(task.train, image_size=12, batch_size=3, seed=0)(0)).source.shape[0] == 3
    for name in "xyzab":
        (tmp_path / "one" / "trainB" / f"{name}.jpg").touch()
    with pytest.raises(ValueError, match=r"trainB holds 5 files \(a\.jpg, b\.jpg, x\.jpg, …\) of 0 bytes: copy them"):
        load(tmp_path / "one")
    monkeypatch.setattr(folders, "data_folder", lambda: tmp_path / "data")
    with pytest.raises(FileNotFoundError, match=r"data/horse2zebra does not exist: `.* fetch horse2zebra` downloads"):
        load_task("zebra2horse", image_size=12)


def test_names_that_pair_in_part_leave_the_layout_open(tmp_path):
    load = lambda layout="auto": load_task("folder", image_size=12, path=tmp_path, layout=layout)  # noqa: E731
    names = ["café.png", *numbered(19)]
    fill(tmp_path / "trainA", names)
    fill(tmp_path / "trainB", [unicodedata.normalize("NFD", name) for name in names])
    with pytest.raises(ValueError, match="hold the same names"):
        load()
    batch = to_batch(load("paired").train, slice(None))
    assert torch.equal(batch.source[:, 1], batch.target[:, 1])
    (tmp_path / "trainB" / "0007.png").rename(tmp_path / "trainB" / "0007_.png")
    odd = r"share 19 names, and not 2 files \(trainA/0007\.png, trainB/0007_\.png\)\. .*layout='paired'.*'unpaired'"
    with pytest.raises(ValueError, match=odd):
        load()
    assert load("unpaired").family == "cyclegan"
    for i, name in enumerate(numbered(11)):
        (tmp_path / "trainA" / name).rename(tmp_path / "trainA" / f"summer{chr(97 + i)}.png")
    assert load().family == "cyclegan", "8 of 20 names are a chance"
    fill(tmp_path / "trainA", [unicodedata.normalize("NFD", "café.png")])
    with pytest.raises(ValueError, match="capitals or the encoding of its accents: rename them"):
        load("paired")


def test_names_that_nearly_pair_are_not_taken_for_heaps(tmp_path):
    load = lambda part, layout="auto": load_task("folder", image_size=12, path=tmp_path / part, layout=layout)  # noqa: E731
    fill(tmp_path / "cases" / "trainA", [f"IMG_{i}.JPG" for i in range(9)])
    fill(tmp_path / "cases" / "trainB", [f"img_{i}.png" for i in range(9)])
    with pytest.raises(ValueError, match="hold the same names"):
        load("cases")
    assert len(load("cases", "paired").train) == 7
    fill(tmp_path / "ends" / "trainA", [f"{i}-input.png" for i in range(9)])
    fill(tmp_path / "ends" / "trainB", [f"{i}-target.png" for i in range(9)])
    with pytest.raises(ValueError, match=r"numbers do not \(as trainA/0-input\.png and trainB/0-target\.png\)\. If"):
        load("ends")
    assert load("ends", "unpaired").family == "cyclegan"
    for i, (a, b) in enumerate([("{}.png", "{:04}.png"), ("IMG_{} (1).png", "IMG_{}.jpg"), ("{}.png", "{}_v2.png")]):
        fill(tmp_path / f"{i}" / "trainA", [a.format(n) for n in range(9)])
        fill(tmp_path / f"{i}" / "trainB", [b.format(n) for n in range(9)])
        with pytest.raises(ValueError, match=r"names in trainA and trainB differ, and their (numbers|middles) do not"):
            load(f"{i}")
    fill(tmp_path / "words" / "trainA", ["a.png", "b.png", "c.png"])
    fill(tmp_path / "words" / "trainB", ["x.png", "y.png", "z.png"])
    assert load("words").family == "cyclegan"


def test_every_file_of_a_paired_folder_has_the_shape_of_a_pair(tmp_path):
    load = lambda part, **options: load_task("folder", image_size=12, path=tmp_path / part, **options)  # noqa: E731
    fill(tmp_path / "first" / "train", numbered(2), pair=True)
    fill(tmp_path / "first" / "train", [f"single{i}.png" for i in range(8)])
    odd = r"train/single0\.png is 16 x 12: two pictures .*; 8 files \(train/single0\.png, .*, …\) of 10 have another"
    with pytest.raises(ValueError, match=odd):
        load("first")
    fill(tmp_path / "test" / "train", numbered(8), pair=True)
    fill(tmp_path / "test" / "test", numbered(4))
    for layout in ("auto", "side-by-side"):
        with pytest.raises(ValueError, match=r"4 files \(test/0000\.png.* of 12 have another shape"):
            load("test", layout=layout)
    fill(tmp_path / "portraits" / "train", numbered(8))  # halves of 8 x 12
    assert load("portraits", layout="side-by-side").family == "pix2pix"
    fill(tmp_path / "portraits" / "val", ["a.png", "b.png"])
    Image.new("RGB", (30, 10)).save(tmp_path / "portraits" / "val" / "b.png")
    with pytest.raises(ValueError, match=r"b\.png is 30 x 10: most files here are 1\.33 times as wide as high"):
        load("portraits", layout="side-by-side")

    fill(tmp_path / "pairs" / "trainA", numbered(8))
    fill(tmp_path / "pairs" / "trainB", numbered(8))
    Image.new("RGB", (33, 25)).save(tmp_path / "pairs" / "trainB" / "0002.png")  # larger, and rounded
    assert load("pairs", layout="paired").family == "pix2pix"
    fill(tmp_path / "pairs" / "trainB", ["0003.png"], pair=True)
    with pytest.raises(ValueError, match=r"1 file \(0003\.png: 16 x 12 and 24 x 12\) have another shape than their"):
        load("pairs", layout="paired")
    sideways = Image.Exif()
    sideways[0x0112] = 6
    for suffix in ("png", "jpg", "tif"):
        Image.new("RGB", (12, 16)).save(tmp_path / "pairs" / "trainB" / f"0003.{suffix}", exif=sideways)
        assert load("pairs", layout="paired").family == "pix2pix", suffix
        (tmp_path / "pairs" / "trainB" / f"0003.{suffix}").unlink()


def test_what_is_left_out_is_said(tmp_path):
    fill(tmp_path / "trainA", numbered(4), 90)
    fill(tmp_path / "trainA" / "session1" / "more", numbered(7))
    fill(tmp_path / "trainB", ["x.png", "y.png", "z.png", "._x.png"], 90)
    (tmp_path / "trainB" / "IMG_1.HEIC").touch()
    (tmp_path / "trainB" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "trainB" / "loop").symlink_to(tmp_path / "trainB")
    fill(tmp_path, ["loose.png"])
    fill(tmp_path / "trainC", ["c.png"])
    task = load_task("folder", image_size=12, path=tmp_path)
    assert task.info["left_out"] == [
        "1 picture in 1 sub-folder (trainC): move them to where the others are",
        "1 file (loose.png) beside trainA and trainB: move them into one of these",
        "trainA: 7 pictures in 1 sub-folder (session1): move them to where the others are",
        "trainB: 3 pictures in 1 sub-folder (loop): move them to where the others are",
        "trainB: other files: 1 of .heic: export those that are pictures, such as HEIC, as JPEG or PNG",
        "trainB: 1 link to nothing (gone.png): put the files back, or copy them",
        "trainB: 1 hidden file (._x.png): rename what is a picture among them",
    ]
    fill(tmp_path / "nested" / "train" / "class1", numbered(6), pair=True)
    with pytest.raises(ValueError, match=r"train holds no pictures \(6 pictures in 1 sub-folder \(class1\): move them"):
        load_task("folder", image_size=12, path=tmp_path / "nested")


def test_numbers_of_labels_are_not_taken_for_pictures_without_a_word(tmp_path):
    fill(tmp_path / "trainA", numbered(8), 90)
    (tmp_path / "trainB").mkdir()
    for name in numbered(8):
        Image.fromarray(np.random.default_rng(0).integers(0, 6, (12, 16), dtype=np.uint8)).save(
            tmp_path / "trainB" / name
        )
    for direction in ("AtoB", "BtoA"):
        task = load_task("folder", image_size=12, path=tmp_path, layout="paired", direction=direction)
        (said,) = task.info["left_out"]
        assert re.fullmatch(
            r"labels as such: no value of the test pictures of B is above [56] of 255, .* as colours", said
        )


def test_a_task_that_makes_little_sense_is_told_so(tmp_path):
    load = lambda: load_task("folder", image_size=12, path=tmp_path, layout="paired").info["left_out"]  # noqa: E731
    fill(tmp_path / "trainA", numbered(8), 90)
    (tmp_path / "trainB").symlink_to("trainA")
    assert load() == ["any difference of A and B: their test pictures are the same, so that there is nothing to learn"]
    (tmp_path / "trainB").unlink()
    fill(tmp_path / "trainB", numbered(8), 200)
    assert load() == []
    fill(tmp_path / "testA", numbered(3), 90)
    fill(tmp_path / "testB", numbered(3), 190)
    assert load() == [
        "testA: 3 files (0000.png, 0001.png, 0002.png) are in trainA too: such a test is no test, remove them"
    ]


def test_an_edited_file_of_the_same_size_is_another_task(tmp_path):
    load = lambda: load_task("folder", image_size=12, path=tmp_path, layout="unpaired").info["listing"]  # noqa: E731
    for name in ("trainA", "trainB"):
        fill(tmp_path / name, [f"{i}.bmp" for i in range(6)], 90)
    before = load()
    assert load() == before
    os.utime(tmp_path / "trainA" / "3.bmp", ns=(0, 0))  # as an editor does that writes as many bytes
    assert load() != before


def test_names_that_cannot_be_seen_are_escaped(tmp_path):
    for name in ("trainA", "trainB"):
        fill(tmp_path / name, numbered(8))
    fill(tmp_path / "trainB", ["a\x1b[31m\nb\u200b.png"])
    with pytest.raises(ValueError, match=r"trainB/a\\x1b\[31m\\nb\\u200b\.png"):
        load_task("folder", image_size=12, path=tmp_path)


def test_check_says_it_in_any_locale(tmp_path, monkeypatch):
    fill(tmp_path / "in", ["café.png"])
    fill(tmp_path / "in" / "über", ["a.png"])
    (tmp_path / "in" / "café.png").write_text("no picture")
    said = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", said)
    assert main(["data", "check", str(tmp_path / "in")]) == 1
    said.seek(0)
    assert r"caf\xe9.png is not a picture" in (text := said.read()) and r"1 sub-folder (\xfcber)" in text


def test_check_finds_what_training_would_meet(tmp_path, capsys):
    def check(folder, *layout):
        status = main(["data", "check", str(folder), *(["--layout", *layout] if layout else [])])
        return status, capsys.readouterr().out

    fill(tmp_path / "in" / "trainA", numbered(4))
    fill(tmp_path / "other disk", ["x.png", "y.png", "z.png"])
    (tmp_path / "in" / "trainB").symlink_to(tmp_path / "other disk")
    assert check(tmp_path / "in") == (0, "every picture can be read\n")
    (tmp_path / "in" / "trainA" / "IMG_1.HEIC").touch()
    assert "\nnot read: trainA: other files: 1 of .heic" in check(tmp_path / "in")[1]
    noise = io.BytesIO()
    Image.effect_noise((40, 40), 50).save(noise, "PNG")
    (tmp_path / "other disk" / "y.png").write_bytes(noise.getvalue()[:900])
    status, said = check(tmp_path / "in")
    assert status == 1 and "trainB/y.png cannot be decoded" in said
    (tmp_path / "other disk" / "y.png").rename(os.fsdecode(bytes(tmp_path) + b"/other disk/M\xfcnchen.png"))
    status, said = check(tmp_path / "in")
    assert status == 1 and r"trainB/M\xfcnchen.png cannot be decoded" in said

    fill(tmp_path / "pairs" / "trainA", numbered(4))
    fill(tmp_path / "pairs" / "trainB", numbered(4))
    status, said = check(tmp_path / "pairs")
    assert status == 1 and "Say layout='paired'" in said
    assert check(tmp_path / "pairs", "paired") == (0, "every picture can be read\n")

    fill(tmp_path / "photos" / "2026", ["a.png"])
    below = "not read: 1 picture in 1 sub-folder (2026): move them to where the others are"
    assert check(tmp_path / "photos") == (0, f"every picture can be read\n{below}\n")
    (tmp_path / "empty").mkdir()
    assert check(tmp_path / "empty")[0] == 1
    assert main(["data", "check", str(tmp_path / "nowhere")]) == 1
    assert "nowhere does not exist" in capsys.readouterr().err


def test_ten_pictures_leave_two_for_the_test(tmp_path):
    """Of which the evaluation needs two, long after the folder was read."""
    for n, test in ((3, 2), (10, 2), (30, 3)):
        fill(tmp_path / f"{n}" / "train", numbered(n), pair=True)
        task = load_task("folder", image_size=12, path=tmp_path / f"{n}")
        assert (len(task.train), len(task.test)) == (n - test, test)


def test_a_bad_picture_stops_training_by_name(tmp_path):
    fill(tmp_path / "trainA", numbered(4))
    fill(tmp_path / "trainB", ["b.png", "c.png"])
    for name in numbered(4):
        (tmp_path / "trainA" / name).write_text("no picture")
    fill(tmp_path / "testA", ["a.png", "b.png"])
    fill(tmp_path / "testB", ["a.png", "b.png"])
    batches = unpaired_batches(
        load_task("folder", image_size=12, path=tmp_path).train, image_size=12, batch_size=1, seed=0
    )
    with pytest.raises(ValueError, match=r"trainA/000\d\.png is not a picture"):
        next(batches(0))


def test_a_large_folder_is_listed_once_and_nothing_is_decoded_twice(tmp_path, monkeypatch):
    fill(tmp_path / "in" / "train", ["00000.png"], 10, pair=True)
    tiny = (tmp_path / "in" / "train" / "00000.png").read_bytes()
    for i in range(1, 2000):
        (tmp_path / "in" / "train" / f"{i:05}.png").write_bytes(tiny)
    listed, decoded, scandir, read_tile = Counter(), Counter(), os.scandir, picture_cache.read_tile

    def counted_scan(path="."):
        listed[str(path)] += 1
        return scandir(path)

    def counted_read(path, *arguments, **options):
        decoded[path.name] += 1
        return read_tile(path, *arguments, **options)

    monkeypatch.setattr(os, "scandir", counted_scan)
    monkeypatch.setattr(picture_cache, "read_tile", counted_read)
    task = load_task("folder", image_size=12, path=tmp_path / "in", layout="side-by-side")
    assert (len(task.train), len(task.test)) == (1800, 200)
    assert decoded.total() == 200, "the test pictures only"
    save_task(task, tmp_path / "run" / "data")
    assert decoded.total() == 200, "saving reads no picture"
    for seed in range(2):  # as two notebooks would, each for half an epoch of its own order
        train = load_saved_task(tmp_path / "run" / "data").train
        assert isinstance(train.source, FileImages)
        for _ in islice(paired_batches(train, image_size=12, batch_size=100, seed=seed)(0), 9):
            pass
    assert listed[str(tmp_path / "in" / "train")] == 1
    assert 1100 < decoded.total() - 200 < 1800 and set(decoded.values()) == {1}


def test_saved_folders_come_back_without_listing(tmp_path, monkeypatch):
    for name in ("trainA", "trainB"):
        fill(tmp_path / name, numbered(6), 10)
    task = load_task("folder", image_size=12, path=tmp_path, layout="paired", direction="BtoA")
    save_task(task, tmp_path / "data")
    with monkeypatch.context() as patch:
        patch.setattr(folders, "scan_pictures", None)
        back = load_saved_task(tmp_path / "data")
    assert (back.info, back.family, back.train.paired) == (task.info, "pix2pix", True)
    for part in ("train", "test"):
        for field in ("source", "target", "block", "box"):
            assert torch.equal(getattr(getattr(back, part), field)[:], getattr(getattr(task, part), field)[:])
    fill(tmp_path / "trainA", numbered(6), 99)  # of the same length in bytes: known only by listing again
    save_task(task, tmp_path / "data")
    assert load_saved_task(tmp_path / "data").train.target[0][0, 0, 0] == 99, "a new record starts with an empty cache"
    fill(tmp_path / "trainB", ["0001.bmp"])
    (tmp_path / "trainB" / "0001.png").unlink()
    other = load_task("folder", image_size=12, path=tmp_path, layout="paired", direction="BtoA")
    assert other.info["listing"] != task.info["listing"], "by which a training knows that its data has changed"
    (tmp_path / "trainA" / "0001.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"0001\.png was there when its folder was listed"):
        load_saved_task(tmp_path / "data").train.target[:]


def guide() -> str:
    return (Path(folders.__file__).parents[2] / "book" / "your-own-images.md").read_text()


def test_the_guide_quotes_messages_that_exist():
    """As the library's code has them, with … for what is filled in."""
    said = []
    for path in Path(folders.__file__).parents[1].rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                said.append("".join(str(v.value) if isinstance(v, ast.Constant) else "…" for v in node.values))
            elif isinstance(node, ast.Constant):
                said.append(str(node.value))
    quoted = re.findall(r"^\| `(.+?)` \|", guide().split("## When something goes wrong")[1], re.M)
    assert len(quoted) > 12 and not [text for text in quoted if not any(text in message for message in said)]


def test_the_guide_turns_photographs_into_a_task(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fill(tmp_path / "photos", ["a.jpg", "b.png", "c.jpeg", "d.png"], 90)
    exec(re.findall(r"```python\n(.*?)```", guide(), re.S)[0], {})
    task = load_task("folder", image_size=12, path="my-pictures")
    assert task.family == "pix2pix" and (len(task.train), len(task.test)) == (2, 2)
    source, target = task.train.source[0][:, 0, 0].tolist(), task.train.target[0][:, 0, 0].tolist()
    assert len(set(source)) == 1 and abs(source[0] - sum(target) / 3) <= 2 and abs(target[0] - 90) <= 3
