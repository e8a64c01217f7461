"""The appendix `book/errors.md`: every message in it is made here, by making the mistake.

`python tests/test_errors.py` writes the page again after a message has changed.
"""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import sys
import tarfile
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import nbformat
import numpy as np
import psutil
import pytest
import torch
from fake_run import checkout, source
from nbformat.v4 import new_notebook
from PIL import Image
from project import wait_for
from server import CYCLEGAN, serving, taped, zipped
from toys import GENERATORS, batches, network, trainer

from i2i_book import make, runs, verify
from i2i_book.pages import __main__ as pages_command
from i2i_book.recorded import __main__ as recorded_command
from i2i_book.runner import __main__ as runner_command
from i2i_lib import data, files, translate
from i2i_lib.checkpoint import load_generator, load_plan, save_generator, save_plan
from i2i_lib.cli.__main__ import main as i2i
from i2i_lib.data import cityscapes, downloads
from i2i_lib.data.picture_cache import FileImages
from i2i_lib.data.pictures import list_pictures, read_picture
from i2i_lib.losses import kernel_alignment
from i2i_lib.metrics.labels import confusion_matrix
from i2i_lib.metrics.networks.literature import CatInception
from i2i_lib.metrics.sets import FeatureStats
from i2i_lib.official import from_cat_state_dict
from i2i_lib.prune import prune
from i2i_lib.train.adversarial import TrainConfig
from i2i_lib.train.loop import TrainingRun, fit
from i2i_lib.train.pix2pix import PairedTrainer

PAGE = runs.root() / "book" / "errors.md"


def said(main: Callable[..., Any], *arguments: object) -> str:
    """What a command line says on the error stream; its exit status must be that of an error."""
    words = [str(argument) for argument in arguments]
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        try:
            status = main(*words) if main is make.main else main(words)
        except SystemExit as left:
            status = 1
            err.write(str(left.code))
    assert status in (1, 130), status
    text = err.getvalue()
    assert "Traceback" not in text
    return text[text.index("interrupted:" if status == 130 else "error:") :]


