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
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image
from test_downloads import CYCLEGAN, Server, zipped

from i2i_book import make, runs, verify
from i2i_book.pages import __main__ as pages_command
from i2i_book.pages import assemble as pages
from i2i_book.recorded import __main__ as recorded_command
from i2i_book.runner import __main__ as runner_command
from i2i_lib import data, files, translate
from i2i_lib.checkpoint import load_generator, load_plan, save_generator, save_plan
from i2i_lib.config import DiscriminatorConfig, cat_teacher
from i2i_lib.data import __main__ as data_command
from i2i_lib.data import cityscapes, downloads
from i2i_lib.data.downloads import Source
from i2i_lib.data.picture_cache import FileImages
from i2i_lib.data.pictures import list_pictures, read_picture
from i2i_lib.discriminators import PatchDiscriminator
from i2i_lib.export import __main__ as export_command
from i2i_lib.files import atomic_write
from i2i_lib.generators import InceptionGenerator
from i2i_lib.layers import init_weights
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
Case = Callable[[Path], str]
CASES: dict[str, dict[str, Case]] = {}


def case(part: str, what: str) -> Callable[[Case], Case]:
    def keep(made: Case) -> Case:
        CASES.setdefault(part, {})[what] = made
        return made

    return keep


def said(main: Callable[..., Any], *arguments: str) -> str:
    """What a command line says on the error stream; its exit status must be that of an error."""
    err = io.StringIO()
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        try:
            status = main(list(arguments)) if main is not make.main else main(*arguments)
        except SystemExit as left:
            status, _ = 1, err.write(str(left.code))
    assert status in (1, 130), status
    text = err.getvalue()
    assert "Traceback" not in text
    return text[text.index("interrupted:" if status == 130 else "error:") :]


def raised(call: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    with pytest.raises((ValueError, OSError, RuntimeError, MemoryError, FloatingPointError)) as error:
        call(*arguments, **options)
    return f"{error.type.__name__}: {error.value}"


@contextlib.contextmanager
def instead(owner: Any, name: str, value: Any):
    real = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, real)


def pictures(folder: Path, *names: str, size: tuple[int, int] = (24, 24)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.fromarray(np.full((*size, 3), 90, np.uint8)).save(folder / name)
    return folder


def network(seed: int = 0) -> InceptionGenerator:
    made = InceptionGenerator(cat_teacher(4, 3, "batch"))
    init_weights(made, seed=seed)
    return made


# --- pictures ---------------------------------------------------------------------------------------------------------

PICTURES = "Pictures and folders"


@case(PICTURES, "a picture that is not there")
def _(folder: Path) -> str:
    save_generator(network(), folder / "student")
    return said(translate.main, str(folder / "student"), str(folder / "map.png"), str(folder / "out"))


@case(PICTURES, "a picture that went away after its folder was listed")
def _(folder: Path) -> str:
    pictures(folder / "in", "a.png")
    images = FileImages(folder / "in", list_pictures(folder / "in"), 8)
    (folder / "in" / "a.png").unlink()
    return raised(lambda: images[0])


@case(PICTURES, "an empty file")
def _(folder: Path) -> str:
    (folder / "a.png").touch()
    return raised(read_picture, folder / "a.png")


@case(PICTURES, "a picture cut short")
def _(folder: Path) -> str:
    path = pictures(folder, "a.png", size=(400, 400)) / "a.png"
    path.write_bytes(path.read_bytes()[:300])
    return raised(read_picture, path)


@case(PICTURES, "a web page saved under a picture's name")
def _(folder: Path) -> str:
    save_generator(network(), folder / "student")
    (folder / "a.png").write_text("<html>404</html>")
    return said(translate.main, str(folder / "student"), str(folder / "a.png"), str(folder / "out"))


@case(PICTURES, "a picture far too large")
def _(folder: Path) -> str:
    path = pictures(folder, "a.png", size=(400, 400)) / "a.png"
    with instead(Image, "MAX_IMAGE_PIXELS", 10_000):
        return raised(read_picture, path)


@case(PICTURES, "a folder without pictures")
def _(folder: Path) -> str:
    pictures(folder / "trainA", "a.png")
    (folder / "trainB").mkdir()
    (folder / "trainB" / "notes.txt").touch()
    return raised(data.load_task, "folder", image_size=16, path=folder)


@case(PICTURES, "a folder in no known layout")
def _(folder: Path) -> str:
    pictures(folder / "in" / "photos", "a.png")
    return raised(data.load_task, "folder", image_size=16, path=folder / "in")


@case(PICTURES, "names that do not pair")
def _(folder: Path) -> str:
    pictures(folder / "trainA", "1.png", "2.png")
    pictures(folder / "trainB", "1.png", "two.png")
    return raised(data.load_task, "folder", image_size=16, path=folder, layout="paired")


@case(PICTURES, "a label outside its range (Cityscapes)")
def _(folder: Path) -> str:
    Image.fromarray(np.full((4, 4), 77, np.uint8)).save(folder / "labels.png")
    return raised(cityscapes._read_labels, folder / "labels.png")


@case(PICTURES, "a label outside its range (in a measure)")
def _(folder: Path) -> str:
    maps = torch.tensor([[[0, 1, 9]]])
    return raised(confusion_matrix, maps, maps, 4)


@case(PICTURES, "a picture too large for the memory")
def _(folder: Path) -> str:
    with instead(translate.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 10_000})):
        return raised(translate.translate, network(), torch.zeros(3, 4000, 6000, dtype=torch.uint8))


