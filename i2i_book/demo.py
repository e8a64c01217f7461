"""Files of the live demo: `python -m i2i_book.demo runs/cpu/fluent/seed0` writes them into the folder `demo` there.

The teacher and students of several budgets as ONNX files, test pictures to begin with, and what PyTorch makes of them
with each network, so that the page has something to show before a browser computes anything, and to compare with.
Also the features of one picture, for the figure that compares them.
"""

import json
import shutil
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageColor
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from i2i_book.alike import LABELS, tapped
from i2i_lib.checkpoint import load_generator, load_info
from i2i_lib.data.earth import earth_rasters
from i2i_lib.data.store import load_saved_task
from i2i_lib.data.tiles import Task, encode
from i2i_lib.export.onnx import Precision, export_onnx
from i2i_lib.files import atomic_write, root, write_json
from i2i_lib.macs import generator_macs, generator_params
from i2i_lib.metrics.pairs import l1, quantise

MAIN = "student-gcka"  # the student that the page shows first
EXAMPLES = 8  # test pictures that come along
LARGEST = 256  # side of the largest picture on offer, in pixels
# All files hold 32-bit numbers, so that their sizes compare, unless the largest network has more parameters than this.
PARAMETERS_FP32 = 2_000_000
# What one can draw with, and how many colours one can choose from. Elsewhere one paints on the world map.
DRAWING: dict[str, dict[str, Any]] = {
    "fluent": {"tools": ["ellipse", "box", "shape", "brush"], "colours": 16},
    "openmoji": {"tools": ["brush"], "colours": 2},
}
SAMPLED = 400  # drawings that the colours are counted in
APART = 48  # least distance of two colours of a palette, of levels from 0 to 255
# A brush paints with the map's own colours and shading: it copies a patch of the map around such a point, in degrees
# north and east.
BRUSHES = {
    "sea": (20.0, -42.0),
    "forest": (-4.0, -66.0),
    "grassland": (47.5, 33.0),
    "desert": (24.0, 5.0),
    "mountains": (32.5, 50.0),
    "ice": (69.0, -40.0),
}
PATCH = 48  # side of such a patch in pixels of the full raster, 15 to the degree


