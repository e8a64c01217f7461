"""What users' machines have set for other work, and what their folders are called, changes no page and stops no run."""

import fcntl
import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import nbformat
import psutil
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image
from project import PRESETS, Project, dry_run, wait_for

from i2i_book import make, plan, serve
from i2i_book.runner import provenance
from i2i_book.runner.notebook import NotebookError
from i2i_book.runner.run import run_notebook
from i2i_lib import cpus
from i2i_lib.files import root

FIGURE = {"mystnb": {"figure": {"name": "fig-line", "caption": "A line."}}}
PLOT = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"


def notebook(path: Path, *cells: str) -> Path:
    made = new_notebook(cells=[new_code_cell('run: str = "lab"\nsteps: int = 1', metadata={"tags": ["parameters"]})])
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    made.cells += [new_code_cell(code, metadata=FIGURE) for code in cells]
    nbformat.write(made, path)
    return path


def test_a_users_settings_change_no_picture(tmp_path, monkeypatch):
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "mine.py").write_text("raise SystemExit('a start-up file of other work')")
    profile = startup.parent / "ipython_config.py"
    profile.write_text("c.InteractiveShell.ast_node_interactivity = 'all'\nc.InlineBackend.figure_formats = {'svg'}\n")
    kernel = tmp_path / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text(json.dumps({"argv": ["/nowhere/python"], "display_name": "Python 3"}))
    for folder in (tmp_path, tmp_path / "ipython"):
        (folder / "matplotlibrc").write_text("text.usetex: True\n")
    long = tmp_path / ("a folder for temporary files with a long name " * 3)
    long.mkdir()
    settings = {"MPLBACKEND": "agg", "PYTHONWARNINGS": "error", "IPYTHONDIR": str(tmp_path / "ipython")}
    settings |= {"JUPYTER_PATH": str(tmp_path / "jupyter"), "MATPLOTLIBRC": str(tmp_path), "TMPDIR": str(long)}
    settings |= {"JUPYTER_DATA_DIR": str(tmp_path / "jupyter"), "JUPYTER_PREFER_ENV_PATH": "0"}
    settings |= {"MPLCONFIGDIR": str(tmp_path / "ipython"), "PYTHONSTARTUP": str(startup / "mine.py")}
    settings |= {"PYTHONDEVMODE": "1", "PYTHONWARNDEFAULTENCODING": "1", "PYTHONINSPECT": "1", "HOME": "/nonexistent"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("tempfile.tempdir", None)

    run_notebook(notebook(tmp_path / "a.ipynb", PLOT), {}, log=tmp_path / "log.ipynb")

    outputs = json.loads((tmp_path / "log.ipynb").read_text())["cells"][-1]["outputs"]
    assert ["image/png" in output["data"] for output in outputs] == [True]
    assert {name: os.environ[name] for name in settings} == settings, "ours are gone with the run"


def test_a_page_that_lost_a_picture_is_an_error_of_its_run(tmp_path):
    lost = "import matplotlib\nmatplotlib.use('agg')\n" + PLOT
    with pytest.raises(NotebookError, match="cell 2 shows no picture, where fig-line should be"):
        run_notebook(notebook(tmp_path / "a.ipynb", lost), {}, log=tmp_path / "log.ipynb")


def test_cores_are_those_given(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5, 6})
    assert cpus._container_quota(tmp_path) is None
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert cpus._container_quota(tmp_path) is None
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert cpus._container_quota(tmp_path) == 1.5
    monkeypatch.setattr(cpus, "_container_quota", lambda _: 1.5)
    assert cpus.usable_cpus() == 2
    monkeypatch.setattr(cpus, "_container_quota", lambda _: None)
    assert cpus.usable_cpus() == 4


def test_a_failing_nvidia_smi_names_no_gpu(tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert provenance.machine()["gpu"] is None
    tool.write_text("#!/bin/sh\necho 'NVIDIA H200, 570.1'\n")
    assert provenance.machine()["gpu"] == "NVIDIA H200, 570.1"


def test_a_copy_inside_another_repository_has_no_commit(tmp_path, monkeypatch):
    copy = tmp_path / "outer" / "book"
    copy.mkdir(parents=True)
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], [*identity, "commit", "-q", "--allow-empty", "-m", "outer"]):
        subprocess.run(["git", *command], cwd=copy.parent, check=True)
    monkeypatch.setattr("i2i_book.runs.root", lambda: copy)
    assert provenance.git_revision() is None
    monkeypatch.setattr("i2i_book.runs.root", lambda: copy.parent)
    assert len(str(provenance.git_revision()).removesuffix("+changes")) == 12


