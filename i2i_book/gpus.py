"""The machine's GPUs, handed out: each job has its own as long as it lives, and sees no others."""

import os
import random
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from i2i_lib.files import exclusive


def visible() -> list[str]:
    """The GPUs that a program started here would see, by names that CUDA_VISIBLE_DEVICES takes; none without NVIDIA's
    driver."""
    limit = os.environ.get("CUDA_VISIBLE_DEVICES")
    if limit in ("", "-1"):
        return []
    command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader", *([f"--id={limit}"] if limit else [])]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    if asked.returncode:
        return limit.split(",") if limit else []  # a part of a GPU, of which nvidia-smi gives no account
    return asked.stdout.split()


@contextmanager
def held(count: int) -> Iterator[dict[str, str | None]]:
    """Hold `count` GPUs of this machine while the block runs; yields the variables of a process that sees them alone.

    Waits until so many are free. The system frees them when this process dies. Where none can be named, all stays
    as it is. Raises RuntimeError if there are fewer.
    """
    known = visible() if count else []
    if not known:
        yield {}
        return
    if count > len(known):
        raise RuntimeError(f"{count} GPUs are needed, and there are {len(known)}: lower `gpu` in the preset")
    # By the names that a GPU has on any machine, for all checkouts of a user.
    folder = Path(tempfile.gettempdir()) / f"i2i-gpus-{os.getuid()}"
    waited = False
    while True:
        with ExitStack() as locks:
            own: list[str] = []
            for gpu in known:
                if len(own) < count:
                    with suppress(RuntimeError):  # it is another job's
                        locks.enter_context(exclusive(folder / gpu, gpu))
                        own.append(gpu)
            if len(own) == count:
                yield {"CUDA_VISIBLE_DEVICES": ",".join(own)}
                return
        if not waited:
            print(f"waiting for {count} of {len(known)} GPUs, which other jobs hold", flush=True)
            waited = True
        time.sleep(0.5 + random.random())  # two jobs that each hold a part would else meet again
