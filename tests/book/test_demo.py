"""What is put beside the live demo fits together, before any browser reads it."""

import json
import re
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toys import GENERATORS, tiles, trained

from i2i_book.demo import make
from i2i_lib.checkpoint import load_generator, load_info, save_generator
from i2i_lib.config import cat_teacher
from i2i_lib.counts import short_count
from i2i_lib.data.store import load_saved_task, save_task
from i2i_lib.data.tiles import Task, encode
from i2i_lib.demo.files import EXAMPLES, palette
from i2i_lib.demo.page import demo_part
from i2i_lib.export.onnx import session
from i2i_lib.losses import kernel_alignment
from i2i_lib.macs import generator_macs

CONFIG = GENERATORS["pix2pix"]
LARGER = cat_teacher(8, 3, "batch")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A seed's folder with data, student and teacher, and a folder of further students beside it."""
    home = tmp_path_factory.mktemp("demo") / "seed0"
    info = {"domains": ["line", "colour"], "credit": "its maker", "test": [{"name": f"drawing {i}"} for i in range(12)]}
    save_task(Task("openmoji", "pix2pix", tiles(size=16), tiles(size=16), info), home / "data")
    save_generator(trained(CONFIG, 1), home / "student-gcka")
    save_generator(trained(LARGER, 2), home / "teacher")
    for name, of in {"narrow": load_info(home / "teacher")["sha256"], "foreign": "another"}.items():
        save_generator(trained(cat_teacher(2, 3, "batch"), 3), home.parent / name, provenance={"teacher": of})
    make(home, home / "demo", home.parent)
    return home


@pytest.fixture(scope="module")
def about(home) -> dict:
    return json.loads((home / "demo/demo.json").read_text())