def make(home: Path, out: Path, students: Path | None = None) -> None:
    """Write the demo of the student `home`/student-gcka into the folder `out`, demo.json last.

    With its teacher, unless `home` is a recording without one, and with the students saved in the folder `students`
    that were made of this teacher. The examples are test pictures at even distances. The first to be shown is the one
    whose error by the main student is the median of theirs.
    """
    shutil.rmtree(out, ignore_errors=True)  # with the files of networks that are no longer there
    task = load_saved_task(home / "data")
    chosen = torch.linspace(0, len(task.test) - 1, EXAMPLES).long()
    sources, truths = task.test.source[chosen], task.test.target[chosen]
    atomic_write(out / "sources.webp", _strip(sources))
    atomic_write(out / "truths.webp", _strip(truths))
    size = task.test.size
    sizes = [side for side in (size, 2 * size, 4 * size) if side <= LARGEST and task.name == "earth"] or [size]

    saved = _networks(home, students)
    generators = {name: load_generator(path) for name, path in saved.items()}
    largest = max(generator_params(generator.config) for generator in generators.values())
    precision: Precision = "fp32" if largest <= PARAMETERS_FP32 else "fp16"
    networks, errors = [], []
    for name, generator in generators.items():
        with torch.no_grad():
            made = quantise(torch.cat([generator(encode(source)) for source in sources.split(1)]))
        atomic_write(out / f"{name}.webp", _strip(made))
        if name == MAIN:
            errors = l1(made, truths).tolist()
        macs = {side: generator_macs(generator.config, side, "exact") for side in sizes}
        file = _export(saved[name], out / f"{name}.onnx", precision)
        network = {"name": name, "macs": macs, "parameters": generator_params(generator.config)}
        networks.append(network | {"bytes": file.size, "precision": file.precision})
    networks.sort(key=lambda network: network["macs"][size])
    whole = next((network["macs"][size] for network in networks if network["name"] == "teacher"), None)
    for network in networks:
        network["label"] = _label(network["name"], network["macs"][size], whole)

    about: dict[str, Any] = {"task": task.name, "size": size, "sizes": sizes, "examples": len(sources)}
    about |= {"first": sorted(range(len(errors)), key=errors.__getitem__)[len(errors) // 2], "main": MAIN}
    about |= {"domains": task.info["domains"], "networks": networks}
    if task.name == "earth":
        about["world"] = _world(task, chosen, out)
        about["names"] = [_position(task, box) for box in _centres(task, chosen)]
    else:
        drawing = DRAWING[task.name]
        about["names"] = [task.info["test"][i]["name"] for i in chosen]
        about |= {"credit": task.info["credit"], "tools": drawing["tools"]}
        about["palette"] = palette(task.train.source, drawing["colours"])
    if "teacher" in generators:
        inside = {name: generators.get(name) or load_generator(home / name) for name in _inside(home)}
        compared = tapped(encode(sources[about["first"]][None]), inside) | {"size": size, "picture": about["first"]}
        # A script, not data: a page opened from a folder may load it.
        atomic_write(out / "alike.js", f"alike({json.dumps(compared)});\n".encode())
    write_json(out / "demo.json", about)


def _inside(home: Path) -> list[str]:
    """The networks whose features are compared."""
    return ["teacher", *(name for name in LABELS if (home / f"{name}.safetensors").exists())]


def _networks(home: Path, students: Path | None) -> dict[str, Path]:
    """The saved generators by name: those of the run, and the other students of the same teacher."""
    found = {name: home / name for name in (MAIN, "teacher") if (home / f"{name}.safetensors").exists()}
    if students is None or "teacher" not in found:
        return found
    teacher = load_info(found["teacher"])
    known = {teacher["sha256"], teacher.get("packed_from"), teacher["provenance"].get("packed_from")} - {None}
    for file in sorted(students.glob("*.safetensors")):
        if load_info(file.with_suffix(""))["provenance"].get("teacher") in known:
            found.setdefault(file.stem, file.with_suffix(""))
    return found


def _export(source: Path, file: Path, precision: Precision) -> Any:
    try:
        return export_onnx(source, file, precision=precision)
    except ValueError:  # half precision may be too coarse for a network
        return export_onnx(source, file)


def _label(name: str, macs: int, whole: int | None) -> str:
    """A network's MACs beside the teacher's, in words."""
    if name == "teacher":
        return "Teacher"
    if whole is None:
        return "Student"
    times = whole / macs
    near = round(times) > 1 and abs(times - round(times)) <= 0.05 * times
    return f"1/{times:.0f} of the MACs" if near else f"{100 / times:.0f} % of the MACs"


def palette(pictures: Tensor, colours: int) -> list[dict[str, str]]:
    """The commonest colours of pictures [N, 3, H, W], uint8, that are at least `APART` apart, the commonest first.

    Each comes as `{"colour": "#ffb02e", "name": "orange"}`, named after a near colour of CSS.
    """
    sampled = pictures[:: max(1, len(pictures) // SAMPLED)].int()
    codes, counts = (sampled[:, 0] << 16 | sampled[:, 1] << 8 | sampled[:, 2]).unique(return_counts=True)
    found: list[np.ndarray] = []
    for code in codes[counts.argsort(descending=True)].tolist():
        rgb = np.array([code >> 16, code >> 8 & 255, code & 255])
        if all(np.linalg.norm(rgb - other) >= APART for other in found):
            found.append(rgb)
        if len(found) == colours:
            break

    css = {ImageColor.getrgb(name)[:3]: name for name in ImageColor.colormap}  # of two names for one colour, the last
    distances = np.linalg.norm(np.array(found)[:, None] - np.array(list(css)), axis=-1)
    _, nearest = linear_sum_assignment(distances)  # no name twice
    names = [list(css.values())[i] for i in nearest]
    return [{"colour": f"#{r:02x}{g:02x}{b:02x}", "name": name} for (r, g, b), name in zip(found, names, strict=True)]


def _centres(task: Task, chosen: Tensor) -> list[tuple[int, int]]:
    """Row and column of the middle of test tiles, in pixels of the raster."""
    half = task.test.size // 2
    return [(row + half, column + half) for row, column in task.test.box[chosen].tolist()]


def _position(task: Task, centre: tuple[int, int]) -> str:
    height, width = task.info["raster"]
    north, east = 90 - centre[0] / height * 180, centre[1] / width * 360 - 180
    return f"{abs(north):.1f}° {'N' if north >= 0 else 'S'}, {abs(east):.1f}° {'E' if east >= 0 else 'W'}"


def _world(task: Task, chosen: Tensor, out: Path) -> dict[str, Any]:
    """Write the map and the satellite picture between the limits of latitude, and return where things are on them.

    Rows are counted from the upper limit, columns from 180 W, in pixels of the task's raster.
    """
    (height, width), (top, bottom) = task.info["raster"], task.info["rows"]
    for name, raster in zip(("map", "satellite"), earth_rasters(task.info["options"].get("scale", 1)), strict=True):
        file = BytesIO()
        _image(raster[:, top:bottom]).save(file, "JPEG", quality=88, subsampling=0)
        atomic_write(out / f"{name}.jpg", file.getvalue())

    def at(place: tuple[float, float]) -> list[int]:
        north, east = place
        return [round((90 - north) / 180 * height) - top, round((180 + east) / 360 * width)]

    world: dict[str, Any] = {"height": bottom - top, "width": width, "top": top, "degrees": 360 / width}
    world |= {"bands": task.info["bands"], "band_width": task.info["band_width"]}
    world["places"] = [[row - top, column] for row, column in _centres(task, chosen)]
    world["brushes"] = {name: at(place) for name, place in BRUSHES.items()}
    return world | {"patch": PATCH * width // 5400}


def _image(picture: Tensor) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(picture.permute(1, 2, 0).numpy()))


def _strip(pictures: Tensor) -> bytes:
    """Pictures side by side as a file that keeps every level."""
    file = BytesIO()
    _image(torch.cat([*pictures], -1)).save(file, "WebP", lossless=True, method=6)
    return file.getvalue()


if __name__ == "__main__":
    try:
        folder = Path(sys.argv[1])
        make(folder, folder / "demo", root() / "book" / "recorded" / folder.absolute().parent.name / "students")
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
