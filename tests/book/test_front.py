"""What the first pages show: the run's own numbers, and nothing where nothing ran."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_run import row
from PIL import Image

from i2i_book.pages.front import COLUMNS, front_page
from i2i_book.searching import search_by_building
from i2i_lib.config import cat_teacher
from i2i_lib.generators import InceptionGenerator
from i2i_lib.prune import prune
from i2i_lib.results import PAIRED, collect, save_evaluation

COSTS = {"teacher": 40_000_000, "gcka": 5_000_000, "none": 5_000_000}
ERRORS = {"look-up": 0.12, "teacher": 0.08, "gcka": 0.10, "none": 0.11}


@pytest.fixture
def table(tmp_path):
    """The results of a run of one seed."""
    home = tmp_path / "fluent" / "seed0"
    rows = []
    for name, error in ERRORS.items():
        cost = {"macs_exact": COSTS.get(name), "macs_paper": COSTS.get(name)}
        trained = {"params": 10, "steps": 9, "train_seconds": 400.0, "weights": "w"} if name in COSTS else {}
        rows.append(row(0, name, l1=error, **cost, **trained))
    values = {measure: {name: [error, error] for name, error in ERRORS.items()} for measure in PAIRED}
    save_evaluation(home / "eval.json", rows, values, blocks=[0, 1])
    path = tmp_path / "results.jsonl"
    path.write_text(collect([home / "eval.json"]))
    return path


def test_the_chart_has_every_model_at_its_place_and_the_look_up_as_a_line(table, tmp_path):
    front = front_page(table, tmp_path / "models")["front"]
    said = re.findall(r'aria-label="([^"]+)"', front)[0]
    for part in (
        "teacher 40.0 M MACs, 10.2",
        "gcka 5.00 M MACs, 12.8",
        "not taught by the large one 5.00 M MACs, 14.0",
        "looked up 15.3",
    ):
        assert part in said
    marks = re.findall(r'<circle class="(\w+)" cx="([\d.]+)" cy="([\d.]+)"', front)
    x, y = {kind: float(x) for kind, x, _ in marks}, {kind: float(y) for kind, _, y in marks}
    assert x["budget"] == x["other"] < x["large"], "cheaper lies to the left"
    assert y["large"] > y["budget"] > y["other"], "an error further up is larger"
    line = float(re.findall(r'class="look-up" d="M\d+,([\d.]+)', front)[0])
    assert line < y["other"], "the look-up has the largest error"
    assert "+0.020 (" in front, "the interval is in the fold"


def recorded(name: str, cost: int, levels: float) -> dict:
    return {"name": name, "macs": {"8": cost}, "levels": levels, "steps": 3000}


def test_recorded_students_are_joined_and_said_to_have_trained_longer(table, tmp_path):
    folder = tmp_path / "models" / "fluent"
    folder.mkdir(parents=True)
    others = [{"name": "student-gcka", "macs": {"8": 5_000_000}, "levels": 12.75, "steps": 9}]
    networks = [*others, recorded("pictures-half", 20_000_000, 10.5), recorded("pictures-eighth", 5_000_000, 11.22)]
    about = {
        "size": 8,
        "task": "fluent",
        "examples": 1,
        "first": 0,
        "main": "pictures-eighth",
        "names": ["a"],
        "networks": networks,
    }
    (folder / "demo.json").write_text(json.dumps(about))
    front = front_page(table, tmp_path / "models")["front"]
    assert front.count('<circle class="recorded"') == 2 and 'class="line recorded"' in front
    assert "The line joins recorded students of several budgets: 3,000 steps on the large one's images." in front
    parts = front_page(table, tmp_path / "models")
    assert parts["longer"] == (
        "Trained for 3,000 steps on the large one's images, the same small network is 11.2 grey levels off;"
        " its error is then 10 % higher."
    ), "11.22 against 10.2 grey levels"
    assert parts["longer"] in parts["balance"]
    unknown, no_longer = {"name": "pictures-half", "macs": {"8": 1}}, recorded("pictures-eighth", 1, 9.0) | {"steps": 9}
    for other, dots in ((unknown, 0), (no_longer, 1)):
        (folder / "demo.json").write_text(json.dumps(about | {"networks": [*others, other]}))
        found = front_page(table, tmp_path / "models")
        assert found["front"].count('<circle class="recorded"') == dots and found["longer"] == ""


def test_the_balance_has_four_rows_of_the_runs_numbers(table, tmp_path):
    lines = front_page(table, tmp_path / "models")["balance"].splitlines()[2:]
    said = {line.split("**")[1]: line for line in lines}
    assert list(said) == ["What you save", "What you lose", "What it takes", "What to watch"]
    parts = ("8.0 times fewer (40.0 M", "25 % higher: 12.8", "9 steps, 7 min of training<br>", "sec-patent")
    for line, part in zip(said.values(), parts, strict=True):
        assert part in line


def test_the_picture_is_cut_from_the_demos(table, tmp_path):
    models = tmp_path / "models"
    folder = models / "fluent"
    folder.mkdir(parents=True)
    about = {"task": "fluent", "size": 8, "examples": 5, "first": 2, "names": list("abcde"), "main": "student-gcka"}
    (folder / "demo.json").write_text(json.dumps(about))
    for name in COLUMNS:
        errors = np.array([30, 0, 40, 10, 20]) if name == "truths" else 0
        strip = np.repeat((np.arange(5) * 40 + errors).astype(np.uint8), 8)[None, :, None].repeat(8, 0).repeat(3, 2)
        Image.fromarray(strip).save(folder / f"{name}.webp", lossless=True)
    front = front_page(table, models)["front"]
    captions = "<figcaption>([^<]+)</figcaption></figure>"
    assert re.findall(captions, front)[:4] == [*COLUMNS.values()] and front.count("<img") == 4
    Image.open(folder / "student-gcka.webp").save(folder / "pictures-eighth.webp")
    (folder / "demo.json").write_text(json.dumps(about | {"main": "pictures-eighth"}))
    longer = front_page(table, models)["front"]
    titles = ["drawing", "small network", "trained longer", "large network", "truth"]
    assert re.findall(captions, longer)[:5] == titles
    column = np.array(Image.open(folder / "front-teacher.webp"))
    assert column.shape == (48, 16, 3)
    assert np.abs(column[8::16, 8, 0].astype(int) - [120, 160, 0]).max() < 6, (
        "a quarter, half, three quarters of the errors"
    )


def test_nothing_is_shown_where_nothing_ran(tmp_path):
    assert front_page(tmp_path / "results.jsonl", tmp_path / "models") == {"front": "", "balance": "", "longer": ""}


@pytest.mark.parametrize("upsample", ["resize", "transpose"])
def test_the_search_by_building_finds_the_same_student(upsample):
    torch.manual_seed(0)
    teacher = InceptionGenerator(replace(cat_teacher(8, 3, "batch"), upsample=upsample))
    for name, values in teacher.named_parameters():
        if name.endswith("norm.weight"):
            torch.nn.init.normal_(values, 1, 0.1)
    whole = prune(teacher, 10**12, image_size=16, cost="exact").cost
    plan = prune(teacher, 0.4 * whole, image_size=16, min_width=2, cost="exact")
    found = search_by_building(teacher, 0.4 * whole, 16, 2)
    assert (found.config, found.macs) == (plan.config, plan.cost) and found.thresholds > 3
    with pytest.raises(ValueError, match="raise the budget"):
        search_by_building(teacher, 1, 16, 2)
