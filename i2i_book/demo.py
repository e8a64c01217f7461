"""Files of the live demo: `python -m i2i_book.demo runs/cpu/earth/seed0` writes them into the folder `demo` there.

A student and its teacher as ONNX files, pictures to choose from, and what PyTorch makes of one of them, so that a
browser can show by how much it differs.
"""

import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from i2i_lib.checkpoint import load_generator
from i2i_lib.data.earth import earth_rasters
from i2i_lib.data.store import load_saved_task
from i2i_lib.data.tiles import Task, encode
from i2i_lib.export.onnx import Exported, Precision, export_onnx
from i2i_lib.files import atomic_write, write_json
from i2i_lib.macs import generator_macs, generator_params

EXAMPLES = 8  # test pictures that come along
LARGEST = 256  # side of the largest picture on offer, in pixels
# Half the teacher's file. The student's is small anyway, and float32 can be compared with PyTorch to the last digits.
PRECISIONS: dict[str, Precision] = {"student": "fp32", "teacher": "fp16"}
# Degrees north and east. The places lie in the test bands of the default split.
PLACES = {
    "Italy and the Adriatic": (42.5, 13.6),
    "Rocky Mountains": (39.5, -106.4),
    "Altiplano, Bolivia": (-19.5, -66.4),
    "Amazon and Orinoco": (4.5, -66.4),
    "Eastern Himalaya": (28.5, 93.6),
    "Iran, from the Caspian Sea": (36.0, 53.6),
    "Central Australia": (-24.0, 133.6),
    "New Zealand": (-41.0, 173.6),
}
# A brush paints with the map's own colours and shading: it copies a patch of the map around such a point.
BRUSHES = {
    "sea": (20.0, -42.0),
    "forest": (-4.0, -66.0),
    "grassland": (47.5, 33.0),
    "desert": (24.0, 5.0),
    "mountains": (32.5, 50.0),
    "ice": (69.0, -40.0),
}
PATCH = 48  # side of such a patch in pixels of the full raster, 15 to the degree


def make(home: Path, out: Path) -> None:
    """Write the demo of the student `home`/student-gcka into the folder `out`, demo.json last.

    With its teacher, unless `home` is a recording without one.
    """
    task = load_saved_task(home / "data")
    chosen = torch.linspace(0, len(task.test) - 1, EXAMPLES).long()
    sources, truths = task.test.source[chosen], task.test.target[chosen]
    atomic_write(out / "sources.png", _picture(torch.cat([*sources], -1)))
    atomic_write(out / "truths.png", _picture(torch.cat([*truths], -1)))
    size = task.test.size
    sizes = [side for side in (size, 2 * size, 4 * size) if side <= LARGEST and task.name == "earth"] or [size]
    networks = {}
    for name, artifact in {"student": "student-gcka", "teacher": "teacher"}.items():
        if not (home / f"{artifact}.safetensors").exists():
            continue
        generator, file = load_generator(home / artifact), _export(home / artifact, out / f"{name}.onnx", name)
        with torch.no_grad():
            expected = generator(encode(sources[:1]))
        atomic_write(out / f"{name}.f32", expected.numpy().astype("<f4").tobytes())  # [3, size, size] in [-1, 1]
        macs = {side: {c: generator_macs(generator.config, side, c) for c in ("exact", "paper")} for side in sizes}
        networks[name] = {"bytes": file.size, "precision": file.precision, "macs": macs}
        networks[name]["parameters"] = generator_params(generator.config)
    about: dict[str, Any] = {"task": task.name, "size": size, "sizes": sizes, "examples": len(sources)}
    about |= {"domains": task.info["domains"], "networks": networks}
    if task.name == "earth":
        about["world"] = _world(task, out)
    else:
        about["names"] = [task.info["test"][i]["name"] for i in chosen]
        about["credit"] = task.info["credit"]
    write_json(out / "demo.json", about)


def _export(source: Path, file: Path, name: str) -> Exported:
    try:
        return export_onnx(source, file, precision=PRECISIONS[name])
    except ValueError:  # half precision may be too coarse for a network
        return export_onnx(source, file)


def _world(task: Task, out: Path) -> dict[str, Any]:
    """Write the map and the satellite picture between the limits of latitude, and return where things lie on them.

    Rows are counted from the upper limit, columns from 180 W, in pixels of the task's raster.
    """
    (height, width), (top, bottom) = task.info["raster"], task.info["rows"]
    for name, raster in zip(("map", "satellite"), earth_rasters(task.info["options"].get("scale", 1)), strict=True):
        atomic_write(out / f"{name}.jpg", _picture(raster[:, top:bottom], "JPEG", quality=88, subsampling=0))

    def at(place: tuple[float, float]) -> list[int]:
        north, east = place
        return [round((90 - north) / 180 * height) - top, round((180 + east) / 360 * width)]

    world: dict[str, Any] = {"height": bottom - top, "width": width, "top": top, "degrees": 360 / width}
    world |= {"bands": task.info["bands"], "band_width": task.info["band_width"]}
    world["places"] = {name: at(place) for name, place in PLACES.items()}
    world["brushes"] = {name: at(place) for name, place in BRUSHES.items()}
    return world | {"patch": PATCH * width // 5400}


def _picture(image: Tensor, kind: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy())).save(file, kind, **options)
    return file.getvalue()


if __name__ == "__main__":
    try:
        make(Path(sys.argv[1]), Path(sys.argv[1]) / "demo")
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
