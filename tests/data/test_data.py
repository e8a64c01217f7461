"""The `earth` tiles, their split, and the batches drawn from them."""

import json
import re
from itertools import islice
from pathlib import Path

import pytest
import torch

from i2i_lib import files
from i2i_lib.data import earth as earth_module
from i2i_lib.data.batches import labelled_pairs, paired_batches, partly_labelled_batches
from i2i_lib.data.store import load_saved_task, save_task
from i2i_lib.data.tasks import load_task
from i2i_lib.data.tiles import Task, Tiles, evenly, to_batch


@pytest.fixture(scope="module")
def earth():
    return load_task("earth", image_size=64)


def covered(tiles: Tiles, raster: tuple[int, int], margin: int = 0) -> torch.Tensor:
    """Which pixels of the raster lie in a tile, or within `margin` of one."""
    pixels = torch.zeros(raster, dtype=torch.bool)
    for row, column in (tiles.box - margin).clamp(min=0).tolist():
        pixels[row : row + tiles.size + 2 * margin, column : column + tiles.size + 2 * margin] = True
    return pixels


def test_no_test_pixel_is_near_a_training_tile(earth):
    train, test = (covered(tiles, earth.info["raster"]) for tiles in (earth.train, earth.test))
    assert not (train & covered(earth.test, earth.info["raster"], margin=earth.info["gap"])).any()
    assert test.sum() == len(earth.test) * 64**2, "test tiles overlap"


