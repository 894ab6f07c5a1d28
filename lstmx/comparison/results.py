"""What a comparison holds, how sure its means over few runs are, and its table."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from lstmx.arrays import Array, fetched, result
from lstmx.layers import Bidirectional, Stack
from lstmx.observatory import Observatory
from lstmx.training import Training

LEVEL = 0.95
_RESAMPLES = 10_000


class Estimate(NamedTuple):
    """A mean over runs, and the interval that it lies in."""

    mean: np.ndarray
    low: np.ndarray | None
    """Lower end of the 95 % percentile-bootstrap interval of the mean, shaped like it; None for one run."""
    high: np.ndarray | None
    """Its upper end."""


def estimate(values: np.ndarray, axis: int) -> Estimate:
    """The mean along an axis of runs, with its 95 % percentile-bootstrap interval.

    Of 10,000 resamples of the runs, drawn with replacement by a fixed generator, 95 % have their mean between
    the two ends. Of few runs such an interval is too narrow: of normal numbers it holds the true mean in 75 % of
    cases for three runs, where it is their range, in 84 % for five and in 92 % for ten.

    Args:
        values: [..., runs, ...].
        axis: that of the runs.

    Returns:
        Mean and ends without that axis; no ends for one run.

    References:
        Efron & Tibshirani, "An introduction to the bootstrap", 1993, section 13.3.
    """
    values = np.moveaxis(fetched(values, np.float64), axis, -1)
    runs = values.shape[-1]
    mean = values.mean(axis=-1)
    if runs == 1:
        return Estimate(mean, None, None)
    drawn = np.random.default_rng(0).multinomial(runs, np.full(runs, 1 / runs), size=_RESAMPLES)
    low, high = np.quantile(values @ (drawn.T / runs), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=-1)
    return Estimate(mean, low, high)


@result(
    static=(
        *("names", "cells", "task", "metric", "seeds", "baseline", "baseline_name", "interrupted"),
        "observatories",
    )
)
class Comparison:
    """How several cells learned one task. Rows are models, in the order of `names`; columns are seeds.

    Attributes:
        names: what each model is called.
        cells: the cells that ran, hidden sizes matched.
        task: name of the task.
        metric: name and unit of the loss.
        seeds: of the initial parameters and, where the task has more than one, of the batches.
        training_loss: loss of each training step, [models, seeds, steps]; NaN after an interruption.
        validation_steps: steps after which the validation loss was taken, [evaluations].
        validation_loss: [models, seeds, evaluations].
        validation_error: mean absolute error, [models, seeds, evaluations]; None for cross entropy.
        final_loss: validation loss of the final parameters, [models, seeds].
        steps_to_half: first of `validation_steps` at which the validation loss is at most half the baseline,
            [models, seeds]; infinite where it never is.
        baseline: loss to beat.
        baseline_name: what reaches it.
        parameter_counts: trained numbers of each model, readout included, [models].
        operations: floating-point operations of one step of each model, from `Model.operations`, [models].
        trainings: what `train` returned, for each model a tuple over seeds.
        interrupted: whether Ctrl-C ended it early; models and seeds that had not begun are left out, and what
            had not begun of the last seed is NaN.
        observatories: what `observe=` made, for each model a tuple over seeds; None without.
    """

    names: tuple[str, ...]
    cells: tuple[Any, ...]
    task: str
    metric: str
    seeds: tuple[int, ...]
    training_loss: Array
    validation_steps: Array
    validation_loss: Array
    validation_error: Array | None
    final_loss: Array
    steps_to_half: Array
    baseline: float
    baseline_name: str
    parameter_counts: Array
    operations: Array
    trainings: tuple[tuple[Training, ...], ...]
    interrupted: bool
    observatories: tuple[tuple[Observatory, ...], ...] | None = None

    @property
    def complete(self) -> int:
        """How many of the seeds, the first ones, every model was trained with to the end."""
        return int(np.isfinite(fetched(self.training_loss)).all(axis=(0, 2)).sum())

    def over_seeds(self, values: Array) -> Estimate:
        """Mean over the complete seeds, with its 95 % interval where there are two or more of them.

        Of a comparison that was interrupted before any seed was complete, what there is of the first.

        Args:
            values: one of the fields, or what was computed from them, [models, seeds, ...].

        Returns:
            Mean and ends of the percentile-bootstrap interval, [models, ...].
        """
        return estimate(fetched(values)[:, : max(1, self.complete)], axis=1)

    @property
    def final(self) -> Estimate:
        """The final loss of each model over seeds, [models]."""
        return self.over_seeds(self.final_loss)

    @property
    def difference(self) -> Estimate:
        """The final loss of each model less that of the first with the same seed, over seeds, [models]."""
        return self.over_seeds(self.final_loss - self.final_loss[:1])

    def __repr__(self) -> str:
        return f"Comparison({', '.join(self.names)} on {self.task})"

    def __str__(self) -> str:
        """A table: size, steps to half the baseline and final validation loss of each model; the baseline."""
        used = max(1, self.complete)
        half = np.median(fetched(self.steps_to_half)[:, :used], axis=1)
        steps = [max(training.step for training in trainings) for trainings in self.trainings]
        loss = f"validation {self.metric.partition(',')[0]}"
        head = ["model", "hidden", "parameters", "steps", "to half", loss]
        columns = [
            self.names,
            [_sizes(cell) for cell in self.cells],
            [f"{count:,}" for count in self.parameter_counts],
            [str(count) for count in steps],
            [f"{count:g}" if np.isfinite(count) else "never" for count in half],
            _listed(self.final),
        ]
        if len(self.names) > 1:
            head.append(f"less {self.names[0]}")
            columns.append(["", *_listed(self.difference)[1:]])
        baseline = [self.baseline_name, "", "", "", "", f"{self.baseline:.4g}", ""][: len(head)]
        rows = [head, *map(list, zip(*columns, strict=True)), baseline]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        # Counts, which have no interval, stand to the right of their column.
        forms = [f"{side}{width}" for side, width in zip("<>>>><<", widths, strict=False)]
        lines = ["  ".join(map(format, row, forms)).rstrip() for row in rows]
        return "\n".join([f"{self.task}: {self.metric}", *lines, self._notes()])

    def _notes(self) -> str:
        """What the numbers of the table are."""
        half = "to half: steps until the validation loss is at most half the baseline"
        count, complete = len(self.seeds), self.complete
        seeds = f"{count} seeds" if complete == count else f"{complete} of {count} seeds, those complete"
        if count == 1:
            return f"one seed: no intervals; {half}"
        if complete < 2:
            return f"{complete} of {count} seeds complete, the first one shown: no intervals; {half}"
        return f"{seeds}: means, with 95 % bootstrap intervals; {half}, median"


def _sizes(cell: Any) -> str:
    """The hidden sizes of a cell, or of layers from the bottom."""
    if isinstance(cell, Stack):
        return "+".join(map(_sizes, cell.cells))
    return str(cell.cell.hidden_size if isinstance(cell, Bidirectional) else cell.hidden_size)


def _listed(estimated: Estimate) -> list[str]:
    """Means to four digits, with their intervals where there are any."""
    means = [f"{mean:.4g}" for mean in estimated.mean]
    if estimated.low is None or estimated.high is None:
        return means
    ends = zip(means, estimated.low, estimated.high, strict=True)
    return [f"{mean} [{low:.4g}, {high:.4g}]" for mean, low, high in ends]
