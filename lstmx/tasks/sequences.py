"""Tasks over sequences that are given: the next value, and digits read pixel by pixel."""

from __future__ import annotations

from typing import Any

import numpy as np

from lstmx.arrays import require
from lstmx.checks import LARGEST, array, finite_number, flag, positive, seeding
from lstmx.tasks.base import Batch, SeededBatches, Task

_FIXED = 0  # seed of the digits' split and order of pixels, which do not change with the task's
_TRAINED = 1437  # four fifths of the digits


def next_step(sequences: Any, validation: float = 0.2, batch: int = 32, seed: int = 0) -> Task:
    """Predict each next value of real-valued sequences.

    The baseline repeats the current value.

    Args:
        sequences: [T + 1, N, D] float32, N ≥ 2 sequences; the last ones, at least one, are validated on.
        validation: fraction of the sequences held back, between 0 and 1.
        batch: sequences B of a training batch, drawn with replacement.
        seed: of the draws.

    Returns:
        The task, input and output size D; mean squared error over all steps and features.

    Raises:
        TypeError: sequences is no float32 array.
        ValueError: a shape or a number out of range.
    """
    array("sequences", sequences)
    values = np.asarray(sequences)
    if values.dtype != np.float32:
        raise TypeError(f'sequences are {values.dtype}; expected float32: sequences.astype("float32")')
    if values.ndim != 3 or values.shape[0] < 2 or values.shape[1] < 2:
        raise ValueError(f"sequences has shape {values.shape}; expected [T + 1, N, D] with T ≥ 1 and N ≥ 2")
    finite_number("validation", validation, "a fraction between 0 and 1", lambda x: 0 < x < 1)
    batch, seed = positive("batch", batch, 1, LARGEST), seeding("seed", seed)
    held = min(max(1, round(values.shape[1] * validation)), values.shape[1] - 1)
    train = values.shape[1] - held

    def cut(columns: Any) -> Batch:
        chosen = values[:, columns]
        return Batch(chosen[:-1], chosen[1:], np.ones((len(chosen) - 1, chosen.shape[1]), np.float32))

    test = cut(np.arange(train, values.shape[1]))
    return Task(
        "next step",
        values.shape[2],
        values.shape[2],
        "mean_squared_error",
        SeededBatches(lambda rng: cut(rng.integers(0, train, batch)), seed),
        test,
        float(((test.targets - test.inputs) ** 2).mean()),
        "repeat the last value",
    )


def sequential_digits(permuted: bool = False, batch: int = 32, seed: int = 0) -> Task:
    """Tell a handwritten digit that is read pixel by pixel.

    The 1,797 images of 8 × 8 pixels that come with scikit-learn, row by row from the top left: 64 steps of
    one grey value in [0, 1]. The class, 0 to 9, is asked for at the last step. 1,437 images are trained on and
    the other 360 validated on, the same ones whatever the seed.

    The baseline takes all classes, which are nearly equally frequent, for equally likely: ln 10.

    Args:
        permuted: read the pixels in an order that was drawn once and never changes, which takes neighbouring
            pixels apart.
        batch: sequences B of a training batch, drawn with replacement.
        seed: of the draws.

    Returns:
        The task, input size 1, output size 10; cross entropy in nats at the last step.

    Raises:
        ImportError: scikit-learn is not installed.
        TypeError: batch is no integer, or permuted neither True nor False.
        ValueError: batch is less than 1.

    References:
        Alpaydin & Kaynak, "Optical recognition of handwritten digits", UCI Machine Learning Repository, 1998:
        its test set.
        Le, Jaitly & Hinton, "A simple way to initialize recurrent networks of rectified linear units", arXiv
        1504.00941, 2015, for reading images so, and permuted.
    """
    flag("permuted", permuted)
    batch, seed = positive("batch", batch, 1, LARGEST), seeding("seed", seed)
    digits = require("sklearn.datasets", "sequential_digits", "scikit-learn").load_digits()
    pixels = (digits.data.T / 16).astype(np.float32)[..., None]
    fixed = np.random.default_rng(_FIXED)
    order = fixed.permutation(pixels.shape[1])
    if permuted:
        pixels = pixels[fixed.permutation(len(pixels))]

    def cut(columns: np.ndarray) -> Batch:
        chosen = pixels[:, columns]
        at_the_last = np.zeros(chosen.shape[:2], np.float32)
        at_the_last[-1] = 1
        targets = np.zeros(chosen.shape[:2], np.int32)
        targets[-1] = digits.target[columns]
        return Batch(chosen, targets, at_the_last)

    train, test = order[:_TRAINED], order[_TRAINED:]
    return Task(
        "permuted digits" if permuted else "sequential digits",
        1,
        10,
        "cross_entropy",
        SeededBatches(lambda rng: cut(train[rng.integers(0, len(train), batch)]), seed),
        cut(test),
        float(np.log(10)),
        "chance",
    )
