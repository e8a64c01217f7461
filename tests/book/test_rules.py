"""The rules of the Snakefile, tried with notebooks that only write files: what reruns when."""

import ast
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from project import BESIDE, PRESETS, Project, dry_run

from i2i_book.departures import departures
from i2i_book.plan import Plan, sources
from i2i_book.presets import FAMILIES
from i2i_book.runs import root
from i2i_lib.data.adapters import loader_module

RUNNER = "i2i_book/runner/__main__.py"
# In its place: a kernel takes seconds to start, and these notebooks none to run.
STAND_IN = """
import argparse, json
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("notebook", type=Path)
parser.add_argument("-p", nargs=2, action="append", default=[])
for name in ("preset", "run", "gpu", "publish"):
    parser.add_argument(f"--{name}")
asked = parser.parse_args()
names = {**dict(asked.p), "run": asked.run}
exec(json.loads(asked.notebook.read_text())["cells"][1]["source"], names)
Path(asked.publish).write_text(asked.notebook.read_text())
"""


@pytest.fixture(scope="module")
def quick(tmp_path_factory) -> Project:
    """A project whose notebooks only write the files that the real ones would, run once."""
    project = Project(tmp_path_factory.mktemp("quick"))
    shutil.copy(project.folder / PRESETS["micro"], project.folder / PRESETS["other"])
    writes = {
        "01-data": ["data"],
        "02-search-space": ["teacher", "teacher-discriminator", "scales"],
        "03-pruning": ["plan"],
        "04-distillation": ["student-{arm}"],
        "05-evaluation": ["eval"],
        "06-results": [],
        "08-paper-numbers": [],
    }
    for name, artifacts in writes.items():
        path = project.folder / "notebooks" / f"{name}.ipynb"
        notebook = json.loads(path.read_text())
        parameters = next(c for c in notebook["cells"] if "parameters" in c["metadata"].get("tags", []))
        code = ast.parse("".join("".join(c["source"]) + "\n" for c in notebook["cells"] if c["cell_type"] == "code"))
        imports = [ast.unparse(n) for n in ast.walk(code) if isinstance(n, ast.Import | ast.ImportFrom)]
        lines = ["def unused():", *(f"    {line}" for line in imports), "from pathlib import Path"]
        if artifacts:
            lines += ["folder = Path('runs') / run / task / f'seed{seed}'", "folder.mkdir(parents=True, exist_ok=True)"]
        for artifact in artifacts:
            content = '{"results": []}' if artifact == "eval" else "{}"
            lines += [f"(folder / f'{artifact}{s}').write_text({content!r})" for s in (".safetensors", ".json")]
        if name == "06-results":
            lines.append("(Path('runs') / run / 'headline.md').write_text('')")
        body = {"cell_type": "code", "id": "body", "metadata": {}, "execution_count": None, "outputs": []}
        notebook["cells"] = [parameters, body | {"source": "\n".join(lines)}]
        path.write_text(json.dumps(notebook))
    (project.folder / RUNNER).write_text(STAND_IN)
    for preset in PRESETS:
        project.make(f"runs/{preset}/notebooks/06-results.ipynb", preset=preset)
    return project


Job = tuple[str, set[str], set[str]]


@pytest.fixture(scope="module")
def jobs() -> list[Job]:
    """Every job of a book, as if nothing had been run: its rule, the files that it reads and those that it makes."""
    said = dry_run(root(), f"preset={PRESETS['micro']}", "task=earth", "seeds=1", "--forceall")
    found = re.findall(r"^rule (\w+):\n    input: (.*)\n    output: (.*)\n", said, flags=re.M)
    return [(rule, {*read.split(", ")}, {*made.split(", ")}) for rule, read, made in found]


def test_the_book_is_made_again_if_what_a_page_shows_is_changed(jobs):
    (read,) = (read for rule, read, _ in jobs if rule == "book")
    shown = {"CHANGELOG.md", "pyproject.toml", "notebooks/arms.yml"}
    for page in root().glob("book/*.md"):
        names = re.findall(r"{(?:literalinclude|figure)} (\S+)|{download}`[^<`]*<([^>]+)>", page.read_text())
        shown |= {os.path.normpath(f"book/{included or offered}") for included, offered in names}
    assert len(shown) > 12 and shown <= read, shown - read


def test_what_a_notebook_or_the_demo_reads_is_an_input(jobs):
    read = {rule: read for rule, read, _ in jobs}
    assert "book/published/search.csv" in read["pruning"]
    quoted = {held["default"].rpartition(".")[0] for row in departures() for held in row.held if "default" in held}
    assert {f"{module.replace('.', '/')}.py" for module in quoted} | {"notebooks/arms.yml"} <= read["paper_numbers"]
    assert {"i2i_book/demo.py", "i2i_lib/checkpoint.py", "i2i_lib/data/earth.py"} <= read["demo"]


