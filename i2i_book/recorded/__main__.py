"""Pack, import and check recorded runs: `python -m i2i_book.recorded`."""

import argparse
import sys
import tempfile
from pathlib import Path

from i2i_book.presets import load_preset, variants
from i2i_book.recorded.importing import import_recording, join
from i2i_book.recorded.pack import pack
from i2i_book.recorded.teachers import keep, train
from i2i_book.runs import root
from i2i_lib.commands import one_line_errors


@one_line_errors
def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m i2i_book.recorded", description=(__doc__ or "").split("\n\n")[0])
    steps = parser.add_subparsers(dest="step", required=True)
    packing = steps.add_parser("pack", help="pack a finished run")
    packing.add_argument("run", type=Path, help="such as runs/gpu")
    packing.add_argument("out", type=Path, help="a .zip file or a folder to make")
    packing.add_argument("--teachers", action="store_true", help="add the teachers' weights")
    packing.add_argument("--no-pages", action="store_true", help="leave out what the notebooks showed: numbers only")
    packing.add_argument(
        "--first-weights", action="store_true", help="keep only the weights of the first seed's students"
    )
    training = steps.add_parser("teacher", help="train the teacher of a task, however long it takes, and keep it")
    training.add_argument("preset", help="whose settings it has")
    training.add_argument("task")
    keeping = steps.add_parser("models", help="keep the teacher of a run")
    keeping.add_argument("home", type=Path, help="such as runs/cpu/earth/seed0")
    importing = steps.add_parser("import", help="check a recording and place it in book/recorded/")
    importing.add_argument("sources", type=Path, nargs="+", help="one, or parts of one with other seeds or tasks each")
    importing.add_argument("--name", help="show it under this name, beside what this checkout runs with its preset")
    importing.add_argument("--replace", action="store_true", help="in place of the same tasks of the recording there")
    options = parser.parse_args(arguments)
    if options.step == "pack":
        kept = {"pages": not options.no_pages, "weights": not options.first_weights}
        out = pack(options.run, options.out, teachers=options.teachers, **kept)
        size = sum(p.stat().st_size for p in ([out] if out.is_file() else out.rglob("*")) if p.is_file())
        print(f"{out}: {size / 2**20:.1f} MiB; elsewhere: `python -m i2i_book.recorded import {out.name}`")
    elif options.step in ("teacher", "models"):
        if options.step == "teacher":
            home, arms = train(options.preset, options.task), variants(load_preset(options.preset), options.task)[0]
        else:
            home, arms = options.home.resolve(), ["gcka"]
        target = root() / "book" / "recorded" / home.parent.name
        keep(home, target, arms)
        print(f"{target.relative_to(root())}: kept")
    else:
        placed = {"name": options.name, "replace": options.replace}
        with tempfile.TemporaryDirectory() as temporary:
            several = len(options.sources) > 1
            whole = join(options.sources, Path(temporary) / "whole") if several else options.sources[0]
            target = import_recording(whole, root() / "book" / "recorded", **placed)
        print(f"{target.relative_to(root())}: `make book` shows it; `make verify PRESET={target.name}` runs it again")
    return 0


if __name__ == "__main__":
    sys.exit(main())
