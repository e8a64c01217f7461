"""Data sets by command: `python -m i2i_lib.data fetch NAME` and `python -m i2i_lib.data check FOLDER`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from i2i_lib.commands import one_line_errors
from i2i_lib.data.downloads import fetch, listing
from i2i_lib.data.folders import find_parts
from i2i_lib.data.pictures import check_pictures, no_pictures, pictures_below, scan_pictures, shown

_USAGE = """usage:
  python -m i2i_lib.data fetch NAME    download a public data set into data/
  python -m i2i_lib.data check FOLDER [LAYOUT]
                                       read every picture in a folder and name what would stop a training;
                                       LAYOUT is auto, unpaired, paired or side-by-side

"""


@one_line_errors
def main(arguments: Sequence[str]) -> int:
    """Run one of the two commands; returns the exit status."""
    match arguments:
        case ["fetch", name]:
            print(fetch(name))
        case ["check", folder, *layout] if len(layout) <= 1:
            return _check(Path(folder).expanduser(), *layout)
        case _:
            print(_USAGE + listing(), file=sys.stderr)
            return 2
    return 0


def _check(folder: Path, layout: Any = "auto") -> int:
    """Print what would stop a training with a folder's pictures, and what of the folder it would not read."""
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
    for sentence in problems:
        print(sentence)
    if not problems:
        print("every picture can be read")
    for sentence in left_out:
        print(f"not read: {sentence}")
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
