"""Excerpts of the library's source, taken when a page is built: code, numbered notes, links to the reference."""

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from i2i_book.pages.reference import address, file_of
from i2i_lib.files import root

MOST_LINES = 25  # of an excerpt: what a reader takes in at once
Definition = ast.FunctionDef | ast.ClassDef
# `i2i_lib.losses.lsgan`, then perhaps the beginnings of its first and last line: ` from …`, ` to …`.
PART = re.compile(r"(?P<name>i2i_lib(?:\.\w+)+)(?: from (?P<first>.+?))?(?: to (?P<last>.+?))?(?:, (?=i2i_lib\.)|$)")


@dataclass(frozen=True, slots=True)
class Part:
    """Lines of one function or class, without its docstring; `...` stands for those left out."""

    name: str  # such as `i2i_lib.train.pix2pix.PairedTrainer.step`
    owner: str  # the function or class of a module that it is of, such as `i2i_lib.train.pix2pix.PairedTrainer`
    code: str
    names: dict[str, str]  # names of the library in it -> qualified ones
    lines: int  # of the source


def excerpt(wanted: str) -> list[Part]:
    """The parts that `wanted` names: qualified names, separated by commas, each with an optional ` from …` and ` to …`.

    Raises ValueError where one is gone, where its lines begin or end nowhere, and for more than `MOST_LINES` lines.
    """
    found = list(PART.finditer(wanted))
    if "".join(match[0] for match in found) != wanted:
        raise ValueError(f"expected names of the library, separated by commas, got {wanted!r}")
    parts = [_part(**match.groupdict()) for match in found]
    if (lines := sum(part.lines for part in parts)) > MOST_LINES:
        raise ValueError(f"the excerpt {wanted} has {lines} lines, and a reader takes in {MOST_LINES}: choose fewer")
    return parts


def _part(name: str, first: str | None, last: str | None) -> Part:
    path, inside = file_of(name, root())
    text = path.read_text()
    module = ast.parse(text)
    node = _find(module, inside, name)
    lines = _without_docstring(node, text.splitlines())
    start, end = _line(lines, first, 0, name), _line(lines, last, len(lines) - 1, name)
    chosen = lines[start : end + 1]
    before = [_dots(chosen[0])] if start else []
    after = [_dots(lines[end + 1])] if end < len(lines) - 1 else []
    names = _names(module, path)
    return Part(name, names[inside[0]], dedent("\n".join([*before, *chosen, *after])), names, len(chosen))


def _find(module: ast.Module, inside: list[str], name: str) -> Definition:
    node: Any = module
    for part in inside:
        bodies = [child for child in ast.walk(node) if isinstance(child, Definition) and child is not node]
        node = next((child for child in bodies if child.name == part), None)
        if node is None:
            raise ValueError(f"{name} is gone: there is no {part}")
    return node


def _without_docstring(node: Definition, lines: list[str]) -> list[str]:
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    kept = list(range(first - 1, node.end_lineno or first))
    if ast.get_docstring(node):
        docstring = node.body[0]
        gone = range(docstring.lineno - 1, docstring.end_lineno or docstring.lineno)
        kept = [number for number in kept if number not in gone]
    return [lines[number] for number in kept]


def _line(lines: list[str], beginning: str | None, default: int, name: str) -> int:
    if beginning is None:
        return default
    numbers = [number for number, line in enumerate(lines) if line.strip().startswith(beginning)]
    if len(numbers) != 1:
        raise ValueError(f"{name} has {len(numbers)} lines that begin with {beginning!r}: expected one")
    return numbers[0]


def _dots(beside: str) -> str:
    """What stands for lines left out next to a line, as far in as that is."""
    return beside[: len(beside) - len(beside.lstrip())] + "..."


def _names(module: ast.Module, path: Path) -> dict[str, str]:
    """Names that a module defines, or imports from the library -> qualified ones."""
    inside = ".".join(path.relative_to(root()).with_suffix("").parts)
    names = {node.name: f"{inside}.{node.name}" for node in module.body if isinstance(node, Definition)}
    for node in module.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("i2i_lib."):
            names |= {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


class excerpt_code(nodes.General, nodes.Element):
    """Highlighted lines with links and the numbers of notes."""


class Excerpt(SphinxDirective):
    """Show lines of the library above or below what is said of them.

    A list in the directive's content whose items begin with code are the notes: the code must begin within a line of
    the excerpt, and gets its number there. What comes before the list, such as an equation, comes before the code.
    """

    required_arguments = 1
    final_argument_whitespace = True
    has_content = True

    def run(self) -> list[nodes.Node]:
        try:
            parts = excerpt(" ".join(self.arguments[0].split()))
        except ValueError as error:
            raise self.error(str(error)) from None
        box = nodes.container(classes=["excerpt"])
        self.state.nested_parse(self.content, self.content_offset, box)
        code = [excerpt_code(part=part, marks={}) for part in parts]
        notes = next(iter(box.findall(nodes.bullet_list)), None)
        place = len(box) if notes is None else box.index(notes)
        for number, item in enumerate(notes or (), start=1):
            self._mark(code, next(iter(item.findall(nodes.literal))).astext(), number)
        if notes is not None:
            box[place] = nodes.enumerated_list("", *notes.children, enumtype="arabic", classes=["excerpt-notes"])
        for part in reversed(code):
            box.insert(place, part)
        return [box]

    def _mark(self, code: list[excerpt_code], fragment: str, number: int) -> None:
        """Put a note's number at the first line that holds its fragment."""
        for part in code:
            for line, text in enumerate(part["part"].code.splitlines()):
                if fragment in text:
                    part["marks"][line] = [*part["marks"].get(line, []), number]
                    return
        raise self.error(f"no line of the excerpt holds {fragment!r}, which a note is about")


def visit(translator: Any, node: excerpt_code) -> None:
    """Write the HTML of an `excerpt_code`."""
    part: Part = node["part"]
    builder = translator.builder
    links = {name: address(builder, builder.current_docname, full) for name, full in part.names.items()}
    html = translator.highlighter.highlight_block(part.code, "python")

    def linked(match: re.Match[str]) -> str:
        link = links.get(match[2])
        return f'{match[1]}<a href="{link}">{match[2]}</a>{match[3]}' if link else match[0]

    html = re.sub(r'(<span class="n[fc]?">)(\w+)(</span>)', linked, html)
    before, lines, after = re.split(r"(?<=<pre>)(?:<span></span>)?|(?=</pre>)", html)
    marked = []
    for number, (line, text) in enumerate(zip(lines.rstrip("\n").split("\n"), part.code.splitlines(), strict=True)):
        notes = " ".join(map(str, node["marks"].get(number, [])))
        mark = f'<i class="excerpt-mark" data-note="{notes}"></i>' if notes else ""
        left_out = " excerpt-gap" if text.strip() == "..." else ""
        indent = len(text) - len(text.lstrip())  # which what is wrapped keeps
        marked.append(f'<span class="excerpt-line{left_out}" style="--indent: {indent}ch">{mark}{line}\n</span>')
    title = f"<code>{part.name}</code>"
    if link := address(builder, builder.current_docname, part.owner):
        title = f'<a href="{link}">{title}</a>'
    translator.body.append(f'<div class="excerpt-code"><p class="excerpt-name">{title}</p>{before}')
    translator.body.append("".join(marked) + f"{after}</div>")
    raise nodes.SkipNode
