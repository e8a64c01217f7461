"""Run one named number again and compare: `make verify NUMBER=earth/0/gcka/l1`, which is task/seed/model/measure.

`make verify NUMBER=3` draws three by lot, of the models whose weights are at hand.

With FROM=artifacts, the default, the weights and tiles of the run are evaluated again; with FROM=data everything
behind the number is made anew, from the source pictures on, by the notebooks that made it, with the parameters on
record, in runs/verify/. The network that the number is of is trained, even if the run took it from the record; a
student learns from the recorded teacher, if the run's did. The exit status is 0 only if the numbers agree: by default
within 1e-4 of the recorded value (another processor may round a picture's value the other way), within 2 % where the
weights were recorded in 16 bits, and within 10 % for a training by changed code, on a GPU or another kind of machine,
or that the run took from the record.
"""

import argparse
import random
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nbformat

from i2i_book import runs
from i2i_book.chapters import GENERATORS, made_by
from i2i_book.make import command
from i2i_book.presets import FAMILIES
from i2i_book.recorded.check import check, facts_of
from i2i_book.runner.notebook import code_digest
from i2i_book.runner.provenance import machine
from i2i_book.runner.run import run_notebook
from i2i_lib import files
from i2i_lib.commands import one_line_errors
from i2i_lib.data.store import load_saved_task
from i2i_lib.evaluate import YARDSTICKS, Evaluator
from i2i_lib.files import sha256
from i2i_lib.results import load_evaluation
from i2i_lib.train.device import set_up

RETIRED = {"teacher_seed": -1}  # parameters that notebooks no longer have -> the value at which they did nothing
SAME, ROUNDED, RETRAINED = 1e-4, 0.02, 0.1  # relative
TIMED = ("peak_memory_mib", "train_seconds")
DRAWN = ("l1", "ssim", "feature_distance")  # means over pictures, which rounded weights hardly move
EVALUATION = "05-evaluation"


@dataclass(frozen=True, slots=True)
class Number:
    """One number on record, and all that is known of how it came about."""

    name: str  # task/seed/model/measure
    task: str
    seed: int
    model: str
    measure: str
    value: float
    home: Path  # the folder of its task and seed
    recorded: bool  # made on another machine: without tiles, and with rounded weights
    pages: dict[str, Any]  # notebook -> its manifest

    @property
    def chain(self) -> list[str]:
        """The notebooks behind the data and the weights, in order."""
        if self.model in YARDSTICKS:
            return ["01-data"]
        if self.model in GENERATORS.values():
            generator = next(name for name, model in GENERATORS.items() if model == self.model)
            return ["01-data", "02-search-space" if generator == "inception" else f"02-search-space-{generator}"]
        data = self.pages.get("01-data", {"parameters": {}})["parameters"]
        pruning = made_by("plan", data.get("family") or FAMILIES[self.task])
        return ["01-data", "02-search-space", pruning, f"04-distillation-{self.model}"]

    @property
    def weights(self) -> str | None:
        """The artifact that holds the model."""
        if self.model in YARDSTICKS:
            return None
        return self.model if self.model in GENERATORS.values() else f"student-{self.model}"


def find(preset: str, name: str) -> Number:
    """The number `name` of the run of `preset`, or of its recording if it was not run here.

    Raises ValueError naming what was expected, FileNotFoundError naming the command that makes the run.
    """
    parts = name.split("/")
    if len(parts) != 4 or not parts[1].isdigit():
        raise ValueError(f"NUMBER must read task/seed/model/measure, such as earth/0/gcka/l1, got {name!r}")
    task, seed, model, measure = parts[0], int(parts[1]), parts[2], parts[3]
    if measure in TIMED:
        raise ValueError(f"{measure} is a measurement of time or memory, which no rerun repeats: verify another")
    place = f"{task}/seed{seed}"
    run, recording = _places(preset)
    recorded = not (run / place / "eval.json").exists()
    home = (recording if recorded else run) / place
    if not (home / "eval.json").exists():
        one = f"make record PRESET={preset} TASK={task} SEEDS={seed}-{seed}"
        wanted = one if seed else command(preset, task)
        raise FileNotFoundError(f"{task} with seed {seed} has no evaluation: `{wanted}` makes it")
    pages = facts_of(check(recording), place) if recorded else {}
    evaluations = [path for name in ("ablations", "eval") if (path := home / f"{name}.json").exists()]
    rows = {row.model: row for path in evaluations for row in load_evaluation(path)["results"]}
    if model not in rows:
        raise ValueError(f"no model {model!r} in {evaluations[-1]}: it has {', '.join(rows)}")
    value = getattr(rows[model], measure, None)
    if not isinstance(value, int | float):
        known = [key for key, found in asdict(rows[model]).items() if isinstance(found, float) and key not in TIMED]
        raise ValueError(f"{model} has no number {measure!r}: it has {', '.join(known)}")
    for path in sorted((home / "notebooks").glob("*.ipynb")):
        notebook: Any = nbformat.read(path, as_version=4)
        pages[path.stem] = notebook.metadata["i2i"]
    return Number(name, task, seed, model, measure, float(value), home, recorded, pages)


