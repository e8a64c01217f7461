"""Places of runs on disk.

A run is one preset (`smoke`, `cpu`, ...) or work by hand (`lab`). Everything that a run makes lies under
`runs/<run>/<task>/seed<k>/`; nothing outside that folder is written by a notebook.
"""

from dataclasses import dataclass
from pathlib import Path

from i2i_book.chapters import makers
from i2i_lib.files import record_file, root, shorten_path

# Pages that building the book writes beside the committed ones.
ASSEMBLED = ("status.md", "headline.md")


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
        return record_file("wrote", self.folder / artifact)

    def find(self, artifact: str) -> Path:
        """The path, without suffix, of an artifact that an earlier notebook made (its `.json` is written last).

        Raises FileNotFoundError naming the notebook and the command that make it.
        """
        places = self._places()
        for place in places:
            if (place / f"{artifact}.json").exists():
                return record_file("read", place / artifact)
        notebook = " or ".join(makers(artifact))
        preset = self.upstream if self.name == "lab" else self.name
        raise FileNotFoundError(
            f"{shorten_path(places[0] / artifact)}.json is missing: notebook {notebook} makes it."
            " Run that notebook first"
            + (f", or `make book PRESET={preset} TASK={self.task}`" if self.name == "lab" else "")
            + (f" (also looked in {', '.join(shorten_path(p) for p in places[1:])})." if places[1:] else ".")
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
        raise FileNotFoundError(f"{shorten_path(path)} is missing: `make book PRESET={preset}` makes it")
    return record_file("read", path)
