"""How long a pass takes step by step, and with time in parallel by Newton's method; or what networks need.

    python -m benchmarks.newton [--quick] [--fit]

Rows: `lstmx.run` and its gradient with respect to the parameters, inside `jax.jit`, with `parallel="newton"` and
without, of a GRU and an LSTM, and what `parallelisability` says. float32, one sequence, 4 features, 16 units,
65,536 steps on an accelerator and 4,096 on a CPU or with --quick. --fit instead counts the iterations of 68 random
networks of the cells of the library, and fits to them the two numbers of `parallelisability`; it takes minutes.
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

FEATURES, UNITS = 4, 16


def main() -> None:
    """Print the table, or the fit."""
    parser = argparse.ArgumentParser(description="time a pass in parallel by Newton's method")
    parser.add_argument("--quick", action="store_true", help="4,096 steps, on an accelerator, too")
    parser.add_argument("--fit", action="store_true", help="fit the number of iterations to random networks")
    given = parser.parse_args()
    print(f"{machine()}; JAX on {jax.devices()[0].device_kind}")
    if given.fit:
        fit()
        return
    short = given.quick or jax.devices()[0].platform == "cpu"
    print("\nmilliseconds, medians of 5 in turn; first calls in s; differences relative to the largest output")
    for cell in (lstmx.GRU(FEATURES, UNITS), lstmx.LSTM(FEATURES, UNITS)):
        row(cell, 4_096 if short else 65_536)


def row(cell: Any, length: int) -> None:
    """One cell: both ways."""
    params = jax.tree.map(jnp.asarray, cell.init(np.random.default_rng(0)))
    xs = jnp.asarray(np.random.default_rng(1).standard_normal((length, FEATURES)).astype("float32"))
    print(f"\n{cell}: {lstmx.parallelisability(lstmx.record(cell, params, xs), measure=True)}")
    calls: dict[str, Callable[[], Any]] = {}
    for name, parallel in (("by steps", False), ("parallel", "newton")):

        def outputs(params: Any, xs: Any, parallel: Any = parallel) -> Any:
            return lstmx.run(cell, params, xs, parallel=parallel)[0]

        forward = jax.jit(outputs)
        gradient = jax.jit(jax.grad(lambda params, xs, outputs=outputs: outputs(params, xs).sum()))
        calls[f"run {name}"] = lambda forward=forward: forward(params, xs)
        calls[f"gradient {name}"] = lambda gradient=gradient: gradient(params, xs)
    times = measure(calls)
    one, other = (np.asarray(calls[f"run {name}"]()) for name in ("by steps", "parallel"))
    print(f"T = {length:,}: difference {np.abs(one - other).max() / np.abs(one).max():.1e}")
    for name, time in times.items():
        print(f"  {name:<18} {time.median * 1e3:10.2f}   first {time.first:6.2f}")


def fit() -> None:
    """Iterations needed against ln M + ½ ln K, and the fit of a power to those that need few."""
    jax.config.update("jax_enable_x64", True)
    nats, needed = [], []
    kinds = [
        lstmx.LSTM,
        lstmx.GRU,
        lstmx.SimpleRNN,
        lstmx.MGU,
        lstmx.JANET,
        lstmx.MinLSTM,
        lstmx.MinGRU,
        lstmx.SLSTM,
    ]
    for k in range(68):
        draws = np.random.default_rng(k)
        cell = kinds[k % len(kinds)](3, int(draws.integers(3, 8)))
        gain, scale = (np.exp(draws.uniform(np.log(low), np.log(high))) for low, high in ((0.3, 5), (0.1, 1.5)))
        made = [draws.normal(0, 0.7, shape) for shape in cell.parameter_shapes()]
        params = type(cell.parameter_shapes())(*made)
        if hasattr(params, "recurrent_kernel"):
            gain /= 0.7 * np.sqrt(cell.hidden_size)
            params = params._replace(recurrent_kernel=gain * params.recurrent_kernel)
        params = jax.tree.map(jnp.asarray, params)
        xs = jnp.asarray(scale * draws.normal(size=(512, 3)))
        found = lstmx.parallelisability(lstmx.record(cell, params, xs), measure=True)
        nats.append(found.growth + found.total / 2)
        needed.append(found.measured)
        print(f"{cell}: {found}", flush=True)
    few = np.array(nats) < 9
    power, factor = np.polyfit(np.array(nats)[few], np.log(np.array(needed)[few]), 1)
    ranks = (np.argsort(np.argsort(x, kind="stable"), kind="stable") for x in (nats, needed))
    print(
        f"iterations = {np.exp(factor):.2f} e^({power:.3f} nats); rank correlation {np.corrcoef(*ranks)[0, 1]:.3f}"
    )


if __name__ == "__main__":
    main()
