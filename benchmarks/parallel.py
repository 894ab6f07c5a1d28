"""How long a MinLSTM takes step by step, and all steps at once by a scan over logarithms.

    python -m benchmarks.parallel [--quick]

Rows: `lstmx.run` and its gradient with respect to the parameters, inside `jax.jit`, and `run` in NumPy, each with
`parallel=True` and without. float32, one sequence, 16 features, 64 units.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import lstmx
from benchmarks.harness import machine, measure

FEATURES, UNITS = 16, 64


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="time the parallel scan")
    parser.add_argument("--quick", action="store_true", help="sequences a tenth as long")
    short = 10 if parser.parse_args().quick else 1
    print(f"{machine()}; JAX on {jax.devices()[0].device_kind}")
    print("\nmilliseconds, medians of 5 in turn; first calls in s; differences relative to the largest output")
    for length in (1_000, 10_000, 100_000):
        row(length // short)


def row(length: int) -> None:
    """One length: both ways in both libraries."""
    cell = lstmx.MinLSTM(FEATURES, UNITS)
    params = cell.init(np.random.default_rng(0))
    xs = np.random.default_rng(1).standard_normal((length, FEATURES)).astype("float32")
    given = jax.tree.map(jnp.asarray, (params, xs))
    calls: dict[str, Callable[[], Any]] = {}
    for name, parallel in (("by steps", False), ("parallel", True)):

        def outputs(params: Any, xs: Any, parallel: bool = parallel) -> Any:
            return lstmx.run(cell, params, xs, parallel=parallel)[0]

        forward = jax.jit(outputs)
        gradient = jax.jit(jax.grad(lambda params, xs, outputs=outputs: outputs(params, xs).sum()))
        calls[f"run {name}"] = lambda forward=forward: forward(*given)
        calls[f"gradient {name}"] = lambda gradient=gradient: gradient(*given)
        calls[f"NumPy {name}"] = lambda outputs=outputs: outputs(params, xs)
    times = measure(calls)
    one, other = (np.asarray(calls[f"run {name}"]()) for name in ("by steps", "parallel"))
    apart = np.abs(one - other).max() / np.abs(one).max()
    print(f"\nT = {length:,}: difference {apart:.1e}")
    for name, time in times.items():
        print(f"  {name:<18} {time.median * 1e3:10.2f}   first {time.first:6.2f}")


if __name__ == "__main__":
    main()
