"""What only a GPU can say of this book, in its first minutes on one.

    benchmarks/first_minutes.sh OUT [--minutes 12] [--rehearse]   measure, and write OUT/summary.md
    python benchmarks/first_minutes.py table OUT                   write the summary of such a folder again

Parts, in order of worth; what one leaves of its time is the later ones':

smoke    the preset `smoke`, chapters 1 to 5, run by the book's own pipeline
speed    the step of a teacher of base 64 for `fluent` at 256 px: precisions, memory layouts, compiled or not
memory   the step of Horse -> Zebra's teacher at the published batch, as it is and with less memory
resume   a training is killed and goes on: are its losses those of an unbroken one?
teacher  the teacher of `speed` trains for what time is left

Each part is a process of its own with a limit of time: it writes a line of JSON to OUT/<part>.jsonl as soon as it has
measured something, and what it prints goes to OUT/<part>.log. One that fails or is cut off stops no other. With
--rehearse all is small, for a CPU: its numbers mean nothing.
"""

import argparse
import json
import math
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

from i2i_book.presets import load_preset, preset_parameters
from i2i_book.runner.provenance import git_revision, machine
from i2i_lib.config import DiscriminatorConfig, cat_teacher
from i2i_lib.data.store import load_saved_task, save_task
from i2i_lib.data.tasks import load_task
from i2i_lib.data.tiles import Family, Task, placeless_tiles
from i2i_lib.files import root, write_json
from i2i_lib.train.adversarial import Precision, TrainConfig
from i2i_lib.train.device import set_up
from i2i_lib.train.loop import fit
from i2i_lib.train.recipe import Recipe, build, followed_by
from i2i_lib.train.snapshots import Snapshots

CUDA = torch.cuda.is_available()
# Shares of the time that is left when a part begins, in the order of the parts.
PARTS = {"smoke": 0.3, "speed": 0.4, "memory": 0.4, "resume": 0.4, "teacher": 1.0}
LARGEST = 16 * 2**20  # bytes of the folder
# TFLOP/s without sparsity, from the makers' data sheets: bf16 and fp16, tf32, fp32.
PEAKS = {"H200": (989, 494, 67), "H100": (989, 494, 67), "A100": (312, 156, 19.5), "T4": (65, 8.1, 8.1)}


@dataclass(frozen=True, slots=True)
class Scale:
    """Sizes of networks and pictures."""

    base: int
    blocks: int
    image_size: int
    batch_size: int
    seconds: float  # of one measurement of speed
    matrix: int  # side of those that are multiplied to see what the chip reaches
    published_batch: int  # of Horse -> Zebra's teacher
    micro_batch: int
    steps: int  # of the training that is killed


FULL = Scale(64, 9, 256, 32, 6.0, 8192, 32, 8, 40)
TOY = Scale(4, 3, 32, 2, 0.2, 256, 4, 2, 12)
# Precision, memory layout, compiled; in order of worth, since what a time limit cuts off is the end.
WAYS: tuple[tuple[Precision, str, bool], ...] = (
    ("bf16", "NHWC", False),
    ("bf16", "NCHW", False),
    ("tf32", "NHWC", False),
    ("fp32", "NHWC", False),
    ("bf16", "NHWC", True),
    ("fp16", "NHWC", False),
    ("tf32", "NCHW", False),
)


# --- Parts: each yields what it has measured --------------------------------------------------------------------------


def smoke(scale: Scale, out: Path) -> Iterator[dict[str, Any]]:
    """The pipeline's chapters, and what they took."""
    preset = load_preset("smoke") | {"gpu": int(CUDA), "threads": 4 if CUDA else 1}
    path = out / "first-minutes.yml"
    path.write_text(yaml.safe_dump(preset, sort_keys=False))
    run = root() / "runs" / path.stem
    shutil.rmtree(run, ignore_errors=True)
    last = "results.jsonl" if scale is FULL else "fluent/seed0/notebooks/01-data.ipynb"
    asked = ["-m", "i2i_book.make", str(path), "fluent", "1", "", "", f"runs/{path.stem}/{last}"]
    started = time.monotonic()
    status = subprocess.run([sys.executable, *asked], cwd=root()).returncode
    chapters = {p.stem: json.loads(p.read_text())["metadata"] for p in sorted(run.rglob("*.ipynb"))}
    seconds = {name: found.get("i2i", found).get("seconds") for name, found in chapters.items()}
    yield {"green": status == 0, "seconds": time.monotonic() - started, "chapters": seconds}
    if (run / "results.jsonl").exists():
        shutil.copy(run / "results.jsonl", out / "smoke-results.jsonl")