@case(PICTURES, "results that would overwrite their inputs")
def _(folder: Path) -> str:
    save_generator(network(), folder / "student")
    pictures(folder / "in", "a.png")
    return said(translate.main, str(folder / "student"), str(folder / "in"), str(folder / "in"))


# --- files of a run ---------------------------------------------------------------------------------------------------

FILES = "Files of a run"


@case(FILES, "an artifact that no notebook has made yet")
def _(folder: Path) -> str:
    with instead(runs, "root", lambda: folder):
        return raised(runs.Run("lab", "earth", 0).find, "teacher")


@case(FILES, "weights cut short, changed, or of an interrupted save")
def _(folder: Path) -> str:
    save_generator(network(), folder / "student")
    weights = folder / "student.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    return said(export_command.main, str(folder / "student"))


@case(FILES, "a description cut short")
def _(folder: Path) -> str:
    save_generator(network(), folder / "student")
    (folder / "student.json").write_text('{"format": 1, "ki')
    return raised(load_generator, folder / "student")


@case(FILES, "a plan whose channels were changed")
def _(folder: Path) -> str:
    save_plan(prune(network(), 1e9, image_size=16), folder / "plan")
    plan = json.loads((folder / "plan.json").read_text())
    plan["plan"]["keep"]["stem.0"].pop()
    (folder / "plan.json").write_text(json.dumps(plan))
    return raised(load_plan, folder / "plan")


@case(FILES, "a plan of another teacher than the one at hand")
def _(folder: Path) -> str:
    save_generator(network(), folder / "teacher")
    save_plan(prune(network(1), 1e9, image_size=16), folder / "plan", provenance={"teacher": "of another seed"})
    return raised(load_plan, folder / "plan", teacher=folder / "teacher")


@case(FILES, "tiles that do not belong to their record")
def _(folder: Path) -> str:
    pictures(folder / "trainA", "1.png", "2.png")
    pictures(folder / "trainB", "3.png", "4.png")
    data.save_task(data.load_task("folder", image_size=16, path=folder), folder / "data")
    atomic_write(folder / "data.safetensors", b"other tiles")
    return raised(data.load_saved_task, folder / "data")


@case(FILES, "a state dict of another code")
def _(folder: Path) -> str:
    return raised(from_cat_state_dict, {"encoder.0.weight": torch.zeros(3, 3, 1, 1)})


