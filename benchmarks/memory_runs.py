"""The runs of `python -m benchmarks.memory_tasks`: tasks, models, and one training with what it shows."""

from __future__ import annotations

import json
import math
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import lstmx
from lstmx.app.cli import help_topics
from lstmx.comparison import matched
from lstmx.training import adam

_LEARNING_RATE = 3e-3
_SEQUENCES = 32
"""Validation sequences that gradient horizons are the median of."""


class Problem(NamedTuple):
    """A task and how long it is trained on."""

    make: Callable[[], lstmx.tasks.Task]
    length: int
    """Steps T of its sequences."""
    steps: int
    """Training steps."""


class Contender(NamedTuple):
    """A model."""

    make: Callable[[int, int], Any]
    """The cell, from input and hidden size."""
    scheme: Callable[[int], Any] = lambda length: ()
    """How its parameters start, from T."""


FULL = {
    "adding-100": Problem(lambda: lstmx.tasks.adding_problem(100), 100, 3000),
    "adding-200": Problem(lambda: lstmx.tasks.adding_problem(200), 200, 4000),
    "adding-400": Problem(lambda: lstmx.tasks.adding_problem(400), 400, 4000),
    "copy-10": Problem(lambda: lstmx.tasks.copy_memory(10), 30, 4000),
    "copy-100": Problem(lambda: lstmx.tasks.copy_memory(100), 120, 3000),
    "digits": Problem(lstmx.tasks.sequential_digits, 64, 3000),
    "permuted-digits": Problem(lambda: lstmx.tasks.sequential_digits(permuted=True), 64, 3000),
    "text": Problem(lambda: lstmx.tasks.next_character(help_topics()), 64, 2000),
}
QUICK = {
    "adding-30": Problem(lambda: lstmx.tasks.adding_problem(30), 30, 150),
    "copy-5": Problem(lambda: lstmx.tasks.copy_memory(5), 25, 150),
    "digits": Problem(lstmx.tasks.sequential_digits, 64, 150),
}


def _variant(name: str) -> Contender:
    return Contender(lambda features, units: lstmx.LSTM.variant(name, input_size=features, hidden_size=units))


MODELS = {
    "LSTM": Contender(lstmx.LSTM),
    "GRU": Contender(lstmx.GRU),
    "RNN": Contender(lstmx.SimpleRNN),
    "IRNN": Contender(
        lambda d, h: lstmx.SimpleRNN(d, h, activation="relu"), lambda length: lstmx.schemes.identity()
    ),
    "chrono": Contender(lstmx.LSTM, lambda length: lstmx.schemes.chrono(length)),
    **{name: _variant(name) for name in ("V", "NIG", "NFG", "NOG", "NIAF", "NOAF", "CIFG", "NP", "FGR")},
}
SAME = {"NP": "LSTM"}
"""Models that are another one under a second name, and are not trained twice."""


class Run(NamedTuple):
    """One training: which, and with what settings."""

    problem: str
    model: str
    seed: int
    steps: int
    units: int

    def path(self, folder: Path) -> Path:
        """The file of its results."""
        return folder / f"{self.problem}.{self.model}.{self.seed}.json"

    @property
    def settings(self) -> dict[str, Any]:
        """What else than this the results depend on."""
        return {"steps": self.steps, "units": self.units, "learning_rate": _LEARNING_RATE}


def plan(problems: dict[str, Problem], models: list[str], seeds: int, units: int) -> list[Run]:
    """All runs, those that share what is compiled one after another."""
    names = list(dict.fromkeys(SAME.get(name, name) for name in models))
    return [
        Run(name, model, seed, problem.steps, units)
        for name, problem in problems.items()
        for model in names
        for seed in range(seeds)
    ]


def load(run: Run, folder: Path) -> dict[str, Any] | None:
    """The results of a run, None if it has not been done.

    Raises:
        ValueError: it was done with other settings.
    """
    path = run.path(folder)
    if not path.exists():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    if found["settings"] != run.settings:
        made = found["settings"]
        raise ValueError(f"{path} was made with {made}, not {run.settings}; choose another --output")
    return found


