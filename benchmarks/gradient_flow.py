"""How long `gradient_flow` takes, beside the forward pass and beside what one would do without it.

    python -m benchmarks.gradient_flow [--quick]

Rows: `gradient_flow(outputs="norms")` of the last output over a history with keep="states" against `run` on the
same inputs; its growth with T; NumPy; PyTorch autograd with `retain_grad` on every h_t and c_t of an `LSTMCell`
loop; one `jax.vjp` of the cell's step after another. float32, one sequence, 4 features.
"""

from __future__ import annotations

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import lstmx
from benchmarks.harness import machine, measure, peak_memory

FEATURES = 4


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="time gradient_flow")
    parser.add_argument("--quick", action="store_true", help="sequences a tenth as long")
    short = 10 if parser.parse_args().quick else 1
    print(machine())
    print("\ngradient_flow(outputs='norms') against run, medians of 5 in turn")
    for length, size in ((1_000_000 // short, 32), (100_000 // short, 256)):
        against_run(length, size)
    print("\ntime(2T) / time(T), H = 32")
    growth(250_000 // short)
    print("\nwithout this library, H = 32, one sequence, us per step")
    alternatives(2_000)


def against_run(length: int, size: int) -> None:
    """One row: seconds, ratio, memory."""
    cell, params, xs = network(length, size)
    history = lstmx.record(cell, params, xs, keep="states")
    jax.block_until_ready(history)
    memory = peak_memory(lambda: lstmx.gradient_flow(history, "last", outputs="norms"))
    times = measure(
        {
            "run": lambda: lstmx.run(cell, params, xs),
            "record": lambda: lstmx.record(cell, params, xs, keep="states").states,
            "flow": lambda: lstmx.gradient_flow(history, "last", outputs="norms"),
        }
    )
    run, record, flow = (times[name].median for name in ("run", "record", "flow"))
    print(
        f"T = {length:>9,}, H = {size:>3}: run {run:6.3f} s, record(keep='states') {record:6.3f} s, "
        f"flow {flow:6.3f} s = {flow / run:.2f} x run, {flow / length * 1e6:.2f} us per step; compiled and first "
        f"run in {times['flow'].first:.1f} s; peak memory {memory:.0f} MB above inputs and states"
    )


def growth(length: int) -> None:
    """How the time grows when T doubles."""
    histories = {}
    for t in (length, 2 * length):
        histories[t] = lstmx.record(*network(t, 32), keep="states")
    times = measure({str(t): lambda h=h: lstmx.gradient_flow(h, outputs="norms") for t, h in histories.items()})
    ratio = times[str(2 * length)].median / times[str(length)].median
    print(f"T = {length:,} to {2 * length:,}: {ratio:.2f}")


def alternatives(length: int) -> None:
    """The same cotangent norms by other means, checked against ours."""
    cell, params, xs = network(length, 32)
    history = lstmx.record(cell, params, xs)
    in_numpy = history.to_numpy()
    candidates: dict[str, Any] = {
        "gradient_flow, JAX": lambda: lstmx.gradient_flow(history).log_norm_hidden,
        "gradient_flow, NumPy": lambda: lstmx.gradient_flow(in_numpy).log_norm_hidden,
        "one jax.vjp per step": lambda: vjp_per_step(history),
    }
    try:
        import torch
    except ImportError:
        print("PyTorch is not installed: no row for it")
    else:
        torch.set_num_threads(1)
        candidates["torch retain_grad, LSTMCell loop"] = lambda: torch_retain_grad(torch, params, xs)
    ours = np.asarray(candidates["gradient_flow, JAX"]())
    for name, timing in measure(candidates, 3).items():
        theirs = np.asarray(candidates[name]())
        seen = np.isfinite(theirs)  # what underflows elsewhere is -inf there
        apart = np.abs(theirs[seen] - ours[seen]).max()
        print(
            f"{name:<34} {timing.median / length * 1e6:10.2f}   finite at {seen.sum():>5} of {length} steps, "
            f"largest difference of the logs there {apart:.1e}"
        )


def network(length: int, size: int) -> tuple[Any, Any, Any]:
    """A cell, its parameters and inputs: two draws, the same every time."""
    cell = lstmx.LSTM(FEATURES, size)
    return cell, cell.init(0), jax.random.normal(jax.random.key(1), (length, FEATURES))


def vjp_per_step(history: Any) -> np.ndarray:
    """Log norms of dL/dh_t by one compiled `jax.vjp` of the step for each t."""
    cell, params = history.cell, history.params

    @jax.jit
    def back(before: Any, x: Any, cotangent: Any) -> Any:
        return jax.vjp(lambda state: cell.step(params, state, x)[0], before)[1](cotangent)[0]

    before = history.before
    cotangent = cell.initial_state(params)._replace(hidden=jnp.ones(cell.hidden_size))
    norms = []
    for t in range(len(history) - 1, -1, -1):
        norms.append(jnp.linalg.norm(cotangent.hidden))
        cotangent = back(jax.tree.map(lambda x, t=t: x[t], before), history.inputs[t], cotangent)
    with np.errstate(divide="ignore"):
        return np.log(np.array(norms[::-1]))


def torch_retain_grad(torch: Any, params: Any, xs: Any) -> np.ndarray:
    """Log norms of dL/dh_t as PyTorch's autograd leaves them on the retained states."""
    module = torch.nn.LSTMCell(xs.shape[1], params.recurrent_kernel.shape[0])
    with torch.no_grad():
        module.weight_ih.copy_(torch.tensor(np.asarray(params.input_kernel).T))
        module.weight_hh.copy_(torch.tensor(np.asarray(params.recurrent_kernel).T))
        module.bias_ih.copy_(torch.tensor(np.asarray(params.bias)))
        module.bias_hh.zero_()
    inputs = torch.tensor(np.asarray(xs))
    h = c = torch.zeros(1, params.recurrent_kernel.shape[0])
    states = []
    for x in inputs:
        h, c = module(x[None], (h, c))
        h.retain_grad()
        c.retain_grad()
        states.append(h)
    h.sum().backward()
    with np.errstate(divide="ignore"):
        return np.log(np.array([float(state.grad.norm()) for state in states]))


if __name__ == "__main__":
    main()