@case(FILES, "an official state dict with a tensor missing")
def _(folder: Path) -> str:
    return raised(from_cat_state_dict, {"down_sampling.1.weight": torch.zeros(4, 3, 7, 7)})


@case(FILES, "a recording that was changed")
def _(folder: Path) -> str:
    (folder / "gpu").mkdir()
    (folder / "gpu" / "manifest.json").write_text("{}")
    return said(recorded_command.main, "import", str(folder / "gpu"))


@case(FILES, "a number that cannot be made again")
def _(folder: Path) -> str:
    return said(verify.main, "cpu", "earth/0/gcka/latency_ms")


@case(FILES, "a page of a notebook that did not end well")
def _(folder: Path) -> str:
    home = folder / "runs" / "cpu" / "earth" / "seed0" / "notebooks"
    home.mkdir(parents=True)
    nbformat.write(new_notebook(), home / "01-data.ipynb")
    shutil.copytree(runs.root() / "book", folder / "book", ignore=shutil.ignore_patterns("notebooks", "recorded"))
    shutil.copytree(runs.root() / "notebooks", folder / "notebooks")
    with instead(pages, "root", lambda: folder):
        return said(pages_command.main, "assemble", "--preset", "cpu", "--runs", str(folder / "runs"))


# --- downloads --------------------------------------------------------------------------------------------------------

DOWNLOADS = "Downloads and archives"


def fetched(folder: Path, content: bytes | None, checksum: str | None = None) -> str:
    """What `fetch horse2zebra` says if the server sends `content`; without it, there is no server."""
    with Server() as server, instead(downloads, "root", lambda: folder):
        server.content = content or b""
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        real = downloads.SOURCES["horse2zebra"]
        port = server.server_port if content is not None else 9
        downloads.SOURCES["horse2zebra"] = Source(f"http://127.0.0.1:{port}/horse2zebra.zip", real.holds, "", checksum)
        try:
            return said(data_command.main, "fetch", "horse2zebra")
        finally:
            downloads.SOURCES["horse2zebra"] = real
            server.shutdown()
            thread.join()


@case(DOWNLOADS, "no network")
def _(folder: Path) -> str:
    return fetched(folder, None)


@case(DOWNLOADS, "a file that is not the recorded one")
def _(folder: Path) -> str:
    return fetched(folder, b"another file", "0" * 64)


@case(DOWNLOADS, "an archive that leads out of its folder")
def _(folder: Path) -> str:
    return fetched(folder, zipped({**CYCLEGAN, "../../evil": b"x"}))


