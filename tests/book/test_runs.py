"""Where artifacts are looked for, and what a preset may say."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from i2i_book import arms, presets, runs
from i2i_book.plan import Plan
from i2i_book.runs import Run
from i2i_lib import files

LIBRARY = Path(runs.__file__).parents[1]


@pytest.fixture
def top(tmp_path, monkeypatch):
    for module in (runs, presets, arms):
        monkeypatch.setattr(module, "root", lambda: tmp_path)
    return tmp_path


def put(top, place: str) -> None:
    path = top / place / "teacher.json"
    path.parent.mkdir(parents=True)
    path.write_text("{}")


def test_by_hand_the_nearest_file_is_taken(top):
    lab = Run("lab", "earth", 0, upstream="cpu")
    assert not lab.has("teacher")
    for place in ("book/recorded/earth", "runs/cpu/earth/seed0", "runs/lab/earth/seed0"):
        put(top, place)
        assert lab.find("teacher") == top / place / "teacher"


def test_presets_never_read_one_another(top):
    for place in ("book/recorded/earth", "runs/cpu/earth/seed0", "runs/smoke/earth/seed1"):
        put(top, place)
    with pytest.raises(FileNotFoundError, match=r"runs/smoke/earth/seed0/teacher\.json is missing: notebook 02-search"):
        Run("smoke", "earth", 0).find("teacher")
    with pytest.raises(FileNotFoundError, match="notebook 03-pruning or 03-pruning-gaugan makes it"):
        Run("smoke", "earth-labels", 0).find("plan")
    assert Run("lab", "earth", 3).out("plan") == top / "runs" / "lab" / "earth" / "seed3" / "plan"


def test_a_lock_outlives_nobody(tmp_path):
    """What a killed process leaves behind hinders nobody; what a living one holds names it and the way out."""
    lock = tmp_path / "lock"
    hold = "import sys, time; from pathlib import Path; from i2i_lib.files import exclusive\n"
    hold += f"with exclusive(Path({str(lock)!r}), 'it'): print('held', flush=True); time.sleep(99)"
    holder = subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE, text=True, cwd=LIBRARY)
    assert holder.stdout and holder.stdout.readline() == "held\n"
    with pytest.raises(
        RuntimeError, match=rf"the run is in use by process {holder.pid}: wait for it or stop it \(lock"
    ):
        with files.exclusive(lock, "the run"):
            pass
    holder.kill()
    holder.communicate()
    assert lock.read_text() == f"{holder.pid}\n", "the file is still there"
    with files.exclusive(lock, "the run"):
        assert lock.read_text() == f"{os.getpid()}\n"


def test_presets_are_read_or_refused_by_name(top):
    (top / "presets").mkdir()
    (top / "presets" / "quick.yml").write_text("threads: 1\nspeed: 9\n")
    with pytest.raises(ValueError, match=r"unknown preset 'slow': expected one of quick"):
        presets.load_preset("slow")
    with pytest.raises(ValueError, match=r"presets/quick\.yml: unknown entries \['speed'\]"):
        presets.load_preset("quick")


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("", "holds None: expected entries such as `threads: 1`"),
        ("when: 2001-99-99", "is not YAML: month must be in"),
        ("arms: [1]", r"arms is \[1\], expected a list of names"),
        ("threads: many", "threads is 'many', expected a whole number"),
        ("minutes: soon", "minutes is 'soon', expected a number"),
        ("+earth: [gcka]", r"\+earth is \['gcka'\], expected a section"),
        ("+earth: {arms: gcka}", r"\+earth, arms is 'gcka', expected a list"),
        ("like: 3", "like is 3, expected the name of a preset"),
        ("notebooks: {01-data: 3}", "notebooks, 01-data is 3, expected a section"),
        ("notebooks: {01-data: {+earth: 3}}", r"notebooks, 01-data, \+earth is 3, expected a section"),
        ("notebooks: {01-data: {3: 4}}", r"notebooks, 01-data is \{3: 4\}, expected a section of named entries"),
    ],
)
def test_presets_that_are_none_say_where(text, sentence, tmp_path):
    (tmp_path / "mine.yml").write_text(text)
    with pytest.raises(ValueError, match=rf"mine\.yml:? {sentence}"):
        presets.load_preset(str(tmp_path / "mine.yml"))


def test_a_preset_like_another_has_its_notebooks_and_no_more(top):
    (top / "presets").mkdir()
    first = "arms: [none]\nnotebooks: {a: {lr: 1.0, +earth: {lr: 2.0, base: 3}}, b: {lr: 4.0}, c: {lr: 5.0}}"
    (top / "presets" / "first.yml").write_text(first)
    second = "like: first\nthreads: 1\nnotebooks: {a: {+earth: {lr: 6.0}}, b: , c: {base: 7}}"
    (top / "presets" / "second.yml").write_text(second)
    whole = presets.load_preset("second")
    a = {"lr": 1.0, "+earth": {"lr": 6.0, "base": 3}}
    assert whole == {"threads": 1, "notebooks": {"a": a, "b": {"lr": 4.0}, "c": {"lr": 5.0, "base": 7}}}
    (top / "mine.yml").write_text("like: second\n")
    with pytest.raises(ValueError, match=r"mine\.yml is like second, which has a `like` of its own"):
        presets.load_preset(str(top / "mine.yml"))


def test_sections_of_tasks_and_variants_add_to_a_notebook():
    preset = {"notebooks": {"02": {"lr": 1.0, "+openmoji": {"lr": 2.0, "base": 3}, "+resnet": {"base": 4}}}}
    assert presets.preset_parameters(preset, "02", "earth") == {"lr": 1.0}
    assert presets.preset_parameters(preset, "02", "openmoji", "resnet") == {"lr": 2.0, "base": 4}
    assert presets.preset_parameters(preset, "03", "earth") == {}


def test_a_student_is_its_arm_and_what_the_preset_says_of_it(top):
    (top / "notebooks").mkdir()
    (top / "notebooks" / "arms.yml").write_text("loss:\n  mse: {index: mse, distill: 1.0}\n  none: {index: none}\n")
    preset = {
        "arms": ["gcka", "none"],
        "generators": [],
        "notebooks": {"04-distillation": {"distill": 5.0, "+mse": {"lr": 2.0}}},
    }

    def of(student: str) -> dict:
        return presets.preset_parameters(preset, "04-distillation", "earth", student)

    assert of("gcka") == {"distill": 5.0}
    assert of("mse") == {"distill": 1.0, "index": "mse", "lr": 2.0}
    with pytest.raises(ValueError, match=r"unknown student 'gkca': notebooks/arms\.yml has gcka, mse, none"):
        of("gkca")
    assert presets.ablations(preset, "openmoji") == presets.ablations(preset, "cityscapes") == ["mse"]
    assert presets.ablations(preset | {"+openmoji": {"ablations": ["none", "twice"]}}, "openmoji") == ["twice"]
    assert presets.ablations(preset, "earth-unpaired") == []


def test_seeds_are_a_number_of_them_or_the_first_and_the_last():
    assert presets.seeds("3") == range(3) and presets.seeds("9-24") == range(9, 25) and presets.seeds("0-0") == range(1)
    for asked in ("0", "-1", "", "three", "2-1", "1-", "1.0", "٣"):
        with pytest.raises(ValueError, match="SEEDS must be a whole number of at least 1, or the first and the last"):
            presets.seeds(asked)
    assert Plan("smoke", "earth", seeds="1-2").homes("earth") == ["runs/smoke/earth/seed1", "runs/smoke/earth/seed2"]


def test_a_plan_lists_what_its_tasks_make():
    """Label maps have a pruning chapter of their own, whichever task or preset they come from."""
    plan = Plan("smoke", "all", seeds="2")
    home = "runs/smoke/earth-labels/seed1"
    pages = plan.pages()
    assert {f"{home}/notebooks/03-pruning-gaugan.ipynb", f"{home}/notebooks/04-distillation-none.ipynb"} <= set(pages)
    assert f"{home}/notebooks/03-pruning.ipynb" not in pages
    assert "runs/smoke/fluent/seed1/notebooks/02-search-space-resnet.ipynb" in pages
    assert [page for page in pages if "07" in page] == ["runs/smoke/fluent/seed0/notebooks/07-deployment.ipynb"]
    assert f"{home}/student-none.safetensors" in plan.artifacts() and "runs/smoke/results.jsonl" in plan.artifacts()
    assert plan.tasks_of("03-pruning-gaugan") == ["earth-labels"]
    assert plan.ablated() == [] and Plan("smoke", ablate=True).ablated() == ["runs/smoke/fluent/seed0/ablations.json"]
    longer = Plan("unpaired", "earth-unpaired")
    assert "runs/unpaired/earth-unpaired/seed0/teacher-longer.safetensors" in longer.artifacts()
    assert "runs/unpaired/earth-unpaired/seed0/notebooks/02-search-space-longer.ipynb" in longer.pages()
    assert longer.steps_together("earth-unpaired") == 1800 + 600 and plan.steps_together("fluent") == 40 + 30
    longer.settings["notebooks"]["04-distillation"]["longer"] = 2.0
    assert longer.steps_together("earth-unpaired") == 1800 + 1200, "as the student trains"
    assert "cityscapes" in Plan("paper-gaugan", "cityscapes").tasks_of("03-pruning-gaugan")
    with pytest.raises(
        ValueError, match="no ablations for earth-unpaired: they are of fluent, fluent-outline, earth, openmoji"
    ):
        Plan("smoke", "earth-unpaired", ablate=True)
