"""The rules of the Snakefile, tried on a copy of the project: what reruns when, and what a kill leaves behind."""

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
import torch
import yaml
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from i2i_lib.files import sha256
from i2i_lib.runs import root

BESIDE = {"deployment", "demo", "paper_numbers", "search_cost", "ablations"}
PRESETS = {"micro": "tests/data/micro.yml", "other": "tests/data/other.yml"}


def left_out(folder: str, names: list[str]) -> list[str]:
    """What a run makes, and recordings: every book that is made checks all of their files."""
    made = {"__pycache__", "notebooks", "mathjax", "models", "onnxruntime"}
    return [name for name in names if name in made or Path(folder, name, "manifest.json").exists()]


class Project:
    """A copy of the project in another folder, with a `make` of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("i2i_lib", "i2i_book", "notebooks", "tests/data", "book"):
            shutil.copytree(root() / name, folder / name, ignore=left_out)
        for name in ("Snakefile", "_config.yml", "package.json", "package-lock.json"):
            shutil.copy(root() / name, folder)
        self.seed = folder / "runs" / "micro" / "earth" / "seed0"

    def start(self, *targets: str, preset: str = "micro") -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "i2i_book.make", PRESETS[preset], "earth", "1", "", "", *targets]
        return subprocess.Popen(
            command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=_environment()
        )

    def make(self, *targets: str, preset: str = "micro", seconds: float = 200) -> str:
        process = self.start(*targets, preset=preset)
        said = process.communicate(timeout=seconds)[0]
        assert process.returncode == 0, said
        return said

    def pending(self, preset: str = "micro", **environment: str) -> set[str]:
        """The rules of the chain of chapters 1 to 6 that `make book` would run; the chapters beside it are not made."""
        command = [sys.executable, "-m", "snakemake", "-n", "--nolock", "--cores", "1"]
        command += ["--config", f"preset={PRESETS[preset]}", "task=earth", "seeds=1"]
        env = _environment() | environment
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, env=env)
        assert done.returncode == 0, done.stdout + done.stderr
        return set(re.findall(r"^(\w+) +\d+$", done.stdout, flags=re.M)) - {"total", "all"} - BESIDE

    def processes(self) -> list[psutil.Process]:
        """Everything that still runs in this project or below something that does."""
        found = []
        for process in psutil.process_iter(["cwd", "status"]):
            if process.info["status"] != psutil.STATUS_ZOMBIE and (process.info["cwd"] or "") == str(self.folder):
                found.append(process)
        return found


def _environment() -> dict[str, str]:
    # The copy's own library, not the installed one.
    return {**os.environ, "PYTHONPATH": "."}


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
        "09-search-cost": [],
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
    for preset in PRESETS:
        project.make(f"runs/{preset}/notebooks/06-results.ipynb", preset=preset)
    return project


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


def test_a_library_change_reruns_what_imports_it(quick):
    module = quick.folder / "i2i_lib" / "metrics.py"
    before = module.read_bytes()
    module.write_bytes(before + b"\n# a comment\n")
    assert quick.pending() == AFTER_05
    module.write_bytes(before)


def test_a_failing_notebook_stops_the_book(quick):
    path = quick.folder / "notebooks" / "04-distillation.ipynb"
    before = path.read_bytes()
    notebook = json.loads(before)
    notebook["cells"][1]["source"] = (
        "if arm == 'none':\n    raise ValueError('no luck')\n" + notebook["cells"][1]["source"]
    )
    path.write_text(json.dumps(notebook))
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
    shutil.copytree(root() / "presets", tmp_path / "presets")
    profile = yaml.safe_load((root() / "profiles" / "slurm" / "config.yaml").read_text())
    assert profile.pop("executor") == "slurm"
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile" / "config.yaml").write_text(yaml.safe_dump(profile))
    command = [sys.executable, "-m", "snakemake", "-n", "--nolock", "--cores", "64", "--profile", "profile"]
    command += ["--config", "preset=gpu", "task=all", "seeds=2"]
    environment = _environment() | {"RECORDED": "no"}
    said = subprocess.run(command, cwd=project.folder, capture_output=True, text=True, env=environment)
    assert said.returncode == 0, said.stdout + said.stderr
    _, *parts = re.split(r"^rule (\w+):\n", said.stdout, flags=re.M)
    jobs = dict(zip(parts[::2], parts[1::2], strict=True))
    assert set(profile["set-resources"]) <= jobs.keys(), "rules that the Snakefile has"
    preset = yaml.safe_load((tmp_path / "presets" / "gpu.yml").read_text())
    for rule, job in jobs.items():
        if rule != "all":
            given = dict(re.findall(r"(\w+)=(\d+)", job.split("resources: ")[1].splitlines()[0]))
            trains = rule in profile["set-resources"]
            assert given.get("gpu") == (str(preset["gpu"]) if trains else None), rule
            assert given["runtime"] == str(preset["minutes"] + 5 if trains else 30), rule
            assert given["mem_mb"] == ("24000" if trains else "8000"), rule


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Project:
    """A project with the real notebooks, the first two of them run."""
    project = Project(tmp_path_factory.mktemp("trained"))
    project.make("runs/micro/earth/seed0/teacher.json")
    return project


def by_hand(project: Project, name: str) -> str | None:
    """Restart and run all, as JupyterLab does it: in the notebook's own folder, nothing passed. Its error, if any."""
    notebook = nbformat.read(project.folder / "notebooks" / name, as_version=4)
    environment = {**os.environ, "PYTHONPATH": str(project.folder)}
    client = NotebookClient(notebook, resources={"metadata": {"path": str(project.folder / "notebooks")}}, timeout=120)
    try:
        client.execute(env=environment)
    except CellExecutionError as error:
        return error.evalue
    return None


