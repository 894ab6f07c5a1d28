"""`python -m benchmarks.observatory`: what an observatory costs, and which trainings it warns of in time.

ReLU networks with identity recurrent kernels (Le, Jaitly & Hinton 2015) learn the adding problem. Those that are
to diverge have a weight decay of the wrong sign, by which weights grow by 0.2 % a step; or a learning rate that
grows by 1 % a step, as in a range test, and no clipping. Those that are to learn have Adam with 10⁻³ and clipping
at 1. All seeds from 100 on are taken until there are enough of a kind; the
thresholds of the alarms were chosen on seeds below.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import lstmx
from benchmarks.harness import machine

EARLY = 20  # steps before the loss is not finite
_FIRST = 100  # seed


class Recipe(NamedTuple):
    """One way to train."""

    name: str
    optimizer: Any
    clip: float
    steps: int
    diverges: bool
    """Whether the networks that are counted are those that diverge, or those that learn: half the baseline."""


def growing(rate: float) -> Callable[[int], Any]:
    """A learning rate that grows by 1 % a step."""
    return optax.exponential_decay(rate, 1, 1.01)


NEVER = float("inf")
RECIPES = (
    Recipe("healthy: Adam, 10⁻³, clipped at 1", optax.adam(1e-3), 1.0, 1000, False),
    Recipe("diverging slowly: Adam, 10⁻³, weights grow", optax.adamw(1e-3, weight_decay=-2.0), 1.0, 1500, True),
    Recipe("diverging: RMSprop from 10⁻⁴", optax.rmsprop(growing(1e-4)), NEVER, 1500, True),
    Recipe("diverging: Adam from 10⁻⁴", optax.adam(growing(1e-4)), NEVER, 1500, True),
    Recipe("diverging: SGD from 10⁻⁶", optax.sgd(growing(1e-6)), NEVER, 1500, True),
)


class Outcome(NamedTuple):
    """One training."""

    seed: int
    end: int | None
    """The step whose loss is not finite; None where there is none."""
    loss: float
    """Mean of the last 50 losses."""
    alarms: tuple[lstmx.Alarm, ...]


def outcomes(recipe: Recipe, count: int, length: int, every: int) -> Iterator[Outcome]:
    """The first `count` seeds that come out as the recipe says."""
    task = lstmx.tasks.adding_problem(length=length, batch=16)
    cell = lstmx.SimpleRNN(task.input_size, 32, activation="relu")
    model = lstmx.Model(cell, task.output_size, task.loss)
    probe = jax.numpy.asarray(task.validation.inputs[:, :4])
    found = 0
    for seed in range(_FIRST, _FIRST + 10 * count):
        observatory = lstmx.Observatory(cell, probe, every, lag=length - 1)
        params, end = model.init(seed, scheme=lstmx.schemes.identity()), None
        options: Any = {"clip": recipe.clip, "progress": False, "observe": observatory}
        try:
            training = lstmx.train(model, params, task.batches(seed), recipe.optimizer, recipe.steps, **options)
        except lstmx.TrainingDiverged as error:
            training = error.training
            end = training.step
        loss = float(np.mean(training.losses[-50:]))
        if end is not None if recipe.diverges else end is None and loss < task.baseline / 2:
            found += 1
            yield Outcome(seed, end, loss, observatory.alarms)
        if found == count:
            return


def table(count: int, length: int, every: int) -> list[str]:
    """A row for each recipe, and the seeds without an alarm in time or with a false one."""
    rows = [
        "| recipe | networks | seeds tried | alarm in time | median steps ahead | kinds, first of each network |",
        "|---|---|---|---|---|---|",
    ]
    for recipe in RECIPES:
        made = list(outcomes(recipe, count, length, every))
        first = [min((alarm.step for alarm in one.alarms), default=None) for one in made]
        kinds = [next((alarm.kind for alarm in one.alarms), "none") for one in made]
        counted = ", ".join(f"{kind} {kinds.count(kind)}" for kind in dict.fromkeys(sorted(kinds)))
        tried = made[-1].seed + 1 - _FIRST
        if recipe.diverges:
            ahead = [one.end - at for one, at in zip(made, first, strict=True) if at is not None]
            early = f"{sum(steps >= EARLY for steps in ahead)} of {len(made)}"
            rows.append(
                f"| {recipe.name} | {len(made)} | {tried} | {early} | {np.median(ahead):.0f} | {counted} |"
            )
        else:
            false = sum(at is not None for at in first)
            losses = f"{min(one.loss for one in made):.2g} to {max(one.loss for one in made):.2g}"
            words = f"{false} false; final losses {losses}"
            rows.append(f"| {recipe.name} | {len(made)} | {tried} | {words} | | {counted} |")
        print(rows[-1], flush=True)
    return rows


def cost(rounds: int, path: Path) -> list[str]:
    """A row for 50 training steps and for each part of a look, in turn: medians and least of the rounds."""
    task = lstmx.tasks.adding_problem(length=100, batch=32)
    model = lstmx.Model(lstmx.LSTM(task.input_size, 128), task.output_size, task.loss)
    probe = jax.numpy.asarray(task.validation.inputs[:, :4])
    observatory = lstmx.Observatory(model.cell, probe, 1, path=path / "looks")
    training = lstmx.train(model, model.init(0), task.batch, steps=2, progress=False)
    params = training.params.cell
    seconds: dict[str, list[float]] = {}

    def timed(name: str, call: Callable[[], Any]) -> None:
        start = time.perf_counter()
        call()
        seconds.setdefault(name, []).append(time.perf_counter() - start)

    timed("the first look, which compiles", lambda: observatory(0, params, gradient=params, update=params))
    observatory.flush()
    observatory._next = NEVER  # a look and its way to the disk apart
    for number in range(1, rounds + 1):
        timed("50 training steps", lambda: lstmx.train(model, None, task.batch, steps=50, **_resumed(training)))
        timed("a look", lambda step=number: observatory(step, params, gradient=params, update=params))
        timed("writing it to the disk, where that is done at every look", observatory.flush)
    least = min(seconds["50 training steps"])
    median = float(np.median(seconds["50 training steps"]))
    rows = ["| | median, ms | least, ms | of 50 steps, medians | least |", "|---|---|---|---|---|"]
    for name, each in seconds.items():
        middle = float(np.median(each))
        shares = "| | |" if "first" in name else f"| {middle / median:.1%} | {min(each) / least:.1%} |"
        rows.append(f"| {name} | {1e3 * middle:.1f} | {1e3 * min(each):.1f} {shares}")
    return rows


def _resumed(training: lstmx.Training) -> dict[str, Any]:
    return {"progress": False, "resume": training}


def main(arguments: list[str] | None = None) -> None:
    """Write and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two networks of a kind and two rounds: it works")
    parser.add_argument("--output", type=Path, default=Path("observatory.md"), help="the table")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        costs = cost(2 if options.quick else 20, Path(folder))
    rows = table(*(2, 20, 10) if options.quick else (20, 100, 10))
    text = "\n".join([machine(), "", *costs, "", *rows, ""])
    options.output.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
