"""Data sets by command: `python -m i2i_lib.data fetch NAME` and `python -m i2i_lib.data check FOLDER`."""

import sys
from collections.abc import Sequence

from i2i_lib.commands import one_line_errors
from i2i_lib.data.downloads import fetch, listing
from i2i_lib.data.pictures import check_pictures

_USAGE = """usage:
  python -m i2i_lib.data fetch NAME    download a public data set into data/
  python -m i2i_lib.data check FOLDER  read every picture in a folder and name those that are damaged

"""


@one_line_errors
def main(arguments: Sequence[str]) -> int:
    """Run one of the two commands; returns the exit status."""
    match arguments:
        case ["fetch", name]:
            print(fetch(name))
        case ["check", folder]:
            problems = list(check_pictures(folder))
            print("\n".join(problems) or "every picture can be read")
            return int(bool(problems))
        case _:
            print(_USAGE + listing(), file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
