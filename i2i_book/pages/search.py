"""What the page on budgets runs in the browser: modules of the library, and the teachers of the book."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from i2i_book.plan import DEMOS
from i2i_lib.files import library_modules, root, write_json

SESSION = "book/static/search/session.py"


def library() -> dict[str, str]:
    """Every module that the session in the browser imports: path -> source, packages' `__init__` included."""
    found = {}
    for path in library_modules((root() / SESSION).read_text()):
        inside = path.relative_to(root())
        found[inside.as_posix()] = path.read_text()
        for package in inside.parents:
            if (init := root() / package / "__init__.py").exists():
                found[(package / "__init__.py").as_posix()] = init.read_text()
    return found


def teacher_of(home: Path, plan: Path) -> dict[str, Any]:
    """A teacher's widths and scales, and what its chapter searches with; `home` holds the teacher and its data."""
    from i2i_lib.checkpoint import load_generator  # PyTorch, which only books with a teacher need
    from i2i_lib.prune import norm_scales

    teacher = load_generator(home / "teacher")
    data = json.loads((home / "data.json").read_text())
    size = data["info"]["image_size"]
    asked = json.loads(plan.read_text())["provenance"] if plan.exists() else {}
    return {
        "config": asdict(teacher.config),
        "scales": norm_scales(teacher),
        "image_size": size,
        "min_width": asked.get("min_width"),
    }


def place(preset: str, book: Path, runs: Path) -> None:
    """Write library.json and teachers.json into `book`/static/searched, if there is a teacher."""
    folder = book / "static" / "searched"
    shutil.rmtree(folder, ignore_errors=True)
    teachers = {}
    for task, title in DEMOS.items():
        places = [runs / preset / task / "seed0", book / "recorded" / preset / task / "seed0", book / "recorded" / task]
        home = next((home for home in places if (home / "teacher.json").exists()), None)
        if home and json.loads((home / "teacher.json").read_text())["kind"] == "inception":
            pictures = (book / "static" / "models" / task / "demo.json").exists()
            teachers[task] = {"title": title, "pictures": pictures} | teacher_of(home, home / "plan.json")
    if teachers:
        write_json(folder / "library.json", library())
        write_json(folder / "teachers.json", teachers)


class search(nodes.General, nodes.Element):
    """The place of the search: its addresses depend on the page."""


class Search(SphinxDirective):
    """Offer the search itself, for any budget and any teacher of the book."""

    def run(self) -> list[nodes.Node]:
        return [search()]


def visit(translator: Any, node: search) -> None:
    """Write the HTML of a `search`; nothing where the book has no teacher."""
    builder = translator.builder
    if (Path(builder.srcdir) / "static" / "searched" / "teachers.json").exists():
        top = "../" * builder.current_docname.count("/")
        translator.body.append(
            f'<section class="search" aria-label="The search itself" data-static="{top}_static/">'
            "<noscript><p>The search needs JavaScript, which this browser has switched off.</p></noscript>"
            f'</section><script defer src="{top}_static/search/search.js"></script>'
        )
    raise nodes.SkipNode
