"""Watch a running notebook: its progress, time and memory, and the end of its parent."""

import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil


class Watch:
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

    def __enter__(self) -> "Watch":
        # SIGTERM ends the runner as Ctrl-C does: through `finally`, with the kernel stopped, but without a word.
        self._handler = signal.signal(signal.SIGTERM, self._terminated)
        self._thread.start()
        print(f"{self.label}: started", flush=True)
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._kill()
        signal.signal(signal.SIGTERM, self._handler)
        if error is not SystemExit:
            print(f"{self.label}: ended after {time.monotonic() - self._started:.0f} s", flush=True)

    def _terminated(self, *_: object) -> None:
        self._kill()  # a kernel that is asked to leave takes seconds
        sys.exit(143)

    def _children(self) -> set[psutil.Process]:
        return set(psutil.Process().children(recursive=True)) - self._others

    def _kill(self) -> None:
        """Kill the kernel and all below it: it leads a process group of its own and survives a signal to ours."""
        for child in self._children():
            with suppress(psutil.Error):
                child.kill()

    def _watch(self) -> None:
        last_time, last_line = self._started, ""
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
            if now - last_time < 5:
                continue
            line = _progress_line(self.progress)
            if line is None and now - last_time >= 20:  # that only time passes need not be said every five seconds
                line = f"running, {now - self._started:.0f} s"
            if line and line != last_line:
                with suppress(OSError):  # a full disk must not end the watch with its words
                    print(f"{self.label}: {line}", flush=True)
                last_time, last_line = now, line


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
