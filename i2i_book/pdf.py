"""The built book as one PDF: `python -m i2i_book.pdf`. Its chapters become one page, which Chromium prints."""

import re
import shutil
import sys
import tomllib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag, urlsplit

import yaml
from bs4 import BeautifulSoup, Tag

from i2i_book.pages.extension import chains
from i2i_book.runs import root
from i2i_lib.commands import one_line_errors
from i2i_lib.files import shorten_path

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
STYLE = "_static/whole.css"
# What acts on a click or shows nothing on paper.
LIVE = "script, button, .whole-book, .headerlink, .search, .alike, section:has(> .demo), .scrubber img:not(:last-child)"
FOOT = '<div style="font: 8px sans-serif; width: 100%; text-align: center"><span class="pageNumber"></span></div>'


@one_line_errors
def main() -> int:
    """Print `_build/html` into its `book.pdf`, to which the front page leads from then on; returns the exit status."""
    book, html = read_book(), root() / "_build" / "html"
    print_book(html, book["pages"], book["title"], book["version"], html / "book.pdf")
    offer(html / "book.pdf")
    print(f"the book: {shorten_path(html / 'book.pdf')}")
    return 0


def offer(made: Path) -> None:
    """Show the front page's link to the file `made` beside it, which is hidden in a book without that file."""
    front = made.parent / "intro.html"
    front.write_text(re.sub(rf'(<a href="{made.name}") hidden(?:="")?', r"\1", front.read_text()))


def read_book() -> dict[str, Any]:
    """The `pages` of the built book up to its last chapter, its `title`, `author` and `version`.

    Raises FileNotFoundError where no book has been built.
    """
    if not (root() / "_build" / "html" / "index.html").is_file():
        raise FileNotFoundError("no book has been built yet: `make book` makes it")
    config = yaml.safe_load((root() / "_config.yml").read_text())
    version = tomllib.loads((root() / "pyproject.toml").read_text())["project"]["version"]
    pages = chains(root() / "book" / "notebooks" / "_toc.yml")[0]
    return {"pages": pages, "title": config["title"], "author": config["author"], "version": f"Version {version}"}


def print_book(html: Path, pages: list[str], title: str, version: str, made: Path) -> None:
    """Print `pages`, names of files below `html` without suffix, into the PDF `made`, with bookmarks of their headings.

    Raises RuntimeError where there is no Chromium.
    """
    with opened(html, pages, title, version) as page:
        page.pdf(
            path=made,
            format="A4",
            margin={"top": "16mm", "bottom": "18mm", "left": "16mm", "right": "16mm"},
            scale=0.8,  # the page's column in the paper's
            outline=True,
            tagged=True,
            display_header_footer=True,
            header_template="<span></span>",
            footer_template=FOOT,
        )


@contextmanager
def opened(html: Path, pages: list[str], title: str, version: str) -> Iterator[Any]:
    """Chromium's page of the whole book, its formulas set.

    Raises RuntimeError where there is no Chromium.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise RuntimeError("this takes Chromium, and none is on the PATH (on Debian: apt install chromium)")
    from playwright.sync_api import sync_playwright

    whole = html / "_whole.html"  # beside the files that it shows
    whole.write_text(one_page(html, pages, title, version))
    try:
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=browser)
            page = chromium.new_page()
            page.goto(whole.as_uri())
            page.evaluate("window.MathJax?.startup?.promise")
            yield page
            chromium.close()
    finally:
        whole.unlink()


def one_page(html: Path, pages: list[str], title: str, version: str) -> str:
    """The articles of `pages` as one page in `html`: all folds open, nothing that acts, links between them within it.

    Links to other pages of the book become text.
    """
    soups = {name: BeautifulSoup((html / f"{name}.html").read_text(), "html.parser") for name in pages}
    formulas = next(filter(None, map(_formulas, soups.values())), "")
    styles = _styles(soups[pages[0]], pages[0])
    articles = "".join(_article(name, soup, soups.keys()) for name, soup in soups.items())
    listed = "".join(f'<li><a href="#{name}">{escape(_title(soup))}</a></li>' for name, soup in soups.items())
    mark = '<img class="mark" src="_static/favicon.svg" alt="">'
    front = f'{mark}<h1>{escape(title)}</h1><p>{escape(version)}</p><ol class="pages">{listed}</ol>'
    return (
        f'<!doctype html><html lang="en" data-theme="light"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"{styles}{formulas}"
        f'<body class="whole"><main class="bd-content">{front}{articles}</main></body></html>'
    )


def _title(soup: BeautifulSoup) -> str:
    heading = soup.select_one("article h1")
    for sign in heading.select(".headerlink") if heading else []:
        sign.decompose()
    return heading.get_text().strip() if heading else ""


def _styles(soup: BeautifulSoup, page: str) -> str:
    found = [_from_top(str(link["href"]), page) for link in soup.select('head link[rel="stylesheet"]')]
    return "".join(f'<link rel="stylesheet" href="{escape(href)}">' for href in [*found, STYLE])


def _formulas(soup: BeautifulSoup) -> str:
    """The elements that set a page's formulas, for a page at the top; nothing for a page without formulas."""
    scripts = [script for script in soup.select("script") if "mathjax" in str(script).lower()]
    for script in scripts:
        if script.get("src"):
            script["src"] = re.sub(r"^(\.\./)+", "", str(script["src"]))
    return "".join(map(str, scripts))


def _article(name: str, soup: BeautifulSoup, names: Collection[str]) -> str:
    article = soup.select_one("article")
    if article is None:
        raise ValueError(f"{name}.html has no article: build the book again")
    for element in article.select(LIVE):
        element.decompose()
    for image in article.select(".compare img"):  # what the choice above the divider says
        image.wrap(soup.new_tag("figure")).append(soup.new_tag("figcaption", string=str(image["data-name"])))
    for fold in article.select("details"):
        fold["open"] = ""
    for element in article.select("[id]"):
        if not element.find_parent("svg"):  # whose parts name each other
            element["id"] = f"{name}:{element['id']}"
    for element in article.select("[src]"):
        element["src"] = _from_top(str(element["src"]), name)
    for link in article.select("a[href]"):
        _lead(link, name, names)
    article["id"] = name
    return str(article)


def _lead(link: Tag, page: str, names: Collection[str]) -> None:
    """Have a link of a page lead to the same place in the whole, or nowhere if that is not in it."""
    href = str(link["href"])
    if urlsplit(href).scheme:
        return
    path, anchor = urldefrag(_from_top(href, page) if not href.startswith("#") else f"{page}.html{href}")
    target = path.removesuffix(".html")
    if target in names:
        link["href"] = f"#{target}:{anchor}" if anchor else f"#{target}"
    else:
        link.name = "span"
        for attribute in ("href", "download"):
            link.attrs.pop(attribute, None)


def _from_top(url: str, page: str) -> str:
    """A relative address on `page` as one on a page at the top."""
    parts = [] if urlsplit(url).scheme else page.split("/")[:-1]
    if not parts:
        return url
    for part in url.split("/"):
        parts = parts[:-1] if part == ".." else [*parts, part]
    return "/".join(parts)


if __name__ == "__main__":
    sys.exit(main())
