"""Files of the book's live demos: `python -m i2i_book.demo runs/cpu/fluent/seed0` writes the folder `demo` there.

Also the features of one picture, for the figure that compares those of the teacher and its students.
"""

import json
import shutil
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

from torch import Tensor

from i2i_book.alike import LABELS, tapped
from i2i_book.recorded.trainings import known_hashes
from i2i_book.wording import LEVELS
from i2i_lib.checkpoint import load_generator, load_info
from i2i_lib.data.earth import earth_rasters
from i2i_lib.data.pictures import to_image
from i2i_lib.data.store import load_saved_task
from i2i_lib.data.tiles import Task, encode
from i2i_lib.demo.files import chosen_examples, palette, write_networks
from i2i_lib.evaluate import generate
from i2i_lib.files import atomic_write, root, write_json
from i2i_lib.metrics.pairs import l1, quantise

OWN = "student-gcka"  # the student of the run
LARGEST = 256  # side of the largest picture on offer, in pixels
# What one can draw with, and how many colours one can choose from. Elsewhere one paints on the world map.
DRAWING: dict[str, dict[str, Any]] = {
    "fluent": {"tools": ["ellipse", "box", "shape", "brush"], "colours": 16},
    "openmoji": {"tools": ["brush"], "colours": 2},
}
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
    that were made of this teacher.
    """
    shutil.rmtree(out, ignore_errors=True)  # with the files of networks that are no longer there
    task = load_saved_task(home / "data")
    chosen, size = chosen_examples(task), task.test.size
    sizes = [side for side in (size, 2 * size, 4 * size) if side <= LARGEST and task.name == "earth"] or [size]
    networks = _networks(home, students)
    main = _first_shown(networks)
    about = write_networks(networks, main, task, out, sizes=sizes)
    labels = [network["label"] for network in about["networks"]]
    for network in about["networks"]:
        network |= _facts(networks[network["name"]], task)
        if network["name"] == OWN and labels.count(network["label"]) > 1:
            network["label"] += ", this run"
    if task.name == "earth":
        about["world"] = _world(task, chosen, out)
        about["names"] = [_position(task, box) for box in _centres(task, chosen)]
    else:
        drawing = DRAWING[task.name]
        about["names"] = [task.info["test"][i]["name"] for i in chosen]
        about |= {"credit": task.info["credit"], "tools": drawing["tools"]}
        about["palette"] = palette(task.train.source, drawing["colours"])
    if "teacher" in networks:
        inside = {name: load_generator(home / name) for name in _inside(home)}
        source = task.test.source[chosen[about["first"]]]
        compared = tapped(encode(source[None]), inside) | {"size": size, "picture": about["first"]}
        # A script, not data: a page opened from a folder may load it.
        atomic_write(out / "alike.js", f"alike({json.dumps(compared)});\n".encode())
    write_json(out / "demo.json", about)


def _inside(home: Path) -> list[str]:
    """The networks whose features are compared."""
    return ["teacher", *(name for name in LABELS if (home / f"{name}.safetensors").exists())]


def _networks(home: Path, students: Path | None) -> dict[str, Path]:
    """The saved generators by name: those of the run, and the other students of the same teacher."""
    found = {name: home / name for name in (OWN, "teacher") if (home / f"{name}.safetensors").exists()}
    if students is None or "teacher" not in found:
        return found
    known = known_hashes(load_info(found["teacher"]))
    for file in sorted(students.glob("*.safetensors")):
        if load_info(file.with_suffix(""))["provenance"].get("teacher") in known:
            found.setdefault(file.stem, file.with_suffix(""))
    return found


def _first_shown(networks: dict[str, Path]) -> str:
    """Of the students with the widths of the run's own the one that trained the longest; of equals the run's."""
    records = {name: load_info(path) for name, path in networks.items() if name != "teacher"}
    alike = [name for name, record in records.items() if record["config"] == records[OWN]["config"]]
    return max(alike, key=lambda name: (_steps(records[name]) or 0, name == OWN))


def _steps(record: dict[str, Any]) -> int | None:
    """The steps of the training that a saved network comes from, as far as it is known."""
    return (record["provenance"].get("training") or {}).get("steps")


def _facts(saved: Path, task: Task) -> dict[str, float]:
    """The steps of a network's training and, where the test has true pictures, the distance to them in grey levels."""
    facts: dict[str, float | None] = {"steps": _steps(load_info(saved))}
    if task.test.paired:
        made = generate(load_generator(saved), task.test.source, task.test.classes)
        facts["levels"] = LEVELS * l1(quantise(made), task.test.target).mean().item()
    return {name: value for name, value in facts.items() if value is not None}


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
        to_image(raster[:, top:bottom]).save(file, "JPEG", quality=88, subsampling=0)
        atomic_write(out / f"{name}.jpg", file.getvalue())

    def at(place: tuple[float, float]) -> list[int]:
        north, east = place
        return [round((90 - north) / 180 * height) - top, round((180 + east) / 360 * width)]

    world: dict[str, Any] = {"height": bottom - top, "width": width, "top": top, "degrees": 360 / width}
    world |= {"bands": task.info["bands"], "band_width": task.info["band_width"]}
    world["places"] = [[row - top, column] for row, column in _centres(task, chosen)]
    world["brushes"] = {name: at(place) for name, place in BRUSHES.items()}
    return world | {"patch": PATCH * width // 5400}


if __name__ == "__main__":
    try:
        folder = Path(sys.argv[1])
        make(folder, folder / "demo", root() / "book" / "recorded" / folder.absolute().parent.name / "students")
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
