"""Dependencies and parameters of a notebook."""

import ast
import hashlib
import json
from pathlib import Path
from typing import Any, get_args

import yaml

from i2i_book.presets import FAMILIES, preset_parameters
from i2i_lib.data.adapters import LOADERS, loader_module
from i2i_lib.files import library_modules, root


class NotebookError(RuntimeError):
    """A notebook that did not run to its end, or could not be started. The message is a sentence for the user."""


def imported_modules(notebook: Path, task: str | None = None) -> list[Path]:
    """The files of this checkout that a notebook imports, directly or through another, sorted. Read, not executed.

    Of what the library picks by name while it runs, only what it picks for `task`; without a task, all of it.
    """
    cells = [cell["source"] for cell in _cells(notebook) if cell["cell_type"] == "code"]
    # IPython's `%magic` and `!shell` lines are not Python.
    lines = [line for cell in cells for line in cell.splitlines() if not line.lstrip().startswith(("%", "!"))]
    code = "\n".join(lines)
    try:
        found = set(library_modules(code))
    except SyntaxError as error:
        raise _not_python(notebook, error) from error
    adapter = _closure(loader_module(task)) if task and task in LOADERS else set()
    if task and "i2i_lib.data.tasks import" in code:
        found -= {_file(loader_module(other)) for other in LOADERS}
        found |= adapter
    if _file("i2i_lib.data.store") in found:
        cache = "i2i_lib.data.picture_cache"
        if not task or _file(cache) in adapter:  # only such a task keeps its pictures in files
            found |= _closure(cache)
    if _file("i2i_lib.train.recipe") in found:
        families = set(FAMILIES.values())
        if task in FAMILIES and task not in ("folder", "cityscapes"):  # whose options choose their family
            families = {FAMILIES[task]}
        for family in families:
            found |= _closure(f"i2i_lib.train.{family}")
    return sorted(found)


def _file(module: str) -> Path:
    return root() / f"{module.replace('.', '/')}.py"


def _closure(module: str) -> set[Path]:
    return set(library_modules(f"import {module}"))


def _not_python(notebook: Path, error: SyntaxError) -> NotebookError:
    return NotebookError(f"{notebook.name}: `{(error.text or '').strip()}` is not Python ({error.msg})")


def _cells(notebook: Path) -> list[dict[str, Any]]:
    try:
        cells = json.loads(notebook.read_text())["cells"]
        return [cell | {"metadata": dict(cell["metadata"]), "source": "".join(cell["source"])} for cell in cells]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise NotebookError(f"{notebook} is not a notebook, or was cut short ({error!r})") from error


def code_digest(notebook: Path, task: str | None = None) -> tuple[str, str]:
    """SHA-256 of the notebook's source, and of all modules of this checkout that it imports for a task."""
    modules = hashlib.sha256()
    for path in imported_modules(notebook, task):
        modules.update(f"{path.name}\n".encode() + path.read_bytes())
    return hashlib.sha256(notebook.read_bytes()).hexdigest(), modules.hexdigest()


_TYPES: dict[str, Any] = {"int": int, "float": float, "str": str, "bool": bool, "list[str]": list[str]}
_TYPES |= {"list": list, "list[int]": list[int]}


def notebook_parameters(notebook: Path) -> dict[str, tuple[Any, Any]]:
    """Name -> (type, default) of a notebook's parameters cell, whose lines read `name: type = literal  # help`.

    Raises NotebookError if there is not exactly one such cell or a line is of another form.
    """
    tagged = [cell for cell in _cells(notebook) if "parameters" in cell["metadata"].get("tags", [])]
    if len(tagged) != 1:
        raise NotebookError(f"{notebook.name} has {len(tagged)} cells tagged `parameters`; it needs exactly one")
    parameters = {}
    try:
        body = ast.parse(tagged[0]["source"]).body
    except SyntaxError as error:
        raise _not_python(notebook, error) from error
    for node in body:
        wrong = NotebookError(f"{notebook.name}: `{ast.unparse(node)}` is not of the form `name: type = value`")
        if not (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and node.value is not None
            and (kind := _TYPES.get(ast.unparse(node.annotation))) is not None
        ):
            raise wrong
        try:
            parameters[node.target.id] = (kind, ast.literal_eval(node.value))
        except ValueError:
            raise wrong from None
    return parameters


def defaults(notebook: Path) -> dict[str, Any]:
    """Every parameter of a notebook with its default. Raises NotebookError as `notebook_parameters` does."""
    return {name: default for name, (_, default) in notebook_parameters(notebook).items()}


def chapter_parameters(preset: dict[str, Any], chapter: str, task: str, variant: str | None = None) -> dict[str, Any]:
    """Every parameter that a chapter runs with by a preset: its notebook's defaults, with the preset's over them."""
    own = preset_parameters(preset, chapter, task, variant)
    return defaults(root() / "notebooks" / f"{chapter}.ipynb") | own


def check_parameters(notebook: Path, given: dict[str, Any]) -> dict[str, Any]:
    """The given parameters, whole numbers as float where the notebook declares one.

    Raises NotebookError for a name that the notebook does not have and for a value that is not of the annotated type:
    a quoted "false" of a preset, for instance, or its `1e-4`, which YAML reads as text.
    """
    known = _known(notebook, given)
    return {name: _typed(notebook, name, known[name], value) for name, value in given.items()}


def read_parameters(notebook: Path, texts: dict[str, str]) -> dict[str, Any]:
    """Parameters from the command line, each text read as the annotated type: `1e-4` is a float, `[gcka, none]` a list.

    Raises NotebookError as `check_parameters` does.
    """
    known, values = _known(notebook, texts), {}
    for name, text in texts.items():
        kind = known[name]
        try:
            # Numbers not as YAML, which reads `1e-4` as text and `010` as eight.
            values[name] = kind(text) if kind in (int, float, str) else yaml.safe_load(text)
        except (ValueError, yaml.YAMLError):
            raise _wrong_type(notebook, name, kind, text) from None
    return check_parameters(notebook, values)


def _known(notebook: Path, given: dict[str, Any]) -> dict[str, Any]:
    """The type of each of the notebook's parameters; NotebookError where another is given."""
    known = notebook_parameters(notebook)
    if unknown := sorted(given.keys() - known.keys()):
        raise NotebookError(
            f"{notebook.name} has no parameter {', '.join(map(repr, unknown))}; it has {', '.join(sorted(known))}"
        )
    return {name: kind for name, (kind, _) in known.items()}


def _typed(notebook: Path, name: str, kind: Any, value: Any) -> Any:
    if kind is float and type(value) is int:
        value = float(value)
    element = get_args(kind)
    if type(value) is not (list if element else kind) or (element and any(type(v) is not element[0] for v in value)):
        raise _wrong_type(notebook, name, kind, value)
    return value


def _wrong_type(notebook: Path, name: str, kind: Any, value: Any) -> NotebookError:
    wanted = next(text for text, known in _TYPES.items() if known == kind)
    return NotebookError(f"{notebook.name}: parameter {name!r} must be of type {wanted}, got {value!r}")