def strip(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


def test_the_networks_run_from_the_cheapest_to_the_teacher(home, about):
    """With the further students of this teacher, and none of another one."""
    assert [network["name"] for network in about["networks"]] == ["narrow", "student-gcka", "teacher"]
    assert about["networks"][-1]["label"] == "Teacher"
    for network in about["networks"]:
        assert network["bytes"] == (home / f"demo/{network['name']}.onnx").stat().st_size
        assert network["precision"] == "fp32" and network["parameters"] > 0
    student, whole = (network["macs"]["16"] for network in about["networks"][1:])
    assert student == generator_macs(CONFIG, 16, "exact") and whole == generator_macs(LARGER, 16, "exact")
    said = re.fullmatch(r"(?:1/(\d+)|(\d+) %) of the MACs", about["networks"][1]["label"])
    assert said and (100 / int(said[1]) if said[1] else int(said[2])) == pytest.approx(100 * student / whole, rel=0.1)


def test_a_recorded_student_of_the_same_widths_that_trained_longer_is_shown_first(home, tmp_path):
    teacher = load_info(home / "teacher")["sha256"]
    for steps, main in ((9, "twin"), (None, "student-gcka")):  # how long the run's own trained is not noted
        noted = {"teacher": teacher, "training": {"steps": steps}}
        save_generator(trained(CONFIG, 4), tmp_path / "students" / "twin", provenance=noted)
        make(home, tmp_path / "demo", tmp_path / "students")
        about = json.loads((tmp_path / "demo/demo.json").read_text())
        labels = {network["name"]: network["label"] for network in about["networks"]}
        assert labels["student-gcka"] == labels["twin"] + ", this run" and about["main"] == main


def test_every_network_says_how_far_from_the_truth_it_is(home, about):
    test = load_saved_task(home / "data").test
    for network in about["networks"]:
        folder = home.parent if network["name"] == "narrow" else home
        with torch.no_grad():
            made = load_generator(folder / network["name"])(encode(test.source))
        levels = ((made + 1) * 127.5).round().clip(0, 255) - test.target
        assert network["levels"] == pytest.approx(levels.abs().mean().item(), rel=1e-3)
    page = demo_part(about, "Title", models="_static/models/openmoji/", serve="serve it")
    assert f"{about['networks'][0]['levels']:.1f} levels off" in page


def test_the_finished_pictures_are_those_of_the_files(home, about):
    sources = strip(home / "demo/sources.webp")
    assert sources.shape == (16, 16 * EXAMPLES, 3)
    for network in about["networks"]:
        run, made = session(home / f"demo/{network['name']}.onnx"), strip(home / f"demo/{network['name']}.webp")
        assert np.ptp(made) > 10
        for i in range(EXAMPLES):
            part = slice(16 * i, 16 * i + 16)
            source = sources[:, part].transpose(2, 0, 1)[None].astype("f4") / 127.5 - 1
            image = np.asarray(run.run(None, {"source": source})[0])[0].transpose(1, 2, 0)
            assert np.abs((image + 1) * 127.5 - made[:, part]).max() < 0.51


def test_the_first_example_is_the_one_of_median_error(home, about):
    made, truths = (strip(home / f"demo/{name}.webp").astype(float) for name in ("student-gcka", "truths"))
    errors = np.abs(made - truths).reshape(16, EXAMPLES, -1).mean((0, 2))
    assert len(about["names"]) == about["examples"] == EXAMPLES and about["sizes"] == [16]
    assert sorted(errors).index(errors[about["first"]]) == EXAMPLES // 2


def test_files_of_networks_that_are_gone_go_and_a_teacher_may_lack(home, tmp_path):
    for name in ("data", "student-gcka"):
        for suffix in (".json", ".safetensors"):
            (tmp_path / f"{name}{suffix}").write_bytes((home / f"{name}{suffix}").read_bytes())
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo/narrow.onnx").touch()
    make(tmp_path, tmp_path / "demo", home.parent)
    assert not (tmp_path / "demo/narrow.onnx").exists()
    alone = json.loads((tmp_path / "demo/demo.json").read_text())
    assert [network["name"] for network in alone["networks"]] == ["student-gcka"]
    page = demo_part(alone, "Title", models="_static/models/openmoji/", serve="serve it")
    assert "eacher" not in page and page.count("student-gcka.webp") == 2


def test_the_page_holds_every_finished_picture_and_price_without_a_script(about):
    page = demo_part(about, "A <title>", models="_static/models/openmoji/", serve="serve it")
    shown = [tag for tag in re.findall(r"<img[^>]*>", page) if "hidden" not in tag]
    for name in ("sources", "truths", "narrow", "student-gcka", "teacher"):
        assert any(f"_static/models/openmoji/{name}.webp" in tag for tag in shown)
    for network in about["networks"]:
        cost = f"{short_count(network['macs']['16'])} MACs"
        assert cost in page and f"{network['bytes'] / 1e3:,.0f} kB" in page and network["label"] in page
    assert f"--example: {about['first']}" in page and "A &lt;title&gt;" in page and "its maker" in page
    assert re.search(r"<button[^>]*data-part=\"load\"[^>]* hidden", page)  # it needs the script


def test_the_features_that_are_compared_are_those_of_pytorch(home, about):
    """As the page reads them: 16-bit numbers, channel by channel, whose alignment is that of the unrounded ones."""
    script = (home / "demo/alike.js").read_text()
    found = json.loads(script.removeprefix("alike(").removesuffix(");\n"))
    assert found["picture"] == about["first"] and found["size"] == 16 and found["grid"] == [4, 4]
    assert found["networks"].keys() == {"teacher", "student-gcka"} and len(found["layers"]) == 4
    maps = {}
    for name, network in found["networks"].items():
        values = np.frombuffer(b64decode(network["features"]), "<f2").astype("f4").reshape(sum(network["widths"]), 4, 4)
        maps[name] = torch.from_numpy(values.copy()).split(network["widths"])
    aligned = [kernel_alignment(x[None], y[None]).item() for x, y in zip(*maps.values(), strict=True)]
    assert aligned == pytest.approx(found["networks"]["student-gcka"]["aligned"], abs=1e-3)
    teacher = load_generator(home / "teacher")
    source = strip(home / "demo/sources.webp")[:, 16 * about["first"] :][:, :16].transpose(2, 0, 1)[None]
    with torch.no_grad():
        stem = teacher.forward_features(torch.from_numpy(source.astype("f4") / 127.5 - 1))[1][0][0]
    assert torch.allclose(maps["teacher"][0], stem, rtol=2e-3, atol=1e-4)


def test_a_palette_holds_the_commonest_colours_that_differ():
    pictures = torch.full((2, 3, 10, 10), 255, dtype=torch.uint8)
    orange, near, blue = ((255, 176, 46), (250, 170, 50), (0, 0, 200))
    for row, (colour, wide) in enumerate([(orange, 9), (near, 8), (blue, 3)]):
        pictures[:, :, row, :wide] = torch.tensor(colour, dtype=torch.uint8)[:, None]
    found = palette(pictures, 3)
    assert [swatch["colour"] for swatch in found] == ["#ffffff", "#ffb02e", "#0000c8"]
    assert found[0]["name"] == "white" and len({swatch["name"] for swatch in found}) == 3
    assert [swatch["colour"] for swatch in palette(pictures, 2)] == ["#ffffff", "#ffb02e"]