def test_serving_without_a_book_or_a_free_port_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(serve, "root", lambda: tmp_path)
    assert serve.main("8000") == 1 and "`make book` makes it" in capsys.readouterr().err
    (tmp_path / "_build" / "html").mkdir(parents=True)
    (tmp_path / "_build" / "html" / "index.html").touch()
    assert serve.main("eight") == 1 and "PORT is a number" in capsys.readouterr().err
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert serve.main(str(taken.getsockname()[1])) == 1
    assert "choose another, as in `make serve PORT=8123`" in capsys.readouterr().err


def pictures(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        for side in ("trainA", "trainB"):
            (folder / side).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 40), (7 * number, 90, 30)).save(folder / side / name)


def test_the_folder_that_was_named_is_read_wherever_the_project_lies(tmp_path):
    """Blanks, quotes, braces and what YAML reads as a comment or a mapping; then more pictures, then another folder."""
    place = tmp_path / "my\npro{j}ect's"
    place.mkdir()
    project = Project(place)
    project.environment |= {"MPLBACKEND": "agg", "PYTHONWARNINGS": "error", "LC_ALL": "C", "PYTHONUTF8": "0"}
    project.environment |= {"SNAKEMAKE_PROFILE": str(tmp_path / "no such profile"), "HOME": "/dev/null"}
    project.environment.pop("XDG_CACHE_HOME", None)
    folder = tmp_path / "shots #2 {1} a: b's "
    pictures(folder, *(f"{number}.png" for number in range(20)))
    data = "runs/micro/folder/seed0/data.json"

    def make_data(path: Path) -> tuple[int, str]:
        process = project.start(data, task="folder", data=str(path), layout="paired")
        return process.wait(200), process.communicate()[0]

    status, said = make_data(folder)
    assert status == 0, said
    info = json.loads((place / data).read_text())["info"]
    assert info["options"]["path"] == str(folder)
    before = (place / data).read_bytes()

    pictures(folder, "another.png", "one more.png", "a third.png")
    status, said = make_data(folder)
    assert status == 0 and (place / data).read_bytes() != before, said

    other = tmp_path / "other"
    pictures(other, "1.png", "2.png")
    status, said = make_data(other)
    assert status == 1 and "holds networks that were trained on" in said and "mv runs/micro/folder" in said
    assert json.loads((place / data).read_text())["info"]["options"]["path"] == str(folder)


def test_what_lies_behind_links_is_part_of_a_folder(tmp_path):
    pictures(tmp_path / "disk", "1.png", "2.png")
    folder = tmp_path / "data"
    folder.mkdir()
    for side in ("trainA", "trainB"):
        (folder / side).symlink_to(tmp_path / "disk" / side)
    (folder / "again").symlink_to(folder)
    seen = [plan.listing(str(folder))]
    pictures(tmp_path / "disk", "3.png")
    seen.append(plan.listing(str(folder)))
    (folder / "gone.png").symlink_to(tmp_path / "nowhere.png")
    seen.append(plan.listing(str(folder)))
    assert plan.listing(str(folder)) == seen[-1] and len(set(seen)) == 3


def test_no_command_names_the_place_of_the_checkout():
    """A moved one would have other commands, for which all would run again."""
    said = dry_run(root(), "preset=smoke", "task=all", "--printshellcmds", "--forceall")
    assert "-m i2i_book.runner" in said and "-m i2i_lib.results" in said and sys.executable not in said


def test_settings_of_pip_for_another_place_are_named(tmp_path):
    shutil.copy(root() / "Makefile", tmp_path)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    (tmp_path / "pip.conf").write_text("[global]\ntarget = /nowhere\n")
    settings = os.environ | {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf"), "PIP_USER": "1", "PIP_PREFIX": "/nowhere"}
    command = ["make", ".venv/.ready", f"PYTHON={sys.executable}"]
    done = subprocess.run(command, cwd=tmp_path, env=settings, capture_output=True, text=True)
    assert "global.target='/nowhere'\nerror: these settings of pip would install elsewhere" in done.stdout


def test_a_folder_whose_name_is_not_utf_8_is_refused_before_the_set_up(tmp_path):
    for name, words in ((b"latin \xfc", "/latin \\xfc, is not UTF-8"), ("größe".encode(), "lacks the venv module")):
        folder = os.fsencode(tmp_path) + b"/" + name
        os.mkdir(folder)
        for file in ("Makefile", "pyproject.toml", "constraints.txt"):
            shutil.copy(os.fsencode(root()) + b"/" + file.encode(), folder)
        (tmp_path / "ensurepip.py").write_text("raise ImportError('what the next check is for')")
        environment = os.environ | {"PYTHONPATH": str(tmp_path)}
        command = ["make", "book", f"PYTHON={sys.executable}"]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, errors="replace")
        assert done.returncode and words in done.stdout + done.stderr
        assert not os.path.exists(folder + b"/.venv"), "nothing was set up"