AFTER_04 = {"distillation", "evaluation", "collect", "results", "book"}
AFTER_05 = {"evaluation", "collect", "results", "book"}


def test_what_is_done_is_not_done_again(quick):
    assert quick.pending() == {"book"}
    assert quick.pending("other") == {"book"}
    said = quick.make("runs/micro/notebooks/06-results.ipynb")
    assert "Nothing to be done" in said


def test_the_students_of_the_ablations_are_trained_only_if_asked_for(quick):
    assert quick.pending(ABLATIONS="yes") == {"distillation", "ablation", "book"}


def test_a_parameter_reruns_what_depends_on_it(quick):
    preset = quick.folder / PRESETS["micro"]
    before = preset.read_text()
    preset.write_text(before.replace("04-distillation: {steps: 20", "04-distillation: {steps: 21"))
    assert quick.pending() == AFTER_04
    assert quick.pending("other") == {"book"}
    preset.write_text(before)
    assert quick.pending() == {"book"}


def test_weights_that_arrive_late_measure_again(quick, tmp_path):
    """Of all that measures; those of a segmenter of street scenes concern no other task."""
    before = quick.pending()
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"late")
    assert quick.pending(I2I_INCEPTION=str(weights)) == AFTER_05
    assert quick.pending(I2I_DRN=str(weights)) == before == {"book"}


