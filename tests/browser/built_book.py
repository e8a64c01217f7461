"""The built book, and what goes wrong while a browser loads a page of it."""

import os
import shutil
from pathlib import Path

import pytest

HTML = Path(__file__).resolve().parents[2] / "_build" / "html"
AXE = HTML.parents[1] / "node_modules" / "axe-core" / "axe.min.js"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# Of the library's reference, one module stands for all.
MADE = {"_static", "_modules", "reference"}
PAGES = [str(path.relative_to(HTML)) for path in sorted(HTML.rglob("*.html")) if not MADE & set(path.parts)]
if not (HTML / "index.html").exists():  # the last page of a build, which did not come to its end
    PAGES = []
PAGES += [name for name in ("reference/i2i_lib/losses/index.html", "_modules/i2i_lib/losses.html") if PAGES]
# Where these tests must run, a missing browser or book is a failure.
REQUIRED = os.environ.get("I2I_BROWSER_TESTS") == "required"
NEEDED = pytest.mark.skipif(
    not (CHROMIUM and PAGES) and not REQUIRED, reason="needs Chromium (Debian: apt install chromium) and `make book`"
)
AXE_NEEDED = pytest.mark.skipif(not AXE.exists() and not REQUIRED, reason="no axe-core in node_modules (npm ci)")


def obstacles(page, part=None):
    """What axe-core calls serious or critical in a part of the page, by default all of it: rules, and first places."""
    page.add_script_tag(path=AXE)
    made = page.evaluate("part => axe.run(part ?? document, { resultTypes: ['violations'] })", part)
    serious = [v for v in made["violations"] if v["impact"] in ("serious", "critical")]
    return [(v["id"], [node["target"] for node in v["nodes"]][:5]) for v in serious]


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
