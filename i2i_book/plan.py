"""The files that a run of the book makes, for the Snakefile: by preset, tasks and seeds."""

import os
from functools import cache
from hashlib import sha256
from pathlib import Path

from i2i_book import presets
from i2i_book.chapters import GENERATORS, Chapter, chapters, made_by
from i2i_book.runner.notebook import chapter_parameters, imported_modules
from i2i_lib.files import library_modules, root, walk_once
from i2i_lib.weights import DINOV2, DRN, INCEPTION, at_hand, find_vgg19

# The tasks of the live demo, in the order of its page: their source is a picture that one can paint.
DEMOS = {
    "fluent": "From a flat drawing to a 3-D picture",
    "earth": "From a map to a satellite picture",
    "openmoji": "From a line drawing to a coloured one",
}
SUFFIXES = (".safetensors", ".json")


class Plan:
    """One run: its preset (a name, or the path of a .yml file), and its tasks and seeds as `presets` reads them.

    Paths are relative to the checkout.
    """

    def __init__(self, preset: str, task: str = presets.MAIN_TASK, seeds: str = "1", *, ablate: bool = False) -> None:
        self.preset, self.seeds, self.ablate = preset, presets.seeds(seeds), ablate
        self.settings, self.tasks = presets.load_preset(preset), presets.tasks(task)
        if ablate and not any(self.ablations(task) for task in self.tasks):
            paired = ", ".join(presets.PAIRED_TASKS)
            raise ValueError(f"no ablations for {', '.join(self.tasks)}: they are of {paired}")

    @property
    def folder(self) -> str:
        """Folder of the run."""
        return f"runs/{Path(self.preset).stem}"

    def homes(self, task: str) -> list[str]:
        """The folder of each seed of a task."""
        return [f"{self.folder}/{task}/seed{seed}" for seed in self.seeds]

    def arms(self, task: str) -> list[str]:
        """The students of chapters 4 to 6."""
        return presets.variants(self.settings, task)[0]

    def is_recorded(self, task: str, seed: int, arm: str) -> bool:
        """Whether a student of chapters 4 to 6 is taken from the record, which is of the first seed."""
        return seed == 0 and arm in presets.recorded_students(self.settings, task) and arm in self.arms(task)

    def generators(self, task: str) -> list[str]:
        """The generators that chapter 2 trains."""
        return presets.variants(self.settings, task)[1]

    def steps_together(self, task: str) -> int:
        """Steps of the teacher and of the main student together."""
        teacher = chapter_parameters(self.settings, made_by("teacher"), task, "inception")
        student = chapter_parameters(self.settings, made_by("student"), task, "gcka")
        return teacher["steps"] + round(student["longer"] * student["steps"])

    def ablations(self, task: str) -> list[str]:
        """The students that chapter 9 compares beside them; none unless they were asked for."""
        return presets.ablations(self.settings, task) if self.ablate else []

    def tasks_of(self, chapter: str) -> list[str]:
        """Every task of the library whose family is one of the chapter's, whether or not it was asked for."""
        families = chapters()[chapter].families
        return [task for task in presets.FAMILIES if presets.family(self.settings, task) in families]

    def pages(self) -> list[str]:
        """The executed notebooks."""
        found = []
        for chapter in chapters().values():
            if chapter.of == "run":
                found.append(f"{self.folder}/notebooks/{chapter.notebook}.ipynb")
            elif chapter.of != "seed":
                if chapter.of.split("/")[0] in self.tasks:
                    found.append(f"{self.folder}/{chapter.of}/notebooks/{chapter.notebook}.ipynb")
            else:
                for task in self.tasks:
                    if presets.family(self.settings, task) in chapter.families:
                        names = self._runs(chapter, task)
                        found += [f"{home}/notebooks/{name}.ipynb" for home in self.homes(task) for name in names]
        return found

    def _runs(self, chapter: Chapter, task: str) -> list[str]:
        """A name for each variant of a notebook that is run for a task."""
        if chapter.variants == "arm":
            return [f"{chapter.notebook}-{arm}" for arm in self.arms(task)]
        if chapter.variants == "generator":
            others = [name for name in self.generators(task) if name != "inception"]
            return [chapter.notebook, *(f"{chapter.notebook}-{name}" for name in others)]
        return [chapter.notebook]

    def artifacts(self) -> list[str]:
        """The files between the pages, and the tables of the whole run."""
        found = []
        for task in self.tasks:
            models = ["data", "teacher", "teacher-discriminator", *(f"student-{arm}" for arm in self.arms(task))]
            models += [GENERATORS[name] for name in self.generators(task) if name != "inception"]
            for home in self.homes(task):
                found += [f"{home}/{name}{suffix}" for name in models for suffix in SUFFIXES]
                found += [f"{home}/{name}.json" for name in ("plan", "eval", "scales")]
        return [*found, f"{self.folder}/results.jsonl", f"{self.folder}/headline.md"]

    def each(self, name: str) -> list[str]:
        """A file of that name for each task and seed."""
        return [f"{home}/{name}" for task in self.tasks for home in self.homes(task)]

    def ablated(self) -> list[str]:
        """The evaluations of the ablations that were asked for."""
        return [f"{home}/ablations.json" for task in self.tasks if self.ablations(task) for home in self.homes(task)]

    def demos(self) -> list[str]:
        """The networks of the live demo, for those of its tasks that were asked for."""
        shown = [task for task in DEMOS if task in self.tasks and "gcka" in self.arms(task)]
        return [f"{self.folder}/{task}/seed0/demo/demo.json" for task in shown]

    def training_weights(self, task: str) -> list[str]:
        """The weights of a network that the loss of a task reads. Raises ValueError where they are not at hand."""
        if presets.family(self.settings, task) != "gaugan":
            return []
        chapters_of = (made_by(artifact) for artifact in ("teacher", "student"))
        given = [presets.preset_parameters(self.settings, chapter, task) for chapter in chapters_of]
        return [str(find_vgg19())] if any(part.get("perceptual") == "vgg19" for part in given) else []

    def measuring_weights(self, task: str) -> list[str]:
        """The weights at hand of the networks that measure a task's pictures: those that arrive later measure again."""
        return at_hand(INCEPTION, DINOV2, *([DRN] if task == "cityscapes" else []))

    def left(self, name: str, asked: list[str]) -> list[str]:
        """The files of that name of other tasks and seeds in this run, beside those that were `asked` for."""
        present = (path.relative_to(root()).as_posix() for path in (root() / self.folder).glob(f"*/seed*/{name}"))
        return sorted(set(present) - set(asked))


def listing(folder: str) -> str:
    """A digest of names, sizes and times of all files below a folder, behind links too: another makes data again."""
    digest = sha256()
    for place, folders, names in walk_once(folder):
        folders.sort()
        for path in (os.path.join(place, name) for name in sorted(names)):
            facts = os.stat(path) if os.path.exists(path) else os.lstat(path)
            line = f"{os.path.relpath(path, folder)}\0{facts.st_size}\0{facts.st_mtime_ns}\n"
            digest.update(os.fsencode(line))
    return digest.hexdigest()


@cache
def sources(notebook: str, task: str | None = None) -> list[str]:
    """The modules of this checkout that a notebook imports or that the library picks for its task."""
    return _relative(imported_modules(root() / "notebooks" / f"{notebook}.ipynb", task))


@cache
def imported(module: str) -> list[str]:
    """A module of this checkout and those that it imports."""
    return _relative(library_modules(f"import {module}"))


def _relative(paths: list[Path]) -> list[str]:
    return [path.relative_to(root()).as_posix() for path in paths]