def draw(preset: str, count: int) -> list[str]:
    """The names of `count` numbers, or all, of the run of `preset` or its recording, by lot.

    Raises FileNotFoundError naming the command that makes the run.
    """
    run, recording = _places(preset)
    names = []
    for path in sorted(run.glob("*/seed*/eval.json")) or sorted(recording.glob("*/seed*/eval.json")):
        for row in load_evaluation(path)["results"]:
            if (path.parent / f"student-{row.model}.safetensors").exists():
                measured = [measure for measure in DRAWN if getattr(row, measure) is not None]
                names += [f"{path.parent.parent.name}/{row.seed}/{row.model}/{measure}" for measure in measured]
    if not names:
        raise FileNotFoundError(f"{preset} has no student and its evaluation: `{command(preset)}` makes them")
    return random.sample(names, min(count, len(names)))


def _places(preset: str) -> tuple[Path, Path]:
    """The folder of a preset's run, and that of its recording; a preset may be the path of its file."""
    name = Path(preset).stem
    return runs.root() / "runs" / name, runs.root() / "book" / "recorded" / name


def rerun(number: Number, start: str) -> float:
    """Make the number again and return it. `start` is "artifacts" or "data"; from the data on it is in runs/verify."""
    if start == "artifacts":
        _check_files(number)
        return evaluate_again(number, number.home)
    for page in number.chain:
        if page not in number.pages:
            raise ValueError(f"{number.home / 'notebooks' / page}.ipynb is missing, which says how it was run")
    scratch = runs.root() / "runs" / "verify"
    with files.exclusive(scratch / "lock", "runs/verify"):
        shutil.rmtree(scratch / number.task, ignore_errors=True)
        for page in number.chain:
            _execute(number, page)
        return evaluate_again(number, runs.Run("verify", number.task, number.seed).folder)


def evaluate_again(number: Number, home: Path) -> float:
    """Evaluate the model of the number from the tiles and weights in `home`, as the evaluation on record did."""
    made = number.pages[EVALUATION]
    _note_changes(made, number.task)
    device = set_up(made["threads"])
    options = {name: made["parameters"].get(name) for name in ("part", "most", "segmenter_steps")}
    options = {name: value for name, value in options.items() if value is not None}
    evaluator = Evaluator(load_saved_task(home / "data"), seed=number.seed, device=device, **options)
    result = evaluator.evaluate(number.model, home / number.weights if number.weights else None).result
    return float(getattr(result, number.measure))


def _check_files(number: Number) -> None:
    """Raise ValueError unless the tiles and weights of the run are those that the number was evaluated on.

    A recording has no tiles, which are cut again and held against their checksum, and rounded weights, whose checksum
    its manifest has.
    """
    read: dict[str, str] = {}
    for page, made in number.pages.items():
        if page.startswith(EVALUATION):
            found = made.get("files", {}).get("read", {})
            read |= {Path(name).name: digest for name, digest in found.items()}
    artifacts = ["data", number.weights] if number.weights else ["data"]
    for path in [number.home / f"{artifact}{suffix}" for artifact in artifacts for suffix in (".safetensors", ".json")]:
        if number.recorded and path.name == "data.safetensors":
            continue
        if not path.exists():
            raise ValueError(f"{path} is missing, so that the number cannot be evaluated again: use FROM=data")
        if not number.recorded and path.name in read and sha256(path) != read[path.name]:
            raise ValueError(f"{path} is not the file that the number was evaluated on: it has changed since")


