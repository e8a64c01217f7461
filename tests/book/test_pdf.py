"""The book as one PDF: the pages as one, and what Chromium prints of it."""

import re
import shutil
from pathlib import Path

import pytest

from i2i_book import pdf
from i2i_book.runs import root

PAGE = (
    '<!doctype html><html><head><link rel="stylesheet" href="{top}_static/custom.css"></head><body><nav>Contents</nav>'
    '<article class="bd-article"><h1>{title}<a class="headerlink" href="#here">#</a></h1>{body}</article></body></html>'
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
        '<div class="compare"><img alt="8 places" data-name="teacher" src="data:image/jpeg;base64,"></div>',
    }
    for folder in ("notebooks", "_images", "_static"):
        (tmp_path / folder).mkdir()
    (tmp_path / "_images" / "x.svg").write_text(PICTURE)
    (tmp_path / "_static" / "custom.css").write_text("")
    shutil.copy(root() / "book" / "static" / "whole.css", tmp_path / "_static")
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
    for gone in ("<nav", "<button", "<script", "headerlink", "section", "Live"):
        assert gone not in whole


def test_chromium_prints_all_pages_with_bookmarks(html: Path, tmp_path: Path):
    if not any(map(shutil.which, pdf.BROWSERS)):
        pytest.skip("needs Chromium (Debian: apt install chromium)")
    made = tmp_path / "book.pdf"
    pdf.print_book(html, ["intro", "notebooks/01-data"], "The book", "Version 9", made)
    data = made.read_bytes()
    assert data.startswith(b"%PDF") and len(re.findall(rb"/Type /Page\b", data)) >= 3  # the front, and one each
    bookmarks = set(re.findall(rb"/Title \(([^)]*)\)", data))
    assert bookmarks == {b"The book", b"Title of intro", b"Title of notebooks/01-data", b"A part"}
    assert b"file:" not in data and b"https://example.org/" in data, "addresses of this machine"
    assert sorted(path.name for path in html.glob("*.html")) == ["intro.html"], "what was printed is left behind"


def test_without_a_browser_or_a_book_a_sentence_says_so(html: Path, monkeypatch, capsys):
    monkeypatch.setattr(pdf, "root", lambda: html / "elsewhere")
    assert pdf.main() == 1 and "no book has been built yet: `make book` makes it" in capsys.readouterr().err
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match="none is on the PATH"):
        pdf.print_book(html, ["intro"], "The book", "Version 9", html / "book.pdf")
