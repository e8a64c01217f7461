"""Previews: a page keeps what its links lead to, so that a pointer shows terms, formulas, figures, sources and code."""

import posixpath
from functools import cache
from html import escape
from pathlib import Path
from urllib.parse import urldefrag, urlsplit

from bs4 import BeautifulSoup, Tag
from bs4.filter import SoupStrainer

PREVIEWED = "dt, figure, div.math, div.citation"
LEFT_OUT = ".headerlink, .eqno, .viewcode-link, .backrefs, .label, button"
WITHOUT = {"_static", "_modules", "reference"}  # folders whose pages have no previews


def keep_previews(html: Path) -> None:
    """Add to the pages below `html` a template for each address that a link of their article has a preview of."""
    read = cache(_article)
    for path in html.rglob("*.html"):
        if not WITHOUT & set(path.relative_to(html).parts) and (article := read(path)):
            text, found = path.read_text(), {}
            for link in article.select('a[href*="#"]:not(.headerlink)'):
                address = str(link["href"])
                file, anchor = urldefrag(address)
                if urlsplit(address).scheme or address in found:
                    continue
                target = read((path.parent / file).resolve() if file else path)
                shown = target and target.find(id=anchor)
                if isinstance(shown, Tag) and shown.css.match(PREVIEWED):
                    found[address] = _preview(shown, posixpath.dirname(file))
            templates = "".join(
                f'<template data-preview="{escape(address)}">{shown}</template>'
                for address, shown in found.items()
                if 'class="math' not in shown or "MathJax" in text  # which sets it when it is shown
            )
            path.write_text(text.replace("</body>", f"{templates}</body>"))


def _article(path: Path) -> Tag | None:
    return BeautifulSoup(path.read_text(), "html.parser", parse_only=SoupStrainer("article")).article


def _preview(target: Tag, folder: str) -> str:
    """The HTML of a link's target for a page from which `folder` leads to the target's: nothing in it acts."""
    parts = [target]
    if target.name == "dt":  # a term or a definition, and what comes first of its explanation
        below = target.find_next_sibling("dd")
        parts += below.find_all("p", recursive=False, limit=1) if below else []
    found = BeautifulSoup("".join(map(str, parts)), "html.parser")
    for element in found.select(LEFT_OUT):
        element.decompose()
    for element in found.select("a"):
        element.unwrap()
    for element in found.find_all(True):
        for attribute in ("id", "role"):
            element.attrs.pop(attribute, None)
        if element.name == "dt":
            element.name = "p"
        if element.get("src") and not urlsplit(str(element["src"])).scheme:
            element["src"] = posixpath.normpath(posixpath.join(folder, str(element["src"])))
    for formula in found.select("div.math"):
        formula["role"], formula["aria-label"] = "math", formula.get_text().strip()
    return str(found)
