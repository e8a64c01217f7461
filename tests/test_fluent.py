"""Fluent Emoji: which pairs are kept and why, that no drawing is in training and in the test, and damaged packages."""

import json
import re
import shutil
from collections import Counter, defaultdict
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from i2i_lib.data import fluent
from i2i_lib.data.fluent import BLACK, FLAT, SOLID, group_key, in_test, nearer_to_another, on_white, outline_iou
from i2i_lib.data.tasks import load_task

README = Path(__file__).parents[1] / "data" / "README.md"
PEAR, SAXOPHONE, RUNNER, ASTRONAUT = "1f350", "1f3b7", "1f3c3", "1f9d1-200d-1f680"
PACKAGES = [FLAT, BLACK, SOLID]


@pytest.fixture(scope="module")
def emoji():
    return fluent.all_emoji()


@pytest.fixture(scope="module")
def wrong(emoji):
    return fluent.left_out(emoji)


def test_variants_of_a_drawing_share_a_group():
    for variants in [
        "1f44b 1f44b-1f3fb 1f44b-1f3ff",  # waving hands
        "1f3c3 1f3c3-200d-2640 1f3c3-1f3fd-200d-2642",  # runners
        "1f9d1-200d-1f680 1f468-200d-1f680 1f469-1f3fd-200d-1f680",  # astronauts
        "1f9d1-200d-1f91d-200d-1f9d1 1f9d1-1f3fb-200d-1f91d-200d-1f9d1-1f3ff",  # people holding hands
        "1f483 1f57a-1f3fd",  # dancers
    ]:
        assert len({group_key(code) for code in variants.split()}) == 1, variants
    others = "1f44b 1f3c3 1f9d1-200d-1f680 1f9d1-200d-1f692 1f9d1 1f350 2640 2642"
    assert len({group_key(code) for code in others.split()}) == len(others.split())


def test_no_drawing_is_in_two_parts_by_the_names_of_its_variants(emoji):
    """By words for skin tone and gender, which the key does not read."""
    parts = defaultdict(set)
    for one in emoji:
        without_tone = re.sub("( medium)?( light| dark)?$", "", one.name)
        parts[re.sub(r"\b(man|woman|men|women)\b", "person", without_tone)].add(in_test(group_key(one.code)))
    spanning = {name for name, found in parts.items() if len(found) > 1}
    assert spanning <= {"police car"}, "a police car and a police car light are two things"


def test_a_fifth_of_the_groups_is_held_out():
    assert 0.18 < sum(in_test(str(number)) for number in range(5000)) / 5000 < 0.22


def test_a_drawing_nearer_to_another_variant_is_found():
    white, dark, grey = (torch.full((3, 4, 4), value, dtype=torch.uint8) for value in (255, 0, 100))
    flat = torch.stack([white, dark, white, dark])
    solid = torch.stack([dark, white, dark, grey])
    assert nearer_to_another(flat, solid, ["a", "a", "b", "c"]).tolist() == [True, True, False, False]
    # By less than 5 % of the L1 is not nearer: 97 against 100, then 94 against 100.
    flat, solid = torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.full((2, 3, 4, 4), 100, dtype=torch.uint8)
    for distance, found in ((97, False), (94, True)):
        solid[1] = distance
        assert nearer_to_another(flat, solid, ["a", "a"]).tolist() == [found, False]


def test_the_outlines_of_a_pair_are_compared():
    one, other = torch.zeros(2, 4, 4, dtype=torch.bool), torch.zeros(2, 4, 4, dtype=torch.bool)
    one[:, :2] = True
    other[0, :2] = True
    other[1, 1:3] = True
    assert outline_iou(one, other).tolist() == pytest.approx([1, 1 / 3])


def test_what_is_transparent_shows_white():
    picture = torch.zeros(4, 1, 3, dtype=torch.uint8)
    picture[0], picture[3] = 200, torch.tensor([0, 51, 255])
    assert on_white(picture).squeeze(1).tolist() == [[255, 244, 200], [255, 204, 0], [255, 204, 0]]


def test_the_pairs_and_the_split_are_the_documented_ones(emoji, wrong):
    readme = README.read_text()
    for task, drawn in (("fluent", emoji), ("fluent-outline", [one for one in emoji if one.black])):
        rules = Counter(wrong[one.code] for one in drawn if one.code in wrong)
        groups = [group_key(one.code) for one in drawn if one.code not in wrong]
        test = [group for group in groups if in_test(group)]
        counts = [len(drawn), rules["other variant"], rules["other outline"], len(groups), len(set(groups))]
        counts += [len(test), len(set(test))]
        assert f"| `{task}` | {' | '.join(f'{count:,}' for count in counts)} |" in readme
    assert fluent.CREDIT in readme
    for package in PACKAGES:
        read = sum(file.stat().st_size for file in package.files())
        assert f"| `{package.name}` | {package.version} |" in readme
        assert f"| {read:,} | `{package.sha256}` |" in readme


