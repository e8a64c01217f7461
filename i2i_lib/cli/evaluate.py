"""Measure a generator on test pictures.

DATA is a saved task (a path without suffix), or a folder of pictures with trainA and trainB, or train: see
`i2i data check`. Without test folders a tenth of the pictures is held out.
"""

import argparse
from pathlib import Path

from i2i_lib.cli.result import Result

EXTRAS = "eval,data"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("generator", metavar="GENERATOR", help="a saved generator, such as student/student")
    parser.add_argument("data", metavar="DATA", help="a saved task, or a folder of pictures")
    parser.add_argument("--size", type=int, default=256, help="side of a folder's test pictures; default: %(default)s")
    parser.add_argument(
        "--layout", choices=["auto", "unpaired", "paired", "side-by-side"], default="auto", help="of a folder"
    )
    parser.add_argument(
        "--direction", choices=["AtoB", "BtoA"], help="which domain of a folder is translated; default: AtoB"
    )


def run(options: argparse.Namespace) -> Result:
    from dataclasses import asdict

    from i2i_lib.artifacts import artifact_file, without_suffix
    from i2i_lib.data.store import load_saved_task
    from i2i_lib.data.tasks import load_task
    from i2i_lib.evaluate import Evaluator
    from i2i_lib.results import MEASURES

    weights, data = without_suffix(options.generator), without_suffix(options.data)
    if artifact_file(data, "json").exists():
        if options.direction:
            raise ValueError(f"{data} is a saved task, which has its direction: --direction is for a folder")
        task = load_saved_task(data)
    elif Path(data).expanduser().is_dir():
        direction = options.direction or "AtoB"
        task = load_task("folder", image_size=options.size, path=data, layout=options.layout, direction=direction)
    else:
        raise FileNotFoundError(f"{data} is neither a saved task ({data}.json) nor a folder of pictures")
    row = Evaluator(task).evaluate(Path(weights).name, weights).result
    record = asdict(row)
    lines = [f"{row.model} on {row.images} test pictures of {task.name}"]
    for name, measure in MEASURES.items():
        if record[name] is not None:
            lines.append(f"  {measure.heading:20}{measure.text(record[name])}")
    return Result(record, "\n".join(lines))