def raised(call: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    with pytest.raises((ValueError, OSError, RuntimeError, MemoryError, FloatingPointError)) as error:
        call(*arguments, **options)
    return f"{error.type.__name__}: {error.value}"


instead = mock.patch.object


@contextlib.contextmanager
def project_in(folder: Path):
    """`folder` for the project's, where its runs are looked for and which messages leave out of a path."""
    with instead(runs, "root", lambda: folder), instead(files, "root", lambda: folder):
        yield


def pictures(folder: Path, *names: str, size: int = 24) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.fromarray(np.full((size, size, 3), 90, np.uint8)).save(folder / name)
    return folder


def generator(seed: int = 0) -> Any:
    return network(GENERATORS["pix2pix"], seed)


def saved(folder: Path) -> Path:
    save_generator(generator(), folder / "student")
    return folder / "student"


# --- pictures and folders ---------------------------------------------------------------------------------------------


def load(folder: Path, **options: Any) -> str:
    return raised(data.load_task, "folder", image_size=16, path=folder, **options)


def vanished(folder: Path) -> str:
    images = FileImages(pictures(folder, "a.png"), list_pictures(folder), 8)
    (folder / "a.png").unlink()
    return raised(lambda: images[0])


def cut_picture(folder: Path, length: int = 300) -> str:
    path = pictures(folder, "a.png", size=400) / "a.png"
    path.write_bytes(path.read_bytes()[:length])
    return raised(read_picture, path)


def web_page(folder: Path) -> str:
    (folder / "a.png").write_text("<html>404</html>")
    return said(i2i, "translate", saved(folder), folder / "a.png", folder / "out")


def huge_picture(folder: Path) -> str:
    with instead(Image, "MAX_IMAGE_PIXELS", 10_000):
        return raised(read_picture, pictures(folder, "a.png", size=400) / "a.png")


def no_pictures(folder: Path) -> str:
    pictures(folder / "trainA", "a.png")
    pictures(folder / "trainB").joinpath("notes.txt").touch()
    return load(folder)


def no_partners(folder: Path) -> str:
    pictures(folder / "trainA", "1.png", "2.png")
    pictures(folder / "trainB", "1.png", "two.png")
    return load(folder, layout="paired")


def label_of_a_file(folder: Path) -> str:
    Image.fromarray(np.full((4, 4), 77, np.uint8)).save(folder / "labels.png")
    return raised(cityscapes._read_labels, folder / "labels.png")


def label_of_a_map(folder: Path) -> str:
    maps = torch.tensor([[[0, 1, 9]]])
    return raised(confusion_matrix, maps, maps, 4)


def too_large_for_memory(folder: Path) -> str:
    with instead(translate, "free_memory", lambda: 10_000):
        return raised(translate.translate, generator(), torch.zeros(3, 4000, 6000, dtype=torch.uint8))


# --- files of a run ---------------------------------------------------------------------------------------------------


def no_artifact(folder: Path) -> str:
    with project_in(folder):
        return raised(runs.Run("lab", "earth", 0).find, "teacher")


def cut_weights(folder: Path) -> str:
    weights = saved(folder).with_suffix(".safetensors")
    weights.write_bytes(weights.read_bytes()[:-7])
    return said(i2i, "export", folder / "student")


def cut_description(folder: Path) -> str:
    saved(folder).with_suffix(".json").write_text('{"format": 1, "ki')
    return raised(load_generator, folder / "student")


def changed_plan(folder: Path) -> str:
    save_plan(prune(generator(), 1e9, image_size=16), folder / "plan")
    plan = json.loads((folder / "plan.json").read_text())
    plan["plan"]["keep"]["stem.0"].pop()
    (folder / "plan.json").write_text(json.dumps(plan))
    return raised(load_plan, folder / "plan")


def foreign_plan(folder: Path) -> str:
    save_plan(prune(generator(1), 1e9, image_size=16), folder / "plan", provenance={"teacher": "of another seed"})
    return raised(load_plan, folder / "plan", teacher=saved(folder))


def foreign_tiles(folder: Path) -> str:
    pictures(folder / "trainA", "1.png", "2.png", "3.png")
    pictures(folder / "trainB", "4.png", "5.png", "6.png")
    data.save_task(data.load_task("folder", image_size=16, path=folder), folder / "data")
    (folder / "data.safetensors").write_bytes(b"other tiles")
    return raised(data.load_saved_task, folder / "data")


def changed_recording(folder: Path) -> str:
    (folder / "gpu").mkdir()
    (folder / "gpu" / "manifest.json").write_text("{}")
    return said(recorded_command.main, "import", folder / "gpu")


def unfinished_page(folder: Path) -> str:
    home = folder / "runs" / "cpu" / "earth" / "seed0" / "notebooks"
    home.mkdir(parents=True)
    nbformat.write(new_notebook(), home / "01-data.ipynb")
    checkout(folder)
    with instead(pages_command, "root", lambda: folder):
        return said(pages_command.main, "assemble", "--preset", "cpu", "--runs", folder / "runs")


# --- downloads and archives -------------------------------------------------------------------------------------------


def fetched(folder: Path, content: bytes | None, checksum: str | None = None) -> str:
    """What `fetch horse2zebra` says if the server sends `content`; without it, there is no server."""
    with serving() as server, instead(downloads, "data_folder", lambda: folder / "data"):
        server.content = content or b""
        port = server.server_port if content is not None else 9
        holds = downloads.SOURCES["horse2zebra"].holds
        source = downloads.Source(f"http://127.0.0.1:{port}/horse2zebra.zip", holds, "", checksum)
        with mock.patch.dict(downloads.SOURCES, horse2zebra=source):
            return said(i2i, "data", "fetch", "horse2zebra")


def unpacked(folder: Path, name: str, content: bytes) -> str:
    (folder / name).write_bytes(content)
    return raised(downloads.unpack, folder / name, folder / "out", max_bytes=10_000)


def full_disk(folder: Path) -> str:
    student, source = saved(folder), pictures(folder / "in", "a.png")
    with instead(os, "fsync", side_effect=OSError(28, os.strerror(28))):
        return said(i2i, "translate", student, source, folder / "out")


# --- pruning, training and measuring ----------------------------------------------------------------------------------


def training(folder: Path, step: Callable[[PairedTrainer, Any], Any] = PairedTrainer.step) -> str:
    made = trainer("pix2pix", TrainConfig(20))
    run = TrainingRun(folder / "train", made, {}, "the student", log_every=2)
    with instead(sys, "stderr", io.StringIO()):
        return raised(fit, lambda batch: step(made, batch), batches(), run, 20)


def too_little_memory(*_: Any) -> Any:
    return torch.empty(10**15)


def explodes(trainer: PairedTrainer, batch: Any) -> Any:
    if trainer.count == 12:
        with torch.no_grad():
            trainer.generator.get_parameter("up.0.conv.weight").fill_(1e38)
    return trainer.step(batch)


def damaged_checkpoint(folder: Path) -> str:
    training(folder, too_little_memory)
    checkpoint = folder / "train" / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:999])
    return training(folder)


def second_training(folder: Path) -> str:
    with files.exclusive(folder / "train" / "lock", "it"):
        return training(folder)


# --- running ----------------------------------------------------------------------------------------------------------


def preset(folder: Path, text: str) -> Path:
    (folder / "mine.yml").write_text(text)
    return folder / "mine.yml"


