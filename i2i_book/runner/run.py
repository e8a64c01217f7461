"""Run one notebook headlessly and strictly: `python -m i2i_book.runner NOTEBOOK -p NAME VALUE ...`.

papermill executes; this module adds what it leaves open. Parameters are checked against the notebook's own
parameters cell before anything runs, a notebook counts as run only if every code cell ran without error, the executed
copy is published only then, and neither the runner nor its kernel outlives the process that started it.
"""

import os
import platform
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from i2i_book import gpus, runs
from i2i_book.runner.notebook import NotebookError, check_parameters, code_digest, defaults
from i2i_book.runner.provenance import PACKAGES, files_of, git_revision, machine
from i2i_book.runner.watch import Watch
from i2i_lib.files import atomic_write

# What a user or a cluster has set for other work must not reach a page: another backend draws no pictures, another
# kernel lacks the library, a warning made an error stops a cell, and a kernel runs PYTHONSTARTUP.
OWN_ENVIRONMENT: dict[str, str | None] = {
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "MATPLOTLIBRC": None,
    "JUPYTER_PATH": None,
    "JUPYTER_PREFER_ENV_PATH": "1",
    "PYTHONBREAKPOINT": "0",
    "PYTHONUTF8": "1",
} | dict.fromkeys(("PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONWARNINGS", "PYTHONDEVMODE", "PYTHONWARNDEFAULTENCODING"))
# A socket's path holds about 107 characters, of which its folder's own name and the socket's take some 30.
LONGEST_FOLDER = 75


def run_notebook(
    notebook: Path,
    parameters: dict[str, Any],
    *,
    log: Path,
    publish: Path | None = None,
    threads: int | None = None,
    gpu: int = 0,
    timeout: float | None = None,
    preset: str | None = None,
) -> None:
    """Execute a notebook, keep the executed copy at `log` whatever happens, and copy it to `publish` on success.

    `threads` bounds the threads of every numeric library in the kernel, which gets `gpu` GPUs for itself, if need be
    after others have freed them; `timeout` is in seconds for the whole notebook, without that; `preset` is noted in the
    provenance under `metadata.i2i`. Environment and signal handlers are as before when it returns. Raises NotebookError
    with one sentence, and RuntimeError where there are fewer GPUs.
    """
    import nbformat

    parameters = check_parameters(notebook, parameters)
    effective = defaults(notebook) | parameters
    source_sha256, modules_sha256 = code_digest(notebook, effective.get("task"))
    log.parent.mkdir(parents=True, exist_ok=True)
    progress, listing = log.with_suffix(".progress.json"), log.with_suffix(".files.txt")
    for stale in (progress, listing):
        stale.unlink(missing_ok=True)
    environment = OWN_ENVIRONMENT | {"I2I_PROGRESS": str(progress), "I2I_FILES": str(listing), "I2I_GPU": str(gpu)}
    if threads:
        environment |= {f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "MKL", "OPENBLAS")}
    label = f"{effective['task']} seed {effective['seed']} {log.stem}" if "seed" in effective else log.stem

    with gpus.held(gpu) as own:
        started, clock = datetime.now(UTC), time.monotonic()
        with _environment(environment | own), Watch(label, progress, timeout) as watch:
            failure = _execute(notebook, log, parameters)
        seconds = time.monotonic() - clock
    if watch.timed_out:
        failure = f"it ran longer than its limit of {timeout:.0f} s: raise `minutes` in the preset"

    if not log.exists():
        raise NotebookError(f"{notebook.name} failed: {failure}")
    try:
        executed: Any = nbformat.read(log, as_version=4)
    except Exception as error:  # papermill was stopped while it wrote it
        raise NotebookError(f"{notebook.name} failed: {failure or error}") from error
    failure = failure or _unfinished(executed)
    executed.metadata["i2i"] = {
        "notebook": notebook.stem,
        "parameters": effective,
        "source_sha256": source_sha256,
        "modules_sha256": modules_sha256,
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES},
        "machine": machine(),
        "threads": threads,
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "peak_memory_mib": round(watch.peak_memory / 2**20),
        "git": git_revision(),
        "files": files_of(listing),
        "status": "failed" if failure else "ok",
        "preset": preset,
        **{name: effective.get(name) for name in ("task", "seed", "arm", "generator", "precision")},
    }
    atomic_write(log, nbformat.writes(executed).encode())
    progress.unlink(missing_ok=True)
    listing.unlink(missing_ok=True)
    if failure:
        raise NotebookError(f"{notebook.name} failed: {failure.rstrip('.')}. The executed copy is {log}")
    if publish:
        publish.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(publish, log.read_bytes())


@contextmanager
def _environment(variables: dict[str, str | None]) -> Iterator[None]:
    """Set environment variables while the block runs; those that are None are unset."""
    before = {name: os.environ.get(name) for name in variables}
    for name, value in variables.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _execute(notebook: Path, log: Path, parameters: dict[str, Any]) -> str | None:
    """Execute with papermill, which writes `log` as it goes on; return why it failed, or None."""
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    try:
        # A folder of its own: sockets, so that notebooks side by side never race for a port, and empty settings of
        # IPython in place of the user's. Those of matplotlib lie with its list of fonts, which takes seconds to make.
        fonts = runs.root() / "_build" / "matplotlib"
        fonts.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(prefix="i2i-", dir=_short_folder()) as sockets,
            _environment({"IPYTHONDIR": sockets, "MPLCONFIGDIR": str(fonts)}),
        ):
            papermill.execute_notebook(
                str(notebook),
                str(log),
                parameters=parameters,
                kernel_name="python3",
                cwd=str(runs.root()),
                progress_bar=False,
                coalesce_streams=True,
                start_timeout=180,
                # A kernel that is told to stop says so as an error; real errors are in the notebook.
                extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
                config=Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets}/kernel"}}),
            )
    except PapermillExecutionError as error:
        return f"cell {error.exec_count} raised {error.ename}: {error.evalue}"
    except DeadKernelError:
        return "its kernel died (DeadKernelError), mostly for want of memory: set recompute, or lower batch_size"
    except Exception as error:  # a kernel that never answered, a full disk, ...
        return f"{type(error).__name__}: {str(error).strip() or 'no message'}"
    return None


def _short_folder() -> str:
    """The folder for temporary files, or /tmp where its path is too long for a socket. Raises NotebookError."""
    for folder in (tempfile.gettempdir(), "/tmp"):
        if len(os.fsencode(folder)) <= LONGEST_FOLDER and os.access(folder, os.W_OK):
            return folder
    raise NotebookError(
        f"the folder {tempfile.gettempdir()} has too long a path for sockets: set TMPDIR to a shorter one"
    )


def _unfinished(executed: Any) -> str | None:
    """Why an executed notebook does not count as run, or None. papermill's own status fields cannot be trusted."""
    for number, cell in enumerate(executed.cells, start=1):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        if cell.execution_count is None:
            return f"cell {number} was never run (the kernel left early: sys.exit?)"
        for output in cell.outputs:
            if output.output_type == "error":
                return f"cell {number} raised {output.ename}: {output.evalue}"
        figure = cell.metadata.get("mystnb", {}).get("figure", {}).get("name")
        if "if-output" in cell.metadata.get("tags", []):  # one that some tasks have not
            figure = None
        shown = [kind for output in cell.outputs for kind in output.get("data", {})]
        if figure and not any(kind.startswith("image/") or kind == "text/html" for kind in shown):
            return f"cell {number} shows no picture, where {figure} should be: matplotlib drew it elsewhere"
    return None
