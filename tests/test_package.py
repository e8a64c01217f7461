"""The wheel: it builds, needs little, and works where nothing but its core dependencies is installed."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterator
from email.parser import Parser
from importlib.metadata import Distribution, distribution, packages_distributions
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from test_layout import imports

ROOT = Path(__file__).parents[1]


def required(requirements: list[str]) -> Iterator[Distribution]:
    """The installed packages that requirements and their own ones name, each once."""
    waiting, seen = [Requirement(text) for text in requirements], set()
    while waiting:
        requirement = waiting.pop()
        extras = {"", *requirement.extras}
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
            continue
        name = canonicalize_name(requirement.name)
        found = distribution(requirement.name)
        if name not in seen:
            seen.add(name)
            yield found
        for text in found.requires or []:
            inner = Requirement(text)
            if inner.marker is None or any(inner.marker.evaluate({"extra": extra}) for extra in extras):
                key = canonicalize_name(inner.name)
                if key not in seen or inner.extras:
                    inner.marker = None
                    waiting.append(inner)


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(found.metadata["Name"]) for found in required(requirements)}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, so that nothing is left in the checkout."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("i2i_lib", "i2i_book", "tests"):  # more than the wheel may hold
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", str(source / "out")]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(source)], check=True)
    (made,) = (source / "out").iterdir()
    return made


@pytest.fixture(scope="module")
def core(wheel) -> list[str]:
    """The wheel's requirements without extras."""
    with ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        found = Parser().parsestr(archive.read(metadata).decode()).get_all("Requires-Dist", [])
    return [text for text in found if "extra ==" not in text]


def test_the_wheel_holds_the_library_alone_its_types_and_its_page(wheel):
    with ZipFile(wheel) as archive:
        held = set(archive.namelist())
    assert {name.split("/")[0] for name in held if ".dist-info" not in name} == {"i2i_lib"}
    files = [*(ROOT / "i2i_lib").rglob("*.py"), *(ROOT / "i2i_lib/demo/static").iterdir()]
    wanted = {path.relative_to(ROOT).as_posix() for path in files} | {"i2i_lib/py.typed"}
    assert {name for name in held if name.startswith("i2i_lib/")} == wanted


def test_few_packages_come_along(core):
    """Beside those that PyTorch needs itself."""
    beside = names(core) - names(["torch"])
    assert len(beside) <= 8, beside
    assert {"numpy", "pillow", "safetensors", "tqdm"} <= beside


def test_every_package_that_the_library_imports_is_named():
    """In the core, or in an extra that a person can install."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert extras["dev"][0] == "i2i-lib[book,hub]" and extras["book"][0] == "i2i-lib[data,eval,export]"
    listed = [project["dependencies"], *extras.values()]
    named = {canonicalize_name(Requirement(text).name) for texts in listed for text in texts}
    owners = packages_distributions()
    for path in (ROOT / "i2i_lib").rglob("*.py"):
        tops = {name.split(".")[0] for name in imports(path)} - sys.stdlib_module_names - {"i2i_lib", ""}
        for top in tops:
            owning = owners.get(top, [top])  # not installed: of an extra that is not for everyone
            assert {canonicalize_name(owner) for owner in owning} & named, f"{path.name} imports {top}"


@pytest.fixture(scope="module")
def empty(wheel, core, tmp_path_factory) -> Path:
    """The Python of an environment with the wheel and links to its core dependencies; returns its program."""
    home = tmp_path_factory.mktemp("empty")
    venv.create(home, with_pip=False)
    site = next((home / "lib").glob("python*/site-packages"))
    for found in required(core):
        for file in found.files or []:
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not (site / top).exists():
                (site / top).symlink_to(Path(str(found.locate_file(top))).resolve())
    python = home / "bin" / "python"
    install = ["--python", str(python), "install", "--no-deps", "--no-index", "--quiet", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True)
    return python


# What the core does without any extra.
CORE = "official prune students translate checkpoint train.recipe train.cyclegan data.folders cli.__main__"


def run(python: Path, code: str, folder: Path) -> str:
    """What code prints that is run outside the checkout."""
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_core_works_alone_and_starts_fast(empty, tmp_path):
    imports = "; ".join(f"import i2i_lib.{name}" for name in CORE.split())
    code = f"import json, sys, time; import i2i_lib.prune; spent = time.process_time(); {imports}"
    code += "\nprint(json.dumps([i2i_lib.__file__, spent, sorted(sys.modules)]))"
    file, spent, loaded = json.loads(run(empty, code, tmp_path))
    assert Path(file).is_relative_to(empty.parents[1])
    assert not {"scipy", "pandas", "onnx", "accelerate", "matplotlib", "torchvision"} & set(loaded)
    assert spent < 4, "2 s on an idle core; the time that others take is not counted, but their caches are"


def test_the_command_works_alone_and_names_the_extra_that_it_lacks(empty, tmp_path):
    i2i = [str(empty.with_name("i2i"))]
    version = subprocess.run([*i2i, "--version"], capture_output=True, text=True, cwd=tmp_path)
    assert re.fullmatch(r"i2i \d+\.\d+\.\d+\n", version.stdout), version.stderr
    lacking = subprocess.run([*i2i, "export", "student"], capture_output=True, text=True, cwd=tmp_path)
    assert lacking.returncode == 1 and "pip install 'i2i-lib[export]'" in lacking.stderr


def test_the_version_is_one():
    """In the package, the citation and the first release of the change log, whose dates agree, too."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    cited = (ROOT / "CITATION.cff").read_text()
    (released,) = re.findall(r"^date-released: (\S+)$", cited, re.M)
    assert re.findall(r"^version: (\S+)$", cited, re.M) == [version]
    entries = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert entries[entries[0] == "Unreleased"] == f"{version}, {released}"