def no_gpu(folder: Path) -> str:
    with instead(torch.cuda, "is_available", lambda: False), instead(make, "shown", lambda *_: False):
        return said(make.main, "gpu", "earth", "1")


def too_few_gpus(folder: Path) -> str:
    text = "threads: 1\ngpu: 4\nminutes: 1\narms: [none]\ngenerators: [inception]\n"
    with instead(torch.cuda, "is_available", lambda: True), instead(make.gpus, "visible", lambda: ["one", "another"]):
        return said(make.main, preset(folder, text), "earth", "1")


def second_make(folder: Path) -> str:
    shutil.copytree(runs.root() / "presets", folder / "presets")
    here = contextlib.chdir(folder)  # which `make` changes
    with here, project_in(folder), files.exclusive(folder / ".snakemake" / "make.lock", "it"):
        return said(make.main, "cpu", "earth", "1")


def more_seeds_than_recorded(folder: Path) -> str:
    recording = folder / "book" / "recorded" / "ranking"
    shutil.copytree(runs.root() / "presets", folder / "presets")
    for seed in range(5):
        (recording / "openmoji" / f"seed{seed}").mkdir(parents=True)
    (recording / "manifest.json").touch()
    with project_in(folder), mock.patch.dict(os.environ, RECORDED=""):
        return said(make.main, "ranking", "openmoji", "8")


def run(folder: Path, *arguments: object, cell: str = "x") -> str:
    """What the runner says of a notebook with one parameter and one cell."""
    notebook = source(folder / "04-distillation.ipynb", "steps: int = 3\nrun: str = 'lab'", cell)
    log = ["--log", folder / "log.ipynb", "--publish", folder / "page.ipynb"]
    others = set(psutil.Process().children(recursive=True))
    text = said(runner_command.main, notebook, *log, *arguments)
    assert not (folder / "page.ipynb").exists() and set(psutil.Process().children(recursive=True)) == others
    return text


def ctrl_c(folder: Path) -> str:
    def press() -> None:
        wait_for((folder / "begun").exists, 200)
        os.kill(os.getpid(), signal.SIGINT)

    wait = f"import time; open({str(folder / 'begun')!r}, 'w'); time.sleep(99)"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background lacks
    threading.Thread(target=press, daemon=True).start()
    try:
        return run(folder, cell=wait)
    finally:
        signal.signal(signal.SIGINT, before)


# --- the page ---------------------------------------------------------------------------------------------------------

