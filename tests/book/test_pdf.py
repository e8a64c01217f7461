"""The book as one PDF and as an EPUB: the pages as one, and what Chromium makes of it."""

import re
import shutil
import subprocess
import zipfile
from pathlib import Path
from urllib.parse import urldefrag
from xml.etree import ElementTree

import pytest

from i2i_book import epub, pdf
from i2i_book.runs import root

PAGE = (
    '<!doctype html><html><head><link rel="stylesheet" href="{top}_static/custom.css"></head><body><nav>Contents</nav>'
    '<article class="bd-article"><h1>{title}<a class="headerlink" href="#here">#</a></h1>{body}</article></body></html>'
)
# What MathJax leaves, without MathJax.
FORMULA = '<mjx-container><svg xmlns="http://www.w3.org/2000/svg" width="2ex" viewBox="0 0 9 9"></svg></mjx-container>'
MATHJAX = (
    "<script>window.MathJax = {startup: {document: {math: [{math: 'a < b', get typesetRoot() "
    "{ return document.querySelector('mjx-container') }}]}}}</script>"
)
NEEDS_CHROMIUM = pytest.mark.skipif(
    not any(map(shutil.which, pdf.BROWSERS)), reason="needs Chromium (Debian: apt install chromium)"
)
PICTURE = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><path id="tip" d="M0 0h9v9z"/></svg>'


@pytest.fixture
def html(tmp_path: Path) -> Path:
    pages = {
        "intro": 'See <a href="notebooks/01-data.html#here">the data</a>, <a href="notebooks/01-data.html">all</a>, '
        '<a href="glossary.html">a word</a>, <a href="https://example.org/">the world</a>.<p id="here">Hello.</p>',
        "notebooks/01-data": '<h2 id="here">A part</h2><a href="#here">up</a> <a href="../intro.html#here">front</a>'
        '<details><summary>More</summary><p>folded words</p></details><img alt="a square" src="../_images/x.svg">'
        '<section class="search"><button>Start</button></section><script src="../_static/x.js"></script>'
        '<section><h2>Live</h2><section class="demo"></section></section>'
        '<div class="compare"><img alt="8 places" data-name="teacher" src="data:image/jpeg;base64,"></div>'
        f"{FORMULA}<br>{MATHJAX}",
    }
    for folder in ("notebooks", "_images", "_static"):
        (tmp_path / folder).mkdir()
    (tmp_path / "_images" / "x.svg").write_text(PICTURE)
    (tmp_path / "_static" / "custom.css").write_text("")
    (tmp_path / "_static" / "pygments.css").write_text("")
    for name in ("whole.css", "front.css", "epub.css", "favicon.svg"):
        shutil.copy(root() / "book" / "static" / name, tmp_path / "_static")
    for name, body in pages.items():
        made = PAGE.format(top="../" * name.count("/"), title=f"Title of {name}", body=body)
        (tmp_path / f"{name}.html").write_text(made)
    return tmp_path


def test_links_lead_within_the_whole_and_nothing_on_it_acts(html: Path):
    whole = pdf.one_page(html, ["intro", "notebooks/01-data"], "The book", "Version 9")
    for link in ('"#notebooks/01-data:here">the', '"#notebooks/01-data">all', '"#intro:here">front', ':here">up'):
        assert link in whole
    assert 'id="intro:here"' in whole and 'id="notebooks/01-data:here"' in whole and 'id="intro"' in whole
    assert "glossary.html" not in whole and "a word" in whole and "https://example.org/" in whole
    assert (
        "<p>Version 9</p>" in whole
        and '<details open="">' in whole
        and 'src="_images/x.svg"' in whole
        and 'href="_static/custom.css"' in whole
    )
    assert "<figcaption>teacher</figcaption>" in whole and 'src="data:image' in whole
    for gone in ("<nav", "<button", "x.js", "headerlink", "section", "Live"):
        assert gone not in whole


