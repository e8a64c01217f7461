"""What a link within the book leads to is shown beside it, to pointer and keyboard, without loading anything."""

import pytest
from built_book import HTML, NEEDED, obstacles, watch

pytestmark = NEEDED

# A page, a link on it, and what its preview holds.
KINDS = {
    "term": ("demo.html", 'a[href*="glossary.html#term-"]', "p"),
    "formula": ("notebooks/02-search-space.html", 'a[href="#equation-eq-block"]', "mjx-container svg"),
    "figure": ("notebooks/02-search-space.html", 'a[href^="#fig-"]', "figure img"),
    "source": ("cite.html", 'a[href^="bibliography.html#"]', ".citation p"),
    "code": ("notebooks/03-pruning.html", 'a[href*="reference/i2i_lib/"]', "p + p"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_link_shows_what_it_leads_to(browser, kind):
    width, scheme = (400, "dark") if kind in ("formula", "code") else (1280, "light")
    name, wanted, held = KINDS[kind]
    page, trouble = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 800}), []
    watch(page, HTML.as_uri(), trouble)
    page.goto((HTML / name).as_uri())
    link, box = page.locator(f"article {wanted}:not(.headerlink)").first, page.get_by_role("tooltip")
    link.hover()
    box.locator(held).first.wait_for()
    place = box.bounding_box()
    assert place["x"] >= 0 and place["x"] + place["width"] <= width
    assert place["y"] >= 0 and place["y"] + place["height"] <= 800
    assert link.get_attribute("aria-describedby") == box.get_attribute("id")
    assert box.locator("[id]:not(svg *), a, button").count() == 0, "what it holds is for reading"
    assert trouble == []
    assert obstacles(page, "#preview") == []
    box.hover()  # it stays while the pointer is on it
    page.wait_for_timeout(400)
    assert box.is_visible()
    page.keyboard.press("Escape")
    assert box.is_hidden() and link.get_attribute("aria-describedby") is None
    page.close()


def test_the_keyboard_opens_previews_and_a_finger_none(browser):
    page = browser.new_page()
    page.goto((HTML / "demo.html").as_uri())
    box = page.get_by_role("tooltip")
    link = page.locator('article a[href*="glossary.html#term-"]').first
    page.keyboard.press("Tab")  # from here on the focus is the keyboard's
    link.focus()
    assert box.is_visible() and link.get_attribute("aria-describedby")
    page.keyboard.press("Tab")
    assert link.get_attribute("aria-describedby") is None
    page.close()

    context = browser.new_context(has_touch=True, is_mobile=True, viewport={"width": 390, "height": 800})
    page = context.new_page()
    page.goto((HTML / "demo.html").as_uri())
    page.locator('article a[href*="glossary.html#term-"]').first.tap()
    page.wait_for_url("**/glossary.html#term-*")
    context.close()
