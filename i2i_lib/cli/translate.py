"""Translate pictures of any size.

IN is a picture, a folder of pictures, or a pattern in quotes such as 'photos/*.jpg'. OUT is a folder, made if need be;
for one picture it may be a name in .png. A picture that cannot be translated is named and left out; the others are
translated, and the exit status is 1.
"""

import argparse
import sys
from pathlib import Path

from i2i_lib.cli.result import Result

EXTRAS = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("generator", metavar="GENERATOR", help="a saved generator, such as student/student")
    parser.add_argument("source", metavar="IN", help="a picture, a folder of pictures or a pattern in quotes")
    parser.add_argument("out", metavar="OUT", type=Path, help="a folder; for one picture, or a name in .png")
    parser.add_argument("--max-side", type=int, help="shrink pictures to this many pixels on their longer side first")
    parser.add_argument("--device", help="cpu, cuda or mps; by default a GPU where there is one")


def run(options: argparse.Namespace) -> Result:
    import torch
    from tqdm.auto import tqdm

    from i2i_lib.artifacts import without_suffix
    from i2i_lib.checkpoint import load_generator
    from i2i_lib.data.pictures import scan_pictures
    from i2i_lib.translate import translate_files

    if options.max_side is not None and options.max_side < 1:
        raise ValueError(f"--max-side must be at least 1, got {options.max_side}")
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device {device} cannot be used here ({reason}): leave it out") from error
    generator = load_generator(without_suffix(options.generator), device=device)
    folder = Path(options.source).expanduser()
    for sentence in scan_pictures(folder).left_out if folder.is_dir() else ():
        print(f"not read: {sentence}", file=sys.stderr)
    failed = []
    for problem in translate_files(generator, options.source, options.out, max_side=options.max_side):
        tqdm.write(f"error: {problem}", file=sys.stderr)
        failed.append(problem)
    if failed:
        count = f"{len(failed)} picture{'s' if len(failed) > 1 else ''}"
        print(f"{count} could not be translated (see above)", file=sys.stderr)
    return Result({"out": str(options.out), "failed": failed}, str(options.out), status=int(bool(failed)))
