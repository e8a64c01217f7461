"""The chapters of the book, as `notebooks/chapters.yml` lists them."""

from dataclasses import dataclass, field
from functools import cache

import yaml

from i2i_lib.files import root

# What chapter 2 can train: its parameter `generator`, and the name of the model. "teacher-longer" trains for as many
# steps as teacher and student together: a student that is better than its teacher may only have trained for longer.
GENERATORS = {"inception": "teacher", "resnet": "original", "longer": "teacher-longer"}


@dataclass(frozen=True, slots=True)
class Chapter:
    """One entry of `notebooks/chapters.yml`, which describes the fields."""

    notebook: str  # its name without suffix, which begins with the chapter's number
    title: str
    part: str
    of: str = "seed"  # "seed", "run", or one seed alone, such as "earth/seed0"
    families: list[str] = field(default_factory=lambda: ["pix2pix", "cyclegan", "gaugan"])
    makes: list[str] = field(default_factory=list)
    variants: str | None = None
    within: str | None = None
    steps: list[str] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)

    @property
    def number(self) -> int:
        """Number by which the text names the chapter."""
        return int(self.notebook[:2])


def chapters() -> dict[str, Chapter]:
    """Every chapter by the name of its notebook, in the order of the book."""
    return dict(_listed((root() / "notebooks" / "chapters.yml").read_text()))


@cache  # one plan of a book asks forty times
def _listed(text: str) -> dict[str, Chapter]:
    return {name: Chapter(name, **entry) for name, entry in yaml.safe_load(text).items()}


def made_by(artifact: str, family: str | None = None) -> str:
    """The notebook that makes an artifact, such as `teacher` or `student-gcka`; of several, that of the family.

    Raises KeyError for an unknown one.
    """
    return makers(artifact, family)[0]


def makers(artifact: str, family: str | None = None) -> list[str]:
    """Every notebook that makes an artifact, for one family of tasks or for any. Raises KeyError for an unknown one."""
    makes = [chapter for chapter in chapters().values() if artifact.split("-")[0] in chapter.makes]
    found = [chapter.notebook for chapter in makes if family in (None, *chapter.families)]
    if not found:
        raise KeyError(artifact)
    return found


def chapter_of(page: str) -> Chapter | None:
    """The chapter that a page or a run belongs to by its name: `04-distillation` of `04-distillation-mse`."""
    named = [chapter for chapter in chapters().values() if f"{page}-".startswith(f"{chapter.notebook}-")]
    return max(named, key=lambda chapter: len(chapter.notebook), default=None)
