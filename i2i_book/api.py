"""The library's reference, from its docstrings: read, not imported, so that building the book needs no PyTorch."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

from docutils.nodes import make_id

Documented = ast.FunctionDef | ast.ClassDef


def reference(library: Path) -> str:
    """Markdown with a part for each module below the package `library`, and in it what the module offers."""
    parts = []
    for path in sorted(library.rglob("*.py"), key=lambda path: _module(path, library)):
        lines, module = path.read_text().splitlines(), ast.parse(path.read_text())
        if not (about := ast.get_docstring(module)):
            continue
        parts.append(f"## {_module(path, library)}\n\n{_prose(about)}\n")
        inside = ".".join(path.relative_to(library.parent).with_suffix("").parts)
        for node in offered(module.body):
            parts.append(f"({inside}.{node.name})=\n\n### {node.name}\n\n{_entry(node, lines)}")
            parts += [_entry(method, lines) for method in offered(node.body) if isinstance(node, ast.ClassDef)]
    return "\n".join(parts)


def anchor(name: str) -> str:
    """The id, on the page of the reference, of what has that qualified name, such as `i2i_lib.losses.lsgan`."""
    return make_id(name)


def _module(path: Path, library: Path) -> str:
    """A module's name below its package, such as `data.earth`; that of a package is its own."""
    inside = path.relative_to(library.parent).with_suffix("").parts
    parts = inside[:-1] if inside[-1] == "__init__" else inside
    return ".".join(parts[1:] or parts)


def offered(body: list[ast.stmt]) -> Iterator[Documented]:
    """Functions and classes with a docstring whose names do not begin with an underscore, as they stand in the file."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_" and ast.get_docstring(node):
            yield node


def _entry(node: Documented, lines: list[str]) -> str:
    """Head and docstring; of a class also its fields, with their comments, and its constructor's head."""
    head = _head(node, lines)
    for part in node.body if isinstance(node, ast.ClassDef) else ():
        if isinstance(part, ast.AnnAssign):
            head += lines[part.lineno - 1 : part.end_lineno]
        elif isinstance(part, ast.FunctionDef) and part.name == "__init__":
            head += _head(part, lines)
    return f"```python\n{dedent(chr(10).join(head))}\n```\n\n{_prose(ast.get_docstring(node) or '')}\n"


def _head(node: Documented, lines: list[str]) -> list[str]:
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return lines[first - 1 : node.body[0].lineno - 1]


def _prose(docstring: str) -> str:
    """A docstring as Markdown: outside of code, a name in angle brackets is no tag of HTML."""
    parts = re.split(r"(`+[^`]*`+)", docstring)
    return "".join(part if part.startswith("`") else re.sub(r"<(?=[\w/])", r"\\<", part) for part in parts)