@case(DOWNLOADS, "an archive that holds a link")
def _(folder: Path) -> str:
    with tarfile.open(folder / "a.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("passwords")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    return raised(downloads.unpack, folder / "a.tar.gz", folder / "out")


@case(DOWNLOADS, "an archive that unpacks without end")
def _(folder: Path) -> str:
    (folder / "a.zip").write_bytes(zipped({"a": bytes(20_000)}))
    return raised(downloads.unpack, folder / "a.zip", folder / "out", max_bytes=10_000)


@case(DOWNLOADS, "an archive cut short")
def _(folder: Path) -> str:
    return fetched(folder, zipped(CYCLEGAN)[:9000])


@case(DOWNLOADS, "a data set that may not be passed on")
def _(folder: Path) -> str:
    with instead(downloads, "root", lambda: folder):
        return said(data_command.main, "fetch", "cityscapes")


@case(DOWNLOADS, "weights of the literature's measures that are not found")
def _(folder: Path) -> str:
    return raised(CatInception, folder / "weights.pth")


@case(DOWNLOADS, "a full disk")
def _(folder: Path) -> str:
    save_generator(network(), folder / "student")
    pictures(folder / "in", "a.png")

    def full(*_: Any) -> None:
        raise OSError(28, os.strerror(28))

    with instead(os, "fsync", full):
        return said(translate.main, str(folder / "student"), str(folder / "in"), str(folder / "out"))


# --- training ---------------------------------------------------------------------------------------------------------

TRAINING = "Pruning, training and measuring"


@case(TRAINING, "a budget under the floor")
def _(folder: Path) -> str:
    return raised(prune, network(), 1000, image_size=16)


@case(TRAINING, "a batch too small for the alignment")
def _(folder: Path) -> str:
    one = torch.rand(1, 4, 8, 8)
    return raised(kernel_alignment, one, one, rows="samples", centered=False)


@case(TRAINING, "features that do not vary")
def _(folder: Path) -> str:
    return raised(kernel_alignment, torch.ones(4, 4, 8, 8), torch.rand(4, 4, 8, 8))


def batches(first: int) -> Any:
    random = torch.Generator().manual_seed(0)
    while True:
        yield data.Batch(torch.rand(2, 3, 16, 16, generator=random), torch.rand(2, 3, 16, 16, generator=random))


def training(folder: Path, step: Callable[[PairedTrainer, Any], Any], steps: int = 20) -> str:
    trainer = PairedTrainer(network(), PatchDiscriminator(DiscriminatorConfig(base=4, n_layers=1)), TrainConfig(steps))
    run = TrainingRun(folder / "train", trainer, {}, "the student", log_every=2)
    with instead(sys, "stderr", io.StringIO()):
        return raised(fit, lambda batch: step(trainer, batch), batches, run, steps)


@case(TRAINING, "a loss that is not finite")
def _(folder: Path) -> str:
    def step(trainer: PairedTrainer, batch: Any) -> Any:
        if trainer.count == 12:  # from here on the numbers explode
            with torch.no_grad():
                trainer.generator.get_parameter("up.0.conv.weight").fill_(1e38)
        return trainer.step(batch)

    return training(folder, step)


@case(TRAINING, "too little memory")
def _(folder: Path) -> str:
    return training(folder, lambda trainer, batch: torch.empty(10**15))


@case(TRAINING, "a training checkpoint that is damaged")
def _(folder: Path) -> str:
    training(folder, lambda trainer, batch: 1 / 0 if trainer.count else torch.empty(10**15))
    checkpoint = folder / "train" / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:999])
    return training(folder, lambda trainer, batch: trainer.step(batch))


@case(TRAINING, "a second training in the same folder")
def _(folder: Path) -> str:
    with files.exclusive(folder / "train" / "lock", "it"):
        return training(folder, lambda trainer, batch: trainer.step(batch))


@case(TRAINING, "features that are not numbers")
def _(folder: Path) -> str:
    return raised(FeatureStats.from_batches, [torch.full((3, 4), float("nan"))])


# --- running ----------------------------------------------------------------------------------------------------------

RUNNING = "Running"


@case(RUNNING, "a preset that is not there")
def _(folder: Path) -> str:
    return said(make.main, "huge", "earth", "1")


@case(RUNNING, "a preset that is not YAML")
def _(folder: Path) -> str:
    (folder / "mine.yml").write_text("threads: [1\n")
    return said(make.main, str(folder / "mine.yml"), "earth", "1")


@case(RUNNING, "a preset with an entry of the wrong kind")
def _(folder: Path) -> str:
    (folder / "mine.yml").write_text("threads: 1\narms: gcka\n")
    return said(make.main, str(folder / "mine.yml"), "earth", "1")


@case(RUNNING, "a task that is not there")
def _(folder: Path) -> str:
    return said(make.main, "cpu", "mars", "1")


@case(RUNNING, "a number of seeds that is none")
def _(folder: Path) -> str:
    return said(make.main, "cpu", "earth", "none")


@case(RUNNING, "no GPU for a preset that needs one")
def _(folder: Path) -> str:
    with instead(torch.cuda, "is_available", lambda: False), instead(make, "shown", lambda run: False):
        return said(make.main, "gpu", "earth", "1")


@case(RUNNING, "a second `make book` in the same checkout")
def _(folder: Path) -> str:
    shutil.copytree(runs.root() / "presets", folder / "presets")
    here = contextlib.chdir(folder)  # which `make` changes
    with here, instead(runs, "root", lambda: folder), files.exclusive(folder / ".snakemake" / "make.lock", "it"):
        return said(make.main, "cpu", "earth", "1")


