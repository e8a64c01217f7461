"""The built book in a real browser: Debian's Chromium over _build/html, served and from the folder itself."""

import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

HTML = Path(__file__).resolve().parents[2] / "_build" / "html"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PAGES = [str(path.relative_to(HTML)) for path in sorted(HTML.rglob("*.html")) if "_static" not in path.parts]

# Where these tests must run, a missing browser or book is a failure.
REQUIRED = os.environ.get("I2I_BROWSER_TESTS") == "required"
pytestmark = [
    pytest.mark.skipif(
        CHROMIUM is None and not REQUIRED, reason="no Chromium on this machine (Debian: apt install chromium)"
    ),
    pytest.mark.skipif(not PAGES and not REQUIRED, reason="no book in _build/html (make book)"),
]


def test_there_is_a_browser_and_a_book():
    assert CHROMIUM and "intro.html" in PAGES


FROM_FOLDER = ["index.html", "intro.html", "notebooks/04-distillation.html", "search.html"]  # without a server

# What a page links to and offers, whether its formulas are set, and its pictures, as the browser sees them.
INSPECT = """async () => {
    if (window.MathJax) await MathJax.startup.promise;
    const images = [...document.querySelectorAll("main img")];
    await Promise.all(images.map(image => { image.loading = "eager"; return image.decode().catch(() => null); }));
    return {
        links: [...document.querySelectorAll("a[href]")].map(a => a.href),
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


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        pass


def watch(page, base, trouble):
    """Add a line to `trouble` for everything that goes wrong while `page` loads."""

    def note(wrong, text):
        if wrong:
            trouble.append(text)

    page.on("request", lambda r: note(not r.url.startswith((base, "data:")), f"remote {r.url}"))
    # Aborted: the page led on to another before its icon came.
    page.on("requestfailed", lambda r: note(r.failure != "net::ERR_ABORTED", f"{r.failure} {r.url}"))
    page.on("response", lambda r: note(r.status >= 400, f"{r.status} {r.url}"))
    page.on("console", lambda m: note(m.type == "error", f"console: {m.text}"))
    page.on("pageerror", lambda e: note(True, f"script: {e}"))


@contextmanager
def serving() -> Iterator[str]:
    """The book behind an address of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(HTML)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module", params=["http", "file"])
def visit(request):
    """The pages as a phone in dark mode shows them: page -> what it holds and what went wrong while it loaded."""
    from playwright.sync_api import sync_playwright

    seen = {}
    with serving() as address, sync_playwright() as playwright:
        base = address if request.param == "http" else HTML.as_uri()
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 390, "height": 800}, color_scheme="dark")
        for name in PAGES if request.param == "http" else FROM_FOLDER:
            page, trouble = context.new_page(), []
            watch(page, base, trouble)
            page.goto(f"{base}/{name}")
            if name == "index.html":
                page.wait_for_url("**/intro.html")
            seen[name] = page.evaluate(INSPECT) | {"trouble": trouble}
            page.close()
        browser.close()
    return base, seen


def test_pages_load_nothing_remote_and_without_errors(visit):
    assert {name: page["trouble"] for name, page in visit[1].items() if page["trouble"]} == {}


def test_formulas_are_set(visit):
    assert {
        name: page["unset"] + page["wrong"] for name, page in visit[1].items() if page["unset"] + page["wrong"]
    } == {}


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
            assert image["filter"] == "none", f"{name}: {image['src']} is recoloured in dark mode"


def test_pages_fit_a_phone(visit):
    assert {name: page["wide"] for name, page in visit[1].items() if page["wide"] > 0} == {}


def test_pages_are_light():
    """A page's own weight, theme and formulas apart, and that of the whole book; in bytes."""
    heavy = {}
    for name in PAGES:
        text = (HTML / name).read_text()
        pictures = {(HTML / name).parent / path for path in re.findall(r'src="([^":]+\.(?:png|jpg|svg))"', text)}
        weight = len(text.encode()) + sum(path.stat().st_size for path in pictures)
        heavy |= {name: weight} if weight > 2_000_000 else {}
    assert heavy == {}
    assert sum(path.stat().st_size for path in HTML.rglob("*") if path.is_file()) < 60_000_000


AXE = Path(__file__).resolve().parents[2] / "node_modules" / "axe-core" / "axe.min.js"
JUDGED = ["intro.html", "demo.html", "five-minutes.html", "notebooks/03-pruning.html", "notebooks/05-evaluation.html"]


@pytest.mark.skipif(not AXE.exists() and not REQUIRED, reason="no axe-core in node_modules (npm ci)")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_obstacle_for_anyone(scheme):
    """What axe-core calls serious or critical in what is ours: the theme's frame and its folded code cells are not."""
    from playwright.sync_api import sync_playwright

    found = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        width = {"light": 1280, "dark": 390}[scheme]
        page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 800})
        for name in JUDGED:
            page.goto((HTML / name).as_uri())
            page.add_script_tag(path=AXE)
            part = {"include": ["article"], "exclude": ["details.hide > summary"]}
            made = page.evaluate("part => axe.run(part, { resultTypes: ['violations'] })", part)
            for violation in made["violations"]:
                if violation["impact"] in ("serious", "critical"):
                    found.setdefault(name, []).append(
                        f"{violation['id']}: {[node['target'] for node in violation['nodes']][:5]}"
                    )
        browser.close()
    assert found == {}
