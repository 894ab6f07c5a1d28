"""Work per second of one batch on one device, over devices of one process, and over processes.

    python -m benchmarks.processes [--quick]

An LSTM in float32 over 200 steps of 32 sequences, 64 features, 256 units, on CPU devices alone: `lstmx.run`, its
gradient with respect to the parameters, inside `jax.jit`, `lstmx.record`, and `lstmx.record_to` into a new folder.
Each way has processes of its own, one way after the other and all again, three times; a time is the median of its
calls in all rounds, from one moment at which all processes are ready to the next.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

import lstmx
from benchmarks.harness import machine

LENGTH, BATCH, FEATURES, UNITS = 200, 32, 64, 256
WAYS = {"1 process, 1 device": (1, 1), "1 process, 2 devices": (1, 2), "2 processes, 1 device each": (2, 1)}
ROWS = ("run", "gradient", "record", "record_to")


def main() -> None:
    """Print the table, or be one process of a way."""
    parser = argparse.ArgumentParser(description="time one batch over devices and processes")
    parser.add_argument("--quick", action="store_true", help="one round of few calls")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(**json.loads(arguments.worker))
        return
    print(machine(), flush=True)
    times: dict[str, Any] = {way: defaultdict(list) for way in WAYS}
    for _ in range(1 if arguments.quick else 3):
        for way, (processes, devices) in WAYS.items():
            for row, found in measured(processes, devices, 3 if arguments.quick else 7).items():
                times[way][row] += found
    print(table(times))


def table(times: dict[str, Any]) -> str:
    """Of each way and row the steps of all sequences per second, and how many times those of the first way."""
    lines = ["million steps of a sequence per second (of 1 process, 1 device)", f"{'':<28}"]
    lines[1] += "".join(f"{row:>18}" for row in ROWS)
    first: dict[str, float] = {}
    for way, rows in times.items():
        line = f"{way:<28}"
        for row in ROWS:
            rate = LENGTH * BATCH / statistics.median(rows[row]) / 1e6
            line += f"{rate:9.3f} ({rate / first.setdefault(row, rate):4.2f} ×)"
        lines.append(line)
    return "\n".join(lines)


def measured(processes: int, devices: int, calls: int) -> dict[str, list[float]]:
    """Seconds of each call, by row, in processes of their own."""
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        common = {"port": free.getsockname()[1], "processes": processes, "devices": devices, "calls": calls}
        free.close()
        started = []
        for number in range(processes):
            worker = json.dumps({**common, "number": number, "folder": folder})
            command = [sys.executable, "-m", "benchmarks.processes", "--worker", worker]
            started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        told = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit(f"a process of {processes} failed")
    return json.loads(told[0].splitlines()[-1])


def work(port: int, processes: int, number: int, devices: int, calls: int, folder: str) -> None:
    """One process: print the seconds of each call, by row."""
    jax.config.update("jax_platforms", "cpu")
    lstmx.use_cores(devices)
    if processes > 1:
        jax.distributed.initialize(f"127.0.0.1:{port}", processes, number)
    cell = lstmx.LSTM(FEATURES, UNITS)
    params = cell.init(0)
    every = np.random.default_rng(1).standard_normal((LENGTH, BATCH, FEATURES)).astype("float32")
    size = BATCH // processes
    xs = lstmx.shard_batch(every[:, number * size : (number + 1) * size])
    outputs = jax.jit(lambda params, xs: lstmx.run(cell, params, xs)[0])
    gradient = jax.jit(jax.grad(lambda params, xs: outputs(params, xs).sum()))
    rows: dict[str, Callable[[int], Any]] = {
        "run": lambda call: outputs(params, xs),
        "gradient": lambda call: gradient(params, xs),
        "record": lambda call: lstmx.record(cell, params, xs).states,
        "record_to": lambda call: lstmx.record_to(f"{folder}/{call}", cell, params, xs).params,
    }
    found = {}
    for row in ROWS:
        found[row] = [timed(rows[row], call) for call in range(calls + 1)][1:]
    if not number:
        print(json.dumps(found))


def timed(call: Callable[[int], Any], number: int) -> float:
    """Seconds from when all processes are ready to when all are done."""
    multihost_utils.sync_global_devices("ready")
    start = time.perf_counter()
    jax.block_until_ready(call(number))
    multihost_utils.sync_global_devices("done")
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
