"""Fetch a public data set, or check your own pictures.

i2i data list             the public data sets
i2i data fetch NAME       download one into data/, with its checksum; a download that was cut goes on
i2i data check FOLDER     read every picture and name what would stop a training
i2i data weights          download the Inception weights of FID and KID, 91 MiB
"""

import argparse
from pathlib import Path
from typing import Any

from i2i_lib.cli.result import Result

EXTRAS = "data,eval"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", metavar="ACTION", choices=["list", "fetch", "check", "weights"], help="see below")
    parser.add_argument("what", metavar="NAME or FOLDER", nargs="?", help="of a data set, or of your pictures")
    parser.add_argument(
        "--layout", choices=["auto", "unpaired", "paired", "side-by-side"], default="auto", help="default: %(default)s"
    )


def run(options: argparse.Namespace) -> Result:
    if options.action in ("fetch", "check") and not options.what:
        what = {"fetch": "the name of a data set (`i2i data list`)", "check": "a folder of pictures"}[options.action]
        raise ValueError(f"`i2i data {options.action}` needs {what}")
    if options.action == "check":
        return _check(Path(options.what).expanduser(), options.layout)
    if options.action == "weights":
        return _weights()
    from i2i_lib.data.downloads import fetch, known_sets, listing

    if options.action == "list":
        return Result(known_sets(), listing())
    folder = fetch(options.what)
    return Result({"folder": str(folder)}, str(folder))


def _check(folder: Path, layout: Any) -> Result:
    """What would stop a training with a folder's pictures, and what of the folder it would not read."""
    from i2i_lib.data.folders import find_parts
    from i2i_lib.data.pictures import check_pictures, no_pictures, pictures_below, scan_pictures, shown

    found = scan_pictures(folder)
    problems = list(check_pictures(folder))
    left_out = found.left_out
    if any((folder / name).is_dir() for name in ("train", "trainA", "trainB")):
        try:
            left_out = find_parts(folder, layout).left_out
        except (ValueError, OSError) as error:
            left_out = []
            if shown(str(error)) not in problems:
                problems.append(shown(str(error)))
    elif not pictures_below(folder):
        problems.append(shown(str(no_pictures(folder, found))))
        left_out = []
    lines = [*(problems or ["every picture can be read"]), *(f"not read: {sentence}" for sentence in left_out)]
    return Result({"problems": problems, "not_read": left_out}, "\n".join(lines), status=int(bool(problems)))


def _weights() -> Result:
    """Download the Inception weights to where torch-fidelity looks for them, unless they are there."""
    import torch
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    from i2i_lib.files import sha256
    from i2i_lib.metrics.networks.literature import INCEPTION_PREFIX
    from i2i_lib.weights import INCEPTION, hub_checkpoints

    target = hub_checkpoints() / INCEPTION.names[0]
    if target.is_file() and sha256(target).startswith(INCEPTION_PREFIX):
        return Result({"weights": str(target)}, str(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(URL_INCEPTION_V3, str(target), hash_prefix=INCEPTION_PREFIX)
    except (OSError, RuntimeError) as error:
        raise ConnectionError(f"{URL_INCEPTION_V3} could not be fetched: {error}") from error
    return Result({"weights": str(target)}, str(target))
