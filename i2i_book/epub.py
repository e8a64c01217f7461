"""The built book as an EPUB: `python -m i2i_book.epub`. Chromium sets its formulas and writes its pages as XHTML."""

import re
import sys
import zipfile
from datetime import UTC, datetime
from html import escape
from mimetypes import guess_type
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from uuid import NAMESPACE_URL, uuid5

from i2i_book.pdf import offer, opened, read_book
from i2i_book.runs import root
from i2i_lib.commands import one_line_errors
from i2i_lib.files import shorten_path

# Formulas become pictures in the text, which readers of all kinds show; what XHTML does not know is left out.
AS_XHTML = """() => {
    for (const item of window.MathJax?.startup?.document?.math ?? []) {
        const svg = item.typesetRoot.querySelector("svg");
        svg.setAttribute("role", "img");
        svg.setAttribute("aria-label", item.math.trim());
        item.typesetRoot.replaceWith(svg);
    }
    const gone = "main :is(style, link, input, label), summary :is(.expanded, svg)";
    document.querySelectorAll(gone).forEach((element) => element.remove());
    document.querySelectorAll("summary p").forEach((name) => name.replaceWith(...name.childNodes));
    const text = (heading) => heading.textContent.trim();
    const whole = new XMLSerializer();
    return [...document.querySelectorAll("main > article")].map((article) => ({
        name: article.id,
        title: text(article.querySelector("h1")),
        parts: [...article.querySelectorAll("section[id] > h2")].map((part) => [part.parentElement.id, text(part)]),
        svg: article.querySelector("svg") !== null,
        xhtml: whole.serializeToString(article),
    }));
}"""
COVER = (
    "<body style='margin: 0; background: #0b3d5c; color: #fff; font: 56px sans-serif; display: grid; height: 1600px;"
    " place-content: center; justify-items: center; gap: 48px; text-align: center'>{mark}<b>{title}</b><i>{version}</i>"
)
STYLES = ("pygments.css", "custom.css", "front.css", "whole.css", "epub.css")
PAGE = (
    '<?xml version="1.0" encoding="utf-8"?>\n<!DOCTYPE html>\n<html xmlns="http://www.w3.org/1999/xhtml"'
    ' xmlns:epub="http://www.idpf.org/2007/ops" lang="en" xml:lang="en"><head><title>{title}</title>{styles}</head>'
    '<body class="whole"><main class="bd-content">{body}</main></body></html>'
)
CONTAINER = (
    '<?xml version="1.0"?><container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    '<rootfile full-path="book/package.opf" media-type="application/oebps-package+xml"/></rootfiles></container>'
)
PACKAGE = (
    '<?xml version="1.0" encoding="utf-8"?><package xmlns="http://www.idpf.org/2007/opf" version="3.0"'
    ' unique-identifier="id" xml:lang="en"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">'
    '<dc:identifier id="id">urn:uuid:{id}</dc:identifier><dc:title>{title}</dc:title><dc:language>en</dc:language>'
    "<dc:creator>{author}</dc:creator><dc:description>{version}</dc:description>"
    '<meta property="dcterms:modified">{now}</meta></metadata>'
    "<manifest>{manifest}</manifest><spine>{spine}</spine></package>"
)


@one_line_errors
def main() -> int:
    """Make `book.epub` in `_build/html`, to which the front page leads from then on; returns the exit status."""
    made = root() / "_build" / "html" / "book.epub"
    write_book(made.parent, **read_book(), made=made)
    offer(made)
    print(f"the book: {shorten_path(made)}")
    return 0


def write_book(html: Path, pages: list[str], title: str, author: str, version: str, made: Path) -> None:
    """Write `pages`, names of files below `html` without suffix, into the EPUB `made`, with a cover and contents.

    Raises RuntimeError where there is no Chromium.
    """
    with opened(html, pages, title, version) as page:
        chapters = page.evaluate(AS_XHTML)
        page.set_viewport_size({"width": 1200, "height": 1600})
        mark = (html / "_static" / "favicon.svg").read_text().replace("<svg ", '<svg width="480" ')
        page.set_content(COVER.format(mark=mark, title=escape(title), version=escape(version)))
        cover = page.screenshot()
    styles = "".join(f'<link rel="stylesheet" href="_static/{name}"/>' for name in STYLES)
    texts = {file_of(chapter["name"]): _page(chapter, pages, styles) for chapter in chapters}
    shown = {unquote(source) for text in texts.values() for source in re.findall(r'<img [^>]*?src="([^":]+)"', text)}
    files: dict[str, bytes] = {name: text.encode() for name, text in texts.items()}
    files |= {name: (html / name).read_bytes() for name in sorted(shown | {f"_static/{style}" for style in STYLES})}
    files |= {"cover.png": cover, "contents.xhtml": _contents(chapters, title, styles).encode()}
    properties = {file_of(chapter["name"]): "svg" for chapter in chapters if chapter["svg"]}
    properties |= {"cover.png": "cover-image", "contents.xhtml": "nav"}
    package = PACKAGE.format(
        id=uuid5(NAMESPACE_URL, title),
        title=escape(title),
        author=escape(author),
        version=escape(version),
        now=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        manifest="".join(_item(i, name, properties.get(name)) for i, name in enumerate(files)),
        spine=f'<itemref idref="f{list(files).index("contents.xhtml")}"/>'
        + "".join(f'<itemref idref="f{i}"/>' for i in range(len(texts))),
    )
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mimetype", "application/epub+zip", zipfile.ZIP_STORED)  # first, and as it is
        archive.writestr("META-INF/container.xml", CONTAINER)
        archive.writestr("book/package.opf", package)
        for name, data in files.items():
            archive.writestr(f"book/{name}", data)


def file_of(name: str) -> str:
    """The file of a page in the EPUB."""
    return f"{name.replace('/', '-')}.xhtml"


def _page(chapter: dict[str, Any], pages: list[str], styles: str) -> str:
    """A chapter as a file of its own: ids without the page's name, links that name the file."""
    names = "|".join(map(re.escape, pages))

    def target(link: re.Match[str]) -> str:
        return f'href="{file_of(link[1])}{"#" + link[2] if link[2] else ""}"'

    body = re.sub(rf'(?<=\bid=")(?:{names}):', "", chapter["xhtml"])
    body = re.sub(rf'href="#({names})(?::([^"]*))?"', target, body)
    body = body.replace(f'id="{chapter["name"]}"', "", 1)
    return PAGE.format(title=escape(chapter["title"]), styles=styles, body=body)


def _contents(chapters: list[dict[str, Any]], title: str, styles: str) -> str:
    entries = []
    for chapter in chapters:
        file = file_of(chapter["name"])
        parts = [
            f'<li><a href="{file}#{id.removeprefix(chapter["name"] + ":")}">{escape(text)}</a></li>'
            for id, text in chapter["parts"]
        ]
        below = f"<ol>{''.join(parts)}</ol>" if parts else ""
        entries.append(f'<li><a href="{file}">{escape(chapter["title"])}</a>{below}</li>')
    body = f'<nav epub:type="toc" id="toc"><h1>{escape(title)}</h1><ol>{"".join(entries)}</ol></nav>'
    return PAGE.format(title=escape(title), styles=styles, body=body)


def _item(number: int, name: str, properties: str | None) -> str:
    kind = "application/xhtml+xml" if name.endswith(".xhtml") else guess_type(name)[0]
    more = f' properties="{properties}"' if properties else ""
    return f'<item id="f{number}" href="{escape(name)}" media-type="{kind}"{more}/>'


if __name__ == "__main__":
    sys.exit(main())
