"""Command lines: an error is a sentence, not a stack trace."""

import io
import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

P = ParamSpec("P")


def one_line_errors(main: Callable[P, int]) -> Callable[P, int]:
    """Print expected errors of a `main` to stderr and return 1; on Ctrl-C, 130.

    Any other exception is a mistake of ours and keeps its trace.
    """

    @wraps(main)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> int:
        if isinstance(sys.stdout, io.TextIOWrapper):  # sys.stderr escapes what its encoding lacks by itself
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            return main(*args, **kwargs)
        except KeyboardInterrupt:
            print("interrupted: run the same command to resume", file=sys.stderr)
            return 130
        except (ValueError, OSError, RuntimeError, MemoryError, FloatingPointError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1

    return wrapped