def test_tiles_are_where_their_boxes_say(earth):
    source, target = earth_module.earth_rasters()
    for tiles in (earth.train, earth.test):
        for i in (0, len(tiles) // 2, len(tiles) - 1):
            (row, column), side = tiles.box[i].tolist(), tiles.size
            assert torch.equal(tiles.source[i], source[:, row : row + side, column : column + side])
            assert torch.equal(tiles.target[i], target[:, row : row + side, column : column + side])


def test_the_split_is_the_documented_one(earth):
    readme = (Path(__file__).parents[2] / "data" / "README.md").read_text()
    cut = (len(earth.test), len(earth.test.block.unique()), len(earth.train), earth.train.size)
    assert "| 64 px | {} | {} | {} ({} px) |".format(*cut) in readme
    for name, checksum in earth_module.EARTH_FILES.items():
        assert re.search(rf"{name}.*{checksum}", readme)
    longitude = earth.test.box[:, 1] / 15 - 180
    latitude = 90 - earth.test.box[:, 0] / 15
    # Every inhabited continent has test tiles, coldest and hottest latitudes included.
    for name, west, east, south, north in [
        ("North America", -170, -55, 15, 72),
        ("South America", -82, -34, -56, 12),
        ("Africa", -18, 45, -35, 36),
        ("Europe", -10, 40, 40, 71),
        ("Asia", 60, 140, 10, 72),
        ("Australia", 113, 154, -44, -11),
    ]:
        inside = (longitude > west) & (longitude < east) & (latitude > south) & (latitude < north)
        assert inside.sum() >= 8, name


def test_blocks_hold_neighbours(earth):
    """A block is one rectangle of the map, and different rectangles have different numbers."""
    corner = {}
    bands = torch.tensor(earth.info["bands"])
    for block, (row, column) in zip(earth.test.block.tolist(), earth.test.box.tolist(), strict=True):
        left = bands[bands <= column].max().item()
        top = (row - earth.info["rows"][0]) // earth.info["block_height"]
        assert column + 64 <= left + earth.info["band_width"]
        assert corner.setdefault(block, (top, left)) == (top, left)
    assert len(set(corner.values())) == len(corner)


def test_tiles_are_mostly_land(earth):
    """By a second look at the satellite picture: open sea is blue and dark, whatever its depth."""
    sea = (earth.test.target[:, 2] > earth.test.target[:, 0] + 10).float().mean((1, 2))
    assert sea.max() < 0.6 and sea.mean() < 0.15


def test_geography_is_the_same_at_every_scale(earth):
    small = load_task("earth", image_size=32, scale=2)
    assert torch.equal(small.test.box * 2, earth.test.box)
    assert torch.equal(small.test.block, earth.test.block)
    assert abs(small.test.target.float().mean() - earth.test.target.float().mean()) < 0.5


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"name": "mars", "image_size": 64}, "unknown task 'mars'; known tasks: .*earth"),
        ({"name": "earth", "image_size": 66}, "multiple of 4 and at least 12, got 66"),
        ({"name": "earth", "image_size": 8}, "multiple of 4 and at least 12, got 8"),
        ({"name": "earth", "image_size": 64, "scale": 3}, r"scale must be one of \(1, 2, 4\), got 3"),
        ({"name": "earth", "image_size": 64, "band": 32}, "32 px wide cannot hold a tile of image_size 64"),
        ({"name": "earth", "image_size": 512, "scale": 4}, "use smaller tiles"),
        ({"name": "earth", "image_size": 64, "sclae": 2}, "earth has no option sclae: its options are scale, band"),
    ],
)
def test_wrong_requests_say_what_is_possible(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_task(**arguments)


def test_damaged_and_missing_pictures_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(earth_module, "files", lambda package: tmp_path)
    with pytest.raises(FileNotFoundError, match=r"shadedrelief\.jpg is missing: reinstall"):
        load_task("earth", image_size=64)
    (tmp_path / "shadedrelief.jpg").write_bytes(b"\xff\xd8 half a picture")
    with pytest.raises(ValueError, match=r"shadedrelief\.jpg has sha256 .*, not the recorded e52e46e8"):
        load_task("earth", image_size=64)


def numbered_tiles(n: int = 5, size: int = 24) -> Tiles:
    """Tiles whose pixels tell where they come from: red the tile, green the row, blue the column."""
    grid = torch.arange(size)
    source = torch.empty(n, 3, size, size, dtype=torch.uint8)
    source[:, 0] = torch.arange(n)[:, None, None]
    source[:, 1] = grid[:, None]
    source[:, 2] = grid
    box = torch.zeros(n, 2, dtype=torch.int64)
    return Tiles(source, source + 100, torch.full((n,), -1), box, box)


def test_batches_are_registered_crops_of_every_tile():
    batches = paired_batches(numbered_tiles(), image_size=16, batch_size=5, seed=1)
    left, flips = set(), set()
    for batch in islice(batches(0), 40):
        assert batch.source.shape == (5, 3, 16, 16) and batch.source.dtype == torch.float32
        source, target = (((x + 1) * 127.5).round().int() for x in (batch.source, batch.target))
        assert torch.equal(target, source + 100)
        assert sorted(source[:, 0, 0, 0].tolist()) == list(range(5)), "an epoch has every tile once"
        assert (source[:, 1].diff(dim=1) == 1).all(), "rows stay in order"
        step = source[:, 2].diff(dim=2)
        assert (step.abs() == 1).all()
        flips |= set(step[:, 0, 0].tolist())
        left |= set(source[:, 2].amin((1, 2)).tolist())
    assert flips == {-1, 1} and left == set(range(9))


def test_a_batch_depends_on_seed_and_step_alone():
    make = lambda seed: paired_batches(numbered_tiles(), image_size=16, batch_size=3, seed=seed)  # noqa: E731
    whole = [batch.source for batch in islice(make(7)(0), 12)]
    resumed = [batch.source for batch in islice(make(7)(5), 7)]
    assert all(torch.equal(a, b) for a, b in zip(whole[5:], resumed, strict=True))
    orders = {tuple(next(make(seed)(0)).source[:, 0, 0, 0].tolist()) for seed in range(6)}
    assert len(orders) > 1, "another seed takes the tiles in another order"


def test_batches_refuse_what_cannot_be_cut():
    with pytest.raises(ValueError, match="cannot crop image_size 32 from tiles of 24"):
        paired_batches(numbered_tiles(), image_size=32, batch_size=2, seed=0)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        paired_batches(numbered_tiles(), image_size=16, batch_size=0, seed=0)


def drawn_tiles(images: torch.Tensor) -> list[int]:
    """The numbers of the tiles that a batch was drawn from."""
    return ((images[:, 0, 0, 0] + 1) * 127.5).round().int().tolist()


def test_targets_are_known_of_whole_groups_up_to_the_share():
    groups = [0, 0, 0, 1, 2, 2, 3, 3, 3, 3, 4, 4]
    for share in (0.25, 0.5, 0.75):
        chosen = labelled_pairs(groups, share)
        known = {groups[i] for i in chosen}
        assert chosen.tolist() == [i for i, group in enumerate(groups) if group in known], "all of a group or none"
        assert 0.15 < len(chosen) / len(groups) <= share
    assert labelled_pairs(range(200), 0.1).tolist() == labelled_pairs(range(200), 0.1).tolist()
    assert labelled_pairs(groups, 1.0).tolist() == list(range(12)) and labelled_pairs(range(200), 0.1).numel() == 20
    with pytest.raises(ValueError, match=r"a share of 0\.1 of 8 pairs holds no whole group of them: raise labelled"):
        labelled_pairs([0, 0, 0, 0, 1, 1, 1, 1], 0.1)


def test_half_of_a_batch_is_labelled_and_the_other_drawn_from_all():
    tiles, groups = numbered_tiles(8), [0, 0, 1, 1, 2, 2, 3, 3]
    make = lambda batch_size: partly_labelled_batches(  # noqa: E731
        tiles, groups, 0.25, image_size=16, batch_size=batch_size, seed=1
    )
    chosen, others = set(labelled_pairs(groups, 0.25).tolist()), set()
    for batch in islice(make(4)(0), 30):
        assert len(batch.source) == 4 and len(batch.target) == 2
        assert (((batch.target - batch.source[:2]) * 127.5).round() == 100).all(), "registered"
        assert set(drawn_tiles(batch.source[:2])) == chosen
        others |= set(drawn_tiles(batch.source[2:]))
        assert not torch.equal(batch.source[:2, 1:], batch.source[2:, 1:]), "the halves are cropped independently"
    assert others == set(range(8))
    resumed = zip(islice(make(4)(0), 5, 9), islice(make(4)(5), 4), strict=True)
    assert all(torch.equal(a.source, b.source) and torch.equal(a.target, b.target) for a, b in resumed)
    with pytest.raises(ValueError, match="give an even batch_size, got 3"):
        make(3)


@pytest.mark.parametrize("count, most, chosen", [(3, 8, [0, 1, 2]), (10, 4, [0, 3, 6, 9]), (8, 3, [0, 3, 7])])
def test_what_is_chosen_evenly_begins_with_the_first_and_ends_with_the_last(count, most, chosen):
    """Between them indices are rounded down: recorded numbers and the demo's examples are of such pictures."""
    assert evenly(count, most).tolist() == chosen


def test_evaluation_batches_are_exact():
    tiles = numbered_tiles()
    batch = to_batch(tiles, [4, 0])
    assert torch.equal(((batch.source + 1) * 127.5).round().to(torch.uint8), tiles.source[[4, 0]])
    assert to_batch(tiles, slice(0, 2)).target.shape == (2, 3, 24, 24)
    black, white = (torch.full((1, 3, 4, 4), value, dtype=torch.uint8) for value in (0, 255))
    batch = to_batch(Tiles(black, white, tiles.block[:1], tiles.box[:1], tiles.box[:1]), [0])
    assert batch.source.eq(-1).all() and batch.target.eq(1).all()


def test_saved_tasks_come_back_or_are_refused(tmp_path):
    tiles = numbered_tiles()
    task = Task("earth", "pix2pix", tiles, numbered_tiles(2, 16), {"block": 128})
    with pytest.raises(FileNotFoundError, match=r"task\.json does not exist: make the data first"):
        load_saved_task(tmp_path / "task")
    save_task(task, tmp_path / "task")
    back = load_saved_task(tmp_path / "task")
    assert (back.name, back.info) == (task.name, task.info)
    for part in ("train", "test"):
        for field in ("source", "target", "block", "box"):
            assert torch.equal(getattr(getattr(back, part), field), getattr(getattr(task, part), field))

    tensors, record = tmp_path / "task.safetensors", tmp_path / "task.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "kind": "generator"}))
    with pytest.raises(ValueError, match="holds kind 'generator', expected 'task'"):
        load_saved_task(tmp_path / "task")
    record.write_text(json.dumps({"format": 1, "kind": "task", "sha256": files.sha256(tensors)}))
    with pytest.raises(ValueError, match=r"task\.json is not a task record"):
        load_saved_task(tmp_path / "task")


def test_a_record_without_its_tiles_is_cut_anew(tmp_path):
    task = load_task("earth", image_size=32, scale=4)
    save_task(task, tmp_path / "task")
    (tmp_path / "task.safetensors").unlink()
    assert torch.equal(load_saved_task(tmp_path / "task").train.source, task.train.source)
    record = json.loads((tmp_path / "task.json").read_text())
    (tmp_path / "task.json").write_text(json.dumps(record | {"sha256": "0" * 64}))
    with pytest.raises(ValueError, match=r"tiles cut anew do not match .*task\.json"):
        load_saved_task(tmp_path / "task")
