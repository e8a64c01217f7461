"""What the command lines have in common: an error is a sentence, not a stack trace."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

P = ParamSpec("P")


def plainly(main: Callable[P, int]) -> Callable[P, int]:
    """A `main` that says its documented errors on the error stream and returns the exit status 1; of Ctrl-C, 130.

    Any other exception is a mistake of ours and keeps its trace.
    """

    @wraps(main)
    def told(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            return main(*args, **kwargs)
        except KeyboardInterrupt:
            print("interrupted: the same command begins again, or goes on where it can", file=sys.stderr)
            return 130
        except (ValueError, OSError, RuntimeError, MemoryError, FloatingPointError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1

    return told
