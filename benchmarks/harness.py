"""Timing that can be compared: candidates in turn in one process, medians and minima, the machine said."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Timing(NamedTuple):
    """Seconds of one candidate."""

    first: float
    """Of the first call, compilation included."""
    median: float
    least: float
    repetitions: int
    """Calls behind median and least."""


PATIENCE = 2.0
"""Seconds: a call that takes longer is repeated three times only."""


def measure(candidates: dict[str, Callable[[], Any]], repetitions: int = 5, pause: float = 0) -> dict[str, Timing]:
    """Time each candidate once alone, then all of them in turn.

    Args:
        candidates: functions that return what they computed, JAX arrays or anything else.
        repetitions: rounds after the first call; three for a candidate that takes longer than `PATIENCE`.
        pause: seconds to wait before each call. Idle OpenMP threads spin for some milliseconds after a call of
            PyTorch, and would take a core from the next candidate.
    """
    first, seconds = {}, {name: [] for name in candidates}
    for name, candidate in candidates.items():
        first[name] = _seconds(candidate)
    for turn in range(repetitions):
        for name, candidate in candidates.items():
            if turn < 3 or min(seconds[name]) < PATIENCE:
                time.sleep(pause)
                seconds[name].append(_seconds(candidate))
    return {name: Timing(first[name], float(np.median(s)), min(s), len(s)) for name, s in seconds.items()}


def _seconds(candidate: Callable[[], Any]) -> float:
    import jax

    start = time.perf_counter()
    jax.block_until_ready(candidate())
    return time.perf_counter() - start


def machine() -> str:
    """Processor, cores, Python and the versions of what is measured."""
    processor = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        processor = names[0] if names else processor
    versions = [f"Python {platform.python_version()}"]
    for package in ("numpy", "jax", "jaxlib", "flax", "equinox", "dm-haiku", "keras", "torch"):
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"no {package}")
    return f"{processor}, {os.cpu_count()} cores; {', '.join(versions)}"


def peak_memory(work: Callable[[], Any]) -> float:
    """MB of resident memory that `work` takes at its peak above what was resident before (Linux)."""
    import jax

    with open("/proc/self/clear_refs", "w", encoding="ascii") as reset:
        reset.write("5")  # the high-water mark starts again at what is resident now
    before = _status("VmRSS")
    jax.block_until_ready(work())
    return (_status("VmHWM") - before) / 1024


def _status(field: str) -> int:
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(field))