def save(run: Run, folder: Path, results: dict[str, Any]) -> None:
    """Write the results of a run, all or nothing."""
    path = run.path(folder)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=1, allow_nan=False), encoding="utf-8")
    os.replace(partial, path)


def train(run: Run, problem: Problem, task: lstmx.tasks.Task) -> dict[str, Any]:
    """Train a model, and measure it before and after.

    Returns:
        What goes into the file: numbers of JSON, None for what is infinite or was not reached.

    Raises:
        KeyboardInterrupt: Ctrl-C during the training.
    """
    start, scheme = time.perf_counter(), MODELS[run.model].scheme(problem.length)
    cell = sized(run, task)
    model = lstmx.Model(cell, task.output_size, task.loss)
    results: dict[str, Any] = {
        "problem": run.problem,
        "task": task.name,
        "model": run.model,
        "seed": run.seed,
        "settings": run.settings,
        "cell": repr(cell),
        "units": cell.hidden_size,
        "parameters": model.count(),
        "operations": model.operations(),
        "length": problem.length,
        "metric": task.loss,
        "baseline": task.baseline,
        "baseline_name": task.baseline_name,
        "horizon_before": horizon(model, model.init(run.seed, scheme=scheme), task),
        "diverged_at": None,
    }
    try:
        comparison = lstmx.compare(
            {run.model: cell},
            task,
            steps=run.steps,
            optimizer=adam(_LEARNING_RATE),
            seeds=[run.seed],
            schemes={run.model: scheme},
            progress=False,
        )
    except lstmx.TrainingDiverged as error:
        return results | {"diverged_at": error.training.step, "seconds": time.perf_counter() - start}
    if comparison.interrupted:
        raise KeyboardInterrupt
    final, params = float(comparison.final_loss[0, 0]), comparison.trainings[0][0].params
    if not math.isfinite(final):  # on the validation sequences, while the last training batch still was
        return results | {"diverged_at": run.steps, "seconds": time.perf_counter() - start}
    return results | {
        "validation_steps": comparison.validation_steps.tolist(),
        "validation_loss": [_or_none(loss) for loss in comparison.validation_loss[0, 0]],
        "final_loss": final,
        "accuracy": accuracy(model, params, task),
        "steps_to_half": _or_none(comparison.steps_to_half[0, 0]),
        "horizon_after": horizon(model, params, task),
        "seconds": time.perf_counter() - start,
    }


def sized(run: Run, task: lstmx.tasks.Task) -> Any:
    """The cell of a run, with about as many parameters as an LSTM of `run.units`."""
    kinds = {"LSTM": lstmx.LSTM, run.model: MODELS[run.model].make}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # where it is off by more than 1 %: the table has the counts
        return matched({name: make(task.input_size, run.units) for name, make in kinds.items()}, task)[run.model]


def accuracy(model: lstmx.Model, params: Any, task: lstmx.tasks.Task) -> float | None:
    """Share of the answers asked for that are right; None for a task of values."""
    if task.loss != "cross_entropy":
        return None
    inputs, targets, weights = task.validation
    predictions = np.asarray(model.predict(params, inputs)[0])
    return float(((predictions.argmax(-1) == targets) * weights).sum() / weights.sum())


def horizon(model: lstmx.Model, params: Any, task: lstmx.tasks.Task) -> float | None:
    """Steps back until the gradient of the last output's loss has fallen to 1 % of its norm at the last step.

    `lstmx.gradient_flow(...).horizon(0.01)`, the median of some validation sequences; None where it does not
    fall that far within the sequence.
    """
    import jax
    import jax.numpy as jnp

    inputs, targets, _ = (part[:, :_SEQUENCES] for part in task.validation)
    history = lstmx.record(model.cell, params.cell, inputs, keep="states")

    def loss(outputs: Any) -> Any:
        predictions = outputs[-1] @ params.readout.kernel + params.readout.bias
        if task.loss != "cross_entropy":
            return ((predictions - targets[-1]) ** 2).sum()
        return -jnp.take_along_axis(jax.nn.log_softmax(predictions), targets[-1][:, None], axis=-1).sum()

    flow = lstmx.gradient_flow(history, loss, outputs="norms")
    return _or_none(np.median(flow.horizon(0.01)))


def _or_none(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None
