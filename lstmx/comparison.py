"""Several cells on one task, on equal terms."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lstmx.arrays import Array, result
from lstmx.cells.base import Cell
from lstmx.checks import one_of, positive
from lstmx.tasks import Task
from lstmx.training import Model, Training, evaluate, train


@result(static=("names", "cells", "task", "metric", "baseline", "baseline_name", "interrupted"))
class Comparison:
    """How several cells learned one task. Rows are models, in the order of `names`.

    Attributes:
        names: what each model is called.
        cells: the cells that ran, hidden sizes matched.
        task: name of the task.
        metric: name and unit of the loss.
        training_loss: loss of each training step, [models, steps]; NaN after an interruption.
        validation_steps: steps after which the validation loss was taken, [evaluations].
        validation_loss: [models, evaluations].
        validation_error: mean absolute error, [models, evaluations]; None for cross entropy.
        final_loss: validation loss of the final parameters, [models].
        baseline: loss to beat.
        baseline_name: what reaches it.
        parameter_counts: trained numbers of each model, readout included, [models].
        trainings: what `train` returned for each model.
        interrupted: whether Ctrl-C ended it early; models that had not begun are left out.
    """

    names: tuple[str, ...]
    cells: tuple[Cell, ...]
    task: str
    metric: str
    training_loss: Array
    validation_steps: Array
    validation_loss: Array
    validation_error: Array | None
    final_loss: Array
    baseline: float
    baseline_name: str
    parameter_counts: Array
    trainings: tuple[Training, ...]
    interrupted: bool

    def __repr__(self) -> str:
        return f"Comparison({', '.join(self.names)} on {self.task})"

    def __str__(self) -> str:
        """A table: hidden size, parameters and final validation loss of each model, and the baseline."""
        width = max(len(name) for name in (*self.names, self.baseline_name))
        head = f"{'model':<{width}}  hidden  parameters  steps  validation {self.metric.partition(',')[0]}"
        lines = [f"{self.task}: {self.metric}", head]
        for name, cell, count, training, loss in zip(
            self.names, self.cells, self.parameter_counts, self.trainings, self.final_loss, strict=True
        ):
            lines.append(f"{name:<{width}}  {cell.hidden_size:>6}  {count:>10,}  {training.step:>5}  {loss:.4g}")
        lines.append(f"{self.baseline_name:<{width}}  {'':>6}  {'':>10}  {'':>5}  {self.baseline:.4g}")
        return "\n".join(lines)


def compare(
    cells: Sequence[Cell] | Mapping[str, Cell],
    task: Task,
    *,
    steps: int = 1000,
    match: str = "parameters",
    optimizer: Any = None,
    clip: float = 1.0,
    seed: int = 0,
    evaluations: int = 20,
    progress: bool = True,
) -> Comparison:
    """Train several cells on one task with equal size, batches, optimizer and steps.

    Each model is a cell with a linear readout of its outputs. The first cell sets the size: the hidden sizes
    of the others are replaced, all else about them is kept.

    Args:
        cells: the cells, or names to cells; their input size is the task's.
        task: what they learn, such as `next_step(sequences)` or `adding_problem()`.
        steps: training steps of each.
        match: "parameters" gives every model the hidden size whose parameter count, readout included, is
            nearest to the first model's; "hidden_size" gives all the first one's.
        optimizer: an optax optimizer; None for Adam with learning rate 3e-3.
        clip: global norm that gradients are clipped to.
        seed: of the initial parameters; batches depend on the task's own seed.
        evaluations: how often the validation loss is taken, evenly over the steps.
        progress: show a progress bar for each model.

    Returns:
        The curves, final losses and trained models. After Ctrl-C, what there is so far.

    Raises:
        ImportError: JAX or optax is not installed.
        TypeError: something given is no cell or no task.
        ValueError: no cells, two of one name, an input size that is not the task's, or a number out of range.
    """
    if not isinstance(task, Task):
        raise TypeError(f"task is a {type(task).__name__}; expected a Task, such as lstmx.adding_problem()")
    one_of("match", match, ("parameters", "hidden_size"))
    steps = positive("steps", steps)
    named = _named(cells, task)
    models = {
        name: Model(cell, task.output_size, task.loss) for name, cell in _matched(named, task, match).items()
    }
    marks = np.unique(
        np.linspace(0, steps, min(positive("evaluations", evaluations), steps) + 1).round().astype(int)
    )

    trainings: list[Training] = []
    curves: list[np.ndarray] = []
    for model in models.values():
        curve = np.full((len(marks), 2), np.nan)
        params = model.init(seed)
        curve[0] = evaluate(model, params, task.validation)

        def take(done: Training, model: Model = model, curve: np.ndarray = curve) -> None:
            if done.step in marks:
                curve[np.searchsorted(marks, done.step)] = evaluate(model, done.params, task.validation)

        training = train(
            model, params, task.batch, optimizer, steps, clip=clip, progress=progress, after_step=take
        )
        trainings.append(training)
        curves.append(curve)
        if training.interrupted:
            break
    return _comparison(task, models, steps, marks, trainings, np.array(curves))


def _comparison(
    task: Task,
    models: dict[str, Model],
    steps: int,
    marks: np.ndarray,
    trainings: list[Training],
    curves: np.ndarray,
) -> Comparison:
    begun = list(models.items())[: len(trainings)]
    losses = np.full((len(trainings), steps), np.nan)
    for row, training in zip(losses, trainings, strict=True):
        row[: training.step] = training.losses
    final = [evaluate(m, t.params, task.validation)[0] for (_, m), t in zip(begun, trainings, strict=True)]
    classes = task.loss == "cross_entropy"
    return Comparison(
        names=tuple(name for name, _ in begun),
        cells=tuple(model.cell for _, model in begun),
        task=task.name,
        metric="cross entropy, nats per step" if classes else "mean squared error",
        training_loss=losses,
        validation_steps=marks,
        validation_loss=curves[..., 0],
        validation_error=None if classes else curves[..., 1],
        final_loss=np.array(final),
        baseline=task.baseline,
        baseline_name=task.baseline_name,
        parameter_counts=np.array([model.count() for _, model in begun]),
        trainings=tuple(trainings),
        interrupted=any(training.interrupted for training in trainings),
    )


def _named(cells: Any, task: Task) -> dict[str, Cell]:
    """The cells by name, checked."""
    pairs = list(cells.items()) if isinstance(cells, Mapping) else [(type(c).__name__, c) for c in cells]
    if not pairs:
        raise ValueError("cells is empty; expected at least one cell")
    for position, (name, cell) in enumerate(pairs):
        if not isinstance(cell, Cell):
            raise TypeError(
                f"cell {position} is a {type(cell).__name__}; expected a cell such as lstmx.LSTM(3, 8)"
            )
        if cell.input_size != task.input_size:
            raise ValueError(
                f"cell {position}, {cell}, has input_size={cell.input_size}; the task {task.name!r} gives "
                f"{task.input_size} features"
            )
        if name in dict(pairs[:position]):
            raise ValueError(f"two cells are called {name!r}; pass names: compare({{'first': ..., ...}}, task)")
    return dict(pairs)


def _matched(cells: dict[str, Cell], task: Task, match: str) -> dict[str, Cell]:
    """The cells with the hidden sizes that make them comparable to the first one."""
    first = next(iter(cells.values()))
    if match == "hidden_size":
        return {name: _resized(cell, first.hidden_size) for name, cell in cells.items()}
    aim = Model(first, task.output_size, task.loss).count()
    return {name: cell if cell is first else _nearest(cell, task, aim) for name, cell in cells.items()}


def _nearest(cell: Cell, task: Task, aim: int) -> Cell:
    """The cell with the hidden size whose model has the parameter count nearest to `aim`."""

    def count(size: int) -> int:
        return Model(_resized(cell, size), task.output_size, task.loss).count()

    high = 1
    while count(high) < aim:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) < aim else (low, middle)
    return _resized(cell, min((size for size in (low, high) if size), key=lambda size: abs(count(size) - aim)))


def _resized(cell: Any, hidden_size: int) -> Cell:
    return dataclasses.replace(cell, hidden_size=hidden_size)
