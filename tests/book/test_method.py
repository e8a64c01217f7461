"""The drawing of the method, its strip, and the excerpts of the library on the pages."""

import re

from i2i_book.chapters import chapters
from i2i_book.pages import method


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
    css = (method.__file__.rsplit("/", 3)[0]) + "/book/static/custom.css"
    with open(css) as file:
        size = re.search(r"\.method svg text \{[^}]*font: (\d+)px", file.read())
    assert size and int(size[1]) * 190 / 220 >= 11