ONE = torch.rand(1, 4, 8, 8)
CASES: dict[str, dict[str, Callable[[Path], str]]] = {
    "Pictures and folders": {
        "a picture that is not there": lambda here: said(i2i, "translate", saved(here), here / "map.png", here / "out"),
        "a picture that went away after its folder was listed": vanished,
        "an empty file": lambda here: cut_picture(here, 0),
        "a picture cut short": cut_picture,
        "a web page saved under a picture's name": web_page,
        "a picture far too large": huge_picture,
        "a folder without pictures": no_pictures,
        "a folder in no known layout": lambda here: load(pictures(here / "in" / "photos", "a.png").parent),
        "names that do not pair": no_partners,
        "a label outside its range (Cityscapes)": label_of_a_file,
        "a label outside its range (in a measure)": label_of_a_map,
        "a picture too large for the memory": too_large_for_memory,
        "results that would overwrite their inputs": lambda here: said(
            i2i, "translate", saved(here), pictures(here / "in", "a.png"), here / "in"
        ),
    },
    "Files of a run": {
        "an artifact that no notebook has made yet": no_artifact,
        "weights cut short, changed, or of an interrupted save": cut_weights,
        "a description cut short": cut_description,
        "a plan whose channels were changed": changed_plan,
        "a plan of another teacher": foreign_plan,
        "tiles that do not belong to their record": foreign_tiles,
        "a state dict of another code": lambda here: raised(from_cat_state_dict, {"encoder.0.weight": ONE}),
        "an official state dict with a tensor missing": lambda here: raised(
            from_cat_state_dict, {"down_sampling.1.weight": torch.zeros(4, 3, 7, 7)}
        ),
        "a recording that was changed": changed_recording,
        "a number that cannot be made again": lambda here: said(verify.main, "cpu", "earth/0/gcka/train_seconds"),
        "a page of a notebook that failed": unfinished_page,
    },
    "Downloads and archives": {
        "no network": lambda here: fetched(here, None),
        "a file that is not the recorded one": lambda here: fetched(here, b"another file", "0" * 64),
        "an archive that leads out of its folder": lambda here: fetched(here, zipped(CYCLEGAN | {"../../evil": b"x"})),
        "an archive that holds a link": lambda here: unpacked(
            here, "a.tar.gz", taped({"passwords": b""}, type=tarfile.SYMTYPE, linkname="/etc/passwd")
        ),
        "an archive that unpacks without end": lambda here: unpacked(here, "a.zip", zipped({"a": bytes(20_000)})),
        "an archive cut short": lambda here: fetched(here, zipped(CYCLEGAN)[:9000]),
        "a data set that may not be passed on": lambda here: said(i2i, "data", "fetch", "cityscapes"),
        "weights of the literature's measures that are not found": lambda here: raised(
            CatInception, here / "weights.pth"
        ),
        "a full disk": full_disk,
    },
    "Pruning, training and measuring": {
        "a budget under the floor": lambda here: raised(prune, generator(), 1000, image_size=16),
        "a batch too small for the alignment": lambda here: raised(
            kernel_alignment, ONE, ONE, rows="samples", centered=False
        ),
        "features that do not vary": lambda here: raised(
            kernel_alignment, torch.ones(4, 4, 8, 8), ONE.expand(4, 4, 8, 8)
        ),
        "a loss that is not finite": lambda here: training(here, explodes),
        "too little memory": lambda here: training(here, too_little_memory),
        "a training checkpoint that is damaged": damaged_checkpoint,
        "a second training in the same folder": second_training,
        "features that are not numbers": lambda here: raised(
            FeatureStats.from_batches, [torch.full((3, 4), float("nan"))]
        ),
    },
    "Running": {
        "a preset that is not there": lambda here: said(make.main, "huge", "earth", "1"),
        "a preset that is not YAML": lambda here: said(make.main, preset(here, "threads: [1\n"), "earth", "1"),
        "a preset with an entry of the wrong kind": lambda here: said(
            make.main, preset(here, "threads: 1\narms: gcka\n"), "earth", "1"
        ),
        "a task that is not there": lambda here: said(make.main, "cpu", "mars", "1"),
        "a number of seeds that is none": lambda here: said(make.main, "cpu", "earth", "none"),
        "more seeds than a recording has": more_seeds_than_recorded,
        "no GPU for a preset that needs one": no_gpu,
        "fewer GPUs than a training is to take": too_few_gpus,
        "a second `make book` in the same checkout": second_make,
        "a parameter that the notebook does not have": lambda here: run(here, "-p", "stesp", "3"),
        "a parameter of the wrong type": lambda here: run(here, "-p", "steps", "many"),
        "a notebook with a line that is not Python": lambda here: run(here, cell="steps = = 3"),
        "a cell that fails": lambda here: run(
            here, cell="from i2i_book.runs import Run\nRun('nobody', 'earth', 0).find('teacher')"
        ),
        "a kernel that dies": lambda here: run(here, cell="import os; os.kill(os.getpid(), 9)"),
        "a notebook that takes too long": lambda here: run(
            here, "--preset", preset(here, "minutes: 0.05\n"), cell="import time; time.sleep(99)"
        ),
        "Ctrl-C": ctrl_c,
    },
}


def message(made: Callable[[Path], str]) -> str:
    """A message as the page shows it, without what is another one each time."""
    with tempfile.TemporaryDirectory(prefix="i2i-") as folder:
        text = made(Path(folder))
        for here, shown in ((str(Path(folder).resolve()), "…"), (folder, "…"), (f"{runs.root()}/", "")):
            text = text.replace(here, shown)
    text = re.sub(r"127\.0\.0\.1:\d+", "server", text)
    text = re.sub(r"(by process|'127.0.0.1', port=) ?\d+", r"\1 1234", text)
    return " ".join(text.split())


def cell(text: str) -> str:
    """Text as inline code in a Markdown table."""
    text = text.replace("|", "\\|")
    return f"`` {text} ``" if "`" in text else f"`{text}`"


HEAD = """\
# When something goes wrong

What this project says about bad input, broken files and bad luck. A test makes every mistake on this page \
and compares what is said, so that the page cannot be out of date. Command lines say it after `error:` and \
end with status 1; the library raises it, under the name in front; and what is raised in a notebook stands \
in the runner's sentence. `…` stands for a folder.

"""
TAIL = "## Under stress\n\n```{include} notebooks/stress.md\n```\n"


def section(part: str) -> str:
    rows = [f"| {what} | {cell(message(made))} |" for what, made in CASES[part].items()]
    return "\n".join([f"## {part}\n", "| What goes wrong | What is said |", "| --- | --- |", *rows]) + "\n\n"


@pytest.mark.parametrize("part", CASES)
def test_the_page_says_what_is_said(part):
    assert section(part) in PAGE.read_text()


def test_the_page_has_nothing_else():
    page = PAGE.read_text()
    assert page.startswith(HEAD) and page.endswith(TAIL)
    assert re.findall("^## (.+)$", page, flags=re.M) == [*CASES, "Under stress"]


if __name__ == "__main__":
    PAGE.write_text(HEAD + "".join(map(section, CASES)) + TAIL)