def test_known_pairs_are_kept_and_known_wrong_ones_left_out(wrong):
    assert PEAR not in wrong and SAXOPHONE not in wrong
    assert wrong["1f3c3-1f3fc"] == "other variant"
    assert wrong["1f998"] == "other outline"  # the kangaroo


def test_versions_are_those_that_npm_installs():
    top = README.parents[1]
    wanted = json.loads((top / "package.json").read_text())["dependencies"]
    locked = (top / "package-lock.json").read_text()
    for package in PACKAGES:
        assert wanted[package.name] == package.version
    assert "://" not in locked, "no address of a registry"


@pytest.fixture
def few(emoji, monkeypatch, tmp_path):
    monkeypatch.setattr(fluent, "CACHE", tmp_path)
    chosen = [one for one in emoji if group_key(one.code) in (PEAR, SAXOPHONE, RUNNER, ASTRONAUT, "1f46f", "1f44f")]
    monkeypatch.setattr(fluent, "all_emoji", lambda: chosen)
    return chosen


def test_a_task_holds_whole_pictures_split_by_drawing(few):
    task = load_task("fluent", image_size=32)
    for tiles in (task.train, task.test):
        assert tiles.source.shape == tiles.target.shape == (len(tiles), 3, 32, 32)
        assert tiles.source.dtype == tiles.target.dtype == torch.uint8
    assert (task.train.block == -1).all()
    assert len(task.train) + len(task.test) == len(few) - sum(task.info["left_out"].values())
    assert json.dumps(task.info) and len(task.info["test"]) == len(task.test)
    groups = [group_key(entry["code"]) for entry in task.info["test"]]
    assert all(map(in_test, groups)) and len(set(groups)) == task.info["test_groups"] > 1
    assert [entry["group"] for entry in task.info["test"]] == groups
    assert task.test.block.tolist() == [sorted(set(groups)).index(group) for group in groups]


def test_a_pair_is_its_drawing_and_its_picture_on_white(few):
    task = load_task("fluent", image_size=256)
    place = [entry["code"] for entry in task.info["test"]].index(SAXOPHONE)
    assert task.info["test"][place]["name"] == "saxophone"
    with Image.open(fluent.NODE_MODULES / SOLID.name / "assets" / f"{SAXOPHONE}.webp") as image:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image)
    difference = task.test.target[place].int() - pil_to_tensor(white.convert("RGB")).int()
    assert difference.abs().max() <= 1
    for pictures in (task.test.source, task.test.target):
        assert (pictures[place, :, 0] == 255).all(), "on white"
        covered = (pictures[place].amin(0) < 200).float().mean()
        assert 0.1 < covered < 0.6


def test_black_drawings_are_of_the_same_emoji(few):
    flat, black = load_task("fluent", image_size=32), load_task("fluent-outline", image_size=32)
    place = {entry["code"]: number for number, entry in enumerate(flat.info["test"])}
    assert 0 < len(black.test) < len(flat.test) and not any("1f3f" in entry["code"] for entry in black.info["test"])
    for number, entry in enumerate(black.info["test"]):
        assert torch.equal(black.test.target[number], flat.test.target[place[entry["code"]]])
    assert (black.train.source[:, 0] == black.train.source[:, 1]).all() and black.train.source.amin() == 0


def test_wrong_pairs_are_found_once_and_again_if_the_record_is_damaged(few, monkeypatch):
    known = fluent.left_out(few)
    (record,) = fluent.CACHE.iterdir()
    record.write_text(record.read_text()[:-9])
    assert fluent.left_out(few) == known
    monkeypatch.setattr(fluent, "read_solid", lambda *_: pytest.fail("looked at again"))
    assert fluent.left_out(few) == known


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_a_missing_or_altered_package_is_named(package, monkeypatch, tmp_path):
    original = fluent.NODE_MODULES / package.name
    monkeypatch.setattr(fluent, "NODE_MODULES", tmp_path)
    with pytest.raises(FileNotFoundError, match=f"{package.name} {package.version} is not in .*npm ci"):
        package.files()
    shutil.copytree(original, tmp_path / package.name)
    assert package.files()
    file = package.files()[-1]
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match=f"{package.name} have checksum .* not the recorded {package.sha256}"):
        package.files()


def test_a_picture_that_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "1f350.webp"
    path.write_bytes(b"RIFF and no more")
    with pytest.raises(ValueError, match=r"1f350\.webp cannot be decoded .*npm ci"):
        fluent.read_solid(path, 32)