def _execute(number: Number, page: str) -> None:
    """Run a notebook as it was run, but in runs/verify."""
    made = number.pages[page]
    notebook = _note_changes(made, number.task)
    parameters = known_today(made["parameters"])
    if parameters.get("weights") == "recorded":
        if page == number.chain[-1]:
            parameters["weights"] = "train"
        else:
            print(f"note: its teacher is the recorded one, which `make teacher TASK={number.task}` trains again")
    log = runs.root() / "runs" / "verify" / "logs" / f"{page}.ipynb"
    gpu = int(bool(made["machine"]["gpu"] and machine()["gpu"]))  # one that no other job is to use meanwhile
    given = parameters | {"run": "verify"}
    run_notebook(notebook, given, log=log, threads=made["threads"], gpu=gpu, preset=made["preset"])


def known_today(parameters: dict[str, Any]) -> dict[str, Any]:
    """Parameters of an older run without those that did nothing then and that are gone since."""
    return {name: value for name, value in parameters.items() if name not in RETIRED or RETIRED[name] != value}


def _note_changes(made: dict[str, Any], task: str) -> Path:
    """The notebook that `made` is the manifest of; prints a note if its code has changed since."""
    notebook = _notebook(made)
    if _changed(made, task):
        print(f"note: {notebook.name} or the library has changed since the number was made")
    return notebook


def _notebook(made: dict[str, Any]) -> Path:
    return runs.root() / "notebooks" / f"{made['notebook']}.ipynb"


def _changed(made: dict[str, Any], task: str) -> bool:
    """Whether the notebook that `made` is the manifest of, or a module that it imports, is another than then."""
    return code_digest(_notebook(made), task) != (made["source_sha256"], made["modules_sha256"])


def tolerance(number: Number, start: str) -> tuple[float, str]:
    """The relative difference that passes, and why it is this large."""
    if start == "artifacts":
        if number.recorded and number.weights:
            return ROUNDED, "the recorded weights are rounded to 16 bits"
        return SAME, "the same weights on the same tiles"
    if number.weights is None:
        return SAME, "nothing is trained for it"
    last = number.pages[number.chain[-1]]
    if last["parameters"].get("weights") == "recorded":
        return RETRAINED, "the recorded training was another machine's, where trainings part ways"
    here = {name: last["machine"][name] == machine()[name] for name in ("cpu", "gpu")}
    if all(here.values()) and not machine()["gpu"]:
        if any(_changed(number.pages[page], number.task) for page in number.chain if page in number.pages):
            return RETRAINED, "trained by other code since: another order of summation, and trainings part ways"
        return SAME, "trained on the same kind of processor"
    return RETRAINED, "trained on another kind of machine, or on a GPU, where trainings part ways"


@one_line_errors
def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status: 0 only if the numbers agree."""
    parser = argparse.ArgumentParser(prog="python -m i2i_book.verify", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("preset")
    parser.add_argument("number", help="task/seed/model/measure, or how many are drawn by lot")
    parser.add_argument("--from", dest="start", choices=("artifacts", "data"), default="artifacts")
    options = parser.parse_args(arguments)
    name: str = options.number
    names = draw(options.preset, int(name)) if name.isdigit() else [name]
    agreed = [_compare(find(options.preset, name), options.start) for name in names]
    return 0 if all(agreed) else 1


def _compare(number: Number, start: str) -> bool:
    """Make the number again, print both, and return whether they agree."""
    again = rerun(number, start)
    allowed, why = tolerance(number, start)
    difference = abs(again - number.value) / (abs(number.value) or 1.0)
    agree = difference <= allowed
    print(f"{number.name} on record: {number.value!r}, from {number.home / 'eval.json'}")
    print(f"{number.name} again:     {again!r}, from {start}")
    same = "to the last bit" if again == number.value else f"relative difference {difference:.2g}"
    print(f"{'agrees' if agree else 'DIFFERS'}: {same}; {allowed:g} is allowed ({why})")
    return agree


if __name__ == "__main__":
    sys.exit(main())
