"""Run one notebook headlessly and strictly: `python -m i2i_book.runner NOTEBOOK -p NAME VALUE ...`."""

import argparse
import sys
from pathlib import Path

from i2i_book import presets, runs
from i2i_book.runner.notebook import NotebookError, read_parameters
from i2i_book.runner.run import run_notebook
from i2i_lib import files
from i2i_lib.commands import one_line_errors


@one_line_errors
def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status: 0 only if the whole notebook ran."""
    parser = argparse.ArgumentParser(prog="python -m i2i_book.runner", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    parser.add_argument("--preset", help="take parameters from presets/PRESET.yml; -p overrides them")
    parser.add_argument("--run", default="lab", help="the run to read and write (default: lab, as when run by hand)")
    parser.add_argument("--log", type=Path, help="where the executed copy is kept, also if it fails (default: logs/)")
    parser.add_argument("--minutes", type=float, help="the most that it may take, in place of the preset's `minutes`")
    parser.add_argument("--gpu", type=int, help="how many GPUs it gets for itself, in place of the preset's `gpu`")
    parser.add_argument("--publish", type=Path, help="where the executed copy goes if it succeeds")
    options = parser.parse_args(arguments)
    notebook: Path = options.notebook
    if not notebook.is_file():
        raise NotebookError(f"no notebook {notebook}")
    given = read_parameters(notebook, dict(options.parameters))
    preset = presets.load_preset(options.preset) if options.preset else {}
    variant = given.get("arm") or given.get("generator")
    given = presets.preset_parameters(preset, notebook.stem, given.get("task", presets.MAIN_TASK), variant) | given
    given["run"] = options.run
    minutes = options.minutes or preset.get("minutes")
    home = options.publish.parent.parent if options.publish else runs.root() / "runs" / options.run
    log: Path = options.log or home / "logs" / (options.publish or notebook).name
    # Two runs of one notebook would write the same copy, progress and list of files.
    with files.exclusive(log.with_name(f".{log.name}.lock"), f"{log}, the executed copy,"):
        run_notebook(
            notebook,
            given,
            log=log,
            publish=options.publish,
            threads=preset.get("threads"),
            gpu=preset.get("gpu", 0) if options.gpu is None else options.gpu,
            timeout=60 * minutes if minutes else None,
            preset=Path(options.preset).stem if options.preset else None,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
