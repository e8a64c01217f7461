"""The processors that this process may use, which can be fewer than the machine has, and their name."""

import os
import platform
from math import ceil
from pathlib import Path


def usable_cpus() -> int:
    """The processors given by affinity (taskset, Slurm) and by the quota of a container; at least 1."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _container_quota(Path("/sys/fs/cgroup"))
    return max(1, min(count, ceil(quota)) if quota else count)


def processor() -> str:
    """The name of the processor, as the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _container_quota(top: Path) -> float | None:
    """Processors that a control group allows, by version 2 or 1; None without a limit."""
    try:
        if (top / "cpu.max").exists():
            quota, period = (top / "cpu.max").read_text().split()
        else:
            quota, period = ((top / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return float(quota) / float(period) if float(quota) > 0 else None
    except (OSError, ValueError):  # no such group, or "max"
        return None
