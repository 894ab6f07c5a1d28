"""A pass of a million steps written to disk, and three analyses of it there: memory, time and room.

    python -m benchmarks.streaming --steps 1000000 --units 128 --folder .

Every stage runs in a process of its own, whose peak memory is what the operating system counted. What
is written, 3 GB by default, is removed at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import lstmx

FEATURES = 16
STAGES = {
    "import alone": None,
    "record_to(path, ...)": None,
    "record_to(path, ..., durable=False)": None,
    "gate_statistics": lstmx.gate_statistics,
    'gradient_flow, outputs="norms"': lambda history: lstmx.gradient_flow(history, outputs="norms"),
    "lyapunov_spectrum, count=8": lambda history: lstmx.lyapunov_spectrum(history, count=8),
}


def main() -> None:
    """Run all stages, or the one that the command names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--units", type=int, default=128)
    parser.add_argument("--folder", default=tempfile.gettempdir())
    parser.add_argument("--stage", choices=tuple(STAGES), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        return print(json.dumps(_stage(options.stage, Path(options.folder), options.steps, options.units)))
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        _inputs(folder, options.steps)
        _all(folder, options.steps, options.units)
    finally:
        shutil.rmtree(folder)


def _all(folder: Path, steps: int, units: int) -> None:
    """Print a table with a row for each stage."""
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"LSTM, {steps} steps, {FEATURES} features, {units} units, float32, JAX\n")
    print("| stage | seconds, compilation included | peak memory, MB |\n|---|---|---|")
    for stage in STAGES:
        command = [sys.executable, "-m", "benchmarks.streaming", "--stage", stage, "--folder", str(folder)]
        command += ["--steps", str(steps), "--units", str(units)]
        made = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(f"| `{stage}` | {made['seconds']:.1f} | {made['peak']:.0f} |", flush=True)
    room = sum(file.stat().st_size for file in (folder / "pass").rglob("*") if file.is_file())
    whole = 4 * steps * (FEATURES + 6 * units)
    print(f"\non disk {room / 1e6:.0f} MB, of {whole / 1e6:.0f} MB of numbers")


def _inputs(folder: Path, steps: int) -> None:
    xs = np.memmap(folder / "xs", np.float32, "w+", shape=(steps, FEATURES))
    draws = np.random.default_rng(0)
    for start in range(0, steps, 100_000):
        xs[start : start + 100_000] = draws.standard_normal(xs[start : start + 100_000].shape)
    xs.flush()


def _stage(stage: str, folder: Path, steps: int, units: int) -> dict[str, float]:
    """Seconds of one stage, and the peak memory of this process in MB."""
    cell, durable = lstmx.LSTM(FEATURES, units), "durable=False" not in stage
    path = folder / ("pass" if durable else "loose")
    params = cell.init(0)
    start = time.perf_counter()
    if stage.startswith("record"):
        xs = np.memmap(folder / "xs", np.float32, "r", shape=(steps, FEATURES))
        lstmx.record_to(path, cell, params, xs, durable=durable)
    elif STAGES[stage]:
        STAGES[stage](lstmx.load_history(path))
    seconds = time.perf_counter() - start
    shutil.rmtree(folder / "loose", ignore_errors=True)
    return {"seconds": seconds, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3}


if __name__ == "__main__":
    main()
