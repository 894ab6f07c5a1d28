"""What a task is: batches that are functions of the step number, and a baseline."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lstmx.arrays import Array
from lstmx.checks import positive, seeding


class Batch(NamedTuple):
    """Sequences and what should come out."""

    inputs: Array
    """[T, B, D], float32."""
    targets: Array
    """Classes [T, B], integer, or values [T, B, O], float32."""
    weights: Array
    """[T, B], float32: how much each step counts in the loss; 0 where nothing is asked."""

    def __repr__(self) -> str:
        return f"Batch(inputs {tuple(self.inputs.shape)}, targets {tuple(self.targets.shape)})"


@dataclass(frozen=True, eq=False)
class SeededBatches:
    """Training batches by step number, each drawn with the generator of (seed, step).

    Attributes:
        draw: a batch from a generator.
        seed: the first part of every generator's seed.
    """

    draw: Callable[[np.random.Generator], Batch]
    seed: int

    def __call__(self, step: int) -> Batch:
        positive("step", step, 0)
        return self.draw(np.random.default_rng([self.seed, step]))


@dataclass(frozen=True, eq=False)
class Task:
    """A source of training batches, a fixed validation batch and a baseline to beat.

    Attributes:
        name: what it is called in tables and figures.
        input_size: features D of each input.
        output_size: classes or values O asked for at a step.
        loss: "cross_entropy" (nats) or "mean_squared_error".
        batch: training batch for a step number, the same whenever it is asked; as `SeededBatches` where other
            seeds give others.
        validation: batch that no training batch shares a sequence with.
        baseline: loss of the best predictor without memory, or of the one that `baseline_name` says.
        baseline_name: what the baseline does.
    """

    name: str
    input_size: int
    output_size: int
    loss: str
    batch: Callable[[int], Batch]
    validation: Batch
    baseline: float
    baseline_name: str

    def __repr__(self) -> str:
        return f"Task({self.name!r}: {self.input_size} features, {self.output_size} outputs, {self.loss})"

    def batches(self, seed: int) -> Callable[[int], Batch]:
        """The training batches, by step number, of one of several trainings.

        Those of seed s are the ones of the same task made with a seed greater by s: `batch` itself for 0.
        Where `batch` is a plain function there are no others, and every training gets it.
        """
        seeding("seed", seed)
        if not isinstance(self.batch, SeededBatches):
            return self.batch
        return dataclasses.replace(self.batch, seed=self.batch.seed + seed)
