"""Where a student's last layer is silent: the share of pixels at which none of its channels passes the ReLU.

Such pixels all get one colour, that of the head's bias. `python benchmarks/silent_pixels.py runs/ranking/openmoji`
prints a line for each student of each seed of a run: the channels of the last layer before the picture, that share on
the test pictures, and the L1 distance of the evaluation.
"""

import argparse
from datetime import date
from pathlib import Path

import torch

from i2i_book.runner.provenance import machine
from i2i_lib.checkpoint import load_generator
from i2i_lib.data.store import load_saved_task
from i2i_lib.data.tiles import encode
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


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("task", type=Path, help="folder of a task of a run, such as runs/ranking/openmoji")
    given = parser.parse_args()
    set_up(1)
    print(f"{date.today()}, {machine()['cpu']}, torch {torch.__version__}, {'/'.join(given.task.parts[-2:])}")
    print(f"{'seed':>4}  {'student':<14}  {'last layer':>10}  {'silent pixels':>13}  {'L1':>5}")
    for home in sorted(given.task.glob("seed*")):
        data = load_saved_task(home / "data")
        sources = encode(data.test.source, data.test.classes)
        for row in load_evaluation(home / "eval.json")["results"]:
            path = home / f"student-{row.model}"
            if path.with_suffix(".safetensors").exists():
                channels, share = silent_share(path, sources)
                print(f"{row.seed:>4}  {row.model:<14}  {channels:>10}  {share:>13.0%}  {row.l1:.3f}", flush=True)


if __name__ == "__main__":
    main()
