"""The library's reference: what of it sphinx-autoapi shows, the list of its modules, and links to its names."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import astroid
from docutils import nodes

ALIAS = re.compile(r"[A-Z]+[a-z]\w*")  # the name of a type, not of a constant
UNLINKED = (nodes.reference, nodes.title)  # no link in a link, none in a heading


def modules(library: Path) -> str:
    """Markdown list of the modules below the package `library`: a link to the page of each, and what it is for."""
    lines = []
    for name, path in _files(library):
        if not path.name.startswith("__main") and (about := ast.get_docstring(ast.parse(path.read_text()))):
            first = re.split(r"(?<=\.)\s", about, maxsplit=1)[0]
            lines.append(f"- {{py:mod}}`{name.removeprefix(library.name + '.')} <{name}>`: {first}")
    return "\n".join(lines) + "\n"


def _files(library: Path) -> Iterator[tuple[str, Path]]:
    """Qualified names of the modules and packages below `library`, sorted, and their files."""
    for path in sorted(library.rglob("*.py")):
        parts = path.relative_to(library.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def file_of(name: str, top: Path) -> tuple[Path, list[str]]:
    """The file below `top` of a qualified name, and what remains of it inside the file."""
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        if (path := top.joinpath(*parts[:length]).with_suffix(".py")).exists():
            return path, parts[length:]
    raise ValueError(f"{name} is in no module of the library")


def read_library_alone(app: Any) -> None:
    """Keep autoapi from reading other packages, which takes long and puts PyTorch's docstrings into the reference."""
    library = _library(app)
    for _, path in _files(library):
        for node in ast.walk(ast.parse(path.read_text())):
            imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            imported += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in imported:
                if name.split(".")[0] != library.name:
                    astroid.MANAGER.module_denylist |= {name, name.split(".")[0]}


def _library(app: Any) -> Path:
    return Path(app.srcdir, *app.config.autoapi_dirs).resolve()


def choose(app: Any, what: str, name: str, shown: Any, skip: bool, options: list[str]) -> bool | None:
    """Whether autoapi leaves out what it calls `name`; None for as it thinks best, by docstrings and underscores.

    Packages are there for their modules' sake. Fields of classes and names of types may have a comment for a docstring.
    """
    if what == "package":
        return False
    field = what == "attribute" and shown.annotation is not None and not shown.inherited
    if not field and not (what == "data" and ALIAS.fullmatch(shown.short_name)):
        return None
    if shown.is_private_member or "from_line_no" not in shown.obj:  # without a line: of another module
        return None
    path, _ = file_of(name, _library(app).parent)
    code, _, comment = path.read_text().splitlines()[shown.obj["from_line_no"] - 1].partition("  # ")
    shown.docstring = shown.docstring or comment
    shown.value = code.partition(" = ")[2] or None  # as it was written
    return False


def link_names(app: Any, doctree: nodes.document, docname: str) -> None:
    """Lead each name in code on a page, such as `losses.lsgan`, to the reference, if only one thing is called so."""
    objects = app.env.get_domain("py").objects
    called: dict[str, list[str]] = {}
    for full, entry in objects.items():
        parts = full.split(".")
        shortest = 1 if entry.objtype in ("function", "class", "exception", "module") else 2
        for length in range(shortest, len(parts) + 1):
            called.setdefault(".".join(parts[-length:]), []).append(full)
    for literal in list(doctree.findall(nodes.literal)):
        name = literal.astext().removesuffix("()")
        meant = max(called.get(name, [""]), key=len)  # the function `fuse` of the module `fuse`
        unclear = len({objects[full].docname for full in called.get(name, ())}) != 1
        if unclear or ("." not in name and objects[meant].objtype == "module"):  # `data` and `train` are words as well
            continue
        if not any(isinstance(node, UNLINKED) for node in _around(literal)):
            link = nodes.reference("", "", internal=True, refuri=address(app.builder, docname, meant), reftitle=meant)
            literal.replace_self(link)
            link += literal


def _around(node: nodes.Node) -> Iterator[nodes.Node]:
    while node := node.parent:
        yield node


def address(builder: Any, docname: str, name: str) -> str | None:
    """The address, from the page `docname`, of a qualified name in the reference; None for one that is not in it."""
    entry = builder.env.get_domain("py").objects.get(name)
    return entry and f"{builder.get_relative_uri(docname, entry.docname)}#{entry.node_id}"