def test_a_user_without_a_name_or_a_home_gets_stand_ins(tmp_path, monkeypatch):
    def unknown() -> str:
        raise KeyError("getpwuid(): uid not found: 1234")

    monkeypatch.setattr("getpass.getuser", unknown)
    monkeypatch.setenv("HOME", "/dev/null")
    for name in ("USER", "XDG_CACHE_HOME", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    make._stand_in_for_home(tmp_path)
    assert os.environ["USER"] == str(os.getuid())
    assert os.environ["XDG_CACHE_HOME"] == str(tmp_path)
    assert torch.hub.get_dir() == "/dev/null/.cache/torch/hub", "weights are where they were"


def test_a_clone_of_git_for_windows_has_the_same_bytes(tmp_path):
    git = ["git", "-c", "core.autocrlf=true", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    (tmp_path / "ours").mkdir()
    names = [
        ".gitattributes",
        "Makefile",
        "book/recorded/earth/plan.json",
        "notebooks/01-data.ipynb",
        "tests/newcomer/run",
    ]
    for name in names:
        (tmp_path / "ours" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root() / name, tmp_path / "ours" / name)
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "all"], ["clone", "-q", ".", tmp_path / "theirs"]):
        subprocess.run([*git, *command], cwd=tmp_path / "ours", check=True, capture_output=True)
    for name in names:
        assert (tmp_path / "theirs" / name).read_bytes() == (root() / name).read_bytes()


def test_a_preset_that_cannot_name_a_folder_is_refused(tmp_path, capsys):
    preset = tmp_path / "quick{1}.yml"
    preset.write_text((root() / "presets" / "smoke.yml").read_text())
    assert make.main(str(preset), "earth", "1") == 1
    assert "gives its run's folder its name, which cannot hold { }" in capsys.readouterr().err


def test_a_command_reads_and_writes_utf_8_in_any_locale(tmp_path):
    """The runner by itself, where no Makefile says so."""
    made = notebook(tmp_path / "größe.ipynb", f"print('12 µm', open({str(tmp_path / 'größe.txt')!r}).read())\n{PLOT}")
    (tmp_path / "größe.txt").write_text("12 ℃", encoding="utf-8")
    command = [sys.executable, "-m", "i2i_book.runner", made, "--log", tmp_path / "ü.ipynb"]
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0"}
    done = subprocess.run(command, cwd=root(), env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    executed = json.loads((tmp_path / "ü.ipynb").read_text(encoding="utf-8"))
    assert executed["cells"][-1]["outputs"][0]["text"] == ["12 µm 12 ℃\n"]


def until_the_end(terminal: int) -> list[str]:
    """The lines that were written to a terminal, which is closed then."""
    said = b""
    while True:
        try:
            said += os.read(terminal, 4096)
        except OSError:  # no process has it open
            os.close(terminal)
            return said.decode().replace("^C", "").splitlines()


def words_of(processes: list[psutil.Process]) -> Iterator[str]:
    """The command lines of those that have not ended meanwhile."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            yield from process.cmdline()


def in_a_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    for name in (signal.SIGINT, signal.SIGHUP):  # which those who test in the background, by nohup, ignore
        signal.signal(name, signal.SIG_DFL)


def test_an_interrupted_book_says_one_line_and_leaves_nothing_running(tmp_path):
    """Ctrl-C, a terminal that was closed, and a kill of the process that the lock names; each begins again."""
    project = Project(tmp_path)
    shutil.copy(root() / "Makefile", tmp_path)
    command = ["make", "book", "READY=", f"PY={sys.executable}", f"PRESET={PRESETS['micro']}", "TASK=earth"]
    for end in ("ctrl-c", "hang-up", "kill"):
        terminal, inside = pty.openpty()
        making = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=project.environment,
            stdin=inside,
            stdout=inside,
            stderr=inside,
            start_new_session=True,
            preexec_fn=in_a_terminal,
        )
        os.close(inside)
        wait_for(lambda: any("ipykernel_launcher" in word for word in words_of(project.processes())), 120)
        if end == "ctrl-c":
            os.write(terminal, b"\x03")
        elif end == "hang-up":
            os.killpg(making.pid, signal.SIGHUP)
        else:
            os.kill(int((tmp_path / ".snakemake" / "make.lock").read_text()), signal.SIGKILL)
        said = until_the_end(terminal)
        assert making.wait(30) != 0 and not any("is in use" in line for line in said)
        wait_for(lambda: not project.processes(), 10)
        if end != "kill":
            last = said[[": started" in line for line in said].index(True) :]
            ours = [line for line in last if ": started" not in line and not line.startswith("make: *** [Makefile")]
            assert ours == ["interrupted: run the same command to resume"], last