@NEEDS_CHROMIUM
def test_chromium_prints_all_pages_with_bookmarks(html: Path, tmp_path: Path):
    made = tmp_path / "book.pdf"
    pdf.print_book(html, ["intro", "notebooks/01-data"], "The book", "Version 9", made)
    data = made.read_bytes()
    assert data.startswith(b"%PDF") and len(re.findall(rb"/Type /Page\b", data)) >= 3  # the front, and one each
    bookmarks = set(re.findall(rb"/Title \(([^)]*)\)", data))
    assert bookmarks == {b"The book", b"Title of intro", b"Title of notebooks/01-data", b"A part"}
    assert b"file:" not in data and b"https://example.org/" in data, "addresses of this machine"
    assert sorted(path.name for path in html.glob("*.html")) == ["intro.html"], "what was printed is left behind"


@NEEDS_CHROMIUM
def test_an_epub_holds_the_pages_as_xhtml_with_all_that_they_show(html: Path, tmp_path: Path):
    made = tmp_path / "book.epub"
    epub.write_book(html, ["intro", "notebooks/01-data"], "Big & small", "Somebody", "Version 9", made)
    with zipfile.ZipFile(made) as archive:
        first, *names = archive.infolist()
        files = {item.filename: archive.read(item) for item in names}
    assert (first.filename, first.compress_type) == ("mimetype", zipfile.ZIP_STORED)
    package = ElementTree.fromstring(files["book/package.opf"])
    items = {item.attrib["href"]: item.attrib for item in package.iter("{http://www.idpf.org/2007/opf}item")}
    assert {f"book/{name}" for name in items} == set(files) - {"META-INF/container.xml", "book/package.opf"}
    assert items["cover.png"]["properties"] == "cover-image" and items["contents.xhtml"]["properties"] == "nav"
    pages = {name: ElementTree.fromstring(files[f"book/{name}"]) for name in items if name.endswith(".xhtml")}
    ids = {name: {element.get("id") for element in page.iter()} for name, page in pages.items()}
    for name, page in pages.items():
        for element in page.iter():
            file, anchor = urldefrag(element.get("href") or element.get("src") or "")
            if ":" not in file:
                assert not file or file in items, f"{name} leads to {file}, which is not in the EPUB"
                assert not anchor or anchor in ids[file or name], f"{name} leads to #{anchor}"
    assert "Title of notebooks/01-data" in files["book/contents.xhtml"].decode()
    front = files["book/intro.xhtml"].decode()
    assert 'href="notebooks-01-data.xhtml#here"' in front and "https://example.org/" in front
    assert items["notebooks-01-data.xhtml"]["properties"] == "svg" and items["_images/x.svg"]
    (formula,) = pages["notebooks-01-data.xhtml"].iter("{http://www.w3.org/2000/svg}svg")
    assert formula.get("aria-label") == "a < b" and formula.get("viewBox") == "0 0 9 9"
    if checker := shutil.which("epubcheck"):
        assert subprocess.run([checker, made], capture_output=True).returncode == 0


def test_the_front_page_leads_to_what_was_made(html: Path):
    front = html / "intro.html"
    front.write_text('<a href="book.pdf" hidden>PDF</a> <a href="book.epub" hidden="">EPUB</a>')
    pdf.offer(html / "book.epub")
    assert front.read_text() == '<a href="book.pdf" hidden>PDF</a> <a href="book.epub">EPUB</a>'
    assert '<a href="book.pdf" hidden>' in (root() / "book/intro.md").read_text()


def test_without_a_browser_or_a_book_a_sentence_says_so(html: Path, monkeypatch, capsys):
    monkeypatch.setattr(pdf, "root", lambda: html / "elsewhere")
    assert pdf.main() == 1 and "no book has been built yet: `make book` makes it" in capsys.readouterr().err
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match="none is on the PATH"):
        pdf.print_book(html, ["intro"], "The book", "Version 9", html / "book.pdf")
