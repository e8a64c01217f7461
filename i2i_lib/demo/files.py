"""What the page of a demo loads: networks as ONNX files, pictures to begin with, and what PyTorch makes of them.

So the page has something to show before a browser computes anything, and something to compare with when it does.
"""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ImageColor
from torch import Tensor

from i2i_lib.checkpoint import load_generator
from i2i_lib.data.pictures import to_image
from i2i_lib.data.tiles import Task, encode, evenly
from i2i_lib.export.onnx import Precision, export_onnx
from i2i_lib.files import atomic_write
from i2i_lib.fuse import can_fuse
from i2i_lib.macs import generator_macs, generator_params
from i2i_lib.metrics.pairs import l1, quantise

EXAMPLES = 8  # test pictures that come along
# All files hold 32-bit numbers, so that their sizes compare, unless the largest network has more parameters than this.
PARAMETERS_FP32 = 2_000_000
SAMPLED = 400  # pictures that the colours of a palette are counted in
APART = 48  # least distance of two colours of a palette, of levels from 0 to 255


def chosen_examples(task: Task) -> Tensor:
    """Numbers of the test pictures that come along, at even distances."""
    return evenly(len(task.test), EXAMPLES)


def write_networks(
    saved: Mapping[str, Path], main: str, task: Task, out: Path, *, sizes: list[int] | None = None
) -> dict[str, Any]:
    """Write the networks saved by name, and their pictures, into the folder `out`; return what a demo.json begins with.

    `main` is the network that the page shows first; the one named "teacher" is what the others are compared with. The
    first example is the one whose L1 by the main network is the median: to the truth of pairs, else to the teacher's
    picture. `sizes` are sides of pictures in pixels, by default that of the test pictures.

    Raises ValueError for a network that does not read colour pictures, before anything is written.
    """
    generators = {name: load_generator(path) for name, path in saved.items()}
    for name, generator in generators.items():
        if not can_fuse(generator) or generator.config.in_channels != 3:
            raise ValueError(
                f"{saved[name]} reads label maps or another kind of picture: a demo's networks read the colour pictures"
                " that are drawn"
            )
    chosen = chosen_examples(task)
    sources = task.test.source[chosen]
    atomic_write(out / "sources.webp", strip(sources))
    truths = task.test.target[chosen] if task.test.paired else None
    if truths is not None:
        atomic_write(out / "truths.webp", strip(truths))
    size = task.test.size
    sizes = sizes or [size]

    largest = max(generator_params(generator.config) for generator in generators.values())
    precision: Precision = "fp32" if largest <= PARAMETERS_FP32 else "fp16"
    networks, made = [], {}
    for name, generator in generators.items():
        with torch.no_grad():
            made[name] = quantise(torch.cat([generator(encode(source)) for source in sources.split(1)]))
        atomic_write(out / f"{name}.webp", strip(made[name]))
        macs = {side: generator_macs(generator.config, side, "exact") for side in sizes}
        file = _export(saved[name], out / f"{name}.onnx", precision)
        network = {"name": name, "macs": macs, "parameters": generator_params(generator.config)}
        networks.append(network | {"bytes": file.size, "precision": file.precision})
    networks.sort(key=lambda network: network["macs"][size])
    whole = next((network["macs"][size] for network in networks if network["name"] == "teacher"), None)
    for network in networks:
        network["label"] = _label(network["name"], network["macs"][size], whole)

    errors = l1(made[main], truths if truths is not None else made.get("teacher", sources)).tolist()
    about: dict[str, Any] = {"task": task.name, "size": size, "sizes": sizes, "examples": len(sources)}
    about |= {"first": sorted(range(len(errors)), key=errors.__getitem__)[len(errors) // 2], "main": main}
    return about | {"domains": task.info["domains"], "truths": truths is not None, "networks": networks}


def _export(source: Path, file: Path, precision: Precision) -> Any:
    try:
        return export_onnx(source, file, precision=precision)
    except ValueError:  # half precision may be too coarse for a network
        if precision == "fp32":
            raise
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

    Each comes as `{"colour": "#ffb02e", "name": "orange"}`, named after the nearest colour of CSS that is left.
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
    swatches = []
    for rgb in found:
        nearest = min(css, key=lambda colour: float(np.linalg.norm(np.array(colour) - rgb)))
        name = css.pop(nearest)  # no name twice
        swatches.append({"colour": "#{:02x}{:02x}{:02x}".format(*rgb), "name": name})
    return swatches


def strip(pictures: Tensor) -> bytes:
    """Pictures side by side as a file that keeps every level."""
    file = BytesIO()
    to_image(torch.cat([*pictures], -1)).save(file, "WebP", lossless=True, method=6)
    return file.getvalue()
