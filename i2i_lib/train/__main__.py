"""Train by a recipe: `accelerate launch -m i2i_lib.train RUN/config.json`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from i2i_lib.commands import one_line_errors
from i2i_lib.train.recipe import launch


@one_line_errors
def main(arguments: Sequence[str]) -> int:
    """Run the command; returns the exit status."""
    if len(arguments) != 1:
        print("usage: accelerate launch -m i2i_lib.train RUN/config.json", file=sys.stderr)
        return 2
    launch(Path(arguments[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