def speed(scale: Scale, out: Path) -> Iterator[dict[str, Any]]:
    """Images per second of every way, and what share of the chip's work that is."""
    top = {precision: _reached(scale, precision) for precision in ("bf16", "fp16", "tf32", "fp32")}
    yield {"what": "product of matrices", "tflops": top}
    work = 0
    for precision, layout, compiles in WAYS:
        compiled = compiles and CUDA  # a CPU would need a compiler
        if compiled:
            torch.compiler.reset()
        with TemporaryDirectory() as folder:
            trainer, batches, _ = fluent_teacher(scale, Path(folder), precision=precision, compiled=compiled)
            drawn = batches(0)
            if layout == "NCHW":
                for network in (trainer.generator, trainer.discriminator):
                    network.to(memory_format=torch.contiguous_format)
            if not work:  # the same for all ways; a compiled step shows no operations to count
                with FlopCounterMode(display=False) as counter:
                    trainer.step(next(drawn))
                work = counter.get_total_flops()
            warm = _seconds(trainer, drawn, 3)
            _forget_peak()
            count, started = 0, time.perf_counter()
            while (spent := time.perf_counter() - started) < scale.seconds:
                trainer.step(next(drawn))
                count += 1
                if count % 5 == 0:  # the queue of a GPU's work stays short, and is waited for seldom
                    _wait()
            _wait()
            spent = time.perf_counter() - started
        rate = work * count / spent / 1e12
        yield {
            "what": "teacher", "precision": precision, "layout": layout, "compiled": compiled,
            "base": scale.base, "image_size": scale.image_size, "batch_size": scale.batch_size,
            "warm_up_seconds": warm, "steps": count, "images_per_second": scale.batch_size * count / spent,
            "macs_of_a_step": work // 2, "tflops": rate, "share_of_matrices": rate / top[precision],
            "share_of_peak": rate / peak if (peak := _peak(precision)) else None, "memory_gib": _peak_memory(),
        }  # fmt: skip


def memory(scale: Scale, out: Path) -> Iterator[dict[str, Any]]:
    """Peak memory of Horse -> Zebra's step, as the GPU's allocator counts it, and seconds of a step."""
    given = preset_parameters(load_preset("paper"), "02-search-space", "horse2zebra")
    generator = replace(cat_teacher(scale.base, scale.blocks, given["norm"]), upsample=given["upsample"])
    judge = DiscriminatorConfig(3, min(given["disc_base"], scale.base), norm=given["norm"])
    n = scale.published_batch
    task = _random_task("cyclegan", 2 * n, scale.image_size)
    ways: dict[str, dict[str, Any]] = {
        "micro-batches": {"micro_batch": scale.micro_batch},
        "computed again": {"recompute": True},
        "all kept": {},
    }
    for name, saving in ways.items():
        line: dict[str, Any] = {"what": name, **saving, "precision": "fp32", "batch_size": n}
        _forget_peak()
        try:
            with TemporaryDirectory() as folder:
                training = TrainConfig(10**6, **saving)
                trainer, batches, _ = _trainer(Path(folder), task, generator, judge, training, n)
                drawn = batches(0)
                line |= {"first_seconds": _seconds(trainer, drawn, 1), "seconds": _seconds(trainer, drawn, 1)}
            line |= {"fits": True, "memory_gib": _peak_memory(), "held_gib": _held_memory()}
        except torch.OutOfMemoryError:
            line |= {"fits": False}
        yield line


