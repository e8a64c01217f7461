"""The picture of the packages and their imports, drawn from the code: included by the page on its layout."""

import ast
from collections import defaultdict
from pathlib import Path
from textwrap import wrap

# A box imports only from those below it. In each, modules and packages of `i2i_lib`.
BOXES = {
    "the command i2i": "cli compress demo",
    "i2i_lib.export": "export translate",
    "i2i_lib.evaluate": "evaluate",
    "i2i_lib.train": "train losses",
    "i2i_lib.metrics": "metrics results",
    "i2i_lib.data": "data",
    "the method": "config macs threshold kernels layers generators spade discriminators prune scales students fuse"
    " checkpoint official",
    "files and processes": "files artifacts hub progress archives commands distributed facade variables weights cpus"
    " counts",
}
WIDTH, LINE, GAP = 720, 17, 26  # of the picture, of a line of text, between boxes


def packages_picture(top: Path) -> str:
    """Inline SVG, in the colours of the page's theme, of the packages of the checkout `top`.

    Raises ValueError for a module that has no box, or that imports from a box above its own.
    """
    lines: dict[str, list[str]] = {
        "notebooks": ["a chapter each, run by i2i_book.runner"],
        "i2i_book": wrap(", ".join(sorted(p.stem for p in (top / "i2i_book").iterdir() if p.stem[0] != "_")), 100),
    }
    members, imports = defaultdict(list), defaultdict(set)
    for path in sorted((top / "i2i_lib").rglob("*.py")):
        if path.name == "__init__.py":
            continue
        box = _box(path.relative_to(top / "i2i_lib").parts[0].removesuffix(".py"))
        members[box].append(path.stem)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("i2i_lib."):
                imports[box].add(_box((node.module or "").split(".")[1]))
    order = list(BOXES)
    for place, box in enumerate(order):
        if above := imports[box].intersection(order[:place]):
            raise ValueError(
                f"{box} imports from {', '.join(sorted(above))}, above it in i2i_book.pages.picture: move a box"
            )
        below = [name for name in order[place + 1 :] if name in imports[box]]
        names = dict.fromkeys(name for name in members[box] if name[0] != "_")
        lines[box] = wrap(", ".join(names), 100)
        if below:
            lines[box].append(f"imports from {', '.join(below)}")

    parts, y = [], 10
    for box, texts in lines.items():
        height = LINE * (len(texts) + 1) + 14
        if parts:
            parts.append(f'<path class="arrow" marker-end="url(#code-tip)" d="M{WIDTH // 2},{y - GAP} v{GAP}"/>')
        parts.append(f'<rect class="box" x="10" y="{y}" width="{WIDTH - 20}" height="{height}" rx="6"/>')
        parts.append(f'<text class="name" x="22" y="{y + LINE + 3}">{box}</text>')
        for number, text in enumerate(texts, start=2):
            parts.append(f'<text x="22" y="{y + LINE * number + 3}">{text}</text>')
        y += height + GAP
    return (
        f'<svg class="code-picture" role="img" viewBox="0 0 {WIDTH} {y - GAP + 10}" aria-label="The packages of this'
        ' project, each above those that it imports; the page describes them in words.">\n'
        '<defs><marker id="code-tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"'
        ' orient="auto"><path d="M0,0 L8,4 L0,8 z"/></marker></defs>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _box(part: str) -> str:
    """The box of a module or package of the library."""
    for box, held in BOXES.items():
        if part in held.split():
            return box
    raise ValueError(f"i2i_lib.{part} has no box in the picture of the packages: add it to i2i_book.pages.picture")
