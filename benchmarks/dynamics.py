"""The rows of dynamics: Lyapunov spectra of long passes and fixed points of a wide network, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

LEADING = 1_000_000, 8
"""Steps, and exponents computed."""
FULL = 100_000
"""Steps of all exponents."""
CANDIDATES = 1000, 128
"""Starting points, and units of the network."""


def dynamics(quick: bool, repetitions: int) -> list[dict[str, Any]]:
    """Seconds of spectra, beside `run` over the same steps, and of a search for fixed points.

    The LSTM of the spectra has 16 features and 32 units; that of the fixed points Gaussian recurrent weights of
    gain 1.5 and a forget bias of 1, which makes for several fixed points.
    """
    import jax

    jax.config.update("jax_enable_x64", True)

    import lstmx

    share = 10 if quick else 1
    cell = lstmx.LSTM(16, 32)
    params = cell.init(0, dtype="float64")
    xs = jax.random.normal(jax.random.key(1), (LEADING[0] // share, 16), dtype="float64")
    long = lstmx.record(cell, params, xs, keep="states")
    short = long[: FULL // share]
    network, candidates = _network(CANDIDATES[0] // share)

    def points(rounds: int) -> Callable[[], Any]:
        return lambda: lstmx.fixed_points(*network, None, candidates, rounds=rounds)

    calls = {
        "run": (len(long), lambda: lstmx.run(cell, params, xs)),
        f"{LEADING[1]} leading exponents": (len(long), lambda: lstmx.lyapunov_spectrum(long, LEADING[1])),
        "all 64 exponents and their check": (len(short), lambda: lstmx.lyapunov_spectrum(short, "all")),
        "all 64 exponents": (len(short), lambda: lstmx.lyapunov_spectrum(short, "all", check=False)),
        f"fixed points, {CANDIDATES[1]} units": (len(candidates.hidden), points(0)),
        f"fixed points, {CANDIDATES[1]} units, a round": (len(candidates.hidden), points(1)),
    }
    from benchmarks.harness import measure

    times = measure({name: call for name, (_, call) in calls.items()}, repetitions)
    return [
        {
            "name": name,
            "count": count,
            "first_s": times[name].first,
            "median_s": times[name].median,
            "least_s": times[name].least,
        }
        for name, (count, _) in calls.items()
    ]


def _network(count: int) -> tuple[tuple[Any, Any], Any]:
    """A wide LSTM with several fixed points, and states of a driven pass of it."""
    import jax
    import numpy as np

    import lstmx

    units, generator = CANDIDATES[1], np.random.default_rng(1)
    cell = lstmx.LSTM(4, units)
    bias = np.zeros(4 * units)
    bias[units : 2 * units] = 1.0
    kernels = 0.5 * generator.normal(size=(4, 4 * units)), generator.normal(size=(units, 4 * units))
    params = lstmx.LSTMParams(kernels[0], 1.5 / np.sqrt(units) * kernels[1], bias)
    params = jax.tree.map(jax.numpy.asarray, params)
    xs = jax.numpy.asarray(generator.normal(size=(100, 40, 4)))
    states = lstmx.record(cell, params, xs).states
    return (cell, params), jax.tree.map(lambda x: x[::4].reshape(-1, units)[:count], states)
