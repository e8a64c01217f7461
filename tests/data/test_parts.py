"""The three parts of every task that nothing is shared between, and training crops of a size of their own."""

import hashlib
import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from i2i_lib.artifacts import tensor_bytes
from i2i_lib.data import fluent, openmoji
from i2i_lib.data.batches import paired_batches
from i2i_lib.data.emoji import divide
from i2i_lib.data.store import load_saved_task, save_task
from i2i_lib.data.tasks import load_task
from i2i_lib.data.tiles import Task, Tiles

TOP = Path(__file__).parents[2]
README = (TOP / "data" / "README.md").read_text()
EARTH = ("earth", "earth-unpaired", "earth-labels")


def held(task: Task) -> Tiles:
    assert task.validation is not None
    return task.validation


# --- Splits ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=EARTH)
def earth(request) -> Task:
    return load_task(request.param, image_size=64, validation=0.1)


def covered(box: torch.Tensor, size: int, raster: list[int], margin: int = 0) -> torch.Tensor:
    pixels = torch.zeros(raster, dtype=torch.bool)
    for row, column in (box - margin).clamp(min=0).tolist():
        pixels[row : row + size + 2 * margin, column : column + size + 2 * margin] = True
    return pixels


def test_places_of_the_earth_are_in_one_part(earth):
    raster, gap = earth.info["raster"], earth.info["gap"]
    learnt = covered(torch.cat([earth.train.box, earth.train.target_box]), earth.train.size, raster)
    chosen, tested = (covered(tiles.box, 64, raster) for tiles in (held(earth), earth.test))
    assert not (learnt & covered(held(earth).box, 64, raster, gap)).any()
    assert not (learnt & covered(earth.test.box, 64, raster, gap)).any() and not (chosen & tested).any()
    assert chosen.sum() == len(held(earth)) * 64**2, "validation tiles overlap"
    assert held(earth).paired and held(earth).shape == earth.test.shape and held(earth).classes == earth.test.classes
    for block in held(earth).block.unique():  # a block is about as large as one of the test
        corners = held(earth).box[held(earth).block == block]
        extent = corners.amax(0) + 64 - corners.amin(0)
        assert extent[0] <= earth.info["block_height"] and extent[1] < 1.5 * earth.info["band_width"]


def test_validation_places_are_spread_over_the_continents(earth):
    longitude, latitude = held(earth).box[:, 1] / 15 - 180, 90 - held(earth).box[:, 0] / 15
    for west, east, south, north in [
        (-170, -55, 15, 72),  # North America
        (-82, -34, -56, 12),  # South America
        (-18, 35, -35, 36),  # Africa
        (60, 140, 10, 72),  # Asia
        (113, 154, -44, -11),  # Australia
    ]:
        inside = (longitude > west) & (longitude < east) & (latitude > south) & (latitude < north)
        assert inside.sum() >= 5, (west, east)


def test_the_counts_of_the_earth_are_documented(earth):
    units = f"{len(held(earth).block.unique())}, {len(earth.test.block.unique())} blocks"
    learnt = f"{len(earth.train)}"
    if earth.name == "earth-unpaired":
        learnt = f"{len(earth.train)} maps, {len(earth.train.target)} pictures"
    line = f"| `{earth.name}` | 64 px | {learnt} | {len(held(earth))} | {len(earth.test)} | {units} |"
    assert line in README


def test_the_counts_of_the_emoji_are_documented():
    emoji = fluent.all_emoji()
    wrong = fluent.left_out(emoji)
    right = [one for one in emoji if one.code not in wrong]
    flat, black = ([fluent.group_key(one.code) for one in chosen] for chosen in (right, [e for e in right if e.black]))
    drawn = [openmoji.group_key(name) for name in openmoji.drawings()]
    for name, size, keys, share, unit in [
        ("fluent", 128, flat, fluent.TEST_SHARE, "drawings"),
        ("fluent-outline", 128, black, fluent.TEST_SHARE, "drawings"),
        ("openmoji", 64, drawn, openmoji.TEST_SHARE, "emoji"),
    ]:
        parts = divide(keys, share, 0.1)
        learnt, chosen, tested = ({keys[i] for i in parts[part]} for part in ("train", "validation", "test"))
        assert not (learnt & chosen) | (learnt & tested) | (chosen & tested)
        assert divide(keys, share, 0.0)["test"] == parts["test"], "the test is the same whatever the share"
        count = (f"{len(parts[part]):,}" for part in ("train", "validation", "test"))
        assert f"| `{name}` | {size} px | {' | '.join(count)} | {len(chosen)}, {len(tested)} {unit} |" in README