def resume(scale: Scale, out: Path) -> Iterator[dict[str, Any]]:
    """Losses of a killed training that went on, against those of two unbroken ones, which may differ by themselves."""
    for deterministic in (False, True) if CUDA else (False,):  # on a CPU they are so anyway
        kept = 0
        with TemporaryDirectory() as folder:
            for name in ("unbroken", "again", "killed", "killed"):
                dies = name == "killed" and not (Path(folder) / name).exists()
                # A process of its own: it is killed as a machine's user or its owner would.
                process = multiprocessing.get_context("spawn").Process(
                    target=_train_and_die, args=(scale, Path(folder) / name, deterministic, dies)
                )
                process.start()
                process.join()
                if process.exitcode != (-signal.SIGKILL if dies else 0):
                    raise RuntimeError(f"the training {name!r} ended with {process.exitcode}")
                if dies:
                    kept = torch.load(Path(folder) / name / "checkpoint.pt", weights_only=True)["step"]
            logs = [_losses(Path(folder) / name) for name in ("unbroken", "again", "killed")]
        yield {
            "what": "deterministic kernels" if deterministic else "as trained",
            "precision": "bf16" if CUDA else "fp32",
            "steps": scale.steps,
            "from_step": kept,
            "two_unbroken": compare(logs[0], logs[1]),
            "resumed": compare(logs[0], logs[2]),
        }


