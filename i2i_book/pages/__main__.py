"""Make the HTML book of executed notebooks: `python -m i2i_book.pages assemble --preset cpu`, then `... build`."""

import argparse
import sys
from pathlib import Path

from i2i_book.pages.assemble import assemble
from i2i_book.pages.build import build
from i2i_book.runs import root
from i2i_lib.commands import one_line_errors


@one_line_errors
def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m i2i_book.pages", description=(__doc__ or "").split("\n\n")[0])
    steps = parser.add_subparsers(dest="step", required=True)
    filling = steps.add_parser("assemble", help="refill the generated pages from the runs of a preset")
    filling.add_argument("--preset", required=True)
    filling.add_argument("--runs", type=Path, default=root() / "runs")
    steps.add_parser("build", help="render the pages into _build/html")
    options = parser.parse_args(arguments)
    if options.step == "assemble":
        from i2i_book.runner.notebook import code_digest

        pages = assemble(options.preset, code_digest, book=root() / "book", runs=options.runs)
        print(f"assembled {sum(p.executed is not None for p in pages)} of {len(pages)} pages, the rest as stubs")
    else:
        print(f"the book: {build(root()) / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
