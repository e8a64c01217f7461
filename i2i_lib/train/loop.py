"""The training loop: runs, logs and resumes any trainer that offers `step(batch) -> losses`."""

import hashlib
import inspect
import io
import json
import math
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from i2i_lib.data.tiles import Batch
from i2i_lib.distributed import default_group, mean, rank, rank_zero_first
from i2i_lib.files import atomic_write, exclusive, library_modules, root, sha256
from i2i_lib.progress import Progress
from i2i_lib.train.adversarial import Batches
from i2i_lib.train.nonfinite import explain_out_of_memory, first_bad, not_finite

# Lines of the loss log between checkpoints.
CHECKPOINT_EVERY = 5


class Trainer(Protocol):
    """The part of a trainer that `fit` uses.

    `check` raises ValueError if a loss had no meaning since it last ran; `skipped` counts updates that were left out.
    """

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...
    def check(self) -> None: ...
    def skipped(self) -> int: ...


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """The private folder of one training: checkpoint, loss log, progress and lock.

    `trainer` is what is saved and resumed; `inputs` is whatever decides the result besides the code (parameters,
    hashes of the files read), so that a checkpoint of another training is never taken up.
    """

    folder: Path
    trainer: Trainer
    inputs: dict[str, Any]
    what: str  # a name for progress and errors
    log_every: int = 50  # steps between lines of the loss log; every fifth line comes with a checkpoint


def fit(
    step: Callable[[Batch], dict[str, Tensor]], batches: Batches, run: TrainingRun, steps: int
) -> list[dict[str, float]]:
    """Call `step` until `steps` are done, from the last checkpoint if there is one; return the loss log.

    Each row of the log holds the step, the seconds trained so far and the mean of every loss since the row before. Of
    several processes that train together the first alone writes, and the log is that of the whole batch.

    Raises FloatingPointError, with the last good checkpoint kept, when a loss or a weight is not finite, MemoryError,
    ValueError for an undefined loss (see `FeatureLoss.check`), for a damaged checkpoint, for one at the end without its
    log, and for batches that end before the steps do, and RuntimeError when another process trains in the same folder.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    lock = exclusive(run.folder / "lock", f"the training folder {run.folder}") if rank() == 0 else nullcontext()
    with lock:
        fingerprint = _fingerprint(run, steps)
        with rank_zero_first():
            done, rows = _resume(run, fingerprint)
            if rank() == 0 and not done:  # so that there is always a state to go back to
                atomic_write(run.folder / "checkpoint.pt", _checkpoint(fingerprint, 0, run.trainer.state_dict()))
        if done == steps and not rows:
            raise ValueError(
                f"{run.what}: it has ended, but its log losses.jsonl is gone from {run.folder}: put it back, or delete"
                " checkpoint.pt, to train again"
            )
        if rank() == 0 and 0 < done < steps:
            print(f"{run.what}: going on from the checkpoint at step {done:,}")
        rows += _train(step, batches, run, steps, fingerprint, done, rows[-1]["seconds"] if rows else 0.0)
        if rank() == 0 and (skipped := run.trainer.skipped()):
            print(f"{run.what}: {skipped:,} updates were left out, since float16 was too narrow for their gradients")
        return rows


def _train(
    step: Callable[[Batch], dict[str, Tensor]],
    batches: Batches,
    run: TrainingRun,
    steps: int,
    fingerprint: dict[str, str],
    done: int,
    seconds: float,
) -> list[dict[str, float]]:
    """Train from step `done`, after `seconds`, to the end; return the new rows of the log."""
    started = time.monotonic() - seconds
    rows: list[dict[str, float]] = []
    sums: dict[str, Tensor] = {}
    counted, index = 0, done
    saving: Future[None] | None = None
    with (
        # Line by line, so that a killed run leaves at most one torn line behind.
        open(run.folder / "losses.jsonl" if rank() == 0 else os.devnull, "a", buffering=1) as log,
        Progress(run.what, steps, done, silent=rank() > 0) as report,
        ThreadPoolExecutor(1) as disk,  # training does not wait for it
    ):
        for index, batch in zip(range(done + 1, steps + 1), batches(done), strict=False):
            with explain_out_of_memory(run.what):
                losses = step(batch)
            # Sums stay on the device: reading a value every step would make a GPU wait for the host.
            sums = {name: sums[name] + loss for name, loss in losses.items()} if sums else dict(losses)
            counted += 1
            if index % run.log_every and index < steps:
                continue

            # Read the losses.
            run.trainer.check()
            row = {"step": index, "seconds": round(time.monotonic() - started, 3)}
            means = mean(torch.stack([total / counted for total in sums.values()])).tolist()
            row |= dict(zip(sums, means, strict=True))
            sums, counted = {}, 0

            # Refuse what is not finite, before it is written.
            ends = index % (CHECKPOINT_EVERY * run.log_every) == 0 or index == steps
            state = run.trainer.state_dict() if ends else {}
            if saving and ends:
                saving.result()  # raises if the last write failed
            bad = [f"loss {name}" for name, value in row.items() if not math.isfinite(value)] or not_finite(state)
            if bad:
                wait([saving] if saving else [])
                kept, _ = _resume(run, fingerprint)
                # Of several processes each would stop the search at a place of its own.
                again = range(kept + 1, index + 2) if default_group() is None else range(0)
                where = first_bad(step, batches(kept), run.trainer, again) or "not found"
                raise FloatingPointError(
                    f"{run.what}: {', '.join(bad)} is not finite at step {index} (first: {where}); lower the learning"
                    f" rate or use precision='fp32'. The checkpoint of step {kept} is kept in {run.folder}"
                )

            # Log, report progress, save.
            rows.append(row)
            log.write(json.dumps(row) + "\n")
            report(index)
            if rank() == 0 and ends:
                checkpoint = _checkpoint(fingerprint, index, state)
                saving = disk.submit(atomic_write, run.folder / "checkpoint.pt", checkpoint)
        if saving:
            saving.result()
    if index < steps:
        raise ValueError(f"{run.what}: its batches ended after step {index:,} of {steps:,}: they must never end")
    return rows


# A training is the same as long as this code is: the trainer's module with all that it imports, and what makes its
# networks, draws its batches and calls its steps; but not what only stores, reports or explains.
_ALWAYS = (
    "config.py", "data/batches.py", "data/picture_cache.py", "data/pictures.py", "data/tiles.py", "discriminators.py",
    "distributed.py", "generators.py", "layers.py", "students.py", "train/device.py", "train/loop.py",
    "train/recipe.py",
)  # fmt: skip
_NEVER = (
    "commands.py", "facade.py", "files.py", "progress.py", "__init__.py", "train/nonfinite.py", "variables.py",
    "weights.py",
)  # fmt: skip


def training_code(trainer: Any) -> list[Path]:
    """The library's files that decide the result of a training by `trainer`, sorted."""
    library = root() / "i2i_lib"
    module = Path(inspect.getfile(type(trainer)))
    reached = {module, *library_modules(module.read_text()), *(library / name for name in _ALWAYS)}
    return sorted(path for path in reached if not path.as_posix().endswith(tuple(f"/{name}" for name in _NEVER)))


