"""Tasks of memory whose sequences are drawn by a rule: adding and copying."""

from __future__ import annotations

import numpy as np

from lstmx.checks import LARGEST, positive, seeding
from lstmx.tasks.base import Batch, SeededBatches, Task


def adding_problem(length: int = 100, batch: int = 32, seed: int = 0) -> Task:
    """Add the two marked numbers of a sequence.

    Input: at each step a value drawn from U[0, 1) and a marker; the marker is 1 at one step of the first half
    and at one of the second, else 0. Target at the last step: the sum of the two marked values. Mean squared
    error; predicting 1 always costs 1/6, knowing one of the values 1/12.

    Args:
        length: steps T, at least 2.
        batch: sequences B of a training batch; the validation batch has 256.
        seed: of all draws.

    Returns:
        The task, input size 2, output size 1.

    Raises:
        TypeError: a size is no integer.
        ValueError: a size out of range.

    References:
        Arjovsky, Shah & Bengio, "Unitary evolution recurrent neural networks", ICML 2016: the form and the
        generator followed here. The task is of Hochreiter & Schmidhuber 1997.
    """
    length, batch, seed = (
        positive("length", length, 2, LARGEST),
        positive("batch", batch, 1, LARGEST),
        seeding("seed", seed),
    )

    def draw(rng: np.random.Generator, count: int) -> Batch:
        inputs = np.zeros((length, count, 2), np.float32)
        inputs[..., 0] = rng.random((length, count), np.float32)
        first = rng.integers(0, length // 2, count)
        second = rng.integers(length // 2, length, count)
        columns = np.arange(count)
        inputs[first, columns, 1] = inputs[second, columns, 1] = 1
        targets = np.zeros((length, count, 1), np.float32)
        targets[-1, :, 0] = (inputs[..., 0] * inputs[..., 1]).sum(axis=0)
        weights = np.zeros((length, count), np.float32)
        weights[-1] = 1
        return Batch(inputs, targets, weights)

    return Task(
        f"adding problem, T = {length}",
        2,
        1,
        "mean_squared_error",
        SeededBatches(lambda rng: draw(rng, batch), seed),
        draw(np.random.default_rng([seed, 0, 1]), 256),
        1 / 6,
        "always 1",
    )


def copy_memory(delay: int = 100, batch: int = 32, seed: int = 0) -> Task:
    """Repeat ten symbols after a delay.

    Ten categories: blank 0, symbols 1 to 8, marker 9. Input of `delay` + 20 steps: ten uniform symbols,
    `delay` − 1 blanks, the marker, ten blanks. Target: `delay` + 10 blanks, then the ten symbols. Cross
    entropy over all steps; without memory it is 10 ln 8 / (delay + 20).

    Args:
        delay: steps between the last symbol and the first that is asked for, at least 1.
        batch: sequences B of a training batch; the validation batch has 256.
        seed: of all draws.

    Returns:
        The task, input size 10 (one-hot), output size 9.

    Raises:
        TypeError: a size is no integer.
        ValueError: a size out of range.

    References:
        Arjovsky, Shah & Bengio, "Unitary evolution recurrent neural networks", ICML 2016.
    """
    delay, batch, seed = (
        positive("delay", delay, 1, LARGEST),
        positive("batch", batch, 1, LARGEST),
        seeding("seed", seed),
    )
    length = delay + 20

    def draw(rng: np.random.Generator, count: int) -> Batch:
        symbols = rng.integers(1, 9, (10, count))
        classes = np.zeros((length, count), np.int32)
        classes[:10] = symbols
        classes[delay + 9] = 9
        targets = np.zeros((length, count), np.int32)
        targets[-10:] = symbols
        return Batch(np.eye(10, dtype=np.float32)[classes], targets, np.ones((length, count), np.float32))

    return Task(
        f"copy memory, delay {delay}",
        10,
        9,
        "cross_entropy",
        SeededBatches(lambda rng: draw(rng, batch), seed),
        draw(np.random.default_rng([seed, 0, 1]), 256),
        10 * float(np.log(8)) / length,
        "no memory",
    )