def run(folder: Path, *arguments: str, cell: str = "x", before: Callable[[], Any] | None = None) -> str:
    """What the runner says of a notebook with one parameter and one cell."""
    parameters = new_code_cell("steps: int = 3\nrun: str = 'lab'", metadata={"tags": ["parameters"]})
    notebook = new_notebook(cells=[parameters, new_code_cell(cell)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / "04-distillation.ipynb")
    if before:
        threading.Thread(target=before, daemon=True).start()
    log = ["--log", str(folder / "log.ipynb"), "--publish", str(folder / "page.ipynb")]
    text = said(runner_command.main, str(folder / "04-distillation.ipynb"), *log, *arguments)
    assert not (folder / "page.ipynb").exists()
    return text


@case(RUNNING, "a parameter that the notebook does not have")
def _(folder: Path) -> str:
    return run(folder, "-p", "stesp", "3")


@case(RUNNING, "a parameter of the wrong type")
def _(folder: Path) -> str:
    return run(folder, "-p", "steps", "many")


@case(RUNNING, "a notebook with a line that is not Python")
def _(folder: Path) -> str:
    return run(folder, cell="steps = = 3")


@case(RUNNING, "a cell that fails")
def _(folder: Path) -> str:
    return run(folder, cell="from i2i_book.runs import Run\nRun('nobody', 'earth', 0).find('teacher')")


@case(RUNNING, "a kernel that dies")
def _(folder: Path) -> str:
    return run(folder, cell="import os; os.kill(os.getpid(), 9)")


@case(RUNNING, "a notebook that takes too long")
def _(folder: Path) -> str:
    (folder / "mine.yml").write_text("minutes: 0.05\n")
    return run(folder, "--preset", str(folder / "mine.yml"), cell="import time; time.sleep(99)")


@case(RUNNING, "Ctrl-C")
def _(folder: Path) -> str:
    def press() -> None:
        while not (folder / "begun").exists():
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    wait = f"import time; open({str(folder / 'begun')!r}, 'w'); time.sleep(99)"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background lacks
    try:
        return run(folder, cell=wait, before=press)
    finally:
        signal.signal(signal.SIGINT, before)


# --- the page ---------------------------------------------------------------------------------------------------------


def message(made: Case) -> str:
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


def page(messages: dict[str, dict[str, str]]) -> str:
    parts = [
        "# When something goes wrong",
        "What this project says about bad input, broken files and bad luck. A test makes every mistake on this page "
        "and compares what is said, so that the page cannot be out of date. Command lines say it after `error:` and "
        "end with status 1; the library raises it, under the name in front; and what is raised in a notebook stands "
        "in the runner's sentence. `…` stands for a folder.",
    ]
    for part, rows in messages.items():
        lines = [f"| {what} | {cell(text)} |" for what, text in rows.items()]
        parts += [f"## {part}", "\n".join(["| What goes wrong | What is said |", "| --- | --- |", *lines])]
    parts += ["## Under stress", "```{include} notebooks/stress.md\n```"]
    return "\n\n".join(parts) + "\n"


@pytest.mark.parametrize("part", CASES)
def test_the_page_says_what_is_said(part):
    shown = PAGE.read_text().split(f"## {part}\n")[1].split("\n## ")[0]
    for what, made in CASES[part].items():
        assert f"| {what} | {cell(message(made))} |" in shown


def test_the_page_has_nothing_else():
    empty = page({part: dict.fromkeys(cases, "") for part, cases in CASES.items()})
    assert re.sub(r"^(\| [^|]+ \|) `.*$", r"\1", PAGE.read_text(), flags=re.M) == empty.replace(" `` |", "")


if __name__ == "__main__":
    PAGE.write_text(page({part: {what: message(made) for what, made in cs.items()} for part, cs in CASES.items()}))
