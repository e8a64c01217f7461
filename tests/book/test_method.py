"""The drawing of the method, its strip, and the excerpts of the library on the pages."""

import json
import re

import pytest

from i2i_book.chapters import chapters
from i2i_book.pages import method
from i2i_book.pages.excerpt import excerpt
from i2i_lib.files import root

ROOT = root()


def test_every_step_of_the_method_is_taken_by_a_chapter():
    taken = [step for chapter in chapters().values() for step in chapter.steps]
    assert set(taken) == set(method.STEPS)


def test_the_drawing_leads_to_the_chapters_and_the_strip_marks_where_one_is():
    links = {step: f"{step}.html" for step in method.STEPS if step != "export"}
    whole, strip = method.whole(links), method.strip({"scales", "threshold"}, links)
    for html in (whole, strip):
        assert re.findall(r'href="(\w+)\.html"', html) == list(links)
    assert re.findall(r'href="(\w+)\.html" class="here" aria-current="step"', strip) == ["scales", "threshold"]
    drawings = [drawing for step in method.STEPS.values() for drawing in step.drawings]
    assert whole.count('role="img"') == len(drawings) == len(re.findall(r'aria-label="[^"]{40,}"', whole))


def test_text_of_the_drawing_is_read_on_a_phone():
    """A panel is 220 units wide where it is shown at 190 px or more, which makes 13 units at least 11 px."""
    size = re.search(r"\.method-whole svg text \{[^}]*font: (\d+)px", (ROOT / "book/static/custom.css").read_text())
    assert size and int(size[1]) * 190 / 220 >= 11


def excerpts() -> list[str]:
    """What every excerpt of the notebooks and pages asks for."""
    pages = [*ROOT.glob("book/*.md"), *ROOT.glob("notebooks/*.ipynb")]
    texts = []
    for path in pages:
        if path.suffix == ".ipynb":
            cells = json.loads(path.read_text())["cells"]
            texts += ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
        else:
            texts.append(path.read_text())
    return [asked for text in texts for asked in re.findall(r"\{excerpt\} (.+)", text)]


def test_the_core_chapters_show_the_method_in_lines_of_the_library():
    found = [part.name.removeprefix("i2i_lib.") for asked in excerpts() for part in excerpt(asked)]
    core = {"generators.InceptionBlock.forward", "threshold.plan_channels", "losses.unchecked_alignment"}
    assert core | {"train.pix2pix.PairedTrainer.step", "train.pix2pix.PairedDistiller.step"} <= set(found)


@pytest.mark.parametrize(
    "asked, said",
    [
        ("i2i_lib.losses.gone", "is gone: there is no gone"),
        ("i2i_lib.nowhere.lsgan", "is gone|no module"),
        ("i2i_lib.losses.lsgan from nothing", "0 lines that begin with 'nothing'"),
        ("i2i_lib.prune.prune, i2i_lib.losses.unchecked_alignment", "lines, and a reader takes in 25"),
        ("torch.nn.Module", "expected names of the library"),
    ],
)
def test_an_excerpt_that_is_gone_or_too_long_is_refused(asked, said):
    with pytest.raises(ValueError, match=said):
        excerpt(asked)


def test_an_excerpt_is_the_source_without_its_docstring_and_knows_the_names_in_it():
    (part,) = excerpt("i2i_lib.losses.hinge_d")
    assert part.code.startswith("def hinge_d(") and '"""' not in part.code and "return 0.5 * (" in part.code
    assert "..." not in part.code and part.lines == len(part.code.splitlines())
    (inner,) = excerpt("i2i_lib.losses.kernel_alignment from if constant to raise")
    first, *lines, last = inner.code.splitlines()
    assert first == "..." and last.strip() == "..." and lines[0] == "if constant.any():" and inner.lines == 3
    assert part.owner == part.name and part.names["check_choice"] == "i2i_lib.config.check_choice"
