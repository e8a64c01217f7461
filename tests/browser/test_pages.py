"""The built book in a real browser: Debian's Chromium over _build/html, served and from the folder itself."""

import re

import pytest
from built_book import AXE_NEEDED, CHROMIUM, HTML, NEEDED, PAGES, obstacles, watch

pytestmark = NEEDED


def test_there_is_a_browser_and_a_book():
    assert CHROMIUM and "intro.html" in PAGES


FROM_FOLDER = ["index.html", "intro.html", "notebooks/04-distillation.html", "search.html"]  # without a server

# What a page links to and offers, whether its formulas are set, and its pictures, as the browser sees them.
INSPECT = """async () => {
    if (window.MathJax) await MathJax.startup.promise;
    const images = [...document.querySelectorAll("main img")];
    await Promise.all(images.map(image => { image.loading = "eager"; return image.decode().catch(() => null); }));
    return {
        links: [...document.querySelectorAll("a[href]:not([hidden])")].map(a => a.href),
        ids: [...document.querySelectorAll("[id]")].map(e => e.id),
        unset: [...document.querySelectorAll(".math")].filter(e => !e.querySelector("mjx-container svg")).length,
        wrong: document.querySelectorAll("[data-mjx-error], mjx-merror").length,
        images: images.map(i => ({alt: i.alt, src: i.getAttribute("src"), width: i.naturalWidth,
                                  filter: getComputedStyle(i).filter})),
        reprs: [...document.querySelectorAll(".cell_output")].map(e => e.textContent)
            .filter(text => /<[\\w.]+ object( at 0x|>)/.test(text)),
        wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    };
}"""


@pytest.fixture(scope="module", params=["http", "file"])
def visit(request, browser, address):
    """The pages as a phone in dark mode shows them: page -> what it holds and what went wrong while it loaded."""
    seen = {}
    base = address if request.param == "http" else HTML.as_uri()
    context = browser.new_context(viewport={"width": 390, "height": 800}, color_scheme="dark")
    for name in PAGES if request.param == "http" else FROM_FOLDER:
        page, trouble = context.new_page(), []
        watch(page, base, trouble)
        page.goto(f"{base}/{name}")
        if name == "index.html":
            page.wait_for_url("**/intro.html")
        seen[name] = page.evaluate(INSPECT) | {"trouble": trouble}
        page.close()
    context.close()
    return base, seen


def test_pages_load_nothing_remote_and_without_errors(visit):
    assert {name: page["trouble"] for name, page in visit[1].items() if page["trouble"]} == {}


def test_formulas_are_set(visit):
    assert {name for name, page in visit[1].items() if page["unset"] + page["wrong"]} == set()


def test_outputs_are_shown_and_not_named(visit):
    """An output that no page can show, such as an empty text, leaves the name of its Python object behind."""
    assert {name: page["reprs"] for name, page in visit[1].items() if page["reprs"]} == {}


def test_links_within_the_book_lead_somewhere(visit):
    base, seen = visit
    broken = []
    for name, page in seen.items():
        for link in page["links"]:
            if link.startswith(base):
                path, _, anchor = link.removeprefix(base).lstrip("/").partition("#")
                if not (HTML / path).is_file() or (anchor and path in seen and anchor not in seen[path]["ids"]):
                    broken.append(f"{name}: {link}")
    assert broken == []


def test_pictures_are_there_named_and_in_their_own_colours(visit):
    for name, page in visit[1].items():
        for image in page["images"]:
            assert image["width"] > 0, f"{name}: {image['src']} does not show"
            assert image["alt"].strip() and image["alt"] != image["src"], f"{name}: {image['src']} has no alt text"
            drawn = image["src"].endswith(".svg") and "_images/" in image["src"]  # black on nothing
            assert drawn or image["filter"] == "none", f"{name}: {image['src']} is recoloured in dark mode"


def test_pages_fit_a_phone(visit):
    assert {name: page["wide"] for name, page in visit[1].items() if page["wide"] > 0} == {}


def test_pages_are_light():
    """A page's own weight, theme and formulas apart, and that of the whole book; in bytes."""
    heavy = {}
    for name in PAGES:
        text = (HTML / name).read_text()
        pictures = {(HTML / name).parent / path for path in re.findall(r'src="([^":]+\.(?:png|jpe?g|svg|webp))"', text)}
        weight = len(text.encode()) + sum(path.stat().st_size for path in pictures)
        heavy |= {name: weight} if weight > 2_000_000 else {}
    assert heavy == {}
    assert sum(path.stat().st_size for path in HTML.rglob("*") if path.is_file()) < 60_000_000


def test_a_slider_moves_through_the_snapshots_of_a_training(browser):
    page = browser.new_page()
    page.goto((HTML / "notebooks" / "02-search-space.html").as_uri())
    box = page.locator(".scrubber")
    images, slider = box.locator("img"), box.get_by_role("slider", name="Step of the training")
    last = images.count() - 1
    assert last > 3

    def shown() -> list[int]:
        return [i for i in range(last + 1) if images.nth(i).is_visible()]

    assert shown() == [last] and slider.get_attribute("aria-valuetext") == box.locator("output").inner_text()
    slider.press("Home")
    assert shown() == [0]
    slider.press("ArrowRight")
    step = int(images.nth(1).get_attribute("data-step"))
    assert shown() == [1] and box.locator("output").inner_text() == f"after {step:,} steps"
    page.close()


JUDGED = ["intro.html", "demo.html", "five-minutes.html", "notebooks/02-search-space.html"]
JUDGED += ["notebooks/03-pruning.html", "notebooks/05-evaluation.html", "reference/i2i_lib/losses/index.html"]


@AXE_NEEDED
@pytest.mark.parametrize("scheme, width", [("light", 1280), ("dark", 390)])
def test_no_serious_obstacle_for_anyone(browser, scheme, width):
    """What axe-core calls serious or critical in what is ours: the theme's frame and its folded code cells are not."""
    found = {}
    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 800})
    for name in JUDGED:
        page.goto((HTML / name).as_uri())
        found[name] = obstacles(page, {"include": ["article"], "exclude": ["details.hide > summary"]})
    page.close()
    assert {name: those for name, those in found.items() if those} == {}
