"""The command `i2i`, which is also `python -m i2i_lib.cli`."""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Any, NoReturn

from i2i_lib.commands import one_line_errors

COMMANDS = ("compress", "translate", "export", "push", "evaluate", "train", "data")
DESCRIPTION = "Compress image-to-image generators, and use what comes out."
OWN_EXTRAS = {"executorch": "phone", "huggingface_hub": "hub"}  # packages that only one use of a command needs
EPILOG = """\
examples:
  i2i compress latest_net_G.pth photos student --share 0.1
  i2i translate student/student new-photos translated
  i2i export student/student --precision int8

Results go to the standard output (with --json as one JSON object), progress and errors to the standard error.
Exit status: 0 done; 1 an error, told in a sentence; 130 interrupted, and the same command goes on."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} (see `{self.prog} --help`)")


def parser() -> argparse.ArgumentParser:
    """The parser of all subcommands. It imports nothing that they run."""
    layout: Any = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    top = _Parser(prog="i2i", description=DESCRIPTION, epilog=EPILOG, **layout)
    top.add_argument("--version", action="version", version=f"%(prog)s {version('i2i-lib')}")
    commands = top.add_subparsers(metavar="COMMAND", dest="command", required=True)
    for name in COMMANDS:
        module = import_module(f"i2i_lib.cli.{name}")
        summary, _, rest = (module.__doc__ or "").partition("\n")
        own = commands.add_parser(name, help=summary, description=summary, epilog=rest.strip("\n"), **layout)
        module.add_arguments(own)
        own.add_argument("--json", action="store_true", help="print the result as one JSON object")
        own.set_defaults(run=module.run, extras=module.EXTRAS)
    return top


@one_line_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand and print its result; returns the exit status."""
    options = parser().parse_args(arguments)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            result = options.run(options)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package == "i2i_lib":
            raise
        extras = OWN_EXTRAS.get(package, options.extras)
        needed = f"pip install 'i2i-lib[{extras}]'" if extras else f"pip install {package}"
        raise ValueError(
            f"the package {package} is not installed, and `i2i {options.command}` needs it: {needed}"
        ) from error
    if os.environ.get("RANK", "0") == "0":  # of the processes that train together, one speaks
        print(json.dumps(result.record, indent=1) if options.json else result.text)
    return result.status


if __name__ == "__main__":
    sys.exit(main())
