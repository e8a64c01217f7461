"""Where a student's last layer is silent: the share of pixels at which none of its channels passes the ReLU.

Where all pixels that the head's kernel covers are silent, the picture has one colour, that of the head's bias.
`python benchmarks/silent_pixels.py runs/ranking/openmoji` prints a line for each student of each seed of a run: the
channels of the last layer before the head, that share on the test pictures, and the L1 distance of the evaluation.
`--every 4` looks at every fourth test picture, `--figure FILE` draws the lines as dots, and `--images FILE` shows what
`gcka` and `uniform` of the first seed make of six test pictures.
"""

import argparse
from datetime import date
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from PIL import Image, ImageOps

from i2i_book.figures import style
from i2i_book.runner.provenance import machine
from i2i_lib.checkpoint import load_generator
from i2i_lib.data.pictures import to_image
from i2i_lib.data.store import load_saved_task
from i2i_lib.data.tiles import encode, evenly
from i2i_lib.metrics.pairs import quantise
from i2i_lib.results import load_evaluation
from i2i_lib.train.device import set_up


def silent_share(path: Path, sources: torch.Tensor) -> tuple[int, float]:
    """Channels of the generator's last layer, and the share of the pixels of its pictures where all of them are 0."""
    generator, silent = load_generator(path), []
    last = generator.up[-1]
    last.register_forward_hook(lambda *call: silent.append((call[-1] == 0).all(1).float().mean()))
    with torch.no_grad():
        for part in sources.split(32):
            generator(part)
    return generator.config.up[-1], float(torch.stack(silent).mean())


def draw(found: dict[str, list[tuple[float, float]]], path: Path) -> None:
    """Each student as a dot: its silent share and its L1 distance. `found`: student -> both of each seed."""
    style.style()
    figure, axis = plt.subplots(figsize=(style.WIDTH, 3.6))
    for model, seeds in found.items():
        silent, l1 = zip(*seeds, strict=True)
        looks: dict[str, Any] = style.look(model, [*found]) | {"linestyle": "", "label": model}
        axis.plot([100 * share for share in silent], l1, **looks)
    axis.set(xlabel="silent pixels (%)", ylabel="L1 distance to the true images")
    axis.legend()
    figure.savefig(path, facecolor="white")


def show(home: Path, path: Path) -> None:
    """Six test pictures, evenly spaced: in rows the drawings, what `gcka` and `uniform` make of them, and the truth."""
    test = load_saved_task(home / "data").test
    chosen = evenly(len(test.source), 6)
    sources = encode(test.source[chosen], test.classes)
    with torch.no_grad():
        made = [load_generator(home / f"student-{model}")(sources) for model in ("gcka", "uniform")]
    rows = [test.source[chosen], *map(quantise, made), test.target[chosen]]
    mosaic = to_image(torch.cat([torch.cat([*row], -1) for row in rows], -2))
    ImageOps.scale(mosaic, 2, Image.Resampling.NEAREST).save(path, lossless=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("task", type=Path, help="folder of a task of a run, such as runs/ranking/openmoji")
    parser.add_argument("--every", type=int, default=1, help="look at every so many test pictures")
    parser.add_argument("--figure", type=Path, help="file for the dots, such as silent.webp")
    parser.add_argument("--images", type=Path, help="file for pictures, such as silent-images.webp")
    given = parser.parse_args()
    set_up(1)
    run, looked_at = "/".join(given.task.parts[-2:]), f", one test picture in {given.every}" * (given.every > 1)
    print(f"{date.today()}, {machine()['cpu']}, torch {torch.__version__}, {run}{looked_at}")
    print(f"{'seed':>4}  {'student':<20}  {'last layer':>10}  {'silent pixels':>13}  {'L1':>5}")
    dots: dict[str, list[tuple[float, float]]] = {}
    homes = sorted(given.task.glob("seed*"), key=lambda home: int(home.name.removeprefix("seed")))
    for home in homes:
        data = load_saved_task(home / "data")
        sources = encode(data.test.source, data.test.classes)[:: given.every]
        for row in load_evaluation(home / "eval.json")["results"]:
            path = home / f"student-{row.model}"
            if path.with_suffix(".safetensors").exists():
                channels, share = silent_share(path, sources)
                print(f"{row.seed:>4}  {row.model:<20}  {channels:>10}  {share:>13.0%}  {row.l1:.3f}", flush=True)
                dots.setdefault(row.model, []).append((share, row.l1))
    if given.images:
        show(homes[0], given.images)
    if given.figure:
        draw(dots, given.figure)


if __name__ == "__main__":
    main()
