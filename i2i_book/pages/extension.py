"""What the book adds to Sphinx: its directives, signs that print well, figure numbers, and a “Next” that ends."""

import re
from pathlib import Path
from typing import Any

import yaml
from bs4 import BeautifulSoup
from docutils import nodes
from sphinx.domains import ObjType
from sphinx.domains.python import PythonDomain

from i2i_book.pages import alike, excerpt, method, reference, search

PERCENT = re.compile(r"(?<=\d)%(?!\w)")
UNIT = re.compile(r"(?<=\d) (?=%|(?:px|ms|s|min|h|k|M|G|T|kB|MB|GB|KiB|MiB|GiB|dB|MACs)\b)")
SIZE = re.compile(r"(?<=\d) \N{MULTIPLICATION SIGN} (?=\d)")
NUMBER = re.compile(r"\W*\d")  # begins with one, whatever sign is before it
MINUS = re.compile(r"(?<![\w.,\])-])-(?=\.?\d)")
VERBATIM = (nodes.literal, nodes.literal_block, nodes.math, nodes.math_block, nodes.raw, nodes.comment)
UNTOUCHED = ("code", "pre", "script", "style", "svg")  # elements of HTML that hold no prose
LAST_PART = "Reference"  # is looked up, not read through
FURTHER = "The task "  # begins the captions of the parts of further tasks


def set_type(text: str) -> str:
    """The text with units and sizes that stay in one line, and with minus signs in place of hyphens."""
    text = UNIT.sub("\N{NO-BREAK SPACE}", PERCENT.sub(" %", text))
    text = SIZE.sub("\N{NO-BREAK SPACE}\N{MULTIPLICATION SIGN}\N{NO-BREAK SPACE}", text)
    return MINUS.sub("\N{MINUS SIGN}", text)


def set_type_in_html(html: str) -> str:
    """The same for the text between the tags of HTML."""
    within: list[str] = []
    parts = re.split(r"(<[^>]+>)", html)
    for i, part in enumerate(parts):
        if tag := re.match(r"<(/?)(\w+)", part):
            if tag[2] in UNTOUCHED:
                within = within[:-1] if tag[1] else [*within, tag[2]]
        elif not within:
            parts[i] = set_type(part)
    return "".join(parts)


def align_words(html: str) -> str:
    """HTML with the class `words` on the cells and headings of those columns of its tables that hold no numbers.

    pandas aligns every column to the right.
    """
    soup = BeautifulSoup(html, "html.parser")
    for table in soup.find_all("table"):
        headings = [row.find_all("th") for row in table.select("thead tr")]
        rows = [row.find_all("td") for row in table.find_all("tr")]
        for place in range(1, max(map(len, rows), default=0) + 1):  # from the right: names of rows may span several
            cells = [row[-place] for row in rows if len(row) >= place]
            said = [text for cell in cells if (text := cell.get_text(strip=True))]
            if said and not any(map(NUMBER.match, said)):
                for cell in [*cells, *(row[-place] for row in headings if len(row) >= place)]:
                    others = [name for name in cell.get_attribute_list("class") if name and name != "words"]
                    cell["class"] = " ".join([*others, "words"])
    return str(soup)


def _set_page(app: Any, doctree: nodes.document, docname: str) -> None:
    for text in list(doctree.findall(nodes.Text)):
        node, verbatim = text.parent, False
        while node is not None and not verbatim:
            node, verbatim = node.parent, isinstance(node, VERBATIM)
        if not verbatim and (found := set_type(text)) != text:
            text.parent.replace(text, nodes.Text(found))
    for raw in doctree.findall(nodes.raw):
        if "html" in raw.get("format", ""):
            html = set_type_in_html(raw.astext())
            raw.children = [nodes.Text(align_words(html) if "<table" in html else html)]


def chains(toc: Path) -> list[list[str]]:
    """The sequences of pages that “Next” leads through: the book up to its last chapter, and each further task."""
    content = yaml.safe_load(toc.read_text())
    main, found = [content["root"]], []
    for part in content.get("parts", []):
        names = [entry["file"] for entry in part.get("chapters") or []]
        if part["caption"].startswith(FURTHER):
            found.append(names)
        elif part["caption"] != LAST_PART:
            main += names
    return [main, *found]


def _end_chain(app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Take the links to the previous and the next page from those that no chain holds, and from the ends of chains."""
    chain = next((names for names in chains(Path(app.srcdir, app.config.external_toc_path)) if pagename in names), [])
    at = chain.index(pagename) if chain else 0
    if at == 0:
        context["prev"] = None
    if at >= len(chain) - 1:
        context["next"] = None


def number_within_pages(app: Any, env: Any) -> list[str]:
    """Number figures, tables and listings from 1 on each page without a number of its own.

    Sphinx counts on through all such pages. A `numref` to another one of them would be ambiguous.
    """
    for docname, kinds in env.toc_fignumbers.items():
        if not env.toc_secnumbers.get(docname):
            for kind, found in kinds.items():
                kinds[kind] = {name: (place,) for place, name in enumerate(sorted(found, key=found.get), start=1)}
    return []


def setup(app: Any) -> dict[str, bool]:
    """Connect to Sphinx, which calls this."""
    app.add_directive("method-map", method.MethodMap)
    app.add_directive("method-step", method.MethodStep)
    app.add_node(method.method_map, html=(method.visit, None))
    app.add_directive("excerpt", excerpt.Excerpt)
    app.add_node(excerpt.excerpt_code, html=(excerpt.visit, None))
    app.add_directive("budget-search", search.Search)
    app.add_node(search.search, html=(search.visit, None))
    app.add_directive("look-inside", alike.LookInside)
    app.add_node(alike.look_inside, html=(alike.visit, None))
    PythonDomain.object_types["data"] = ObjType("data", "data", "class", "obj")  # a name of a type stands for a class
    app.connect("builder-inited", reference.read_library_alone, priority=400)  # before autoapi reads
    app.connect("autoapi-skip-member", reference.choose)
    app.connect("env-get-updated", number_within_pages, priority=900)  # once Sphinx has numbered them
    app.connect("doctree-resolved", reference.link_names)
    app.connect("doctree-resolved", _set_page)
    app.connect("html-page-context", _end_chain)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
