"""`compare`: the same training for every cell and seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lstmx.cells.base import Cell
from lstmx.checks import LARGEST, cells_of, flag, positive, seeding
from lstmx.comparison.matching import matched
from lstmx.comparison.results import Comparison
from lstmx.layers import Layers
from lstmx.observatory import Observatory
from lstmx.tasks import Task
from lstmx.training import Model, ModelParams, Training, TrainingDiverged, evaluate, train


class _Run(NamedTuple):
    """One model trained with one seed."""

    training: Training
    curve: np.ndarray
    """Validation loss and error at each mark, [evaluations, 2]; NaN where it did not get."""
    final: float
    observatory: Observatory | None


def compare(
    cells: Sequence[Cell | Layers] | Mapping[str, Cell | Layers],
    task: Task,
    *,
    steps: int = 1000,
    match: str = "parameters",
    optimizer: Any = None,
    clip: float = 1.0,
    seed: int = 0,
    seeds: int | Sequence[int] = 1,
    schemes: Mapping[str, Any] | None = None,
    evaluations: int = 20,
    observe: Callable[[Any], Observatory] | None = None,
    progress: bool = True,
) -> Comparison:
    """Train several cells on one task with equal size, batches, optimizer and steps.

    Each model is a cell with a linear readout of its outputs. The first cell sets the size: the hidden sizes
    of the others are replaced, all else about them is kept, as are the proportions of the layers of a stack. A
    step function keeps its size. Zoneout and dropout train without chance, as `Model.predict` runs. Every seed
    gives every model other initial parameters and, where the task draws its batches, other batches, the same for
    all models; the validation batch stays.

    Args:
        cells: the cells, or names to cells; their input size is the task's. Each is a cell, a `Stack` or
            `Bidirectional`, or a step function made by `from_step(..., init=...)`.
        task: what they learn, a task of `lstmx.tasks`, such as `lstmx.tasks.adding_problem()`.
        steps: training steps of each.
        match: "parameters" gives every model the hidden size whose parameter count is nearest to the first
            model's, "flop" the one whose operations in one step are (`Model.operations`), both with the readout;
            "hidden_size" gives all the first one's.
        optimizer: an optax optimizer; None for Adam with learning rate 3e-3.
        clip: global norm that gradients are clipped to.
        seed: of the initial parameters, and added to the task's own seed for the batches; where `seeds` is a
            number, the first of them.
        seeds: how many seeds, counted up from `seed`; or the seeds themselves.
        schemes: how the parameters of some models start, by name: schemes such as `lstmx.schemes.chrono(100)`, or
            lists of them, as `cell.init` takes them.
        evaluations: how often the validation loss is taken, evenly over the steps.
        observe: a function that makes an observatory of a cell of matched size, one for each training, such as
            `lambda cell: lstmx.Observatory(cell, task.validation.inputs[:, :4])`; None for none. With a `path`,
            each training takes one of its own, such as `f"looks/{next(numbers)}"` with
            `numbers = itertools.count()`.
        progress: show a progress bar for each training.

    Returns:
        Every run's curves, final loss and trained model, and intervals over seeds. After Ctrl-C, what there is
        so far: the seeds run in turn, each with all models.

    Raises:
        ImportError: JAX or optax is not installed.
        TypeError: something given is no cell, no task, no seed or no function.
        ValueError: no cells, two of one name, a scheme of another name, an input size that is not the task's, a
            cell too large to match, or a number out of range.
        TrainingDiverged: a loss is not finite; says of which model and seed.

    Warns:
        UserWarning: the nearest size of a model is off by more than 1 %, as happens with few units.
    """
    if not isinstance(task, Task):
        raise TypeError(f"task is a {type(task).__name__}; expected a Task, such as lstmx.tasks.adding_problem()")
    steps = positive("steps", steps)
    seeds = _seeds(seeds, seed)
    named = _named(cells, task)
    schemes = {} if schemes is None else schemes
    if not isinstance(schemes, Mapping):
        raise TypeError(f"schemes is a {type(schemes).__name__}; expected a dict from names of cells to schemes")
    unknown = [name for name in schemes if name not in named]
    if unknown:
        raise ValueError(f"schemes names {unknown[0]!r}; the cells are called {', '.join(map(repr, named))}")
    sized = matched(named, task, match)
    models = {name: Model(cell, task.output_size, task.loss) for name, cell in sized.items()}
    marks = np.unique(
        np.linspace(0, steps, min(positive("evaluations", evaluations), steps) + 1).round().astype(int)
    )

    runs: dict[str, list[_Run]] = {name: [] for name in models}
    flag("progress", progress)
    if observe is not None and (isinstance(observe, Observatory) or not callable(observe)):
        raise TypeError(
            f"observe is a {type(observe).__name__}; expected a function from a cell to an Observatory"
        )
    settings = task, optimizer, marks, clip, observe, progress
    interrupted = _fill(runs, models, seeds, schemes, settings)
    return _comparison(task, models, seeds, marks, runs, interrupted)


def _fill(
    runs: dict[str, list[_Run]],
    models: dict[str, Model],
    seeds: tuple[int, ...],
    schemes: Mapping[str, Any],
    settings: tuple[Any, ...],
) -> bool:
    """Train every model with every seed; whether Ctrl-C ended it, after at least one run had begun."""
    try:
        for seed in seeds:
            for name, model in models.items():
                try:
                    run = _run(model, model.init(seed, scheme=schemes.get(name, ())), seed, *settings)
                except TrainingDiverged as error:
                    error.add_note(f"This was {name} with seed {seed}.")
                    raise
                runs[name].append(run)
                if run.training.interrupted:
                    return True
    except KeyboardInterrupt:  # between two trainings; within one `train` takes it
        if not any(runs.values()):
            raise
        return True
    return False


def _run(
    model: Model,
    params: ModelParams,
    seed: int,
    task: Task,
    optimizer: Any,
    marks: np.ndarray,
    clip: float,
    observe: Callable[[Any], Observatory] | None,
    progress: bool,
) -> _Run:
    """Train a model, and validate it at the marks."""
    curve = np.full((len(marks), 2), np.nan)
    curve[0] = evaluate(model, params, task.validation)

    def take(done: Training) -> None:
        if done.step in marks:
            curve[np.searchsorted(marks, done.step)] = evaluate(model, done.params, task.validation)

    observatory = None if observe is None else observe(model.cell)
    options: dict[str, Any] = {"clip": clip, "progress": progress, "after_step": take, "observe": observatory}
    training = train(model, params, task.batches(seed), optimizer, int(marks[-1]), **options)
    return _Run(training, curve, evaluate(model, training.params, task.validation)[0], observatory)


def _comparison(
    task: Task,
    models: dict[str, Model],
    seeds: tuple[int, ...],
    marks: np.ndarray,
    runs: dict[str, list[_Run]],
    interrupted: bool,
) -> Comparison:
    begun = {name: model for name, model in models.items() if runs[name]}
    rows = [runs[name] for name in begun]
    count, classes = len(rows[0]), task.loss == "cross_entropy"
    training_loss = np.full((len(rows), count, int(marks[-1])), np.nan)
    curves = np.full((len(rows), count, len(marks), 2), np.nan)
    final = np.full((len(rows), count), np.nan)
    for k, row in enumerate(rows):
        for n, run in enumerate(row):
            training_loss[k, n, : run.training.step] = run.training.losses
            curves[k, n], final[k, n] = run.curve, run.final
    low = curves[..., 0] <= task.baseline / 2
    observed: Any = tuple(tuple(run.observatory for run in row) for row in rows)
    observed = None if observed[0][0] is None else observed
    return Comparison(
        names=tuple(begun),
        cells=tuple(model.cell for model in begun.values()),  # type: ignore  # cells, as `compare` takes them
        task=task.name,
        metric="cross entropy, nats per step" if classes else "mean squared error",
        seeds=seeds[:count],
        training_loss=training_loss,
        validation_steps=marks,
        validation_loss=curves[..., 0],
        validation_error=None if classes else curves[..., 1],
        final_loss=final,
        steps_to_half=np.where(np.isnan(final), np.nan, np.where(low.any(-1), marks[low.argmax(-1)], np.inf)),
        baseline=task.baseline,
        baseline_name=task.baseline_name,
        parameter_counts=np.array([model.count() for model in begun.values()]),
        operations=np.array([model.operations() for model in begun.values()]),
        trainings=tuple(tuple(run.training for run in row) for row in rows),
        interrupted=interrupted,
        observatories=observed,
    )


def _seeds(seeds: Any, first: Any) -> tuple[int, ...]:
    """The seeds, checked."""
    first = seeding("seed", first)
    if not isinstance(seeds, Sequence):
        return tuple(range(first, first + positive("seeds", seeds, 1, LARGEST)))
    listed = tuple(seeding("seed", one) for one in seeds)
    if not listed or len(set(listed)) < len(listed):
        raise ValueError(f"seeds is {seeds!r}; expected a number of seeds, or different seeds")
    if first:
        raise ValueError(f"seeds lists the seeds, {seeds!r}; seed={first} has no place beside it")
    return listed


def _named(cells: Any, task: Task) -> dict[str, Any]:
    """The cells by name, checked."""
    if not isinstance(cells, (Mapping, Sequence)):
        raise TypeError(f"cells is a {type(cells).__name__}; expected a list of cells, or a dict of them by name")
    if isinstance(cells, Mapping):
        pairs = list(cells.items())
    else:
        pairs = [(getattr(cell, "name", type(cell).__name__), cell) for cell in cells]
    if not pairs:
        raise ValueError("cells is empty; expected at least one cell")
    for position, (name, cell) in enumerate(pairs):
        cells_of(f"cell {position}", cell)
        _initialised(cell)
        if cell.input_size != task.input_size:
            raise ValueError(
                f"cell {position}, {cell}, has input_size={cell.input_size}; the task {task.name!r} gives "
                f"{task.input_size} features"
            )
        if name in dict(pairs[:position]):
            raise ValueError(f"two cells are called {name!r}; pass names: compare({{'first': ..., ...}}, task)")
    return dict(pairs)


def _initialised(cell: Any) -> None:
    """Raise unless parameters can be drawn for every cell inside."""
    if isinstance(cell, Layers):
        for part in cell.parts.values():
            _initialised(part)
    elif not cell.closed_form and cell.make is None:
        raise ValueError(f"{cell!r} has no parameters to start from: pass init= to from_step")
