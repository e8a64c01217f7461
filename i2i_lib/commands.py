"""Command lines: an error is a sentence, not a stack trace."""

import codecs
import io
import locale
import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

P = ParamSpec("P")


def one_line_errors(main: Callable[P, int]) -> Callable[P, int]:
    """Print expected errors of a `main` to stderr and return 1; on Ctrl-C, 130.

    Any other exception is a mistake of ours and keeps its trace. A module that is run begins again in Python's UTF-8
    mode where the locale has another encoding.
    """

    @wraps(main)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> int:
        if main.__module__ == "__main__" and os.environ.get("PYTHONUTF8") != "1" and not _utf8():
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {"PYTHONUTF8": "1"})
        if isinstance(sys.stdout, io.TextIOWrapper):  # sys.stderr escapes what its encoding lacks by itself
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            return main(*args, **kwargs)
        except KeyboardInterrupt:
            print("interrupted: run the same command to resume", file=sys.stderr)
            return 130
        except (ValueError, OSError, RuntimeError, MemoryError, FloatingPointError) as error:
            print(f"error: {str(error) or _unsaid(error)}", file=sys.stderr)
            return 1

    return wrapped


def _unsaid(error: BaseException) -> str:
    """What an error without a text means: Python's own lack of memory has none."""
    if isinstance(error, MemoryError):
        return "the memory of this machine does not suffice: smaller pictures need less"
    return type(error).__name__


def _utf8() -> bool:
    """Whether files and their names are read as UTF-8, as they are written."""
    return codecs.lookup(locale.getpreferredencoding(False)).name == "utf-8"
