"""Which files of the library a piece of code depends on: read from its syntax, not by running it."""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent


def library_modules(code: str) -> list[Path]:
    """The files of `i2i_lib` that Python code imports, directly or through one another, sorted."""
    found: set[Path] = set()
    waiting = list(_imports(code))
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += _imports(path.read_text())
    return sorted(found)


def _imports(code: str) -> Iterator[Path]:
    for node in ast.walk(ast.parse(code)):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            path = PACKAGE.joinpath(*name.split(".")[1:]).with_suffix(".py")
            if name.startswith("i2i_lib.") and path.exists():
                yield path
