"""Imports point one way, and the light modules stay light."""

import ast
import json
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from i2i_book.pages.picture import BOXES, packages_picture
from i2i_lib import data, metrics, train
from i2i_lib.files import library_modules

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "i2i_lib"
# A layer imports only from those before it, a module of a layer also from its own. Every module of the library belongs
# to exactly one: by its own name, or by its package's.
LAYERS = [
    "cpus counts files artifacts hub progress facade commands archives distributed variables weights",
    "config macs threshold",
    "kernels layers generators spade discriminators losses prune scales students official fuse checkpoint",
    "data",
    "results metrics",
    "train",
    "translate export evaluate",
    "demo",
    "compress",
    "cli",
]


def modules(package: str) -> dict[str, Path]:
    """Every module of a package by its dotted name."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path) -> set[str]:
    """Every module that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def own(path: Path) -> set[str]:
    """The modules of the library that a file imports."""
    return imports(path) & set(modules("i2i_lib"))


def layer(module: str) -> int:
    """The layer of a module: of the entries that name it or a package that holds it, the longest decides."""
    inside = module.removeprefix("i2i_lib.")
    matches = [
        (len(entry), number)
        for number, entries in enumerate(LAYERS)
        for entry in entries.split()
        if f"{inside}.".startswith(f"{entry}.")
    ]
    assert matches, f"{module} belongs to no layer: add it to LAYERS"
    return max(matches)[1]


def test_imports_point_one_way():
    for module, path in modules("i2i_lib").items():
        if module != "i2i_lib":
            beside = own(path) - {"i2i_lib", *(f"i2i_lib.{package}" for package in ("data", "train", "metrics"))}
            above = {name for name in beside if layer(name) > layer(module)}
            assert not above, f"{module} imports {above} from above itself"


def test_no_module_imports_itself_by_a_detour():
    files = modules("i2i_lib") | modules("i2i_book")
    graph = {module: imports(path) & set(files) for module, path in files.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_the_library_does_not_know_the_book():
    for module, path in modules("i2i_lib").items():
        assert not [name for name in imports(path) if name.split(".")[0] == "i2i_book"], module
        assert not re.search(r"\b(notebook|chapter)s? \d", path.read_text()), f"{module} names a chapter"


def test_losses_and_data_know_no_network():
    for module, path in modules("i2i_lib").items():
        if module == "i2i_lib.losses" or module.startswith("i2i_lib.data."):
            assert not own(path) & {"i2i_lib.layers", "i2i_lib.generators", "i2i_lib.discriminators", "i2i_lib.train"}


def test_the_search_needs_no_torch():
    for module in ("config", "macs", "threshold"):
        reached = {name for path in library_modules(f"import i2i_lib.{module}") for name in imports(path)}
        assert not [name for name in reached if name.split(".")[0] in ("torch", "torchvision", "numpy")]


def test_what_a_package_offers_is_there():
    for package in (data, metrics, train):
        assert all(getattr(package, name) for name in package.EXPORTS)
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            package.nothing  # noqa: B018


def test_no_file_of_others_is_run():
    """Pickles are read as weights only, YAML as plain values, and nothing is evaluated."""
    for path in [*LIBRARY.rglob("*.py"), *ROOT.glob("i2i_book/**/*.py"), *ROOT.glob("notebooks/*.ipynb")]:
        code = path.read_text()
        if path.suffix == ".ipynb":
            cells = json.loads(code)["cells"]
            code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Call):
                called, options = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert called not in ("eval", "exec", "pickle.load", "pickle.loads", "yaml.load", "os.system"), (
                    path.name
                )
                assert called != "torch.load" or options.get("weights_only") == "True", path.name
                assert called != "np.load" or "allow_pickle" not in options, path.name
                assert options.get("shell") != "True", path.name


def test_only_what_was_asked_for_is_fetched_and_nothing_served():
    """Whoever can reach the network is a command of its own: loading data or weights cannot."""
    able = {"requests", "pooch", "urllib.request", "http.client", "http.server", "socket", "socketserver"}
    assert {path.stem for path in LIBRARY.rglob("*.py") if able & imports(path)} == {"downloads"}
    calls = r"download_url_to_file|load_state_dict_from_url|hub\.load|retrieve|requests\.get|from_pretrained"
    fetching = rf"\b({calls}|snapshot_download|upload_folder)\("
    found = {name: set(re.findall(fetching, path.read_text())) for name, path in modules("i2i_lib").items()}
    assert {name: calls for name, calls in found.items() if calls} == {
        "i2i_lib.data.downloads": {"requests.get", "retrieve"},
        "i2i_lib.cli.data": {"download_url_to_file"},
        "i2i_lib.hub": {"snapshot_download", "upload_folder"},  # of an address that begins with hf://, and `i2i push`
    }


def test_packages_compute_nothing():
    """So what a notebook depends on leaves their `__init__` out: it says where names are, and runs nothing else."""
    for path in [*LIBRARY.rglob("__init__.py"), *ROOT.glob("i2i_book/**/__init__.py")]:
        for node in ast.parse(path.read_text()).body:
            docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            facade = isinstance(node, ast.ImportFrom) and node.module == "i2i_lib.facade"
            names = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("EXPORTS", "__getattr__")
            assert docstring or facade or names, f"{path}: {ast.unparse(node)}"


def test_the_picture_has_every_module_above_what_it_imports():
    picture = packages_picture(ROOT)
    assert picture.startswith("<svg") and all(f"i2i_lib.{name}" in picture for name in ("data", "train", "metrics"))
    names = re.findall(r'<text class="name"[^>]*>([^<]+)<', picture)
    assert names == ["notebooks", "i2i_book", *BOXES]
    parts = re.split(r'<text class="name"[^>]*>', picture)[1:]
    for place, part in enumerate(parts):
        text = " ".join(re.findall(r"<text[^>]*>([^<]+)<", part))
        listed = text.partition("imports from ")[2].split(", ")
        assert set(filter(None, listed)) <= set(names[place + 1 :]), f"{names[place]} imports from above itself"


def test_the_picture_refuses_an_import_from_above(tmp_path):
    (tmp_path / "i2i_book").mkdir()
    (tmp_path / "i2i_lib/metrics").mkdir(parents=True)
    module = tmp_path / "i2i_lib/metrics/pairs.py"
    module.write_text("from i2i_lib.data.tiles import Task\n")
    assert "imports from i2i_lib.data" in packages_picture(tmp_path)
    module.write_text("from i2i_lib.train.loop import fit\n")
    with pytest.raises(ValueError, match=r"i2i_lib\.metrics imports from i2i_lib\.train, above it"):
        packages_picture(tmp_path)
