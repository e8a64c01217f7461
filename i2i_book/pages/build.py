"""The strict build of the HTML, and the checks of what it wrote."""

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from i2i_book.pages.previews import keep_previews
from i2i_lib.demo.page import RUNTIME, place_packed, place_scripts

# Jupyter Book's own has no icon, so that browsers ask for one that is not there.
INDEX = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>To the introduction</title><link rel="icon" href="_static/favicon.svg">
<meta http-equiv="refresh" content="0; url=intro.html"><a href="intro.html">To the introduction</a></html>
"""
MATHJAX = "es5/tex-svg.js"  # what the pages load of it
# What they load of Pyodide, and the names in book/static/pyodide: what gains `.gzip` is stored compressed, since many
# servers do not compress WebAssembly; the page unpacks it.
PYTHON = {
    "pyodide.mjs": "pyodide.mjs",
    "pyodide.asm.mjs": "pyodide.asm.mjs",
    "pyodide.asm.wasm": "pyodide.asm.wasm.gzip",
    "pyodide-lock.json": "pyodide-lock.json",
    "python_stdlib.zip": "python_stdlib.zip",
}
# The npm packages that the pages load, and what of them.
SCRIPTS = {"mathjax": [MATHJAX], "onnxruntime-web": [*RUNTIME], "pyodide": [*PYTHON]}


def build(top: Path) -> Path:
    """Render `top`/book into `top`/_build/html and return that folder; a book that fails leaves the old one in place.

    Raises RuntimeError if a page has a warning, a remote resource, a broken link or a picture without alt text.
    """
    _scripts(top)
    work = top / "_build" / "work"  # always from nothing, so that no page of another preset survives
    # Nor the reference's sources of a build that was killed: Sphinx would take them for pages that are not to be read.
    for folder in (work, top / "book" / "reference"):
        shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", "book"]
    command += ["--config", "_config.yml", "--toc", str(top / "book" / "notebooks" / "_toc.yml")]
    command += ["--path-output", str(work), "-W", "-n", "--keep-going", "--quiet"]
    # Warnings come on the error stream; the rest would name folders that are about to move.
    if subprocess.run(command, cwd=top, stdout=subprocess.DEVNULL).returncode:
        raise RuntimeError("jupyter-book found the problems above; the book was not replaced")
    new = work / "_build" / "html"
    (new / "index.html").write_text(INDEX)
    keep_previews(new)
    if found := faults(new):
        raise RuntimeError("the book was not replaced:\n" + "\n".join(found))
    for path in new.rglob("*.map"):  # source maps of the theme, which no page loads: 3.5 MB
        path.unlink()
    html = top / "_build" / "html"
    shutil.rmtree(html, ignore_errors=True)
    new.rename(html)
    shutil.rmtree(work)
    return html


def _scripts(top: Path) -> None:
    """Put scripts where the pages look for them. RuntimeError if npm has not fetched the locked ones."""
    wanted = json.loads((top / "package.json").read_text())["dependencies"]
    packages = {name: top / "node_modules" / name for name in SCRIPTS}
    missing = [f"{name} {wanted[name]}" for name, package in packages.items() if _version(package) != wanted[name]]
    if missing:
        listed = " and ".join(missing)
        raise RuntimeError(f"node_modules lacks {listed}: run `.venv/bin/npm ci` in {top}, which needs the network")
    static = top / "book" / "static"
    (static / "mathjax").mkdir(parents=True, exist_ok=True)
    shutil.copy(packages["mathjax"] / MATHJAX, static / "mathjax")
    place_scripts(static / "demo")
    place_packed(packages["onnxruntime-web"], RUNTIME, static / "onnxruntime")
    place_packed(packages["pyodide"], PYTHON, static / "pyodide")


def _version(package: Path) -> str | None:
    described = package / "package.json"
    return json.loads(described.read_text())["version"] if described.exists() else None


class _Links(HTMLParser):
    """Ids, links and loaded files of one page, and its pictures without alt text."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.unnamed: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        a = {name: value or "" for name, value in attrs}
        self.ids |= {a[name] for name in ("id", "name") if a.get(name)}
        if tag in ("a", "area") and "href" in a and "hidden" not in a:  # hidden until its target is made
            self.links.append(a["href"])
        elif tag == "link" and not {"next", "prev", "search", "index", "canonical"} & set(a.get("rel", "").split()):
            self.loads.append(a.get("href", ""))
        self.loads += [a[name] for name in ("src", "data", "poster") if tag not in ("a", "link") and a.get(name)]
        self.loads += [part.split()[0] for part in a.get("srcset", "").split(",") if part.strip()]
        self.loads += re.findall(r"url\(['\"]?([^'\")]+)", a.get("style", ""))
        if tag == "img" and a.get("alt", "").strip() in ("", a.get("src"), Path(a.get("src", "")).name):
            self.unnamed.append(a.get("src", ""))


def faults(html: Path) -> list[str]:
    """One sentence for each remote resource, broken link or nameless picture in the pages below `html`."""
    pages: dict[Path, _Links] = {}
    for path in sorted(html.rglob("*.html")):
        if "_static" not in path.relative_to(html).parts:
            pages[path] = _Links()
            pages[path].feed(path.read_text())
    found = []
    for path, page in pages.items():
        name = path.relative_to(html)
        found += [f"{name}: the picture {src} has no alt text" for src in page.unnamed]
        for url in page.loads + page.links:
            parts = urlsplit(url)
            if parts.scheme or parts.netloc:
                if url in page.loads and parts.scheme != "data":
                    found.append(f"{name}: loads the remote {url}")
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            if not target.is_file():
                found.append(f"{name}: links to {url}, which does not exist")
            elif anchor and target in pages and anchor not in pages[target].ids:
                found.append(f"{name}: links to {url}, where there is no #{anchor}")
    for path in sorted(html.rglob("*.css")):
        remote = re.findall(
            r"url\(['\"]?((?:https?:)?//[^'\")]+)|@import ['\"]((?:https?:)?//[^'\"]+)", path.read_text()
        )
        found += [f"{path.relative_to(html)}: loads the remote {a or b}" for a, b in remote]
    return found