@pytest.fixture
def few_drawings(monkeypatch, tmp_path):
    monkeypatch.setattr(fluent, "CACHE", tmp_path / "fluent")
    monkeypatch.setattr(openmoji, "CACHE", tmp_path / "openmoji")
    emoji, drawings = fluent.all_emoji()[::40], dict(list(openmoji.drawings().items())[::80])
    monkeypatch.setattr(fluent, "all_emoji", lambda: emoji)
    monkeypatch.setattr(openmoji, "drawings", lambda: drawings)


@pytest.mark.parametrize("name", ["fluent", "fluent-outline", "openmoji"])
def test_emoji_are_moved_from_training_to_validation(name, few_drawings):
    whole, task = load_task(name, image_size=24), load_task(name, image_size=24, validation=0.3)
    assert whole.validation is None
    assert torch.equal(task.test.source, whole.test.source) and torch.equal(task.test.block, whole.test.block)
    assert len(task.train) + len(held(task)) == len(whole.train) and task.train.size == whole.train.size
    assert held(task).shape == task.test.shape == (24, 24), "without a margin"
    assert held(task).block.unique().tolist() == list(range(int(held(task).block.max()) + 1))
    groups = task.info["train_groups"]
    assert len(groups) == len(task.train) and set(groups) == set(range(max(groups) + 1))
    assert len(set(groups)) + len(held(task).block.unique()) + task.info["test_groups"] == task.info["groups"]
    margin = (whole.train.size - 24) // 2
    middle = whole.train.target[..., margin : margin + 24, margin : margin + 24]
    learnt = task.train.target[..., margin : margin + 24, margin : margin + 24]
    assert all((middle == picture).flatten(1).all(1).any() for picture in held(task).target)
    assert len({picture.numpy().tobytes() for picture in [*learnt, *held(task).target]}) == len(
        {picture.numpy().tobytes() for picture in middle}
    )


