"""Progress of a long computation: a bar for a person, or a file for the program that runs it."""

import os
import time
from collections.abc import Callable
from pathlib import Path

from tqdm.auto import tqdm

from i2i_lib.files import write_json


class Progress:
    """Report steps to the file that the environment's I2I_PROGRESS names, or else as a bar.

    As a context it gives the function that takes the number of steps done. The file holds `what`, `step`, `steps` and
    `rate`, in steps a second. `silent` reports nothing: of several processes, one is enough.
    """

    def __init__(self, what: str, steps: int, done: int = 0, *, silent: bool = False) -> None:
        self.what, self.steps, self.done = what, steps, done
        self.path = "" if silent else os.environ.get("I2I_PROGRESS", "")
        self.started = time.monotonic()
        self.bar = tqdm(total=steps, initial=done, desc=what, disable=bool(self.path) or silent)

    def __enter__(self) -> Callable[[int], None]:
        return self._report

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def _report(self, step: int) -> None:
        self.bar.update(step - self.bar.n)
        if self.path:
            rate = (step - self.done) / (time.monotonic() - self.started)
            write_json(Path(self.path), {"what": self.what, "step": step, "steps": self.steps, "rate": rate})
