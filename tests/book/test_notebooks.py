"""What every chapter's source looks like, without running it."""

import ast
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml

from i2i_book import presets, runs
from i2i_book.arms import arms, check_student, students
from i2i_book.chapters import GENERATORS, chapters
from i2i_book.claims import YARDSTICKS
from i2i_book.questions import questions
from i2i_book.runner.notebook import check_parameters, notebook_parameters

ROOT = runs.root()
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PRESETS = sorted((ROOT / "presets").glob("*.yml"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_it_is_a_clean_source(notebook):
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert not any(cell.outputs or cell.execution_count for cell in code(notebook))
    assert all(cell.source.strip() for cell in notebook.cells)
    assert not any("papermill" in cell.metadata for cell in notebook.cells)


def test_it_opens_with_one_title_and_its_question(notebook):
    titles = [re.findall(r"^# .+", c.source, re.M) for c in notebook.cells if c.cell_type == "markdown"]
    assert len(titles[0]) == 1 and not any(titles[1:])
    assert re.search(r"\n\n\*[^*]+\?\*\n\n", notebook.cells[0].source), "the question that the chapter answers"


def test_parameters_come_first_annotated_and_explained(notebook):
    first, *others = code(notebook)
    assert first.metadata.tags == ["parameters"]
    assert not any("parameters" in cell.metadata.get("tags", []) for cell in others)
    for line in first.source.splitlines():
        assert re.fullmatch(r"\w+: [\w\[\]]+ = [^#]+  # .+", line), line
    assert first.source.startswith('run: str = "lab"') and '\nupstream: str = "cpu"' in first.source


def test_no_cell_changes_a_parameter(notebook):
    """Or it would compute something else when it is run again."""
    first, *others = code(notebook)
    parameters = {line.split(":")[0] for line in first.source.splitlines()}
    for cell in others:
        outside = [node for node in ast.parse(cell.source).body if not isinstance(node, ast.FunctionDef)]
        names = [n for node in outside for n in ast.walk(node) if isinstance(n, ast.Name)]
        assert not {n.id for n in names if isinstance(n.ctx, ast.Store)} & parameters, cell.source


def test_imports_stand_in_one_cell(notebook):
    importing = [c for c in code(notebook) if any(isinstance(n, ast.Import | ast.ImportFrom) for n in _nodes(c))]
    assert importing == [code(notebook)[1]]


def test_nothing_reaches_outside(notebook):
    for cell in code(notebook):
        assert not re.search(r"^\s*[!%]|sys\.path|['\"]/|\.\./|os\.chdir|https?://", cell.source, re.M), cell.source


def test_figures_have_captions_and_alt_texts(notebook):
    for cell in code(notebook):
        drawn = re.search(r"plt\.show\(\)|figures\.on_white\(", cell.source)
        if drawn or re.search(r"figures\.image_(grid|row)\(", cell.source):
            assert cell.metadata.mystnb.figure.name.startswith("fig-") and cell.metadata.mystnb.figure.caption
            # Each row of images has a name of its own, and the page reads no other.
            assert len(cell.metadata.mystnb.image.alt) > 40 if drawn else "image" not in cell.metadata.mystnb


def test_captions_for_some_tests_are_those_that_pages_look_for(notebook):
    assert all(cell.metadata.get("captions", {"unpaired": "x"}).keys() == {"unpaired"} for cell in code(notebook))


def test_functions_are_not_those_of_the_library(notebook):
    library = {
        ast.dump(node.args) + "".join(map(ast.dump, node.body))
        for path in [*(ROOT / "i2i_lib").rglob("*.py"), *(ROOT / "i2i_book").rglob("*.py")]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    }
    for cell in code(notebook):
        for node in _nodes(cell):
            if isinstance(node, ast.FunctionDef):
                assert ast.dump(node.args) + "".join(map(ast.dump, node.body)) not in library


def test_every_notebook_is_a_chapter():
    assert sorted(chapters()) == sorted(path.stem for path in NOTEBOOKS)
    numbers = sorted({chapter.number for chapter in chapters().values()})
    assert numbers == list(range(1, len(numbers) + 1))
    parts = [part["caption"] for part in yaml.safe_load((ROOT / "book" / "_toc.yml").read_text())["parts"]]
    assert all(chapter.part in parts for chapter in chapters().values())


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_presets_set_parameters_that_exist(preset):
    settings = presets.load_preset(str(preset))
    assert {"threads", "gpu", "minutes", "arms", "generators"} <= settings.keys()
    for part in [settings, *(value for key, value in settings.items() if key.startswith("+"))]:
        assert {*part.get("arms", ()), *part.get("ablations", ())} <= students().keys()
    for name, section in (settings.get("notebooks") or {}).items():
        path = ROOT / "notebooks" / f"{name}.ipynb"
        for part in [section, *(value for key, value in section.items() if key.startswith("+"))]:
            given = {key: value for key, value in part.items() if not key.startswith("+")}
            assert check_parameters(path, given) == given, "written as the type that the notebook declares"
            assert not given.keys() & {"run", "upstream", "task", "seed", "arm", "generator"}


SHORTER: dict[str, dict[str, Any]] = {"04-distillation": {"steps": 1000}}
EARLIER: dict[str, dict[str, Any]] = {
    "02-search-space": {"weights": "train", "steps": 1000},
    "04-distillation": {"steps": 500},
}
UNPAIRED = {"weights": "train", "steps": 1800, "identity": 0.02, "identity_until": 1.0}
# Of the recordings that answer questions of the plan: their task, and what they set otherwise than preset cpu.
RECORDINGS = {
    "ranking": ("openmoji", EARLIER),
    "ranking-again": ("openmoji", EARLIER),
    "ranking-long": ("openmoji", {}),
    "mobile": ("openmoji", {}),
    "unpaired": ("earth-unpaired", {"02-search-space": UNPAIRED}),
    "distilling": ("openmoji", EARLIER),
    "ranking, too": ("fluent", SHORTER | {"03-pruning": {"min_width": 0}}),  # as published
    "distilling, too": ("fluent", SHORTER),
    "distilling-again": ("fluent", SHORTER),
    "lasting": ("openmoji", EARLIER | {"02-search-space": {"weights": "train", "steps": 6000}}),
    "recipe": ("openmoji", EARLIER),
    "recipe, too": ("fluent", SHORTER),
    "recipes": ("openmoji", EARLIER | {"05-evaluation": {"part": "validation"}}),
    "recipes, too": ("fluent", SHORTER | {"05-evaluation": {"part": "validation"}}),
}


@pytest.mark.parametrize("name", RECORDINGS)
def test_recordings_train_as_the_preset_cpu_does(name):
    """Whose notebooks they are like, except for what their question is about."""
    preset, (task, other) = name.split(",")[0], RECORDINGS[name]
    ours, cpu = presets.load_preset(preset), presets.load_preset("cpu")
    for notebook in cpu["notebooks"]:
        expected = presets.preset_parameters(cpu, notebook, task, "gcka") | other.get(notebook, {})
        assert presets.preset_parameters(ours, notebook, task, "gcka") == expected, notebook
    planned = {name for q in questions() if q.task == task for name in (q.better, q.worse)}
    made = {*ours["arms"], *(GENERATORS[name] for name in ours["generators"])}
    assert len(made & planned) >= 2 or preset in ("recipes", "mobile"), "it answers questions of the plan"


def test_recordings_train_for_the_share_of_steps_that_chapter_6_says():
    def steps(preset: str, notebook: str, task: str) -> int:
        return presets.preset_parameters(presets.load_preset(preset), notebook, task)["steps"]

    for task in ("fluent", "openmoji"):
        assert 4 * steps("ranking", "04-distillation", task) == steps("cpu", "04-distillation", task)
    assert 6 * steps("ranking", "02-search-space", "openmoji") == steps("cpu", "02-search-space", "openmoji")


def test_every_student_is_set_apart_by_parameters_that_exist():
    names = [name for found in arms().values() for name in found]
    assert sorted(["gcka", *names]) == sorted(students()), "no name stands for two students"
    assert not {*YARDSTICKS, *GENERATORS.values()} & {*names}, "nor for another model of chapter 5"
    path = ROOT / "notebooks" / "04-distillation.ipynb"
    defaults = notebook_parameters(path)
    for name, own in students().items():
        assert re.fullmatch("[a-z-]+", name), "the rules tell students from other files by that"
        assert check_parameters(path, own) == own
        assert bool(own) == (name != "gcka")
        assert any(defaults[key][1] != value for key, value in own.items()) == bool(own), f"{name} is gcka in that"


def test_a_students_name_stands_for_all_of_its_parameters():
    given = {"index": "none", "budget": 0.5}
    check_student("half-none", given)
    check_student("mine", given)
    for wrong in ({"index": "gcka"}, {"budget": 1.0}):
        with pytest.raises(ValueError, match=f"'half-none' has .* got .*{next(iter(wrong))}.*give another name"):
            check_student("half-none", given | wrong)


def _nodes(cell) -> list[ast.AST]:
    return list(ast.walk(ast.parse(cell.source)))


def test_sources_are_stored_as_their_editor_would():
    for path in NOTEBOOKS:
        assert path.read_text() == json.dumps(json.loads(path.read_text()), indent=1, ensure_ascii=False) + "\n"


def test_the_environment_has_one_set_of_pins():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = [line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()]
    named = [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]
    canonical = {re.sub(r"[-_.]+", "-", name).lower() for name in pinned}
    for dependency in named:
        name = re.split(r"[<>=\[ ]", dependency)[0]
        if name == project["name"] or "==" in dependency:  # its own extras; pinned where it stands
            continue
        assert re.sub(r"[-_.]+", "-", name).lower() in canonical, f"{name} is not pinned"
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert "python=3.11" in conda and project["requires-python"] == ">=3.11"
    # What is checked at a commit is checked by the same versions.
    for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]:
        name = {"ruff-pre-commit": "ruff"}.get(tool := repo["repo"].rsplit("/", 1)[1], tool)
        assert f"{name}=={repo['rev'].removeprefix('v')}" in (ROOT / "constraints.txt").read_text().splitlines()
    # conda installs through pip with the very same constraints, so that there is no second list to drift.
    assert conda[-1]["pip"] == ["--constraint constraints.txt", "--editable .[dev]"]
    assert not re.search(r"://", (ROOT / "constraints.txt").read_text() + Path(ROOT / "package-lock.json").read_text())


def test_chapter_9_has_a_section_for_every_question_of_the_students():
    text = (ROOT / "notebooks" / "09-ablations.ipynb").read_text()
    for question in arms():
        assert f'"{question}"'.replace('"', r"\"") in text or "for the live demo" in question, question