def _fingerprint(run: TrainingRun, steps: int) -> dict[str, str]:
    """Hashes of all that makes two trainings the same, apart from rounding: neither processes nor threads are in it."""
    parts: dict[str, Any] = {
        "settings": run.inputs | {"steps": steps},
        "library": {str(path.relative_to(root())): sha256(path) for path in training_code(run.trainer)},
        "PyTorch": [torch.__version__, torch.version.cuda if torch.cuda.is_available() else None],
    }
    texts = {name: json.dumps(part, sort_keys=True, default=str) for name, part in parts.items()}
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}


def _checkpoint(fingerprint: dict[str, str], step: int, trainer: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save({"fingerprint": fingerprint, "step": step, "trainer": trainer}, buffer)
    return buffer.getvalue()


def _resume(run: TrainingRun, fingerprint: dict[str, str]) -> tuple[int, list[dict[str, float]]]:
    """Load the checkpoint if it is of this training, and cut the log to its step; else start clean.

    The files of another training, be it one with other settings or with other library code, are kept as
    `checkpoint.pt.previous` and `losses.jsonl.previous`, in place of older ones.
    """
    checkpoint, log = run.folder / "checkpoint.pt", run.folder / "losses.jsonl"
    done, rows = 0, []
    if checkpoint.exists():
        try:
            state = torch.load(checkpoint, weights_only=True, map_location="cpu")
            had = state["fingerprint"]
            had = had if isinstance(had, dict) else {}  # of an earlier version: one hash of everything
            other = [name for name, part in fingerprint.items() if had.get(name) != part]
            if not other:
                run.trainer.load_state_dict(state["trainer"])
                done = state["step"]
        except Exception as error:  # a pickle meets damage in as many ways as it has commands
            reason = f"{type(error).__name__}: {error}".splitlines()[0].partition(". ")[0]
            raise ValueError(f"{checkpoint} is damaged ({reason}): delete it, to train from the beginning") from error
        if other:
            for file in (log, checkpoint):
                if file.exists():
                    file.replace(file.with_name(f"{file.name}.previous"))
            print(
                f"{run.what}: beginning anew, since {' and '.join(other)} changed; the files of the training before are"
                " kept as *.previous"
            )
    if done and log.exists():
        for line in log.read_text().splitlines():
            try:
                row = json.loads(line)
            except ValueError:  # the line that a kill tore
                break
            if row["step"] <= done:
                rows.append(row)
    if rank() == 0:
        atomic_write(log, "".join(json.dumps(row) + "\n" for row in rows).encode())
    return done, rows