def test_a_published_loss_is_not_trained_without_its_weights(monkeypatch, tmp_path):
    monkeypatch.delenv("I2I_VGG19", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    plan = Plan("paper-gaugan", "cityscapes")
    with pytest.raises(ValueError, match=r"put vgg19-dcbb9e9d\.pth into .*; or set perceptual to 'none'"):
        plan.training_weights("cityscapes")
    weights = tmp_path / "hub" / "checkpoints" / "vgg19-dcbb9e9d.pth"
    weights.parent.mkdir(parents=True)
    weights.touch()
    assert plan.training_weights("cityscapes") == [str(weights)]
    assert not Plan("cpu", "earth-labels").training_weights("earth-labels")
    weights.unlink()
    for section in ("02-search-space", "04-distillation"):
        plan.settings["notebooks"][section]["perceptual"] = "none"
    assert not plan.training_weights("cityscapes")


def test_a_deleted_file_is_made_again(quick):
    html = quick.folder / "_build" / "html" / "index.html"
    html.parent.mkdir(parents=True)
    html.write_text("the book is up to date, so that nothing asks for the files between its pages")
    assert quick.pending() == set()
    before_04 = {"data", "search_space", "pruning"}
    made_by = {"data.safetensors": before_04 | AFTER_04, "student-none.json": AFTER_04, "eval.json": AFTER_05}
    for name, rules in made_by.items():
        path = quick.seed / name
        aside = path.rename(path.with_name(f"{name}.aside"))
        assert quick.pending() == rules
        aside.rename(path)
    shutil.rmtree(html.parents[1])


ALL = {"data", "search_space", "pruning"} | AFTER_04
NOTHING = {"book"}  # its reference shows every docstring


# What makes another task, trains another family, or makes no page.
ELSEWHERE = ["data/openmoji.py", "data/downloads.py", "data/__init__.py", "train/cyclegan.py", "archives.py"]


@pytest.mark.parametrize(
    ("modules", "reruns"),
    [
        ([*(f"i2i_lib/{name}" for name in ELSEWHERE), "i2i_book/plan.py"], NOTHING),
        (["i2i_lib/metrics/sets.py"], AFTER_05),
        (["i2i_lib/data/earth.py"], ALL),  # it makes the task
        (["i2i_lib/train/pix2pix.py"], {"search_space", "pruning"} | AFTER_04),
        (["i2i_book/presets.py"], {"results", "book"}),  # of notebooks that show or compare, none trains
        # Pages: a finished training is not repeated, see test_train.
        (["i2i_book/figures/style.py"], ALL),
    ],
)
def test_changed_modules_rerun_what_imports_them(jobs, modules, reruns):
    changed, left = set(modules), list(jobs)
    found = set()
    while new := [job for job in left if job[1] & changed]:
        found |= {rule for rule, _, _ in new}
        changed |= {made for _, _, makes in new for made in makes}
        left = [job for job in left if job not in new]
    assert found - BESIDE - {"all"} == reruns


def test_a_changed_module_is_noticed(quick):
    """What follows from it is read from the jobs above."""
    path = quick.folder / "i2i_lib" / "train" / "pix2pix.py"
    before = path.read_bytes()
    path.write_bytes(before + b"\n# a comment\n")
    assert quick.pending() == {"search_space", "pruning"} | AFTER_04
    path.write_bytes(before)


def test_data_depend_on_the_adapter_of_their_own_task():
    found = {task: {Path(name).name for name in sources("01-data", task)} for task in FAMILIES}
    assert "openmoji.py" in found["openmoji"] and not {"earth.py", "folders.py"} & found["openmoji"]
    assert {"earth.py", "earth_labels.py"} <= found["earth-labels"] and "earth_labels.py" not in found["earth"]
    assert "cityscapes.py" in found["cityscapes"] and "folders.py" in found["maps"]
    adapters = {f"{loader_module(task).rsplit('.', 1)[1]}.py" for task in FAMILIES}
    for notebook in ("02-search-space", "03-pruning", "04-distillation", "06-results"):
        assert not adapters & {Path(name).name for name in sources(notebook)}, notebook


def test_trainings_depend_on_their_own_family_alone():
    trainers = {"pix2pix.py", "cyclegan.py", "gaugan.py"}
    for notebook in ("02-search-space", "04-distillation"):
        for task, family in FAMILIES.items():
            found = {Path(name).name for name in sources(notebook, task)}
            own = trainers if task in ("folder", "cityscapes") else {f"{family}.py"}
            assert found & trainers == own and ("vgg.py" in found) == ("gaugan.py" in own), (notebook, task)
            assert ("picture_cache.py" in found) == loader_module(task).endswith("folders"), (notebook, task)
    assert trainers < {Path(name).name for name in sources("04-distillation")}, "of whatever task it is"


def test_a_new_chapter_is_its_notebook_and_an_entry(quick):
    listed = quick.folder / "notebooks" / "chapters.yml"
    before = listed.read_text()
    entry = "11-extra:\n  title: Extra\n  part: Around the method\n  of: run\n  reads: [results]\n"
    listed.write_text(before + entry)
    new = shutil.copy(quick.folder / "notebooks" / "08-paper-numbers.ipynb", listed.with_name("11-extra.ipynb"))
    assert quick.pending() == {"extra", "book"}
    listed.write_text(before)
    Path(new).unlink()


def test_a_failing_notebook_stops_the_book(quick):
    path = quick.folder / "notebooks" / "04-distillation.ipynb"
    before = path.read_bytes()
    notebook = json.loads(before)
    notebook["cells"][1]["source"] = (
        "if arm == 'none':\n    raise ValueError('no luck')\n" + notebook["cells"][1]["source"]
    )
    path.write_text(json.dumps(notebook))
    shutil.copy(root() / RUNNER, quick.folder / RUNNER)
    process = quick.start()
    said = process.communicate(timeout=200)[0]
    assert process.returncode != 0
    assert "04-distillation.ipynb failed: cell" in said and "ValueError: no luck" in said
    assert (quick.seed / "logs" / "04-distillation-none.ipynb").exists()
    assert not (quick.seed / "notebooks" / "04-distillation-none.ipynb").exists()
    assert not (quick.folder / "_build" / "html").exists()
    path.write_bytes(before)


def test_the_slurm_profile_gives_every_job_what_it_needs(tmp_path):
    """As a plan, and without the plugin: its name is left out of a copy of the profile."""
    project = Project(tmp_path)
    profile = yaml.safe_load((root() / "profiles" / "slurm" / "config.yaml").read_text())
    assert profile.pop("executor") == "slurm"
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile" / "config.yaml").write_text(yaml.safe_dump(profile))
    gpu = tmp_path / "presets" / "gpu.yml"
    changed = gpu.read_text().replace("generators: [", "generators: [longer, ")
    gpu.write_text(changed)
    said = dry_run(project.folder, "preset=gpu", "task=all", "seeds=1", "--profile", "profile", RECORDED="no")
    _, *parts = re.split(r"^rule (\w+):\n", said, flags=re.M)
    jobs = dict(zip(parts[::2], parts[1::2], strict=True))
    assert set(profile["set-resources"]) <= jobs.keys(), "rules that the Snakefile has"
    preset = yaml.safe_load(changed)
    for rule, job in jobs.items():
        if rule != "all":
            given = dict(re.findall(r"(\w+)=(\d+)", job.split("resources: ")[1].splitlines()[0]))
            trains = rule in profile["set-resources"]
            assert given.get("gpu") == (str(preset["gpu"]) if trains else None), rule
            assert given["runtime"] == str(preset["minutes"] + 5 if trains else 30), rule
            assert given["mem_mb"] == ("24000" if trains else "8000"), rule


def test_no_input_of_the_book_is_made_by_building_it():
    """Else `make book` would build it once more before it says that there is nothing to do."""
    rule = (root() / "Snakefile").read_text().partition("\nrule book:")[2].partition("output:")[0]
    inputs = [pattern.replace("**/", "").replace("*", "x") for pattern in re.findall(r'"([^"]*\*[^"]*)"', rule)]
    ignored = subprocess.run(["git", "check-ignore", "--no-index", *inputs], cwd=root(), capture_output=True, text=True)
    assert len(inputs) >= 8 and (ignored.returncode, ignored.stdout) == (1, "")
