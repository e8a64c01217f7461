"""Where runs live on disk, what a preset says, and one lock per folder.

A run is one preset (`smoke`, `cpu`, ...) or work by hand (`lab`). Everything that a run makes lies under
`runs/<run>/<task>/seed<k>/`; nothing outside that folder is written by a notebook.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

# Which notebook makes which artifact, so that a missing file can name the way out.
MADE_BY = {
    "data": "01-data",
    "teacher": "02-search-space",
    "original": "02-search-space",
    "scales": "02-search-space",
    "plan": "03-pruning",
    "student": "04-distillation",
    "eval": "05-evaluation",
}

# The tasks whose data comes with the dependencies, so that they run anywhere.
EMBEDDED_TASKS = ("earth", "openmoji", "earth-unpaired", "earth-labels")
# Those whose data is downloaded, or the user's own.
OTHER_TASKS = ("horse2zebra", "zebra2horse", "maps", "cityscapes", "folder")
# Those of pictures in pairs (the user's own may be).
PAIRED_TASKS = ("earth", "openmoji", "maps", "cityscapes", "folder")

# What a preset may hold, beside sections `+<task>` with arms and generators of their own.
PRESET_ENTRIES: dict[str, Any] = {
    "threads": int, "gpu": int, "minutes": (int, float), "arms": list, "ablations": list, "generators": list,
    "notebooks": dict,
}  # fmt: skip

# Pages that building the book writes beside the committed ones.
ASSEMBLED = ("status.md", "headline.md")


def root() -> Path:
    """The repository that holds this library: notebooks run from any folder."""
    return Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Run:
    """One task and seed of one run: where to write, and where to find what earlier notebooks wrote.

    Work by hand (`name="lab"`) falls back on the files of the run `upstream`, then on the small recorded models in
    `book/recorded/`; every other run reads its own files only, so that presets never mix.
    """

    name: str
    task: str
    seed: int
    upstream: str = "cpu"

    @property
    def folder(self) -> Path:
        """`runs/<name>/<task>/seed<k>`, made if need be."""
        folder = self._of(self.name)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def out(self, artifact: str) -> Path:
        """The path, without suffix, under which to write `artifact`."""
        return noted("wrote", self.folder / artifact)

    def find(self, artifact: str) -> Path:
        """The path, without suffix, of an artifact that an earlier notebook made (its `.json` is written last).

        Raises FileNotFoundError naming the notebook and the command that make it.
        """
        places = self._places()
        for place in places:
            if (place / f"{artifact}.json").exists():
                return noted("read", place / artifact)
        notebook = MADE_BY[artifact.split("-")[0]]
        preset = self.upstream if self.name == "lab" else self.name
        raise FileNotFoundError(
            f"{_short(places[0] / artifact)}.json is missing: notebook {notebook} makes it. Run that notebook first"
            + (f", or `make book PRESET={preset} TASK={self.task}`" if self.name == "lab" else "")
            + (f" (also looked in {', '.join(_short(p) for p in places[1:])})." if places[1:] else ".")
        )

    def has(self, artifact: str) -> bool:
        """Whether `find` would find it."""
        return any((place / f"{artifact}.json").exists() for place in self._places())

    def _places(self) -> list[Path]:
        places = [self._of(self.name)]
        if self.name == "lab":
            places += [self._of(self.upstream), root() / "book" / "recorded" / self.task]
        return places

    def _of(self, name: str) -> Path:
        return root() / "runs" / name / self.task / f"seed{self.seed}"


def results_file(run: str, upstream: str) -> Path:
    """The gathered table of a run; for work by hand, that of the run `upstream`.

    Raises FileNotFoundError naming the command that makes it.
    """
    preset = upstream if run == "lab" else run
    path = root() / "runs" / preset / "results.jsonl"
    if not path.exists():
        raise FileNotFoundError(f"{_short(path)} is missing: `make book PRESET={preset}` makes it")
    return noted("read", path)


def noted(verb: str, path: Path) -> Path:
    """Return `path`, an artifact without suffix or a file, after telling the runner that it is "read" or "wrote".

    The runner puts the hashes of the files behind it into the run's manifest; without a runner nothing happens.
    """
    if listing := os.environ.get("I2I_FILES"):
        with open(listing, "a") as file:
            file.write(f"{verb} {path}\n")
    return path


def load_preset(preset: str) -> dict[str, Any]:
    """The preset `presets/<preset>.yml`, or the file itself if a path to one is given."""
    path = Path(preset) if preset.endswith(".yml") else root() / "presets" / f"{preset}.yml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in (root() / "presets").glob("*.yml")))
        raise ValueError(f"unknown preset {preset!r}: expected one of {known}, or the path of a .yml file")
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{_short(path)} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{_short(path)} holds {content!r:.40}: expected entries such as `threads: 1`")
    if unknown := [key for key in content if not (key in PRESET_ENTRIES or str(key).startswith("+"))]:
        raise ValueError(f"{_short(path)}: unknown entries {unknown}; known are {sorted(PRESET_ENTRIES)}")
    for name, value, kind in _entries(content):
        texts = value if isinstance(value, dict | list) else ()
        if not isinstance(value, kind) or not all(isinstance(text, str) for text in texts):
            wanted = {int: "a whole number", list: "a list of names", dict: "a section of named entries"}
            raise ValueError(f"{_short(path)}: {name} is {value!r:.40}, expected {wanted.get(kind, 'a number')}")
    return content


def _entries(content: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """The entries of a preset and what each must be, an outer one before those inside it. Empty sections are left out.

    The parameters in a notebook's section are the runner's to check: only their notebook knows their types.
    """
    for key, value in content.items():
        kind = PRESET_ENTRIES.get(key, dict)
        if value is not None or kind is not dict:
            yield key, value, kind
        for inner, part in (value or {}).items() if kind is dict else ():
            if part is not None or key != "notebooks":
                yield f"{key}, {inner}", part, dict if key == "notebooks" else PRESET_ENTRIES.get(inner, list)
            for name, more in (part or {}).items() if key == "notebooks" else ():
                if name.startswith("+") and more is not None:
                    yield f"{key}, {inner}, {name}", more, dict


def preset_parameters(preset: dict[str, Any], notebook: str, task: str, variant: str | None = None) -> dict[str, Any]:
    """What a preset sets for a notebook: its own section, then that of `<task>`, then that of `<variant>`, later wins.

    A section holds parameters; the sections of a task or a variant are marked by a leading `+`, as in `+openmoji`.
    Where the variant is a student, what sets it apart comes before the preset's section for it.
    """
    section = (preset.get("notebooks") or {}).get(notebook) or {}
    values = {name: value for name, value in section.items() if not name.startswith("+")}
    values |= section.get(f"+{task}") or {}
    if notebook == MADE_BY["student"] and variant:
        if variant not in (known := students()):
            raise ValueError(f"unknown student {variant!r}: notebooks/arms.yml has {', '.join(known)}")
        values |= known[variant]
    return values | (section.get(f"+{variant}") or {})


def arms() -> dict[str, dict[str, dict[str, Any]]]:
    """The students of `notebooks/arms.yml`: question -> name -> the parameters that set it apart from `gcka`."""
    return yaml.safe_load((root() / "notebooks" / "arms.yml").read_text())


def students() -> dict[str, dict[str, Any]]:
    """Every student of `arms` by its name, and `gcka`, which nothing sets apart."""
    return {"gcka": {}} | {name: own for found in arms().values() for name, own in found.items()}


def ablations(preset: dict[str, Any], task: str) -> list[str]:
    """The students that only `make ablations` trains: those of `arms` that are no arms of the preset.

    A preset's own list, `ablations`, may name fewer, and its section `+<task>` fewer still.
    None for tasks without paired pictures: what the ablations compare is the distance of each picture to its truth.
    """
    if task not in PAIRED_TASKS:
        return []
    asked = (preset.get(f"+{task}") or {}).get("ablations", preset.get("ablations", students()))
    own = variants(preset, task)[0]
    return [name for name in asked if name not in own]


def variants(preset: dict[str, Any], task: str) -> tuple[list[str], list[str]]:
    """The students (arms) and the generators that a preset trains for a task: its section `+<task>` wins."""
    own = preset.get(f"+{task}") or {}
    return own.get("arms", preset["arms"]), own.get("generators", preset["generators"])


def tasks(name: str) -> tuple[str, ...]:
    """The tasks that `TASK=name` stands for: one, or every embedded one for `all`."""
    if name == "all":
        return EMBEDDED_TASKS
    known = EMBEDDED_TASKS + OTHER_TASKS
    if name not in known:
        raise ValueError(f"unknown task {name!r}: expected all or one of {', '.join(known)}")
    return (name,)


@contextmanager
def exclusive(path: Path, what: str) -> Iterator[int]:
    """Hold the lock file `path` while the block runs. The system frees it when the process dies, however it dies.

    Yields the open file descriptor that holds the lock.

    Raises RuntimeError at once, naming `what` and the process that holds it, if another process does.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 32).decode().strip() or "unknown"
            raise RuntimeError(
                f"{what} is in use by process {holder}: wait for it or stop it (lock {_short(path)})"
            ) from None
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        yield handle
    finally:
        os.close(handle)


def _short(path: Path) -> str:
    return str(path.relative_to(root())) if path.is_relative_to(root()) else str(path)
