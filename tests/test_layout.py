"""Imports point one way, and the light modules stay light."""

import ast
import json
import re
from pathlib import Path

LIBRARY = Path(__file__).parents[1] / "i2i_lib"
# A module imports only from those before it. What is not listed may import any of these, and none of these imports it.
ORDER = """
    files commands config macs layers generators spade discriminators prune losses processes batches steps
    distill paired unpaired gaugan metrics runs sources diagnosis loop earth earth_labels pictures openmoji folders
    downloads cityscapes data checkpoint described train fuse results
""".split()


def imports(module: str) -> set[str]:
    """Every module that a file of the library imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse((LIBRARY / f"{module}.py").read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names if node.module == "i2i_lib"}
    return names


def own(module: str) -> set[str]:
    return {name.split(".")[1] for name in imports(module) if name.startswith("i2i_lib.")}


def test_imports_point_one_way():
    present = [module for module in ORDER if (LIBRARY / f"{module}.py").exists()]
    assert "train" in present
    for i, module in enumerate(present):
        assert own(module) <= set(present[:i]), f"{module} imports from below itself"


def test_the_library_does_not_know_the_book():
    for path in LIBRARY.glob("*.py"):
        assert not [name for name in imports(path.stem) if name.split(".")[0] == "i2i_book"], path.name


def test_losses_and_data_know_no_network():
    for module in ("losses", "batches", "data"):
        assert not own(module) & {"layers", "generators", "discriminators", "train"}


def test_config_and_macs_need_no_torch():
    for module in ("config", "macs"):
        reached, waiting = set(), {module}
        while waiting:
            name = waiting.pop()
            reached |= imports(name)
            waiting |= own(name)
        assert not [name for name in reached if name.split(".")[0] in ("torch", "torchvision", "numpy")]


def test_no_file_of_others_is_run():
    """Pickles are read as weights only, YAML as plain values, and nothing is evaluated."""
    for path in [
        *LIBRARY.glob("*.py"),
        *LIBRARY.parent.glob("i2i_book/*.py"),
        *LIBRARY.parent.glob("notebooks/*.ipynb"),
    ]:
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


def test_servers_are_for_this_machine_only():
    makefile = (LIBRARY.parent / "Makefile").read_text()
    assert re.findall(r"http\.server.*", makefile) and "--bind 127.0.0.1" in makefile and "0.0.0.0" not in makefile
    assert not re.search(r"jupyterlab.*--(ip|allow-root|NotebookApp|ServerApp\.(ip|token|password))", makefile)
    for path in LIBRARY.glob("*.py"):
        assert not {"http.server", "socket", "socketserver"} & imports(path.stem), path.name


def test_only_what_was_asked_for_is_fetched():
    """Whoever can reach the network is a command of its own: loading data or weights cannot."""
    able = {"requests", "pooch", "urllib.request", "http.client"}
    assert {path.stem for path in LIBRARY.glob("*.py") if able & imports(path.stem)} == {"downloads"}
    fetching = r"\b(download_url_to_file|load_state_dict_from_url|hub\.load|retrieve|requests\.get|from_pretrained)\("
    found = {path.stem: re.findall(fetching, path.read_text()) for path in LIBRARY.glob("*.py")}
    calls = {name: sorted(set(names)) for name, names in found.items() if names}
    assert calls == {"downloads": ["requests.get", "retrieve"], "features": ["download_url_to_file", "hub.load"]}
    main = (LIBRARY / "features.py").read_text().split("def main")[1]
    assert "download_url_to_file" in main, "by its command line, and nowhere else"


def test_the_package_itself_exports_nothing():
    body = ast.parse((LIBRARY / "__init__.py").read_text()).body
    assert all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body)