def test_a_chapter_runs_by_hand_and_touches_nothing_else(trained):
    """The recorded models let it open at once; without them it says which notebook and command make its input."""

    def files() -> dict[Path, int]:
        found = (p for p in trained.folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
        return {p: p.stat().st_mtime_ns for p in found}

    before = files()
    assert by_hand(trained, "03-pruning.ipynb") is None
    new = {str(path.relative_to(trained.folder)) for path, when in files().items() if before.get(path) != when}
    assert new == {"runs/lab/earth/seed0/plan.json"}

    shutil.rmtree(trained.folder / "book" / "recorded")
    said = by_hand(trained, "03-pruning.ipynb")
    assert said and "notebook 02-search-space makes it" in said and "make book PRESET=cpu TASK=earth" in said


def test_a_training_killed_thrice_ends_in_the_same_bits(trained):
    project = trained
    target, private = "runs/micro/earth/seed0/teacher.json", project.seed / "train" / "teacher"
    wanted = sha256(project.seed / "teacher.safetensors")
    (project.seed / "teacher.json").unlink()
    shutil.rmtree(private)

    checkpoint = private / "checkpoint.pt"

    def reached() -> int:
        return torch.load(checkpoint, weights_only=True)["step"] if checkpoint.exists() else 0

    for victim in ("snakemake", "i2i_lib.runner", "ipykernel_launcher"):
        seen = reached()
        process = project.start(target)
        if not seen:  # a second one at the same time stops at once
            lock = project.folder / ".snakemake" / "make.lock"
            _wait_for(lambda lock=lock, process=process: lock.read_text() == f"{process.pid}\n", 60)
            second = project.start(target)
            said = second.communicate(timeout=60)[0]
            assert second.returncode == 1 and f"this checkout is in use by process {process.pid}: wait" in said
        _wait_for(lambda seen=seen: reached() > seen, 120)
        killed = [p for p in project.processes() if any(victim in part for part in p.cmdline()[:4])]
        assert len(killed) == 1, [p.cmdline() for p in project.processes()]
        killed[0].send_signal(signal.SIGKILL)
        said = process.communicate(timeout=60)[0]
        assert process.returncode != 0, said
        _wait_for(lambda: not project.processes(), 10)
        assert not (project.seed / "teacher.json").exists()

    project.make(target)
    assert "going on from the checkpoint" in (project.seed / "notebooks" / "02-search-space.ipynb").read_text()
    assert sha256(project.seed / "teacher.safetensors") == wanted
    steps = [json.loads(line)["step"] for line in (private / "losses.jsonl").read_text().splitlines()]
    assert steps == list(range(2, 121, 2))


def _wait_for(condition, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
