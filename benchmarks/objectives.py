"""`python -m benchmarks.objectives`: delayed copy, with and without what is said to let gradients pass.

An LSTM has to repeat ten symbols after a delay, `lstmx.tasks.copy_memory`, from fresh parameters with a forget
bias of 0, which forget within a few steps. Every arm starts from the same parameters and sees the same batches.
Prints the table of objectives.md here.
"""

from __future__ import annotations

import argparse
import functools
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

import lstmx
from benchmarks.harness import machine
from lstmx.objectives import gradient_flossing, vanishing_gradient


class Sizes(NamedTuple):
    """How much is done."""

    delay: int
    units: int
    steps: int
    seeds: int


class Arm(NamedTuple):
    """A way to train."""

    flossing: int = 0
    """Steps of flossing alone before training."""
    weight: float = 0.0
    """Of the regulariser Ω, per step of time, in the loss."""


FULL, QUICK = Sizes(40, 32, 1200, 5), Sizes(4, 8, 20, 2)
ARMS = {"plain": Arm(), "flossed before training": Arm(flossing=100), "with Ω in the loss": Arm(weight=1.0)}
EXPONENTS, INTERVAL = 16, 5  # of flossing, and steps from one QR decomposition to the next
LEARNING_RATE, FLOSSING_RATE, CLIP = 3e-3, 5e-3, 1.0


def main(arguments: list[str] | None = None) -> None:
    """Train every arm with every seed, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.objectives", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small task and model, to see that all works")
    sizes = QUICK if parser.parse_args(arguments).quick else FULL
    rows = {name: [run(arm, seed, sizes) for seed in tqdm(range(sizes.seeds), name)] for name, arm in ARMS.items()}
    print(markdown(rows, sizes))


def problem(seed: int, sizes: Sizes) -> tuple[lstmx.tasks.Task, lstmx.Model, lstmx.ModelParams]:
    """The task, the model, and its fresh parameters."""
    task = lstmx.tasks.copy_memory(sizes.delay, seed=seed)
    model = lstmx.Model(lstmx.LSTM(task.input_size, sizes.units), task.output_size)
    return task, model, model.init(seed, scheme=lstmx.schemes.unit_forget_bias(0.0))


def run(arm: Arm, seed: int, sizes: Sizes) -> dict[str, float]:
    """Train one arm with one seed; what it came to."""
    start = time.process_time()
    task, model, params = problem(seed, sizes)
    found = {"before": horizon(model, params, task)}
    params = params._replace(cell=floss(model.cell, params.cell, task, arm.flossing))
    found["flossed"] = horizon(model, params, task)
    update, optimizer = trainer(model, arm.weight)
    state = optimizer.init(params)
    for step in range(sizes.steps):
        params, state = update(params, state, *task.batch(step)[:2])
    loss, _ = lstmx.evaluate(model, params, task.validation)
    inputs, targets, _ = task.validation
    answers = np.asarray(model.predict(params, inputs)[0])[-10:].argmax(-1)
    found |= {"loss": loss, "accuracy": float((answers == targets[-10:]).mean())}
    return found | {"after": horizon(model, params, task), "seconds": time.process_time() - start}


def floss(cell: Any, params: Any, task: lstmx.tasks.Task, steps: int) -> Any:
    """Minimise the mean of λ² of the first exponents alone, a fresh sequence of the task at each step."""
    update, optimizer = flosser(cell)
    state = optimizer.init(params)
    for step in range(steps):
        params, state = update(params, state, jnp.asarray(task.batch(step).inputs[:, 0]))
    return params


@functools.cache
def flosser(cell: Any) -> tuple[Any, Any]:
    """The compiled step of flossing, and its optimizer."""
    optimizer = optax.adam(FLOSSING_RATE)

    def loss(params: Any, xs: Any) -> Any:
        history = lstmx.record(cell, params, xs)
        return gradient_flossing(history, EXPONENTS, reorthonormalise=INTERVAL)

    def update(params: Any, state: Any, xs: Any) -> tuple[Any, Any]:
        updates, state = optimizer.update(jax.grad(loss)(params, xs), state, params)
        return optax.apply_updates(params, updates), state

    return jax.jit(update), optimizer


@functools.cache
def trainer(model: lstmx.Model, weight: float) -> tuple[Any, Any]:
    """The compiled training step, and its optimizer."""
    optimizer = optax.chain(optax.clip_by_global_norm(CLIP), optax.adam(LEARNING_RATE))

    def of_outputs(outputs: Any, readout: Any, targets: Any) -> Any:
        predictions = outputs @ readout.kernel + readout.bias
        return optax.softmax_cross_entropy_with_integer_labels(predictions, targets).mean()

    def loss(params: Any, inputs: Any, targets: Any) -> Any:
        if not weight:
            return of_outputs(lstmx.run(model.cell, params.cell, inputs)[0], params.readout, targets)
        history = lstmx.record(model.cell, params.cell, inputs)
        of_task = functools.partial(of_outputs, readout=params.readout, targets=targets)
        omega = vanishing_gradient(history, of_task, immediate=True)
        return of_task(history.outputs) + weight / len(history) * omega

    def update(params: Any, state: Any, inputs: Any, targets: Any) -> tuple[Any, Any]:
        updates, state = optimizer.update(jax.grad(loss)(params, inputs, targets), state, params)
        return optax.apply_updates(params, updates), state

    return jax.jit(update), optimizer


def horizon(model: lstmx.Model, params: Any, task: lstmx.tasks.Task) -> float:
    """Steps back until the gradient of the last output has fallen to 1 %, the median of 32 sequences."""
    history = lstmx.record(model.cell, params.cell, task.validation.inputs[:, :32])
    return float(np.median(lstmx.gradient_flow(history, outputs="norms").horizon(0.01)))


def markdown(rows: dict[str, list[dict[str, float]]], sizes: Sizes) -> str:
    """The table."""
    task = problem(0, sizes)[0]
    lines = [
        f"Copy memory, delay {sizes.delay} (T = {sizes.delay + 20}), an LSTM of {sizes.units} units, "
        f"{sizes.steps:,} training steps, {sizes.seeds} seeds. Without memory the loss is {task.baseline:.4f} and "
        "12.5 % of the symbols are right.",
        "",
        machine(),
        "",
        "| | loss, median | loss of each seed | symbols right, median | horizon at first | flossed | trained | "
        "seconds of CPU a seed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, found in rows.items():
        of = {key: [one[key] for one in found] for key in found[0]}
        each = ", ".join(f"{loss:.4f}" for loss in of["loss"])
        reach = [
            f"{np.median(of[key]):.0f}" if np.isfinite(np.median(of[key])) else f"> {sizes.delay + 20}"
            for key in ("before", "flossed", "after")
        ]
        lines.append(
            f"| {name} | {np.median(of['loss']):.4f} | {each} | {np.median(of['accuracy']):.1%} | "
            f"{' | '.join(reach)} | {np.median(of['seconds']):.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