def fill(folder: Path, n: int, *, wide: bool = False) -> None:
    """Pictures whose green is their number."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        picture = np.full((12, 24 if wide else 12, 3), 200, np.uint8)
        picture[..., 1] = i
        Image.fromarray(picture).save(folder / f"{i:03}.png")


def greens(pictures) -> set[int]:
    return set(pictures[:][:, 1, 0, 0].tolist())


@pytest.mark.parametrize("layout", ["unpaired", "paired", "side-by-side"])
def test_pictures_of_a_folder_are_in_one_part_and_pairs_stay_together(tmp_path, layout):
    for name in ["train"] if layout == "side-by-side" else ["trainA", "trainB"]:
        fill(tmp_path / name, 40, wide=layout == "side-by-side")
    task = load_task("folder", image_size=12, path=tmp_path, layout=layout, validation=0.25)
    whole = load_task("folder", image_size=12, path=tmp_path, layout=layout)
    assert (len(whole.train), len(task.train), len(held(task)), len(task.test)) == (36, 27, 9, 4)
    for domain in ("source", "target"):
        parts = [greens(getattr(tiles, domain)) for tiles in (task.train, held(task), task.test)]
        assert sorted(number for part in parts for number in part) == list(range(40))
        assert parts[2] == greens(getattr(whole.test, domain))
    if layout != "unpaired":
        assert torch.equal(held(task).source[:, 1], held(task).target[:, 1])
    assert held(task).block.tolist() == list(range(9)) and held(task).size == 12
    save_task(task, tmp_path / "saved")
    assert torch.equal(held(load_saved_task(tmp_path / "saved")).target, held(task).target)
    assert task.info["listing"] != whole.info["listing"], "by which a training knows that its data has changed"


def test_a_small_folder_has_no_validation_part(tmp_path):
    fill(tmp_path / "train", 12, wide=True)
    task = load_task("folder", image_size=12, path=tmp_path, validation=0.1)
    assert task.validation is None and len(task.train) == 10
    save_task(task, tmp_path / "saved")
    assert load_saved_task(tmp_path / "saved").validation is None


def test_a_folder_for_validation_keeps_its_meaning(tmp_path):
    for name, n in {"train": 20, "val": 3, "test": 5}.items():
        fill(tmp_path / name, n, wide=True)
    task = load_task("folder", image_size=12, path=tmp_path, validation=0.1)
    assert (len(task.train), len(held(task)), len(task.test)) == (18, 2, 5), "it is not read where there is a test"


def test_the_other_direction_turns_every_part():
    one, other = (load_task("earth", image_size=32, scale=4, validation=0.1, direction=way) for way in ("AtoB", "BtoA"))
    assert torch.equal(held(one).source, held(other).target) and torch.equal(held(one).target, held(other).source)


# --- Storing ---------------------------------------------------------------------------------------------------------


def checksum(task: Task, folder: Path) -> str:
    save_task(task, folder / "data")
    return json.loads((folder / "data.json").read_text())["sha256"]


@pytest.mark.parametrize(
    ("name", "scale", "expected"),
    [
        ("earth", 2, "5e425f002db99b981ee46ca90a7548861fc59ce1dc1a9560da6d1c0c33a1294e"),
        ("earth-unpaired", 4, "9ca1deda9ce9fa87a4c4aed72d50b345025373aad28a5b353015940b0c42f4da"),
        ("earth-labels", 4, "91b03553834b7da307bc1a9089dad9b216c3be210929a1b4aacb2890f5c0e8fc"),
    ],
)
def test_without_a_share_the_tiles_are_those_of_the_published_split(name, scale, expected, tmp_path):
    """With the checksums of before there was a validation part."""
    assert checksum(load_task(name, image_size=32, scale=scale), tmp_path) == expected


def test_a_task_comes_back_with_its_validation_part(tmp_path):
    task = load_task("earth", image_size=32, scale=4, crop=16, validation=0.1)
    save_task(task, tmp_path / "data")
    back = load_saved_task(tmp_path / "data")
    assert back.info == task.info and (back.crop, back.info["validation"]) == (16, 0.1)
    for field in ("source", "target", "block", "box", "target_box"):
        assert torch.equal(getattr(held(back), field), getattr(held(task), field))
    (tmp_path / "data.safetensors").unlink()
    cut = load_saved_task(tmp_path / "data")
    assert torch.equal(held(cut).source, held(task).source) and cut.crop == 16


def test_records_of_before_have_no_validation_part_and_no_crop(tmp_path):
    task = load_task("earth", image_size=32, scale=4)
    old = replace(task, info={key: task.info[key] for key in task.info if key not in ("crop", "validation")})
    digest = checksum(old, tmp_path)
    back = load_saved_task(tmp_path / "data")
    assert (back.crop, back.validation) == (32, None) and "validation" not in json.loads(
        (tmp_path / "data.json").read_text()
    )
    (tmp_path / "data.safetensors").unlink()
    cut = load_saved_task(tmp_path / "data")
    names = {"train": cut.train, "test": cut.test}
    fields = ("source", "target", "block", "box", "target_box")
    tensors = {f"{part}.{field}": getattr(names[part], field).clone() for part in names for field in fields}
    assert cut.crop == 32 and hashlib.sha256(tensor_bytes(tensors)).hexdigest() == digest


# --- Crops -----------------------------------------------------------------------------------------------------------


def test_a_batch_of_crops_shows_every_window_of_a_picture():
    rows, columns = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    picture = torch.stack([rows, columns, torch.zeros(32, 32, dtype=torch.int64)]).to(torch.uint8)[None]
    box = torch.zeros(1, 2, dtype=torch.int64)
    tiles = Tiles(picture, picture, torch.tensor([-1]), box, box)
    task = Task("toy", "pix2pix", tiles, tiles, {"crop": 16})
    assert task.crop == 16
    corners = set()
    for batch in islice(paired_batches(task.train, image_size=task.crop, batch_size=32, seed=0)(0), 60):
        crops = ((batch.source + 1) * 127.5).round().int()
        assert crops.shape == (32, 3, 16, 16)
        assert (crops[:, 0].diff(dim=1) == 1).all() and (crops[:, 1].diff(dim=2).abs() == 1).all(), "windows"
        corners |= set(zip(*(crops[:, i].amin((1, 2)).tolist() for i in (0, 1)), strict=True))
    assert {(0, 0), (0, 16), (16, 0), (16, 16)} <= corners


# --- Errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": -0.1}, "share of the training groups to hold out, 0 to 0.5, got -0.1"),
        ({"validation": 0.6}, "share of the training groups to hold out, 0 to 0.5, got 0.6"),
        ({"validation": float("nan")}, "0 to 0.5, got nan"),
        ({"crop": 36}, "a crop of 36 px is larger than the picture of 32: lower crop or raise image_size"),
        ({"crop": 18}, "crop must be a multiple of 4 and at least 12, got 18"),
        ({"crop": 8}, "crop must be a multiple of 4 and at least 12, got 8"),
        ({"crop": -16}, "crop must be a multiple of 4 and at least 12, got -16"),
    ],
)
def test_a_wrong_share_or_crop_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        load_task("earth", image_size=32, scale=4, **options)


def test_a_share_that_leaves_nothing_to_learn_from_is_refused():
    with pytest.raises(
        ValueError, match=r"share of 0\.5 leaves 0 training and \d+ test tiles .*: use smaller tiles or"
    ):
        load_task("earth", image_size=64, scale=4, validation=0.5)
    with pytest.raises(ValueError, match=r"a validation share of 0\.99 leaves no drawing to train on: lower it"):
        divide(["1f350"], 0.0, 0.99)
