"""The figures of the runs in a real browser: their text, both themes, and how they open large."""

import re

import pytest
from built_book import AXE_NEEDED, HTML, NEEDED, obstacles, watch

pytestmark = NEEDED
PRUNING, TEACHER = "notebooks/03-pruning.html", "notebooks/02-search-space.html"
PHONE = {"width": 390, "height": 844}
SHOWN = """images => images.map(image => ({
    file: image.getAttribute("src"), width: image.clientWidth, filter: getComputedStyle(image).filter,
    background: getComputedStyle(image).backgroundColor,
}))"""
TEXT = re.compile(r"scale\(([\d.]+) -[\d.]+\)")  # of a line of text, whose letters are drawn at 100 units
DRAWN = [
    name
    for name in ("02-search-space", "03-pruning", "04-distillation", "05-evaluation", "07-deployment")
    if (HTML / "notebooks" / f"{name}.html").exists()
    and ".svg" in (HTML / "notebooks" / f"{name}.html").read_text().split("<article", 1)[1]
]


@pytest.mark.parametrize("name", DRAWN)
def test_text_of_figures_is_at_least_eleven_pixels_high(browser, name):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto((HTML / "notebooks" / f"{name}.html").as_uri())
    images = page.eval_on_selector_all('.cell_output figure > img[src$=".svg"]', SHOWN)
    page.close()
    assert images
    small = {}
    for image in images:
        svg = (HTML / "notebooks" / image["file"]).read_text()
        box = re.search(r'viewBox="0 0 ([\d.]+) ', svg)
        sizes = [100 * float(scale) for scale in TEXT.findall(svg)]
        assert box and sizes, image["file"]
        if (least := min(sizes) * image["width"] / float(box[1])) < 11:
            small[image["file"]] = round(least, 1)
    assert small == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figures_have_no_background_and_follow_the_theme(browser, scheme):
    page = browser.new_page(viewport=PHONE, color_scheme=scheme)
    page.goto((HTML / PRUNING).as_uri())
    images = page.eval_on_selector_all('.cell_output figure > img[src$=".svg"]', SHOWN)
    page.close()
    assert images
    for image in images:
        assert image["background"] == "rgba(0, 0, 0, 0)"
        assert image["filter"] == ("none" if scheme == "light" else "invert(1) hue-rotate(180deg)")
        svg = (HTML / "notebooks" / image["file"]).read_text()
        assert 'id="patch_1"' in svg and not re.search(r'id="patch_1">\s*<path [^>]*fill: #', svg), "a white sheet"


@pytest.fixture(scope="module", params=["http", "file"])
def phone(request, browser, address):
    page, trouble = browser.new_page(viewport=PHONE, color_scheme="dark"), []
    base = address if request.param == "http" else HTML.as_uri()
    watch(page, base, trouble)
    yield page, base, trouble
    page.close()


def test_a_figure_opens_large_by_keyboard_and_escape_closes_it(phone):
    page, base, trouble = phone
    page.goto(f"{base}/{PRUNING}")
    figure = page.locator("#fig-threshold")
    opener = figure.get_by_role("button", name="Enlarge Fig. 3.1")
    opener.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    assert dialog.get_attribute("aria-label") == figure.locator(".caption-number").inner_text().strip()
    large, small = dialog.locator("img"), figure.locator("img")
    assert large.get_attribute("alt") == small.get_attribute("alt")
    width = "image => image.clientWidth"
    assert large.evaluate(width) >= 672 > small.evaluate(width), "as large as on a desktop's page"
    place = dialog.get_by_role("group")
    assert place.evaluate("e => e.scrollWidth > e.clientWidth")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.keyboard.press("Escape")
    assert not dialog.is_visible() and opener.evaluate("e => e === document.activeElement")
    assert trouble == []


def test_a_tap_opens_images_large_too_and_the_button_closes_them(phone):
    page, base, trouble = phone
    page.goto(f"{base}/{TEACHER}")
    rows = page.locator("figure .image-rows").first
    assert rows.locator("img").count() >= 2
    narrow = rows.locator("img").first.evaluate("image => image.clientWidth")
    rows.locator("img").first.click()
    dialog = page.get_by_role("dialog")
    assert dialog.locator("img").count() == rows.locator("img").count()
    assert dialog.locator("img").first.evaluate("image => image.clientWidth") > 1.5 * narrow
    dialog.get_by_role("button", name="Close").click()
    assert not dialog.is_visible() and trouble == []


@AXE_NEEDED
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_open_is_no_obstacle(browser, scheme):
    page = browser.new_page(viewport=PHONE, color_scheme=scheme)
    page.goto((HTML / PRUNING).as_uri())
    page.get_by_role("button", name=re.compile(r"^Enlarge Fig\. ")).first.click()
    found = obstacles(page, "dialog")
    page.close()
    assert found == []


def test_the_table_behind_the_slider_scrolls_within_itself(browser):
    page = browser.new_page(viewport=PHONE)
    page.goto((HTML / PRUNING).as_uri())
    fold = page.locator(".budget + details")
    fold.locator("summary").click()
    table = fold.locator("table")
    assert table.evaluate("e => e.clientWidth") > 390 > fold.evaluate("e => e.clientWidth")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    wrapped = table.locator("th, td").evaluate_all("cells => cells.filter(e => e.clientHeight > 60).length")
    assert wrapped == 0, "widths stand in one line"
    page.close()
