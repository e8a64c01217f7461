"""What is wider than its column: code and printed text break, tables and equations scroll and show that they do."""

from io import BytesIO

import numpy as np
import pytest
from built_book import HTML, NEEDED, PAGES
from PIL import Image

pytestmark = NEEDED
CODE = ":is(.cell_input, .cell_output, .highlight-bash, .highlight-python, .wrapped) pre"
WIDE = """(elements) => elements.filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.innerText.slice(0, 60))"""
TABLES = ".pst-scrollable-table-container, .output.text_html:has(table)"
MOVED = """(element, share) => {
    element.scrollLeft = share * (element.scrollWidth - element.clientWidth);
    element.scrollIntoView({ block: "center", behavior: "instant" });
}"""
CHAPTER = "notebooks/08-paper-numbers.html"


def test_code_and_what_it_prints_fit_a_desktops_column(browser):
    page, found = browser.new_page(viewport={"width": 1280, "height": 900}), {}
    for name in set(PAGES) - {"index.html"}:  # which leads on
        page.goto((HTML / name).as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(fold => (fold.open = true))")
        found[name] = page.eval_on_selector_all(CODE, WIDE)
    page.close()
    assert {name: wide for name, wide in found.items() if wide} == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", TABLES.split(", "))
def test_an_edge_of_a_table_is_shaded_where_it_hides_columns(browser, kind, scheme):
    """Between the light and the dark rows alike: of the pixels of an edge, the shadow changes nearly all."""
    page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme=scheme, reduced_motion="reduce")
    page.goto((HTML / CHAPTER).as_uri())
    tables = page.locator(kind)
    wide = [i for i in range(tables.count()) if tables.nth(i).evaluate("e => e.scrollWidth > e.clientWidth + 40")]
    assert wide, "no table of this chapter scrolls"
    table, edges = tables.nth(wide[0]), {}
    for share in (0, 0.5, 1):
        table.evaluate(MOVED, share)
        shown = np.asarray(Image.open(BytesIO(table.screenshot())).convert("L"), int)
        edges[share] = np.stack([shown[:, 1], shown[:, -2]])
    page.close()
    left, right = (np.array([edges[share][side] for share in edges]) for side in (0, 1))
    for hidden, shaded, plain in (("left", left[2], left[0]), ("right", right[0], right[2])):
        assert np.mean(np.abs(shaded - plain) > 20) > 0.8, hidden
    for side in (left[1], right[1]):
        assert np.median(np.abs(side - left[0])) > 20, "in the middle both edges hide something"


def test_equations_fit_a_phone_or_scroll_alone(browser):
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.goto((HTML / "notebooks/04-distillation.html").as_uri())
    page.evaluate("MathJax.startup.promise")
    assert page.eval_on_selector_all("div.math:has(.eqno) mjx-container", WIDE) == []
    page.close()
