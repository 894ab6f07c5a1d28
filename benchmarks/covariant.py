"""Covariant Lyapunov vectors of a long pass: seconds, CPU seconds and memory.

    python -m benchmarks.covariant [numpy|jax]

All 32 vectors of an LSTM of 16 units, float64, over 100,000 steps. Without a library, each in a
process of its own. The memory added is the peak of this process over the call, less what it held before it.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

import lstmx

STEPS, FEATURES, UNITS = 100_000, 4, 16


def main() -> None:
    """Measure the library that the command names, or both."""
    if len(sys.argv) == 1:
        for library in ("numpy", "jax"):
            subprocess.run([sys.executable, "-m", "benchmarks.covariant", library], check=True)
        return
    (library,) = sys.argv[1:]
    if library == "jax":
        import jax

        jax.config.update("jax_enable_x64", True)
    cell = lstmx.LSTM(FEATURES, UNITS)
    params = cell.init(0 if library == "jax" else np.random.default_rng(0), "float64")
    xs = np.random.default_rng(1).normal(size=(STEPS, FEATURES))
    history = lstmx.record(cell, params, jax.numpy.asarray(xs) if library == "jax" else xs)
    before, peak = _resident(), _Peak()
    wall, cpu = time.perf_counter(), time.process_time()
    with peak:
        found = lstmx.covariant_vectors(history, "all")
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(
        f"{library}: {STEPS:,} steps, {2 * UNITS} vectors, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}: "
        f"{wall:.1f} s, CPU {cpu:.1f} s, memory added {(peak.most - before) / 1e6:.0f} MB, of which vectors "
        f"{found.vectors.nbytes / 1e6:.0f} MB; exponents of the frames agree to {found.agreement:.1g}"
    )


class _Peak:
    """The most memory that this process holds while it is open, looked at every 20 ms."""

    def __enter__(self) -> _Peak:
        self.most, self._ended = _resident(), threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def _look(self) -> None:
        while not self._ended.wait(0.02):
            self.most = max(self.most, _resident())

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()


def _resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    main()