def teacher(scale: Scale, out: Path) -> Iterator[dict[str, Any]]:
    """Lines of the loss log of a training that the time limit ends."""
    folder = out / "teacher-training"
    precision: Precision = "bf16" if CUDA else "fp32"
    trainer, batches, run = fluent_teacher(scale, folder, precision=precision, lr=2e-4, average=0.999)
    snapshots = Snapshots(out / "teacher", 4000, load_saved_task(folder / "data"), set_up(0))
    step = followed_by([snapshots], trainer, trainer.generator)
    until = float(os.environ["PART_ENDS"]) - 10  # seconds for the last checkpoint

    def stops(batch: Any) -> Any:
        if time.time() > until or (scale is TOY and trainer.count >= 20):
            raise KeyboardInterrupt
        return step(batch)

    started = time.monotonic()
    try:
        fit(stops, batches, replace(run, log_every=5 if scale is TOY else 50), 10**6)
    except KeyboardInterrupt:
        pass
    rows = _losses(folder)
    yield {"steps": trainer.count, "seconds": time.monotonic() - started, "rows": rows[:: max(1, len(rows) // 40)]}
    shutil.rmtree(folder)


# --- What they share --------------------------------------------------------------------------------------------------


def fluent_teacher(scale: Scale, folder: Path, **settings: Any) -> tuple[Any, Any, Any]:
    """The library's trainer of a teacher for `fluent`, its batches and its run in `folder`."""
    task = load_task("fluent", image_size=scale.image_size) if scale is FULL else _random_task("pix2pix", 8, 32)
    norm = "batch"
    generator = replace(cat_teacher(scale.base, scale.blocks, norm), upsample="resize")
    judge = DiscriminatorConfig(6, scale.base, norm=norm)
    return _trainer(folder, task, generator, judge, TrainConfig(10**6, **settings), scale.batch_size)


def _trainer(
    folder: Path, task: Task, generator: Any, judge: Any, training: TrainConfig, batch_size: int
) -> tuple[Any, Any, Any]:
    save_task(task, folder / "data")
    return build(Recipe("data", generator, judge, training, batch_size), folder, task, set_up(0))


def _random_task(family: Family, n: int, size: int) -> Task:
    pictures = torch.randint(256, (n, 3, size, size), dtype=torch.uint8)
    tiles = placeless_tiles(pictures, pictures, paired=family == "pix2pix")
    return Task("random", family, tiles, tiles, {})


def _train_and_die(scale: Scale, folder: Path, deterministic: bool, dies: bool) -> None:
    """Train in `folder` to the end, or die by SIGKILL on the way; a finished checkpoint is gone on from."""
    if deterministic:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    torch.manual_seed(0)
    trainer, batches, run = fluent_teacher(scale, folder, precision="bf16" if CUDA else "fp32", average=0.9)
    if deterministic:
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False

    def step(batch: Any) -> Any:
        losses = trainer.step(batch)
        if dies and trainer.count == scale.steps - 1:
            time.sleep(1.0)  # checkpoints are written by a thread
            os.kill(os.getpid(), signal.SIGKILL)
        return losses

    every = max(1, scale.steps // 20)  # a checkpoint at each fifth line
    fit(step, batches, replace(run, log_every=every), scale.steps)


def _losses(folder: Path) -> list[dict[str, float]]:
    lines = (folder / "losses.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def compare(one: list[dict[str, float]], other: list[dict[str, float]]) -> dict[str, Any]:
    """Whether two logs hold the same losses, and by how much of a loss they differ at most; seconds do not count."""
    if [row["step"] for row in one] != [row["step"] for row in other]:
        return {"same_bits": False, "largest_difference": math.inf}
    pairs = [(row[k], two[k]) for row, two in zip(one, other, strict=True) for k in row if k not in ("step", "seconds")]
    apart = max((abs(a - b) / max(abs(a), 1e-12) for a, b in pairs), default=0.0)
    return {"same_bits": all(a == b for a, b in pairs), "largest_difference": apart}


def _reached(scale: Scale, precision: Precision) -> float:
    """TFLOP/s of a product of large square matrices."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    a = torch.randn(scale.matrix, scale.matrix, device=set_up(0)).to(dtype)
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    seconds = []
    for _ in range(5):
        _wait()
        started = time.perf_counter()
        _ = a @ a
        _wait()
        seconds.append(time.perf_counter() - started)
    torch.backends.cuda.matmul.allow_tf32 = False
    return 2 * scale.matrix**3 / min(seconds) / 1e12


def _peak(precision: Precision) -> float | None:
    """TFLOP/s of this chip by its data sheet; None where that is not known here."""
    name = torch.cuda.get_device_name() if CUDA else ""
    known = next((peaks for chip, peaks in PEAKS.items() if chip in name.split()), None)
    return known[{"bf16": 0, "fp16": 0, "tf32": 1, "fp32": 2}[precision]] if known else None


def _seconds(trainer: Any, batches: Iterator[Any], steps: int) -> float:
    """Seconds of so many training steps."""
    _wait()
    started = time.perf_counter()
    for _ in range(steps):
        trainer.step(next(batches))
    _wait()
    return time.perf_counter() - started


def _wait() -> None:
    if CUDA:
        torch.cuda.synchronize()


def _forget_peak() -> None:
    if CUDA:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak_memory() -> float | None:
    return torch.cuda.max_memory_allocated() / 2**30 if CUDA else None


def _held_memory() -> float | None:
    return torch.cuda.max_memory_reserved() / 2**30 if CUDA else None


# --- All of it --------------------------------------------------------------------------------------------------------


def run(out: Path, minutes: float, rehearse: bool) -> int:
    """Run all parts in turn within `minutes`; returns how many failed or were cut off."""
    end = time.monotonic() + 60 * minutes - 15  # to write the summary, and for processes to end
    out.mkdir(parents=True, exist_ok=True)
    scale = TOY if rehearse else FULL
    provenance = {
        "machine": machine(), "torch": torch.__version__, "cuda": torch.version.cuda, "commit": git_revision(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"), "minutes": minutes, "rehearsed": rehearse,
        "scale": asdict(scale), "parts": {},
    }  # fmt: skip
    if CUDA:
        properties = torch.cuda.get_device_properties(0)
        provenance |= {"memory_gib": properties.total_memory / 2**30, "capability": torch.cuda.get_device_capability()}
    for part, share in PARTS.items():
        limit = max(share * (end - time.monotonic()), 1.0)
        started = time.monotonic()
        ended = _run_part(part, out, limit, rehearse)
        provenance["parts"][part] = {"ended": ended, "seconds": time.monotonic() - started, "limit": limit}
        write_json(out / "provenance.json", provenance)  # after each, so that a lost machine leaves what it had
        (out / "summary.md").write_text(summary(out))
        print(f"{part}: {ended} after {time.monotonic() - started:.0f} s", flush=True)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{out}: {size / 2**20:.1f} MiB{'' if size < LARGEST else ', MORE THAN 16 MiB'}")
    return sum(part["ended"] != "well" for part in provenance["parts"].values())


def _run_part(part: str, out: Path, seconds: float, rehearse: bool) -> str:
    """Run a part as a process of its own; returns "well", "cut off" or "failed"."""
    command = [sys.executable, __file__, part, str(out), *(["--rehearse"] if rehearse else [])]
    environment = os.environ | {"PART_ENDS": str(time.time() + seconds), "RECORDED": "no"}
    with open(out / f"{part}.log", "w") as log:
        # A session of its own, which ends as a whole: a part may have started others.
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, env=environment)
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            return "cut off"
    return "well" if status == 0 else "failed"


def run_part(part: str, out: Path, rehearse: bool) -> None:
    """Run one part here, and write each line that it measures at once."""
    measure = {"smoke": smoke, "speed": speed, "memory": memory, "resume": resume, "teacher": teacher}[part]
    with open(out / f"{part}.jsonl", "w", buffering=1) as lines:
        for line in measure(TOY if rehearse else FULL, out.resolve()):
            lines.write(json.dumps(line) + "\n")


# --- The summary ------------------------------------------------------------------------------------------------------


def read_lines(out: Path, part: str) -> list[dict[str, Any]]:
    """What a part has measured; a line that a kill tore is left out."""
    path, found = out / f"{part}.jsonl", []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def summary(out: Path) -> str:
    """The folder's results as Markdown."""
    about = json.loads((out / "provenance.json").read_text())
    where = about["machine"]["gpu"] or f"no GPU, {about['machine']['cpu']}"
    text = [f"{about['started'][:10]}, {where}, torch {about['torch']}, commit {about['commit']}"]
    if about["rehearsed"]:
        text.append("A rehearsal at toy size: its numbers mean nothing.")
    text.append(
        "Parts: "
        + ", ".join(f"{name} {part['ended']} ({part['seconds']:.0f} s)" for name, part in about["parts"].items())
    )
    for line in read_lines(out, "smoke"):
        text.append(f"Preset smoke: {'green' if line['green'] else 'RED'} after {line['seconds']:.0f} s.")
    columns = ("precision", "layout", "compiled", "images_per_second", "tflops", "share_of_matrices", "share_of_peak")
    text.append(_table([row for row in read_lines(out, "speed") if row["what"] == "teacher"], (*columns, "memory_gib")))
    text.append(_table(read_lines(out, "memory"), ("what", "batch_size", "fits", "memory_gib", "held_gib", "seconds")))
    for line in read_lines(out, "resume"):
        own, other = line["resumed"], line["two_unbroken"]
        begun = f"Killed and gone on from step {line['from_step']}, {line['what']}"
        text.append(f"{begun}: {_same(own)}; two unbroken trainings: {_same(other)}.")
    for line in read_lines(out, "teacher"):
        text.append(f"Teacher: {line['steps']:,} steps in {line['seconds']:.0f} s.")
    return "\n\n".join(part for part in text if part) + "\n"


def _same(found: dict[str, Any]) -> str:
    return "the same bits" if found["same_bits"] else f"losses up to {found['largest_difference']:.1g} apart"


def _table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> str:
    if not rows:
        return ""
    head = f"| {' | '.join(name.replace('_', ' ') for name in columns)} |\n|{'---|' * len(columns)}"
    return "\n".join([head, *(f"| {' | '.join(_cell(row.get(name)) for name in columns)} |" for row in rows)])


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("part", choices=["run", "table", *PARTS])
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=12.0)
    parser.add_argument("--rehearse", action="store_true", help="at toy size, on a CPU")
    given = parser.parse_args()
    if given.part == "table":
        (given.out / "summary.md").write_text(summary(given.out))
        return 0
    if given.part != "run":
        run_part(given.part, given.out, given.rehearse)
        return 0
    if not (CUDA or given.rehearse):
        print("PyTorch finds no GPU here: --rehearse runs all of it at toy size", file=sys.stderr)
        return 2
    return min(run(given.out, given.minutes, given.rehearse), 1)


if __name__ == "__main__":
    sys.exit(main())
