"""The rows beside the cases: growth, a million steps, first calls, memory."""

from __future__ import annotations

import gc
import importlib
import time
from collections.abc import Callable
from typing import Any

from benchmarks.sizes import Case

GROWTH = (Case(50_000, 1, 16, 16), Case(1_000, 16, 64, 128))
"""T here against 2T."""
BATCHES = tuple(Case(500, batch, 64, 128) for batch in (1, 2, 4, 8, 16, 32, 64, 128))
WIDTHS = tuple(Case(500, 8, 64, units) for units in (16, 32, 64, 128, 256, 512))
LONG = 1_000_000, 200_000
"""Steps of ours, and steps at which plain autodiff is measured."""


def _ours(case: Case) -> dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]:
    """Forward, the gradient and every record of ours, as functions and their arguments."""
    import lstmx
    from benchmarks import peers
    from benchmarks.problem import Problem

    problem = Problem(case)
    cell, built = problem.cell, peers.build("lstmx", problem)

    def record(dtype: str | None) -> Callable[..., Any]:
        return lambda params, xs: lstmx.record(cell, params, xs, dtype=dtype)

    both = built.params, built.xs
    return {
        "forward": (lambda params, xs: lstmx.run(cell, params, xs)[0], both),
        "record": (record(None), both),
        "record, float16": (record("float16"), both),
        "record, bfloat16": (record("bfloat16"), both),
        "gradient": (built.compiled_gradient, (*both, built.cotangent)),
    }


def growth(quick: bool, repetitions: int) -> list[dict[str, Any]]:
    """Time and memory (temporaries and results) at 2T over those at T."""
    from benchmarks.harness import measure
    from benchmarks.rows import temporary_bytes

    rows = []
    for case in GROWTH:
        case = case._replace(length=case.length // 10) if quick else case
        once, twice = _ours(case), _ours(case._replace(length=2 * case.length))
        for name in once:
            (f, a), (g, b) = once[name], twice[name]
            times = measure({"T": lambda f=f, a=a: f(*a), "2T": lambda g=g, b=b: g(*b)}, repetitions)
            memory = sum(temporary_bytes(g, *b)) / sum(temporary_bytes(f, *a))
            ratio = times["2T"].median / times["T"].median
            us = times["T"].median / case.length * 1e6
            rows.append({"case": list(case), "name": name, "median_us": us, "time": ratio, "memory": memory})
    return rows


def sweep(cases: tuple[Case, ...], quick: bool, repetitions: int) -> list[dict[str, Any]]:
    """Microseconds per step of ours and of the products alone, as one size grows."""
    import numpy as np

    from benchmarks.harness import measure
    from benchmarks.limits import Limit
    from benchmarks.problem import Problem

    rows = []
    for case in cases:
        case = case._replace(length=case.length // 10) if quick else case
        ours, limit = _ours(case), Limit(Problem(case), np.asarray)
        calls = {
            name: (lambda f=ours[name][0], a=ours[name][1]: f(*a)) for name in ("forward", "record", "gradient")
        }
        calls |= {"products, forward": limit.forward, "products, gradient": limit.gradient}
        times = measure(calls, repetitions)
        us = {name: timing.median / case.length * 1e6 for name, timing in times.items()}
        rows.append({"case": list(case), "us": us})
    return rows


def long(repetitions: int) -> list[dict[str, Any]]:
    """The gradient over a million steps of one sequence, with and without a batch axis; autodiff over fewer."""
    import jax
    import jax.numpy as jnp

    from benchmarks import peers
    from benchmarks.harness import measure
    from benchmarks.problem import Problem, largest_relative
    from benchmarks.rows import temporary_bytes

    whole, part = (Problem(Case(length, 1, 16, 32)) for length in LONG)
    parameters = jax.tree.map(jnp.asarray, whole.params)
    ours, autodiff = (peers.JaxCandidate(part, peers.ours(part, way)) for way in ("pullback", "autodiff"))
    at_length = peers.build("lstmx", whole)
    with_batch = parameters, at_length.xs, at_length.cotangent
    without = parameters, at_length.xs[:, 0], at_length.cotangent[:, 0]
    named = {
        "lstmx, xs [T, 1, D]": (at_length.compiled_gradient, with_batch, LONG[0]),
        "lstmx, xs [T, D]": (at_length.compiled_gradient, without, LONG[0]),
        "lstmx at the shorter T": (ours.compiled_gradient, (parameters, ours.xs, ours.cotangent), LONG[1]),
        "autodiff at the shorter T": (autodiff.compiled_gradient, (parameters, ours.xs, ours.cotangent), LONG[1]),
    }
    times = measure({name: (lambda f=f, a=a: f(*a)) for name, (f, a, _) in named.items()}, repetitions)
    apart = largest_relative(ours.gradients(ours.gradient()), autodiff.gradients(autodiff.gradient()))
    return [
        {
            "name": name,
            "length": length,
            "median_us": times[name].median / length * 1e6,
            "least_us": times[name].least / length * 1e6,
            "compile_s": max(0.0, times[name].first - times[name].median),
            "repetitions": times[name].repetitions,
            "temporary_bytes": temporary_bytes(function, *arguments)[0],
            "difference": apart,
        }
        for name, (function, arguments, length) in named.items()
    ]


def first_calls(name: str) -> dict[str, Any]:
    """Seconds of one candidate's import, first forward pass and first gradient, in a fresh process."""
    start = time.perf_counter()
    importlib.import_module(name)
    seconds = {"name": name, "import_s": time.perf_counter() - start}
    if name == "jax":  # alone, what most of the others import too
        return seconds

    import jax

    from benchmarks import peers
    from benchmarks.problem import Problem

    built = peers.build(name, Problem(Case(100, 1, 16, 32)))
    for what in ("forward", "gradient"):
        start = time.perf_counter()
        jax.block_until_ready(getattr(built, what)())
        seconds[f"{what}_s"] = time.perf_counter() - start
    return seconds


def memory(name: str, case: Case) -> dict[str, Any]:
    """MB of one candidate's gradient at its peak, results included, above what was resident before it."""
    import jax

    from benchmarks import peers
    from benchmarks.harness import peak_memory
    from benchmarks.problem import Problem

    built = peers.build(name, Problem(case))
    jax.block_until_ready(built.gradient())  # compiled, and freed again
    gc.collect()
    return {"name": name, "case": list(case), "mb": peak_memory(built.gradient)}
